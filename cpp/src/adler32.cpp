// Adler-32: a = 1 + sum of bytes, b = sum of all the a on the way, both modulo 65521.
#include <algorithm>
#include <cstring>

#include "raftwright/checksum.hpp"

namespace raftwright {
namespace {

constexpr std::uint64_t kModulus = 65521;
constexpr std::size_t kLanes = 16;
constexpr std::size_t kRows = 16;  // of a group: 255 * (0 + ... + 15) fits 16 bits
constexpr std::size_t kGroup = kRows * kLanes;
constexpr std::size_t kGroups = 256;  // of a block: 16 * 255 * 16 * (0 + ... + 255) fits 32 bits

// Vectors of the compiler's own making: it has them for every processor.
using Bytes8 [[gnu::vector_size(8)]] = std::uint8_t;
using Words8 [[gnu::vector_size(16)]] = std::uint16_t;
using Longs8 [[gnu::vector_size(32)]] = std::uint32_t;

Words8 load8(const std::uint8_t* at) noexcept {
  Bytes8 bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  return __builtin_convertvector(bytes, Words8);
}

// Eight lanes, each a stream of its own of every sixteenth byte: `bytes` its sum, `sums` the sum of what
// that was before each of its bytes.
struct Lanes {
  Longs8 bytes = {};
  Longs8 sums = {};

  void add_group(const std::uint8_t* at) noexcept {
    Words8 group_bytes = {};
    Words8 group_sums = {};
    for (std::size_t row = 0; row < kRows; ++row) {
      group_sums += group_bytes;
      group_bytes += load8(at + row * kLanes);
    }
    sums += static_cast<std::uint32_t>(kRows) * bytes + __builtin_convertvector(group_sums, Longs8);
    bytes += __builtin_convertvector(group_bytes, Longs8);
  }
};

}  // namespace

std::uint32_t adler32(std::span<const std::uint8_t> data, std::uint32_t adler) {
  std::uint64_t a = (adler & 0xFFFFU) % kModulus;
  std::uint64_t b = (adler >> 16) % kModulus;
  const std::uint8_t* at = data.data();
  std::size_t left = data.size();
  while (left >= kGroup) {
    const std::size_t groups = std::min(left / kGroup, kGroups);
    Lanes half[2];
    for (std::size_t group = 0; group < groups; ++group, at += kGroup) {
      half[0].add_group(at);
      half[1].add_group(at + kLanes / 2);
    }
    left -= groups * kGroup;
    b += groups * kGroup * a;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const std::uint64_t bytes = half[lane / 8].bytes[lane % 8];
      a += bytes;
      b += kLanes * std::uint64_t{half[lane / 8].sums[lane % 8]} + (kLanes - lane) * bytes;
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
