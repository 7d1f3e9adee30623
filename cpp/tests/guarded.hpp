// Memory whose neighbours cannot be touched: what a kernel reads or writes outside its span is a fault.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

/// `bytes` bytes that end where a page ends (or begin where one begins), with forbidden pages around.
class Guarded {
 public:
  enum class At { end, begin };

  explicit Guarded(std::size_t bytes, At at = At::end) : bytes_(bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inside = (bytes + page - 1) / page * page;
    mapped_ = inside + 2 * page;
    base_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    std::uint8_t* const first = static_cast<std::uint8_t*>(base_) + page;
    if (inside > 0 && mprotect(first, inside, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    data_ = at == At::end ? first + (inside - bytes) : first;
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  [[nodiscard]] std::span<std::uint8_t> bytes() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  std::size_t mapped_ = 0;
  void* base_ = nullptr;
  std::uint8_t* data_ = nullptr;
};
