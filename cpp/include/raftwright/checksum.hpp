// CRC-32C, Adler-32 and the FITS ones'-complement sum. All of them can be combined from parts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace raftwright {

/// CRC-32C (Castagnoli, reflected 0x82F63B78, initial and final XOR of all ones) of `data`, continued
/// from `crc`, the value for what came before (0 at the start). crc32c("123456789") = 0xE3069283.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::uint8_t> data, std::uint32_t crc = 0);

/// The same in portable code, whatever the processor has: what the kernels are tested against.
[[nodiscard]] std::uint32_t crc32c_reference(std::span<const std::uint8_t> data, std::uint32_t crc = 0);

/// CRC-32C of A followed by B, from crc(A), crc(B) and the length of B in bytes.
[[nodiscard]] std::uint32_t crc32c_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t length_b);

/// Adler-32 (RFC 1950) of `data`, continued from `adler` (1 at the start).
[[nodiscard]] std::uint32_t adler32(std::span<const std::uint8_t> data, std::uint32_t adler = 1);

/// The FITS checksum (FITS 4.0, section 4.4.2.7 and appendix J): a 32-bit ones'-complement sum of
/// big-endian words. Parts may start and end at any byte; bytes past the end count as zero.
class FitsSum {
 public:
  /// Adds bytes that follow everything added so far.
  void add(std::span<const std::uint8_t> data) noexcept;
  /// Adds `count` bytes whose own sum, as if they started at a word border, is `sum`.
  void add_part(std::uint32_t sum, std::uint64_t count) noexcept;
  /// The sum so far, folded to 32 bits.
  [[nodiscard]] std::uint32_t value() const noexcept;
  /// Bytes added so far.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  std::uint64_t sum_ = 0;  // kept folded below 2^33
  std::uint64_t size_ = 0;
};

/// Ones'-complement sum of two folded sums.
[[nodiscard]] std::uint32_t fits_sum_add(std::uint32_t a, std::uint32_t b) noexcept;

/// The 16 characters of a CHECKSUM card for a sum; `complement` as for the card itself
/// (FITS 4.0, appendix J.2: no character outside 0-9 A-Z a-z).
[[nodiscard]] std::string fits_checksum_text(std::uint32_t sum, bool complement = true);

}  // namespace raftwright
