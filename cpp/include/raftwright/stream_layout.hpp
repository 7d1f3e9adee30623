// How a board's packed stream is laid out. A layout is data: nothing in a kernel knows a camera.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace raftwright {

/// A stream is a run of samples without padding. A sample holds one pixel of each channel, `bits` bits
/// each, least significant bit first in a little-endian bit stream: pixel p of sample n occupies the
/// bits (n * channels + p) * bits and up. `value = raw XOR xor_mask`.
class StreamLayout {
 public:
  /// `plane_of[p]` is the output plane of stream channel p: a permutation of 0 .. channels-1.
  /// Throws UsageError unless 1 <= bits <= 32, 1 <= channels <= 4096, the mask fits the bits, the
  /// planes are a permutation and a sample fills whole bytes.
  StreamLayout(unsigned bits, std::uint32_t xor_mask, std::vector<std::uint16_t> plane_of);

  [[nodiscard]] unsigned bits() const noexcept { return bits_; }
  [[nodiscard]] std::uint32_t xor_mask() const noexcept { return xor_mask_; }
  [[nodiscard]] std::size_t channels() const noexcept { return plane_of_.size(); }
  [[nodiscard]] const std::vector<std::uint16_t>& plane_of() const noexcept { return plane_of_; }
  [[nodiscard]] std::size_t sample_bytes() const noexcept { return sample_bytes_; }
  /// Largest value that a pixel can have: 2^bits - 1.
  [[nodiscard]] std::uint32_t max_value() const noexcept {
    return bits_ == 32 ? 0xFFFFFFFFU : (1U << bits_) - 1U;
  }

  friend bool operator==(const StreamLayout&, const StreamLayout&) = default;

 private:
  unsigned bits_;
  std::uint32_t xor_mask_;
  std::vector<std::uint16_t> plane_of_;
  std::size_t sample_bytes_;
};

}  // namespace raftwright
