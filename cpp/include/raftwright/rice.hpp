// RICE_1 of the FITS standard (4.0, section 10.4.1), as cfitsio writes it, byte for byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "raftwright/cpu.hpp"

namespace raftwright {

/// Room that rice_encode may write for `pixels` pixels of `bytes_per_pixel` bytes, slack for wide
/// stores included. The code itself is never longer than this minus 8.
[[nodiscard]] std::size_t rice_bound(std::size_t pixels, unsigned bytes_per_pixel = 4,
                                     unsigned block = 32) noexcept;

/// Encodes one tile of int32 pixels (BYTEPIX 4) with blocks of `block` pixels. Returns the number of
/// bytes of code at the start of `out`; up to rice_bound(pixels) bytes of `out` may be overwritten.
/// An empty tile gives 0 bytes. Throws UsageError when `out` is shorter than the bound, or `block`
/// is 0. Block 32 runs in the kernel of `level`, every other in the scalar reference. Thread-safe.
std::size_t rice_encode(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                        unsigned block = 32, Level level = active_level());

/// As rice_encode, and adds the pixels' 32-bit patterns to `*sum` (mod 2^64, not folded): the data sum
/// of the uncompressed image, taken while the pixels are at hand.
std::size_t rice_encode_summed(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                               std::uint64_t* sum, Level level = active_level());

/// The plainest possible encoders, for tests and for the sizes without kernel.
std::size_t rice_encode_reference(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block = 32);
std::size_t rice_encode_reference(std::span<const std::int16_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block = 32);
std::size_t rice_encode_reference(std::span<const std::int8_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block = 32);

/// Why a tile could not be decoded.
enum class RiceStatus {
  ok = 0,
  truncated,    ///< the code ends before the last pixel
  bad_block,    ///< a block id that the format does not have
  unused_bytes  ///< more code than pixels: bytes are left over after the last block
};
[[nodiscard]] const char* rice_status_text(RiceStatus status) noexcept;

/// Decodes one tile into exactly pixels.size() values. Never reads outside `code`, never throws on bad
/// code. On failure `pixels` holds what was decoded so far, the rest unspecified. int16 and int8
/// decode BYTEPIX 2 and 1 (values wrap modulo their width, as in cfitsio). Thread-safe.
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int32_t> pixels,
                                     unsigned block = 32, Level level = active_level()) noexcept;
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int16_t> pixels,
                                     unsigned block = 32) noexcept;
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int8_t> pixels,
                                     unsigned block = 32) noexcept;

}  // namespace raftwright
