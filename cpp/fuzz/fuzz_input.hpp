// Takes the parameters of a run off the front of a fuzz input; what is left is the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace raftwright::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }
  [[nodiscard]] std::span<const std::uint8_t> rest() const noexcept { return rest_; }

  /// The next byte; zero when there is none.
  std::uint8_t byte() noexcept {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint16_t word() noexcept {
    const unsigned low = byte();
    return static_cast<std::uint16_t>(low | static_cast<unsigned>(byte()) << 8U);
  }
  /// A number below `limit` (at least 1, at most 65536) from two bytes.
  std::size_t below(std::size_t limit) noexcept { return word() % limit; }

 private:
  std::span<const std::uint8_t> rest_;
};

/// A property that does not hold is a crash, so that every driver keeps the input.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: it does not hold that %s\n", what);
  std::abort();
}

}  // namespace raftwright::fuzz
