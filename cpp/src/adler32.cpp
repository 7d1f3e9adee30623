// Adler-32: a = 1 + sum of bytes, b = sum of all the a on the way, both modulo 65521.
#include <algorithm>

#include "raftwright/checksum.hpp"

namespace raftwright {
namespace {

constexpr std::uint32_t kModulus = 65521;
constexpr std::size_t kLanes = 16;
// Rows of a block, so few that no 32-bit sum can overflow: 255 * 256 * 257 / 2 a lane.
constexpr std::size_t kRows = 256;

}  // namespace

std::uint32_t adler32(std::span<const std::uint8_t> data, std::uint32_t adler) {
  std::uint64_t a = (adler & 0xFFFFU) % kModulus;
  std::uint64_t b = (adler >> 16) % kModulus;
  const std::uint8_t* at = data.data();
  std::size_t left = data.size();
  while (left >= kLanes) {
    // As if each lane were a stream of its own: `bytes` its a, `sums` its b without the current row.
    const std::size_t rows = std::min(left / kLanes, kRows);
    std::uint32_t bytes[kLanes] = {};
    std::uint32_t sums[kLanes] = {};
    for (std::size_t row = 0; row < rows; ++row, at += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        sums[lane] += bytes[lane];
        bytes[lane] += at[lane];
      }
    }
    left -= rows * kLanes;
    b += rows * kLanes * a;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      a += bytes[lane];
      b += kLanes * std::uint64_t{sums[lane]} + (kLanes - lane) * std::uint64_t{bytes[lane]};
    }
    a %= kModulus;
    b %= kModulus;
  }
  for (; left > 0; --left) {
    a += *at++;
    b += a;
  }
  return static_cast<std::uint32_t>((b % kModulus) << 16 | a % kModulus);
}

}  // namespace raftwright
