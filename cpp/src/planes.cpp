#include "raftwright/planes.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <string>

#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kMostPixels = std::size_t{1} << 32U;  // of a plane

std::size_t round_up(std::size_t value, std::size_t step) { return (value + step - 1) / step * step; }

}  // namespace

void Planes::Unmap::operator()(void* address) const noexcept {
  if (address != nullptr) munmap(address, bytes);
}

Planes::Planes(std::size_t count, std::size_t width, std::size_t height)
    : width_(width), height_(height), bytes_(0), slab_(nullptr, Unmap{0}) {
  if (count == 0 || width == 0 || height == 0 || height > kMostPixels / width || count > 65536) {
    throw UsageError("planes of " + std::to_string(count) + " x " + std::to_string(height) + " x " +
                     std::to_string(width) + " pixels cannot be: every size must be positive and sane");
  }
  // One line between planes keeps equal samples of different planes out of the same cache set.
  const std::size_t pitch = round_up(width * height * sizeof(std::int32_t), kLine) + kLine;
  bytes_ = round_up(count * pitch, kHugePage);
  void* address = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  slab_ = std::unique_ptr<void, Unmap>(address, Unmap{bytes_});
  madvise(address, bytes_, MADV_HUGEPAGE);  // a hint: refusal costs speed only
  pointers_.reserve(count);
  for (std::size_t index = 0; index < count; ++index) {
    pointers_.push_back(reinterpret_cast<std::int32_t*>(static_cast<std::uint8_t*>(address) + index * pitch));
  }
}

}  // namespace raftwright
