// RICE_1 on AVX2, BMI and LZCNT: int32 pixels in blocks of 32.
//
// Encoding takes up to kChunk blocks at a time through three loops, each of which leaves its results in L1
// for the next, so that no loop waits for another's latency:
//   1. difference and zig-zag, eight lanes; their sum gives the block's shift;
//   2. codes and lengths in 16-bit lanes, neighbours merged to pairs in 32-bit lanes and to quads in 64-bit
//      lanes;
//   3. quads into the bit stream, one shift, one OR and one 8-byte store each.
// A block whose quads would be too long goes in pairs made from 32-bit lanes (16 stores a block), and one
// that is unusual even for that, such as one hot pixel between flat ones, to the portable encode_block.
#include <immintrin.h>

#include "simd/rice_bits.hpp"
#include "simd/rice_kernels.hpp"

namespace raftwright::rice_detail {
namespace {

constexpr std::size_t kChunk = 18;       // blocks; a row of 576 pixels is one chunk
constexpr unsigned kQuadShift = 11;      // from this shift on, quads hardly ever fit
constexpr std::uint32_t kHugeBits = 27;  // zig-zag codes below 2^27 add up in 32 bits, 32 of them

RAFTWRIGHT_INLINE __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
RAFTWRIGHT_INLINE void put(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

/// One instruction-ready row a shift: what the codes of a block have in common, in both halves of a lane.
struct ShiftRow {
  std::uint32_t low_bits;
  std::uint32_t one;
  std::uint32_t longest_run;  // a code of 16 bits
  std::uint32_t length;       // of a code without zeros
};
struct ShiftTable {
  ShiftRow rows[kQuadShift];
};
constexpr ShiftTable make_shift_table() {
  ShiftTable table{};
  for (unsigned shift = 0; shift < kQuadShift; ++shift) {
    constexpr std::uint32_t kTwice = 0x10001;
    table.rows[shift] = {((1U << shift) - 1) * kTwice, (1U << shift) * kTwice, (15 - shift) * kTwice,
                         (shift + 1) * kTwice};
  }
  return table;
}
constexpr ShiftTable kShifts = make_shift_table();

enum class Way : std::uint8_t { constant, quads, pairs, other };

/// What the loops hand on, one chunk at a time.
struct Chunk {
  alignas(64) std::uint16_t zigzags[kChunk * 32];  // of a pair of vectors, packed: pixels 0-3 8-11 4-7 12-15
  alignas(64) std::uint64_t codes[kChunk * 16];    // quads or pairs
  alignas(64) std::uint64_t lengths[kChunk * 16];  // in bits
  std::uint32_t shifts[kChunk];
  Way ways[kChunk];
};

/// The pixels in front of the eight at `pixels`; in front of a tile stands its first pixel.
RAFTWRIGHT_INLINE __m256i before(const std::int32_t* pixels, bool tile_start) {
  if (!tile_start) [[likely]]
    return load(pixels - 1);
  return _mm256_permutevar8x32_epi32(load(pixels), _mm256_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6));
}

RAFTWRIGHT_INLINE __m256i zigzags(const std::int32_t* pixels, bool tile_start) {
  const __m256i difference = _mm256_sub_epi32(load(pixels), before(pixels, tile_start));
  return _mm256_xor_si256(_mm256_add_epi32(difference, difference), _mm256_srai_epi32(difference, 31));
}

RAFTWRIGHT_INLINE std::uint32_t sum_of_lanes(__m256i lanes) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(sum));
}

/// Sums 32-bit patterns without losing a carry, three instructions for eight: `all` takes 64-bit lanes
/// (low + 2^32 high), `high` the high halves alone.
struct PatternSum {
  __m256i all = _mm256_setzero_si256();
  __m256i high = _mm256_setzero_si256();

  RAFTWRIGHT_INLINE void add(__m256i pixels) {
    all = _mm256_add_epi64(all, pixels);
    high = _mm256_add_epi64(high, _mm256_srli_epi64(pixels, 32));
  }
  RAFTWRIGHT_INLINE std::uint64_t total() const {
    const __m256i low = _mm256_sub_epi64(all, _mm256_slli_epi64(high, 32));
    const __m256i lanes = _mm256_add_epi64(low, high);
    const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(half)) +
           static_cast<std::uint64_t>(_mm_extract_epi64(half, 1));
  }
};

/// Loop 1. Returns false if a zig-zag code is so large that the sums may be wrong.
template <bool kSum>
RAFTWRIGHT_INLINE bool find_shifts(Chunk& chunk, const std::int32_t* pixels, std::size_t blocks,
                                   bool tile_start, PatternSum& patterns) {
  __m256i any = _mm256_setzero_si256();
  for (std::size_t b = 0; b < blocks; ++b, pixels += 32) {
    const __m256i z0 = zigzags(pixels, tile_start && b == 0);
    const __m256i z1 = zigzags(pixels + 8, false);
    const __m256i z2 = zigzags(pixels + 16, false);
    const __m256i z3 = zigzags(pixels + 24, false);
    if constexpr (kSum) {
      patterns.add(load(pixels));
      patterns.add(load(pixels + 8));
      patterns.add(load(pixels + 16));
      patterns.add(load(pixels + 24));
    }
    put(chunk.zigzags + 32 * b, _mm256_packus_epi32(z0, z1));
    put(chunk.zigzags + 32 * b + 16, _mm256_packus_epi32(z2, z3));
    any = _mm256_or_si256(any, _mm256_or_si256(_mm256_or_si256(z0, z1), _mm256_or_si256(z2, z3)));
    const std::uint32_t sum =
        sum_of_lanes(_mm256_add_epi32(_mm256_add_epi32(z0, z1), _mm256_add_epi32(z2, z3)));
    // bit length of ((sum - 16 - 1) / 32) / 2
    const std::uint32_t shift = 32 - _lzcnt_u32((sum < 17 ? 0 : sum - 17) >> 6);
    chunk.shifts[b] = shift;
    chunk.ways[b] = sum == 0 ? Way::constant : shift < kQuadShift ? Way::quads : Way::pairs;
  }
  return _mm256_testz_si256(any, _mm256_set1_epi32(static_cast<int>(~0U << kHugeBits))) != 0;
}

/// 32-bit lanes: the code in the lower half goes in front of the one in the upper.
RAFTWRIGHT_INLINE __m256i merge_to_pairs(__m256i codes, __m256i lengths) {
  const __m256i first = _mm256_and_si256(codes, _mm256_set1_epi32(0xFFFF));
  return _mm256_or_si256(_mm256_sllv_epi32(first, _mm256_srli_epi32(lengths, 16)),
                         _mm256_srli_epi32(codes, 16));
}

/// As merge_to_pairs, in 64-bit lanes.
RAFTWRIGHT_INLINE __m256i merge_in_64(__m256i codes, __m256i lengths) {
  const __m256i first = _mm256_and_si256(codes, _mm256_set1_epi64x(0xFFFFFFFF));
  return _mm256_or_si256(_mm256_sllv_epi64(first, _mm256_srli_epi64(lengths, 32)),
                         _mm256_srli_epi64(codes, 32));
}

/// The longest that the first code of a block, which shares a store with the id, and the others may be.
RAFTWRIGHT_INLINE __m256i limits_of_first() {
  return _mm256_setr_epi64x(kStoreBits - kIdBits, kStoreBits, kStoreBits, kStoreBits);
}

/// Loop 2: 8 codes of four pixels, in lanes' order 0 2 1 3 4 6 5 7. Returns false if they are too long.
RAFTWRIGHT_INLINE bool make_quads(Chunk& chunk, std::size_t b) {
  const std::uint32_t shift = chunk.shifts[b];
  const ShiftRow& row = kShifts.rows[shift];
  const __m128i count = _mm_cvtsi32_si128(static_cast<int>(shift));
  const __m256i low_bits = _mm256_set1_epi32(static_cast<int>(row.low_bits));
  const __m256i one = _mm256_set1_epi32(static_cast<int>(row.one));
  const __m256i length = _mm256_set1_epi32(static_cast<int>(row.length));

  const __m256i za = load(chunk.zigzags + 32 * b);
  const __m256i zb = load(chunk.zigzags + 32 * b + 16);
  const __m256i runs_a = _mm256_srl_epi16(za, count);
  const __m256i runs_b = _mm256_srl_epi16(zb, count);
  const __m256i codes_a = _mm256_or_si256(_mm256_and_si256(za, low_bits), one);
  const __m256i codes_b = _mm256_or_si256(_mm256_and_si256(zb, low_bits), one);
  const __m256i lengths_a = _mm256_add_epi16(runs_a, length);
  const __m256i lengths_b = _mm256_add_epi16(runs_b, length);

  const __m256i ones = _mm256_set1_epi16(1);
  put(chunk.codes + 16 * b,
      merge_in_64(merge_to_pairs(codes_a, lengths_a), _mm256_madd_epi16(lengths_a, ones)));
  put(chunk.codes + 16 * b + 4,
      merge_in_64(merge_to_pairs(codes_b, lengths_b), _mm256_madd_epi16(lengths_b, ones)));
  const __m256i total_a = _mm256_sad_epu8(lengths_a, _mm256_setzero_si256());
  const __m256i total_b = _mm256_sad_epu8(lengths_b, _mm256_setzero_si256());
  put(chunk.lengths + 16 * b, total_a);
  put(chunk.lengths + 16 * b + 4, total_b);

  // A run that makes a code of more than 16 bits (packing to 16 bits saturates to one as well), a long quad.
  const __m256i longest_run = _mm256_set1_epi32(static_cast<int>(row.longest_run));
  const __m256i bad_run = _mm256_subs_epu16(_mm256_max_epu16(runs_a, runs_b), longest_run);
  const __m256i bad_total = _mm256_or_si256(_mm256_cmpgt_epi32(total_a, limits_of_first()),
                                            _mm256_cmpgt_epi32(total_b, _mm256_set1_epi64x(kStoreBits)));
  const __m256i bad = _mm256_or_si256(bad_run, bad_total);
  return _mm256_testz_si256(bad, bad) != 0;
}

/// Loop 2, otherwise: 16 codes of two pixels in order. Returns false if even those are too long.
RAFTWRIGHT_INLINE bool make_pairs(Chunk& chunk, std::size_t b, const std::int32_t* pixels, bool tile_start) {
  const std::uint32_t shift = chunk.shifts[b];
  const __m128i count = _mm_cvtsi32_si128(static_cast<int>(shift));
  const __m256i one = _mm256_set1_epi32(static_cast<int>(1U << shift));
  const __m256i low_bits = _mm256_set1_epi32(static_cast<int>((1U << shift) - 1));
  const __m256i length = _mm256_set1_epi32(static_cast<int>(shift + 1));
  __m256i bad = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (std::size_t k = 0; k < 4; ++k) {
    const __m256i z = zigzags(pixels + 8 * k, tile_start && k == 0);
    const __m256i codes = _mm256_or_si256(_mm256_and_si256(z, low_bits), one);
    const __m256i lengths = _mm256_add_epi32(_mm256_srl_epi32(z, count), length);
    // Below 2^28 each, as z is below 2^27.
    const __m256i total = _mm256_add_epi64(_mm256_and_si256(lengths, _mm256_set1_epi64x(0xFFFFFFFF)),
                                           _mm256_srli_epi64(lengths, 32));
    const __m256i limit = k == 0 ? limits_of_first() : _mm256_set1_epi64x(kStoreBits);
    bad = _mm256_or_si256(bad, _mm256_cmpgt_epi32(total, limit));
    put(chunk.codes + 16 * b + 4 * k, merge_in_64(codes, lengths));
    put(chunk.lengths + 16 * b + 4 * k, total);
  }
  return _mm256_testz_si256(bad, bad) != 0;
}

RAFTWRIGHT_INLINE void push_id(BitWriter& writer, std::uint32_t shift) { push(writer, shift + 1, kIdBits); }

/// Loop 3: `count` codes, the first together with the id.
template <std::size_t kCount>
RAFTWRIGHT_INLINE void write_codes(BitWriter& writer, const Chunk& chunk, std::size_t b) {
  constexpr std::size_t kQuadOrder[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  const std::uint64_t* codes = chunk.codes + 16 * b;
  const std::uint64_t* lengths = chunk.lengths + 16 * b;
  push_id(writer, chunk.shifts[b]);
  if (writer.end < 64 + 7) [[unlikely]] {  // in the first block: store_tail needs 64 bits
    for (std::size_t k = 0; k < kCount; ++k) {
      const std::size_t at = kCount == 8 ? kQuadOrder[k] : k;
      push(writer, codes[at], lengths[at]);
      store(writer);
    }
    return;
  }
#pragma GCC unroll 16
  for (std::size_t k = 0; k < kCount; ++k) {
    const std::size_t at = kCount == 8 ? kQuadOrder[k < 8 ? k : 0] : k;
    push(writer, codes[at], lengths[at]);
    store_tail(writer);
  }
}

template <bool kSum>
RAFTWRIGHT_INLINE BitWriter encode_blocks(BitWriter writer, const std::int32_t* pixels, std::size_t blocks,
                                          std::uint64_t* sum) {
  Chunk chunk;
  PatternSum patterns;
  for (std::size_t done = 0; done < blocks;) {
    const std::size_t count = blocks - done < kChunk ? blocks - done : kChunk;
    const std::int32_t* from = pixels + 32 * done;
    if (find_shifts<kSum>(chunk, from, count, done == 0, patterns)) [[likely]] {
      for (std::size_t b = 0; b < count; ++b) {
        if (chunk.ways[b] == Way::constant) continue;
        if (chunk.ways[b] == Way::quads && make_quads(chunk, b)) [[likely]]
          continue;
        const bool good = chunk.shifts[b] < kRawShift && make_pairs(chunk, b, from + 32 * b, done + b == 0);
        chunk.ways[b] = good ? Way::pairs : Way::other;
      }
    } else {
      for (std::size_t b = 0; b < count; ++b) chunk.ways[b] = Way::other;
    }
    for (std::size_t b = 0; b < count; ++b) {
      switch (chunk.ways[b]) {
        [[likely]] case Way::quads:
          write_codes<8>(writer, chunk, b);
          break;
        case Way::pairs:
          write_codes<16>(writer, chunk, b);
          break;
        case Way::constant:
          push(writer, 0, kIdBits);
          store(writer);
          break;
        case Way::other: {
          BitWriter copy = writer;  // so that `writer` itself can stay in registers
          encode_block(copy, from + 32 * b, 32, done + b == 0);
          writer = copy;
          break;
        }
      }
    }
    done += count;
  }
  if constexpr (kSum) *sum += patterns.total();
  return writer;
}

}  // namespace

BitWriter encode_blocks_avx2(BitWriter writer, const std::int32_t* pixels, std::size_t blocks,
                             std::uint64_t* sum) {
  return sum == nullptr ? encode_blocks<false>(writer, pixels, blocks, sum)
                        : encode_blocks<true>(writer, pixels, blocks, sum);
}

// --- decoding ------------------------------------------------------------------------------------------
//
// Reading codes is one long chain of count, shift, count, shift: it leaves most of the processor idle. So a
// block's pixels are made while the next block is being read, by out-of-order execution, and after the
// narrow stores of its codes have reached the cache that the wide loads read.

namespace {

/// One block as read, before its pixels are made.
struct ReadBlock {
  alignas(64) std::uint32_t values[32];
  std::uint32_t excess;  ///< by which the values are larger than the zig-zag codes
};

/// A block that is constant, raw, or damaged.
bool read_plain_block(BitReader& reader, ReadBlock& block, std::uint32_t id) {
  if (id > kRawShift + 1) return false;
  block.excess = 0;
  if (id == 0) {
    for (unsigned k = 0; k < 32; k += 8) put(block.values + k, _mm256_setzero_si256());
    refill(reader);
    return true;
  }
  for (unsigned k = 0; k < 32; ++k) {
    refill(reader);
    if (reader.have < 32) return false;
    block.values[k] = static_cast<std::uint32_t>(reader.next >> 32);
    drop(reader, 32);
  }
  refill(reader);
  return true;
}

/// Reads one block; false if it is damaged or cut off. The reader is full before and after.
RAFTWRIGHT_INLINE bool read_block(BitReader& reader, ReadBlock& block) {
  if (reader.have < kIdBits) [[unlikely]]
    return false;
  const std::uint32_t id = static_cast<std::uint32_t>(reader.next >> (64 - kIdBits));
  drop(reader, kIdBits);
  const std::uint32_t shift = id - 1;
  if (shift >= kRawShift) [[unlikely]]
    return read_plain_block(reader, block, id);
  block.excess = 1U << shift;
  return shift < kPairShift ? read_codes<4>(reader, shift, 32, block.values)
                            : read_codes<2>(reader, shift, 32, block.values);
}

/// The pixels of one block. `last` holds the pixel in front of it in every lane, then its last one.
RAFTWRIGHT_INLINE void make_pixels(const ReadBlock& block, std::int32_t* pixels, __m256i& last) {
  const __m256i excess = _mm256_set1_epi32(static_cast<int>(block.excess));
#pragma GCC unroll 4
  for (unsigned k = 0; k < 32; k += 8) {
    const __m256i z = _mm256_sub_epi32(load(block.values + k), excess);
    const __m256i sign = _mm256_srai_epi32(_mm256_slli_epi32(z, 31), 31);
    const __m256i d = _mm256_xor_si256(_mm256_srli_epi32(z, 1), sign);
    // Sums of the first 1, 2, 3, 4 in each half, then the first half's total into the second.
    const __m256i twos = _mm256_add_epi32(d, _mm256_slli_si256(d, 4));
    const __m256i fours = _mm256_add_epi32(twos, _mm256_slli_si256(twos, 8));
    const __m256i totals = _mm256_shuffle_epi32(fours, _MM_SHUFFLE(3, 3, 3, 3));
    const __m256i sums = _mm256_add_epi32(fours, _mm256_permute2x128_si256(totals, totals, 0x08));
    put(pixels + k, _mm256_add_epi32(last, sums));
    last = _mm256_add_epi32(last, _mm256_permutevar8x32_epi32(sums, _mm256_set1_epi32(7)));
  }
}

}  // namespace

std::size_t decode_blocks_avx2(BitReader* reader, std::int32_t* pixels, std::size_t blocks,
                               std::uint32_t* before) {
  ReadBlock read[2];
  BitReader bits = *reader;
  refill(bits);
  __m256i last = _mm256_set1_epi32(static_cast<int>(*before));
  std::size_t done = 0;
  for (; done < blocks; ++done) {
    const BitReader start = bits;
    if (!read_block(bits, read[done & 1])) [[unlikely]] {
      bits = start;
      break;
    }
    if (done != 0) make_pixels(read[(done - 1) & 1], pixels + 32 * (done - 1), last);
  }
  if (done != 0) make_pixels(read[(done - 1) & 1], pixels + 32 * (done - 1), last);
  *reader = bits;
  *before = static_cast<std::uint32_t>(_mm256_cvtsi256_si32(last));
  return done;
}

}  // namespace raftwright::rice_detail
