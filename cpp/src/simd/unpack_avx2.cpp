// 18-bit pixels into int32 channels with AVX2.
//
// Four pixels are nine bytes, and pixel k of the four begins at bit 18k = byte 2k, bit 2k, and ends before
// byte 2k + 3. So a byte shuffle brings each pixel's three bytes into a 32-bit element, and what is left is
// a shift by 2k. The low lane takes sample i, the high lane sample i + 4: after two 4x4 transposes
// that stay in their lanes a register holds eight samples of one channel, whose shift is a constant.
// Sixteen samples of a channel are a whole cache line of int32, stored back to back.
#include <immintrin.h>

#include "simd/kernels.hpp"

namespace raftwright::simd {
namespace {

constexpr std::size_t kBlock = 16;  // samples a cache line
struct Constants {
  __m256i shuffle;
  __m256i bits;
  __m256i flip;
};

template <std::size_t kStride>
[[gnu::always_inline]] inline __m256i load_pair(const std::uint8_t* at, const Constants& c) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 4 * kStride));
  return _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), c.shuffle);
}

// Eight samples of four channels.
template <std::size_t kStride>
[[gnu::always_inline]] inline void decode8(const std::uint8_t* at, const Constants& c, __m256i out[4]) {
  const __m256i r0 = load_pair<kStride>(at, c);
  const __m256i r1 = load_pair<kStride>(at + kStride, c);
  const __m256i r2 = load_pair<kStride>(at + 2 * kStride, c);
  const __m256i r3 = load_pair<kStride>(at + 3 * kStride, c);
  const __m256i t0 = _mm256_unpacklo_epi32(r0, r1);
  const __m256i t1 = _mm256_unpackhi_epi32(r0, r1);
  const __m256i t2 = _mm256_unpacklo_epi32(r2, r3);
  const __m256i t3 = _mm256_unpackhi_epi32(r2, r3);
  const __m256i p0 = _mm256_unpacklo_epi64(t0, t2);
  const __m256i p1 = _mm256_srli_epi32(_mm256_unpackhi_epi64(t0, t2), 2);
  const __m256i p2 = _mm256_srli_epi32(_mm256_unpacklo_epi64(t1, t3), 4);
  const __m256i p3 = _mm256_srli_epi32(_mm256_unpackhi_epi64(t1, t3), 6);  // nothing above: no mask
  out[0] = _mm256_xor_si256(_mm256_and_si256(p0, c.bits), c.flip);
  out[1] = _mm256_xor_si256(_mm256_and_si256(p1, c.bits), c.flip);
  out[2] = _mm256_xor_si256(_mm256_and_si256(p2, c.bits), c.flip);
  out[3] = _mm256_xor_si256(p3, c.flip);
}

template <bool kStreaming>
[[gnu::always_inline]] inline void store_line(std::int32_t* to, __m256i first, __m256i second) {
  __m256i* const line = reinterpret_cast<__m256i*>(to);
  if constexpr (kStreaming) {
    _mm256_stream_si256(line, first);
    _mm256_stream_si256(line + 1, second);
  } else {
    _mm256_storeu_si256(line, first);
    _mm256_storeu_si256(line + 1, second);
  }
}

// `samples` is a multiple of kBlock; with kStreaming the channels are aligned to cache lines at `first`. One
// line of every channel before the next one of any: planes are commonly a line more than a whole number of
// pages apart, and lines of neighbouring planes that share a page offset must not meet in the write buffers.
template <std::size_t kChannels, bool kStreaming>
[[gnu::always_inline]] inline void unpack_blocks(const std::uint8_t* packed, std::size_t first,
                                                 std::size_t samples, std::uint32_t xor_mask,
                                                 std::int32_t* const* channels) {
  constexpr std::size_t kStride = kChannels * 18 / 8;
  constexpr std::size_t kPiece =
      kBlock * kStride / (kChannels / 4);  // a block's bytes for each four channels
  const __m256i inner = _mm256_setr_epi8(0, 1, 2, -1, 2, 3, 4, -1, 4, 5, 6, -1, 6, 7, 8, -1,  //
                                         0, 1, 2, -1, 2, 3, 4, -1, 4, 5, 6, -1, 6, 7, 8, -1);
  const __m256i last = _mm256_setr_epi8(7, 8, 9, -1, 9, 10, 11, -1, 11, 12, 13, -1, 13, 14, 15, -1,  //
                                        7, 8, 9, -1, 9, 10, 11, -1, 11, 12, 13, -1, 13, 14, 15, -1);
  Constants c;
  c.bits = _mm256_set1_epi32(0x3FFFF);
  c.flip = _mm256_set1_epi32(static_cast<int>(xor_mask));
  const std::uint8_t* block = packed;
  for (std::size_t i = first; i < first + samples; i += kBlock, block += kBlock * kStride) {
    // The order of the loads is too ragged for the processor to foresee; asking beyond the end is harmless.
    std::uintptr_t ahead = reinterpret_cast<std::uintptr_t>(block) + 2 * kBlock * kStride;
    for (std::size_t p = 0; p < kChannels; p += 4, ahead += kPiece) {
      static_assert(kPiece > 128 && kPiece <= 192);
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(ahead + 64), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(ahead + 128), _MM_HINT_T0);
      // A load takes 16 bytes; that of the last four pixels must end where the sample ends.
      const bool is_last = p + 4 == kChannels;
      c.shuffle = is_last ? last : inner;
      const std::uint8_t* const at = block + p / 4 * 9 - (is_last ? 7 : 0);
      __m256i a[4];
      __m256i b[4];
      decode8<kStride>(at, c, a);
      decode8<kStride>(at + 8 * kStride, c, b);
      store_line<kStreaming>(channels[p] + i, a[0], b[0]);
      store_line<kStreaming>(channels[p + 1] + i, a[1], b[1]);
      store_line<kStreaming>(channels[p + 2] + i, a[2], b[2]);
      store_line<kStreaming>(channels[p + 3] + i, a[3], b[3]);
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
  unpack_blocks<kChannels, false>(input, 0, kBlock, xor_mask, rows);
  for (std::size_t p = 0; p < kChannels; ++p) {
    __builtin_memcpy(channels[p] + first, output[p], samples * sizeof(std::int32_t));
  }
}

template <std::size_t kChannels>
void unpack(const std::uint8_t* packed, std::size_t samples, std::uint32_t xor_mask,
            std::int32_t* const* channels, bool streaming) noexcept {
  constexpr std::size_t kStride = kChannels * 18 / 8;
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(channels[0]) % 64;
  streaming = streaming && offset % sizeof(std::int32_t) == 0;
  for (std::size_t p = 1; p < kChannels; ++p) {
    streaming = streaming && reinterpret_cast<std::uintptr_t>(channels[p]) % 64 == offset;
  }
  std::size_t done = 0;
  if (streaming && offset != 0) {
    done = (64 - offset) / sizeof(std::int32_t);
    if (done > samples) done = samples;
    unpack_few<kChannels>(packed, 0, done, xor_mask, channels);
  }
  const std::size_t blocks = (samples - done) / kBlock * kBlock;
  if (streaming) {
    unpack_blocks<kChannels, true>(packed + done * kStride, done, blocks, xor_mask, channels);
    _mm_sfence();
  } else {
    unpack_blocks<kChannels, false>(packed, 0, blocks, xor_mask, channels);
  }
  done += blocks;
  unpack_few<kChannels>(packed + done * kStride, done, samples - done, xor_mask, channels);
}

}  // namespace

const UnpackKernels unpack_avx2 = {unpack<16>, unpack<32>, unpack<48>};

}  // namespace raftwright::simd
