// RICE_1 of the FITS standard (4.0, section 10.4.1), as cfitsio writes it, byte for byte.
//
// A tile is coded most significant bit first: the first pixel in full, then blocks of `block` pixels (the
// last may be shorter). A block begins with an id of 5 (BYTEPIX 2: 4, BYTEPIX 1: 3) bits. Of each pixel the
// difference to the pixel before is taken, wrapping at the pixel's width, and folded to an unsigned z (2d, or
// -2d - 1 if negative). Id 0: all z are 0, and nothing follows. The largest id, 26 (15, 7): every z in full.
// Any other id is a shift plus 1: every z is z >> shift zero bits, a one bit, and its low `shift` bits. The
// last byte is padded with zero bits.
//
// The bytes are cfitsio's for every tile with blocks of up to 63 pixels (FITS files have 32, rarely 16). In
// longer blocks of int32, cfitsio 4.2 miscodes a single difference of 2^30 or more; we code it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "raftwright/cpu.hpp"

namespace raftwright {

/// Room that rice_encode may write for `pixels` pixels of `bytes_per_pixel` (1, 2 or 4) bytes, slack for wide
/// stores included. The code itself is never longer than this minus 8. The largest size_t when the sum does
/// not fit, or when `block` is 0.
[[nodiscard]] std::size_t rice_bound(std::size_t pixels, unsigned bytes_per_pixel = 4,
                                     unsigned block = 32) noexcept;

/// Encodes one tile of int32 pixels (BYTEPIX 4) with blocks of `block` pixels. Returns the number of
/// bytes of code at the start of `out`; up to rice_bound(pixels, 4, block) bytes of `out` may be overwritten.
/// An empty tile gives 0 bytes. Throws UsageError when `out` is shorter than the bound, or `block`
/// is 0. Block 32 runs in the kernel of `level`; every other block, and a level that has no kernel or that
/// this processor does not have, in portable code. All write the same bytes. Thread-safe, no allocation.
std::size_t rice_encode(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                        unsigned block = 32, Level level = active_level());

/// As rice_encode with block 32, and adds the pixels' 32-bit patterns to `*sum` (mod 2^64, not folded): the
/// data sum of the uncompressed image, taken while the pixels are at hand.
std::size_t rice_encode_summed(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                               std::uint64_t* sum, Level level = active_level());

/// The plainest possible encoders, bit by bit: what the others are tested against, and the only ones of the
/// narrow types. Arguments and result as of rice_encode.
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
  bad_block,    ///< a block id that the format does not have, or a block of 0 pixels asked for
  unused_bytes  ///< more code than pixels: bytes are left over after the last block
};
[[nodiscard]] const char* rice_status_text(RiceStatus status) noexcept;

/// Decodes one tile into exactly pixels.size() values. Never reads outside `code`, never throws on bad
/// code, and takes time proportional to the bytes and pixels given. On failure `pixels` holds what was
/// decoded so far, the rest unspecified; with unused_bytes every pixel is there. Bits that pad the last byte
/// may have any value. Every shift is taken, also one that no good encoder would choose, and runs that exceed
/// 32 bits wrap. int16 and int8 decode BYTEPIX 2 and 1 (values wrap modulo their width, as in cfitsio).
/// An empty tile has empty code. Levels as in rice_encode; all give the same status and pixels. Thread-safe,
/// no allocation.
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int32_t> pixels,
                                     unsigned block = 32, Level level = active_level()) noexcept;
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int16_t> pixels,
                                     unsigned block = 32) noexcept;
[[nodiscard]] RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int8_t> pixels,
                                     unsigned block = 32) noexcept;

}  // namespace raftwright
