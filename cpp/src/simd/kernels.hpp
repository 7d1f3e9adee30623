// Internal: the kernels that are built for one instruction set, behind plain tables of functions.
// A kernel file includes nothing with inline functions or templates of external linkage, so that no code
// made with its flags can be kept by the linker for the rest of the library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raftwright::simd {

/// Unpacks `samples` samples of 18-bit pixels: the value of channel p in sample i goes to
/// `channels[p][i]`. Reads exactly the bytes of the samples, at any alignment. With `streaming`, whole
/// cache lines are stored around the caches where every channel has the same alignment modulo 64 bytes, and
/// are visible to other threads on return.
using Unpack18 = void (*)(const std::uint8_t* packed, std::size_t samples, std::uint32_t xor_mask,
                          std::int32_t* const* channels, bool streaming) noexcept;

/// 18-bit kernels by channels a sample.
struct UnpackKernels {
  Unpack18 channels16;
  Unpack18 channels32;
  Unpack18 channels48;
};
[[gnu::visibility("hidden")]] extern const UnpackKernels unpack_avx2;
[[gnu::visibility("hidden")]] extern const UnpackKernels unpack_neon;

/// Continues the CRC-32C register `state` (not inverted) over `count` bytes.
using Crc32c = std::uint32_t (*)(std::uint32_t state, const std::uint8_t* data, std::size_t count) noexcept;
[[gnu::visibility("hidden")]] std::uint32_t crc32c_sse42(std::uint32_t state, const std::uint8_t* data,
                                                         std::size_t count) noexcept;
[[gnu::visibility("hidden")]] std::uint32_t crc32c_arm(std::uint32_t state, const std::uint8_t* data,
                                                       std::size_t count) noexcept;

/// How the CRC-32C register moves over a block of zeros: register = XOR of table[k][byte k of register].
struct Crc32cShift {
  std::uint32_t table[4][256];
};
constexpr std::size_t kCrc32cLongBlock = 8192;
constexpr std::size_t kCrc32cShortBlock = 256;
[[gnu::visibility("hidden")]] extern const Crc32cShift crc32c_shift_long;   // over kCrc32cLongBlock bytes
[[gnu::visibility("hidden")]] extern const Crc32cShift crc32c_shift_short;  // over kCrc32cShortBlock bytes

}  // namespace raftwright::simd
