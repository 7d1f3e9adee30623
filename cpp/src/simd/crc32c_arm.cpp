// CRC-32C with the CRC instructions of ARMv8: the method of crc32c_sse42.cpp.
#include <arm_acle.h>

#include "simd/kernels.hpp"

namespace raftwright::simd {
namespace {

inline std::uint64_t word(const std::uint8_t* at) {
  std::uint64_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

inline std::uint32_t move(const Crc32cShift& shift, std::uint32_t state) {
  return shift.table[0][state & 0xFFU] ^ shift.table[1][state >> 8 & 0xFFU] ^
         shift.table[2][state >> 16 & 0xFFU] ^ shift.table[3][state >> 24];
}

inline std::uint32_t three_blocks(std::uint32_t state, const std::uint8_t* data, std::size_t block,
                                  const Crc32cShift& shift) {
  std::uint32_t second = 0;
  std::uint32_t third = 0;
  for (const std::uint8_t* const end = data + block; data != end; data += 8) {
    state = __crc32cd(state, word(data));
    second = __crc32cd(second, word(data + block));
    third = __crc32cd(third, word(data + 2 * block));
  }
  return move(shift, move(shift, state) ^ second) ^ third;
}

}  // namespace

std::uint32_t crc32c_arm(std::uint32_t state, const std::uint8_t* data, std::size_t count) noexcept {
  for (; count >= 3 * kCrc32cLongBlock; data += 3 * kCrc32cLongBlock, count -= 3 * kCrc32cLongBlock) {
    state = three_blocks(state, data, kCrc32cLongBlock, crc32c_shift_long);
  }
  for (; count >= 3 * kCrc32cShortBlock; data += 3 * kCrc32cShortBlock, count -= 3 * kCrc32cShortBlock) {
    state = three_blocks(state, data, kCrc32cShortBlock, crc32c_shift_short);
  }
  for (; count >= 8; data += 8, count -= 8) state = __crc32cd(state, word(data));
  for (; count > 0; ++data, --count) state = __crc32cb(state, *data);
  return state;
}

}  // namespace raftwright::simd
