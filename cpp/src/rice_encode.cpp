#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <type_traits>

#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"
#include "rice_format.hpp"
#include "simd/rice_bits.hpp"
#include "simd/rice_kernels.hpp"

namespace raftwright {

namespace {

void check_room(std::size_t pixels, unsigned bytes_per_pixel, unsigned block, std::size_t room) {
  if (block == 0) throw UsageError("a RICE_1 block cannot have 0 pixels; use 32");
  const std::size_t bound = rice_bound(pixels, bytes_per_pixel, block);
  if (room < bound) {
    throw UsageError("room for a RICE_1 tile of " + std::to_string(pixels) + " pixels is " +
                     std::to_string(room) + " bytes; give rice_bound() = " + std::to_string(bound));
  }
}

/// The number of low bits for a block of `count` pixels whose zig-zag codes add up to `sum`.
unsigned shift_of(std::uint64_t sum, std::uint64_t count) {
  const std::uint64_t rounding = count / 2 + 1;
  if (sum < rounding) return 0;
  return static_cast<unsigned>(std::bit_width((sum - rounding) / count / 2));
}

/// Bits into bytes, one at a time.
class PlainWriter {
 public:
  explicit PlainWriter(std::uint8_t* out) : out_(out) {}

  void put(std::uint64_t value, unsigned bits) {
    while (bits-- != 0) put_bit((value >> bits) & 1);
  }
  void put_zeros(std::uint64_t count) {
    while (count-- != 0) put_bit(0);
  }
  [[nodiscard]] std::size_t bytes() const { return (bits_ + 7) / 8; }

 private:
  void put_bit(std::uint64_t bit) {
    std::uint8_t& byte = out_[bits_ / 8];
    if (bits_ % 8 == 0) byte = 0;
    byte = static_cast<std::uint8_t>(byte | (bit << (7 - bits_ % 8)));
    ++bits_;
  }

  std::uint8_t* out_;
  std::size_t bits_ = 0;
};

template <class Pixel>
std::size_t encode_plainly(std::span<const Pixel> pixels, std::span<std::uint8_t> out, unsigned block) {
  using Unsigned = std::make_unsigned_t<Pixel>;
  using Fmt = RiceFormat<Pixel>;
  check_room(pixels.size(), sizeof(Pixel), block, out.size());
  if (pixels.empty()) return 0;

  PlainWriter writer(out.data());
  writer.put(static_cast<Unsigned>(pixels[0]), Fmt::raw_bits);
  const auto zigzag = [&](std::size_t i) -> Unsigned {
    const auto now = static_cast<Unsigned>(pixels[i]);
    const auto before = static_cast<Unsigned>(pixels[i == 0 ? 0 : i - 1]);
    const auto difference = static_cast<Unsigned>(now - before);  // wraps at the pixel's width
    const auto twice = static_cast<Unsigned>(difference << 1);
    return static_cast<Pixel>(difference) < 0 ? static_cast<Unsigned>(~twice) : twice;
  };
  for (std::size_t start = 0; start < pixels.size();) {
    const std::size_t count = std::min<std::size_t>(block, pixels.size() - start);
    std::uint64_t sum = 0;
    for (std::size_t i = start; i < start + count; ++i) sum += zigzag(i);
    const unsigned shift = shift_of(sum, count);
    if (sum == 0) {
      writer.put(0, Fmt::id_bits);
    } else if (shift >= Fmt::raw_shift) {
      writer.put(Fmt::raw_shift + 1, Fmt::id_bits);
      for (std::size_t i = start; i < start + count; ++i) writer.put(zigzag(i), Fmt::raw_bits);
    } else {
      writer.put(shift + 1, Fmt::id_bits);
      for (std::size_t i = start; i < start + count; ++i) {
        const std::uint64_t code = zigzag(i);
        writer.put_zeros(code >> shift);
        writer.put(1, 1);
        writer.put(code, shift);
      }
    }
    start += count;
  }
  return writer.bytes();
}

std::size_t encode_tile(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out, unsigned block,
                        std::uint64_t* sum, Level level) {
  using namespace rice_detail;
  check_room(pixels.size(), 4, block, out.size());
  const std::size_t size = pixels.size();
  if (size == 0) return 0;
  const std::int32_t* from = pixels.data();

  BitWriter writer{out.data(), static_cast<std::uint32_t>(from[0]), 32 + 7};
  store(writer);
  std::size_t done = 0;
#if defined(RAFTWRIGHT_X86_64)
  if (block == kKernelBlock && has_rice_kernel(level)) {
    done = size - size % kKernelBlock;
    writer = encode_blocks_avx2(writer, from, size / kKernelBlock, sum);
  }
#else
  static_cast<void>(level);
#endif
  if (sum != nullptr) {
    std::uint64_t total = 0;
    for (std::size_t i = done; i < size; ++i) total += static_cast<std::uint32_t>(from[i]);
    *sum += total;
  }
  while (done < size) {
    const std::size_t count = std::min<std::size_t>(block, size - done);
    encode_block(writer, from + done, count, done == 0);
    done += count;
  }
  return static_cast<std::size_t>(writer.end / 8);
}

}  // namespace

bool has_rice_kernel(Level level) noexcept {
#if defined(RAFTWRIGHT_X86_64)
  static const bool available = [] {
    const auto& levels = available_levels();
    return std::find(levels.begin(), levels.end(), Level::avx2) != levels.end();
  }();
  return available && level == Level::avx2;
#else
  static_cast<void>(level);
  return false;
#endif
}

namespace rice_detail {

namespace {

constexpr std::size_t kPiece = 32;  // zig-zag codes held at a time, whatever the block

/// The zig-zag codes of up to kPiece pixels, and what their block needs to know of them.
struct Piece {
  std::uint32_t zigzags[kPiece];
  std::uint64_t sum = 0;
  std::uint32_t any = 0;  // as long as the longest

  /// At the start of a tile stands no pixel in front of the first, and its code is 0.
  RAFTWRIGHT_INLINE void fill(const std::int32_t* pixels, std::size_t count, bool tile_start) {
    zigzags[0] = 0;
    for (std::size_t i = tile_start ? 1 : 0; i < count; ++i) {
      zigzags[i] = zigzag(static_cast<std::uint32_t>(pixels[i]), static_cast<std::uint32_t>(pixels[i - 1]));
    }
    for (std::size_t i = 0; i < count; ++i) {
      sum += zigzags[i];
      any |= zigzags[i];
    }
  }
};

/// Appends codes of at most kStoreBits / kStep bits, one store for kStep of them.
template <std::size_t kStep>
RAFTWRIGHT_INLINE void write_short_codes(BitWriter& writer, const Piece& piece, std::size_t count,
                                         unsigned shift) {
  const std::uint32_t one = 1U << shift;
  const auto push_code = [&](std::uint32_t z) {
    push(writer, one | (z & (one - 1)), (z >> shift) + shift + 1);
  };
  std::size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    for (std::size_t k = i; k < i + kStep; ++k) push_code(piece.zigzags[k]);
    store(writer);
  }
  for (; i < count; ++i) push_code(piece.zigzags[i]);
  store(writer);
}

/// Appends codes of any length.
void write_long_codes(BitWriter& writer, const Piece& piece, std::size_t count, unsigned shift) {
  const std::uint32_t one = 1U << shift;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::uint32_t zeros = piece.zigzags[i] >> shift; zeros != 0;) {
      const std::uint32_t some = std::min<std::uint32_t>(zeros, 32);
      push(writer, 0, some);
      store(writer);
      zeros -= some;
    }
    push(writer, one | (piece.zigzags[i] & (one - 1)), shift + 1);
    store(writer);
  }
}

/// encode_block, made once for whole blocks of the usual size and once for all others.
RAFTWRIGHT_INLINE void encode_pixels(BitWriter& writer, const std::int32_t* pixels, std::size_t count,
                                     bool tile_start) {
  Piece piece;
  for (std::size_t start = 0; start < count; start += kPiece) {
    piece.fill(pixels + start, std::min(kPiece, count - start), tile_start && start == 0);
  }
  const std::uint64_t sum = piece.sum;
  const unsigned shift = shift_of(sum, count);
  const unsigned id = sum == 0 ? 0 : std::min(shift, kRawShift) + 1;
  push(writer, id, kIdBits);
  store(writer);
  if (id == 0) return;

  const std::uint64_t longest = std::uint64_t{piece.any >> shift} + shift + 1;
  for (std::size_t start = 0; start < count; start += kPiece) {
    const std::size_t some = std::min(kPiece, count - start);
    if (count > kPiece) piece.fill(pixels + start, some, tile_start && start == 0);
    if (shift >= kRawShift) {
      for (std::size_t i = 0; i < some; ++i) {
        push(writer, piece.zigzags[i], 32);
        store(writer);
      }
    } else if (longest <= kStoreBits / 4) {
      write_short_codes<4>(writer, piece, some, shift);
    } else if (longest <= kStoreBits / 2) {
      write_short_codes<2>(writer, piece, some, shift);
    } else {
      write_long_codes(writer, piece, some, shift);
    }
  }
}

}  // namespace

void encode_block(BitWriter& writer, const std::int32_t* pixels, std::size_t count, bool tile_start) {
  BitWriter local = writer;  // in registers: bytes stored through a pointer could change `writer`
  if (count == kKernelBlock) {
    encode_pixels(local, pixels, kKernelBlock, tile_start);
  } else {
    encode_pixels(local, pixels, count, tile_start);
  }
  // One by one: the next call loads them one by one, and wide loads of narrow stores are slow.
  writer.last = local.last;
  writer.end = local.end;
}

}  // namespace rice_detail

std::size_t rice_bound(std::size_t pixels, unsigned bytes_per_pixel, unsigned block) noexcept {
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  constexpr std::size_t kSlack = 8;
  if (block == 0 || pixels > kMost / 64) return kMost;
  const std::size_t blocks = pixels / block + (pixels % block != 0 ? 1 : 0);
  const std::size_t id_bits = bytes_per_pixel == 4 ? 5 : bytes_per_pixel == 2 ? 4 : 3;
  // With the longest shift a block of n narrow pixels can take n >> (shift + 1) bits more than raw.
  const std::size_t excess = bytes_per_pixel == 4 ? 0 : bytes_per_pixel == 2 ? pixels >> 14 : pixels >> 6;
  return bytes_per_pixel * (pixels + 1) + (id_bits * blocks + excess + 7) / 8 + kSlack;
}

std::size_t rice_encode(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out, unsigned block,
                        Level level) {
  return encode_tile(pixels, out, block, nullptr, level);
}

std::size_t rice_encode_summed(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                               std::uint64_t* sum, Level level) {
  return encode_tile(pixels, out, static_cast<unsigned>(rice_detail::kKernelBlock), sum, level);
}

std::size_t rice_encode_reference(std::span<const std::int32_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block) {
  return encode_plainly(pixels, out, block);
}

std::size_t rice_encode_reference(std::span<const std::int16_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block) {
  return encode_plainly(pixels, out, block);
}

std::size_t rice_encode_reference(std::span<const std::int8_t> pixels, std::span<std::uint8_t> out,
                                  unsigned block) {
  return encode_plainly(pixels, out, block);
}

}  // namespace raftwright
