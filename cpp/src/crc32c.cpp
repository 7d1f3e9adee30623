// CRC-32C. A register is a polynomial over GF(2) modulo P, bit 31 the power 0 (reflected); moving it
// over n zero bytes is a product with x^(8n), which is what the combination of parts rests on.
#include <array>
#include <bit>

#include "load_store.hpp"
#include "raftwright/checksum.hpp"
#include "raftwright/cpu.hpp"
#include "simd/kernels.hpp"

namespace raftwright {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78U;

constexpr std::uint32_t times_x(std::uint32_t a) noexcept {
  return (a & 1U) != 0 ? a >> 1 ^ kPolynomial : a >> 1;
}

// a * b modulo P.
constexpr std::uint32_t product(std::uint32_t a, std::uint32_t b) noexcept {
  std::uint32_t result = 0;
  for (std::uint32_t power = 0x80000000U; power != 0; power >>= 1) {
    if ((a & power) != 0) result ^= b;
    b = times_x(b);
  }
  return result;
}

// x^(2^k) for k = 0 .. 66: as many as the bits of 2^64 bytes need.
constexpr auto kPowers = [] {
  std::array<std::uint32_t, 67> powers{};
  powers[0] = 0x40000000U;
  for (std::size_t k = 1; k < powers.size(); ++k) powers[k] = product(powers[k - 1], powers[k - 1]);
  return powers;
}();

// x^(8 * bytes).
constexpr std::uint32_t shift_over(std::uint64_t bytes) noexcept {
  std::uint32_t result = 0x80000000U;
  for (std::size_t k = 3; bytes != 0; ++k, bytes >>= 1) {
    if ((bytes & 1U) != 0) result = product(kPowers[k], result);
  }
  return result;
}

// kTables[k][b]: the register 0 after byte b and k zero bytes.
constexpr auto kTables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t value = b;
    for (int bit = 0; bit < 8; ++bit) value = times_x(value);
    tables[0][b] = value;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) {
      tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xFFU];
    }
  }
  return tables;
}();

constexpr simd::Crc32cShift make_shift(std::uint64_t bytes) {
  simd::Crc32cShift shift{};
  const std::uint32_t factor = shift_over(bytes);
  for (std::size_t k = 0; k < 4; ++k) {
    for (std::uint32_t bit = 0; bit < 8; ++bit) {
      const std::uint32_t moved = product(factor, 1U << (8 * k + bit));
      for (std::uint32_t low = 0; low < 1U << bit; ++low) {
        shift.table[k][1U << bit | low] = moved ^ shift.table[k][low];
      }
    }
  }
  return shift;
}

std::uint32_t crc32c_tables(std::uint32_t state, const std::uint8_t* data, std::size_t count) noexcept {
  for (; count >= 8; data += 8, count -= 8) {
    const std::uint64_t word = load_le64(data) ^ state;
    state = kTables[7][word & 0xFF] ^ kTables[6][word >> 8 & 0xFF] ^ kTables[5][word >> 16 & 0xFF] ^
            kTables[4][word >> 24 & 0xFF] ^ kTables[3][word >> 32 & 0xFF] ^ kTables[2][word >> 40 & 0xFF] ^
            kTables[1][word >> 48 & 0xFF] ^ kTables[0][word >> 56];
  }
  for (; count > 0; ++data, --count) state = state >> 8 ^ kTables[0][(state ^ *data) & 0xFFU];
  return state;
}

bool has_feature([[maybe_unused]] const char* name) {
  for (const std::string& feature : cpu_features()) {
    if (feature == name) return true;
  }
  return false;
}

simd::Crc32c find_kernel() {
#if defined(RAFTWRIGHT_X86_64)
  if (has_feature("sse4.2")) return simd::crc32c_sse42;
#elif defined(RAFTWRIGHT_AARCH64)
  if (has_feature("crc")) return simd::crc32c_arm;
#endif
  return crc32c_tables;
}

}  // namespace

namespace simd {
constinit const Crc32cShift crc32c_shift_long = make_shift(kCrc32cLongBlock);
constinit const Crc32cShift crc32c_shift_short = make_shift(kCrc32cShortBlock);
}  // namespace simd

std::uint32_t crc32c(std::span<const std::uint8_t> data, std::uint32_t crc) {
  static const simd::Crc32c kernel = find_kernel();
  return ~kernel(~crc, data.data(), data.size());
}

std::uint32_t crc32c_reference(std::span<const std::uint8_t> data, std::uint32_t crc) {
  return ~crc32c_tables(~crc, data.data(), data.size());
}

std::uint32_t crc32c_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t length_b) {
  return product(shift_over(length_b), crc_a) ^ crc_b;
}

}  // namespace raftwright
