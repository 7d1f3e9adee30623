// CRC-32C with the instruction of SSE 4.2. It takes three cycles but one can begin in each, so three
// neighbouring blocks are taken at once, and their registers moved over the blocks that follow them.
#include <nmmintrin.h>

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

inline std::uint64_t three_blocks(std::uint64_t state, const std::uint8_t* data, std::size_t block,
                                  const Crc32cShift& shift) {
  std::uint64_t second = 0;
  std::uint64_t third = 0;
  for (const std::uint8_t* const end = data + block; data != end; data += 8) {
    state = _mm_crc32_u64(state, word(data));
    second = _mm_crc32_u64(second, word(data + block));
    third = _mm_crc32_u64(third, word(data + 2 * block));
  }
  const std::uint32_t both =
      move(shift, static_cast<std::uint32_t>(state)) ^ static_cast<std::uint32_t>(second);
  return move(shift, both) ^ third;
}

}  // namespace

std::uint32_t crc32c_sse42(std::uint32_t state, const std::uint8_t* data, std::size_t count) noexcept {
  std::uint64_t wide = state;
  for (; count >= 3 * kCrc32cLongBlock; data += 3 * kCrc32cLongBlock, count -= 3 * kCrc32cLongBlock) {
    wide = three_blocks(wide, data, kCrc32cLongBlock, crc32c_shift_long);
  }
  for (; count >= 3 * kCrc32cShortBlock; data += 3 * kCrc32cShortBlock, count -= 3 * kCrc32cShortBlock) {
    wide = three_blocks(wide, data, kCrc32cShortBlock, crc32c_shift_short);
  }
  for (; count >= 8; data += 8, count -= 8) wide = _mm_crc32_u64(wide, word(data));
  state = static_cast<std::uint32_t>(wide);
  for (; count > 0; ++data, --count) state = _mm_crc32_u8(state, *data);
  return state;
}

}  // namespace raftwright::simd
