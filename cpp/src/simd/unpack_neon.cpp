// 18-bit pixels into int32 channels with NEON: the method of unpack_avx2.cpp on four samples at a time.
#include <arm_neon.h>

#include "simd/kernels.hpp"

namespace raftwright::simd {
namespace {

constexpr std::size_t kBlock = 16;  // samples a cache line

// Where the bytes of four pixels are in a load that begins with them, and in one that ends with them.
alignas(16) constexpr std::uint8_t kInner[16] = {0, 1, 2, 255, 2, 3, 4, 255, 4, 5, 6, 255, 6, 7, 8, 255};
alignas(16) constexpr std::uint8_t kLast[16] = {7,  8,  9,  255, 9,  10, 11, 255,
                                                11, 12, 13, 255, 13, 14, 15, 255};

struct Constants {
  uint8x16_t shuffle;
  uint32x4_t bits;
  uint32x4_t flip;
};

struct FourChannels {
  uint32x4_t of[4];
};

inline uint32x4_t load(const std::uint8_t* at, const Constants& c) {
  return vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(at), c.shuffle));
}

inline uint32x4_t low_halves(uint32x4_t a, uint32x4_t b) {
  return vreinterpretq_u32_u64(vtrn1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}

inline uint32x4_t high_halves(uint32x4_t a, uint32x4_t b) {
  return vreinterpretq_u32_u64(vtrn2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}

// Four samples of four channels.
template <std::size_t kStride>
inline FourChannels decode4(const std::uint8_t* at, const Constants& c) {
  const uint32x4_t r0 = load(at, c);
  const uint32x4_t r1 = load(at + kStride, c);
  const uint32x4_t r2 = load(at + 2 * kStride, c);
  const uint32x4_t r3 = load(at + 3 * kStride, c);
  const uint32x4_t even01 = vtrn1q_u32(r0, r1);
  const uint32x4_t odd01 = vtrn2q_u32(r0, r1);
  const uint32x4_t even23 = vtrn1q_u32(r2, r3);
  const uint32x4_t odd23 = vtrn2q_u32(r2, r3);
  const uint32x4_t p0 = low_halves(even01, even23);
  const uint32x4_t p1 = vshrq_n_u32(low_halves(odd01, odd23), 2);
  const uint32x4_t p2 = vshrq_n_u32(high_halves(even01, even23), 4);
  const uint32x4_t p3 = vshrq_n_u32(high_halves(odd01, odd23), 6);  // nothing above: no mask
  return {{veorq_u32(vandq_u32(p0, c.bits), c.flip), veorq_u32(vandq_u32(p1, c.bits), c.flip),
           veorq_u32(vandq_u32(p2, c.bits), c.flip), veorq_u32(p3, c.flip)}};
}

// Sixteen samples of channel k of four.
template <std::size_t k>
inline void store_line(std::int32_t* to, const FourChannels parts[4]) {
  vst1q_s32(to, vreinterpretq_s32_u32(parts[0].of[k]));
  vst1q_s32(to + 4, vreinterpretq_s32_u32(parts[1].of[k]));
  vst1q_s32(to + 8, vreinterpretq_s32_u32(parts[2].of[k]));
  vst1q_s32(to + 12, vreinterpretq_s32_u32(parts[3].of[k]));
}

// `samples` is a multiple of kBlock.
template <std::size_t kChannels>
void unpack_blocks(const std::uint8_t* packed, std::size_t samples, std::uint32_t xor_mask,
                   std::int32_t* const* channels) {
  constexpr std::size_t kStride = kChannels * 18 / 8;
  const uint8x16_t inner = vld1q_u8(kInner);
  const uint8x16_t last = vld1q_u8(kLast);
  Constants c = {inner, vdupq_n_u32(0x3FFFF), vdupq_n_u32(xor_mask)};
  const std::uint8_t* block = packed;
  for (std::size_t i = 0; i < samples; i += kBlock, block += kBlock * kStride) {
    for (std::size_t p = 0; p < kChannels; p += 4) {
      // A load takes 16 bytes; that of the last four pixels must end where the sample ends.
      const bool is_last = p + 4 == kChannels;
      c.shuffle = is_last ? last : inner;
      const std::uint8_t* const at = block + p / 4 * 9 - (is_last ? 7 : 0);
      const FourChannels parts[4] = {decode4<kStride>(at, c), decode4<kStride>(at + 4 * kStride, c),
                                     decode4<kStride>(at + 8 * kStride, c),
                                     decode4<kStride>(at + 12 * kStride, c)};
      store_line<0>(channels[p] + i, parts);
      store_line<1>(channels[p + 1] + i, parts);
      store_line<2>(channels[p + 2] + i, parts);
      store_line<3>(channels[p + 3] + i, parts);
    }
  }
}

// Fewer than kBlock samples, by way of a padded copy.
template <std::size_t kChannels>
void unpack_few(const std::uint8_t* packed, std::size_t first, std::size_t samples, std::uint32_t xor_mask,
                std::int32_t* const* channels) {
  constexpr std::size_t kStride = kChannels * 18 / 8;
  if (samples == 0) return;
  alignas(64) std::uint8_t input[kBlock * kStride];
  alignas(64) std::int32_t output[kChannels][kBlock];
  std::int32_t* rows[kChannels];
  for (std::size_t p = 0; p < kChannels; ++p) rows[p] = output[p];
  __builtin_memcpy(input, packed, samples * kStride);
  __builtin_memset(input + samples * kStride, 0, (kBlock - samples) * kStride);
  unpack_blocks<kChannels>(input, kBlock, xor_mask, rows);
  for (std::size_t p = 0; p < kChannels; ++p) {
    __builtin_memcpy(channels[p] + first, output[p], samples * sizeof(std::int32_t));
  }
}

// The processors see by themselves that whole lines are written, so both kinds of store are plain ones.
template <std::size_t kChannels>
void unpack(const std::uint8_t* packed, std::size_t samples, std::uint32_t xor_mask,
            std::int32_t* const* channels, bool /*streaming*/) noexcept {
  constexpr std::size_t kStride = kChannels * 18 / 8;
  const std::size_t blocks = samples / kBlock * kBlock;
  unpack_blocks<kChannels>(packed, blocks, xor_mask, channels);
  unpack_few<kChannels>(packed + blocks * kStride, blocks, samples - blocks, xor_mask, channels);
}

}  // namespace

const UnpackKernels unpack_neon = {unpack<16>, unpack<32>, unpack<48>};

}  // namespace raftwright::simd
