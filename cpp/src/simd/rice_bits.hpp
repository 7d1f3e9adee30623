// The bit streams of RICE_1, inline. Everything here has internal linkage, and nothing here uses a
// library template: each source gets its own copy, compiled for its own instruction set.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__LZCNT__)
#include <immintrin.h>
#endif

#include "simd/rice_kernels.hpp"

#define RAFTWRIGHT_INLINE [[gnu::always_inline]] inline

namespace raftwright::rice_detail {
namespace {

// --- writing -------------------------------------------------------------------------------------------

// New bits that one store can bring to memory; a block's id may be among them.
constexpr std::uint64_t kStoreBits = 57;

RAFTWRIGHT_INLINE void store_big_endian(std::uint8_t* to, std::uint64_t value) {
  if constexpr (std::endian::native == std::endian::little) value = __builtin_bswap64(value);
  std::memcpy(to, &value, sizeof value);
}

RAFTWRIGHT_INLINE std::uint64_t load_big_endian(const std::uint8_t* from) {
  std::uint64_t value = 0;
  std::memcpy(&value, from, sizeof value);
  if constexpr (std::endian::native == std::endian::little) value = __builtin_bswap64(value);
  return value;
}

/// Appends the low `length` <= 57 bits of `code`; its other bits must be zero.
RAFTWRIGHT_INLINE void push(BitWriter& writer, std::uint64_t code, std::uint64_t length) {
  writer.last = (writer.last << length) | code;
  writer.end += length;
}

/// Stores the 8 bytes that end with the byte of the last bit. Needs 64 bits in the stream.
RAFTWRIGHT_INLINE void store_tail(const BitWriter& writer) {
  store_big_endian(writer.out + (writer.end >> 3) - 8, writer.last << (~writer.end & 7));
}

/// As store_tail, at any length from 1 bit on.
RAFTWRIGHT_INLINE void store(const BitWriter& writer) {
  if (writer.end < 64 + 7) [[unlikely]] {
    store_big_endian(writer.out, writer.last << (64 + 7 - writer.end));
  } else {
    store_tail(writer);
  }
}

RAFTWRIGHT_INLINE std::uint32_t zigzag(std::uint32_t pixel, std::uint32_t before) {
  const std::uint32_t difference = pixel - before;
  return (difference << 1) ^ (0U - (difference >> 31));
}

// --- reading -------------------------------------------------------------------------------------------

/// Brings `have` to at least 56, or to all that is left. Reads nothing at or past `stop`.
RAFTWRIGHT_INLINE void refill(BitReader& reader) {
  if (reader.stop - reader.at >= 8) [[likely]] {
    reader.next |= load_big_endian(reader.at) >> reader.have;
    reader.at += (63 - reader.have) >> 3;
    reader.have |= 56;
    return;
  }
  while (reader.have < 56 && reader.at != reader.stop) {
    reader.next |= std::uint64_t{*reader.at++} << (56 - reader.have);
    reader.have += 8;
  }
}

RAFTWRIGHT_INLINE void drop(BitReader& reader, std::uint64_t bits) {
  reader.next <<= bits;
  reader.have -= bits;
}

/// Zero bits in front of the first one; 63 or 64 if there is no one.
RAFTWRIGHT_INLINE std::uint64_t leading_zeros(std::uint64_t word) {
#if defined(__LZCNT__)
  return _lzcnt_u64(word);
#elif defined(__aarch64__)
  return word == 0 ? 64U : static_cast<std::uint64_t>(__builtin_clzll(word));  // one instruction
#else
  return static_cast<std::uint64_t>(__builtin_clzll(word | 1));
#endif
}

/// Takes `kCount` codes of `shift` low bits from what the reader has, without a branch between them. Leaves
/// in `values` the zig-zag codes, each too large by 2^shift, the one that ends its run of zeros. Returns
/// false, and takes nothing, if the codes are longer than the bits at hand.
template <unsigned kCount>
RAFTWRIGHT_INLINE bool take_codes(BitReader& reader, std::uint32_t shift, std::uint32_t* values) {
  std::uint64_t next = reader.next;
  std::uint64_t length = kCount * (shift + 1);
#pragma GCC unroll 4
  for (unsigned k = 0; k < kCount; ++k) {
    // Shifting by the constant beside the count, not after it: two steps of latency a code, not three.
    const std::uint64_t beyond = next << (shift + 1);
    const std::uint64_t run = leading_zeros(next);
    const std::uint64_t rest = next >> ((63 - shift - run) & 63);
    values[k] = static_cast<std::uint32_t>(rest + (run << shift));
    next = beyond << (run & 63);
    length += run;
  }
  if (length > reader.have) [[unlikely]]
    return false;
  reader.next = next;
  reader.have -= length;
  return true;
}

/// Takes `count` codes of any length, as take_codes. The reader goes by value, so that the caller's can stay
/// in registers. `good` becomes false if the stream ends first.
[[gnu::noinline, gnu::cold]] BitReader take_long_codes(BitReader reader, std::uint32_t shift,
                                                       std::size_t count, std::uint32_t* values, bool& good) {
  for (std::size_t k = 0; k < count; ++k) {
    std::uint32_t zeros = 0;
    for (;;) {
      refill(reader);
      if (reader.have == 0) {
        good = false;
        return reader;
      }
      const std::uint64_t more = leading_zeros(reader.next);
      if (more < reader.have) {
        zeros += static_cast<std::uint32_t>(more);
        drop(reader, more);
        break;
      }
      zeros += static_cast<std::uint32_t>(reader.have);
      drop(reader, reader.have);
    }
    refill(reader);
    if (reader.have < shift + 1) {
      good = false;
      return reader;
    }
    values[k] = static_cast<std::uint32_t>(reader.next >> (63 - shift)) + (zeros << shift);
    drop(reader, shift + 1);
  }
  return reader;
}

// From this shift on, four codes seldom fit the bits at hand, and codes are taken in twos.
constexpr std::uint32_t kPairShift = 10;

/// Takes `count` codes of `shift` low bits, kStep at a time. The reader must be full, and is again after.
/// Returns false if the stream ends first.
template <unsigned kStep>
RAFTWRIGHT_INLINE bool read_codes(BitReader& reader, std::uint32_t shift, std::size_t count,
                                  std::uint32_t* values) {
  bool good = true;
  std::size_t i = 0;
#pragma GCC unroll 16
  for (; i + kStep <= count; i += kStep) {
    if (!take_codes<kStep>(reader, shift, values + i)) [[unlikely]] {
      reader = take_long_codes(reader, shift, kStep, values + i, good);
      if (!good) return false;
    }
    refill(reader);
  }
  if (i != count) {
    reader = take_long_codes(reader, shift, count - i, values + i, good);
    refill(reader);
  }
  return good;
}

}  // namespace
}  // namespace raftwright::rice_detail
