#include <algorithm>

#include "raftwright/rice.hpp"
#include "rice_format.hpp"
#include "simd/rice_bits.hpp"
#include "simd/rice_kernels.hpp"

namespace raftwright {

namespace {

using namespace rice_detail;

/// Takes `bits` <= 32 bits; false if the stream ends first.
bool take(BitReader& reader, unsigned bits, std::uint32_t& value) {
  refill(reader);
  if (reader.have < bits) return false;
  value = static_cast<std::uint32_t>(reader.next >> (64 - bits));
  drop(reader, bits);
  return true;
}

/// The zig-zag code's difference, modulo 2^32.
std::uint32_t difference(std::uint32_t zigzag) { return (zigzag >> 1) ^ (0U - (zigzag & 1)); }

/// A tile's pixels, made from zig-zag codes. Sums wrap at 32 bits, and at the pixel's width when stored.
template <class Pixel>
class Pixels {
 public:
  Pixels(std::span<Pixel> out, std::uint32_t before) : at_(out.data()), left_(out.size()), before_(before) {}

  [[nodiscard]] std::size_t left() const { return left_; }

  /// Appends `count` pixels; their zig-zag codes are `values` minus `excess`, and are overwritten.
  void add(std::uint32_t* values, std::size_t count, std::uint32_t excess) {
    for (std::size_t i = 0; i < count; ++i) values[i] = difference(values[i] - excess);
    std::uint32_t before = before_;
    for (std::size_t i = 0; i < count; ++i) {
      before += values[i];
      at_[i] = static_cast<Pixel>(before);
    }
    before_ = before;
    at_ += count;
    left_ -= count;
  }
  void repeat(std::size_t count) {
    std::fill_n(at_, count, static_cast<Pixel>(before_));
    at_ += count;
    left_ -= count;
  }

 private:
  Pixel* at_;
  std::size_t left_;
  std::uint32_t before_;
};

template <class Pixel>
RiceStatus decode_block(BitReader& reader, Pixels<Pixel>& pixels, std::size_t count) {
  using Fmt = RiceFormat<Pixel>;
  std::uint32_t id = 0;
  if (!take(reader, Fmt::id_bits, id)) return RiceStatus::truncated;
  if (id > Fmt::raw_shift + 1) return RiceStatus::bad_block;
  if (id == 0) {
    pixels.repeat(count);
    return RiceStatus::ok;
  }
  const bool raw = id == Fmt::raw_shift + 1;
  const std::uint32_t shift = id - 1;
  constexpr std::size_t kPiece = 32;
  std::uint32_t values[kPiece];
  refill(reader);
  while (count != 0) {
    const std::size_t some = std::min(kPiece, count);
    bool good = true;
    if (raw) {
      for (std::size_t i = 0; i < some && good; ++i) good = take(reader, Fmt::raw_bits, values[i]);
    } else if (shift < kPairShift) {
      good = read_codes<4>(reader, shift, some, values);
    } else {
      good = read_codes<2>(reader, shift, some, values);
    }
    if (!good) return RiceStatus::truncated;
    pixels.add(values, some, raw ? 0 : 1U << shift);
    count -= some;
  }
  return RiceStatus::ok;
}

template <class Pixel>
RiceStatus decode_rest(BitReader reader, std::span<Pixel> out, std::uint32_t before, std::size_t block) {
  Pixels<Pixel> pixels(out, before);
  while (pixels.left() != 0) {
    const RiceStatus status = decode_block(reader, pixels, std::min(block, pixels.left()));
    if (status != RiceStatus::ok) return status;
  }
  const bool whole_byte_left = reader.have >= 8 || reader.at != reader.stop;
  return whole_byte_left ? RiceStatus::unused_bytes : RiceStatus::ok;
}

template <class Pixel>
RiceStatus decode_tile(std::span<const std::uint8_t> code, std::span<Pixel> pixels, std::size_t block,
                       [[maybe_unused]] bool kernel) {
  if (block == 0) return RiceStatus::bad_block;
  if (pixels.empty()) return code.empty() ? RiceStatus::ok : RiceStatus::unused_bytes;
  BitReader reader{code.data(), code.data() + code.size(), 0, 0};
  std::uint32_t before = 0;
  if (!take(reader, RiceFormat<Pixel>::raw_bits, before)) return RiceStatus::truncated;
  std::size_t done = 0;
#if defined(RAFTWRIGHT_X86_64)
  if constexpr (sizeof(Pixel) == 4) {
    if (kernel && block == kKernelBlock) {
      done = kKernelBlock * decode_blocks_avx2(&reader, pixels.data(), pixels.size() / kKernelBlock, &before);
    }
  }
#endif
  // What the kernel left: the rest of a whole tile, or the block that is wrong, to say how.
  return decode_rest(reader, pixels.subspan(done), before, block);
}

}  // namespace

const char* rice_status_text(RiceStatus status) noexcept {
  switch (status) {
    case RiceStatus::ok:
      return "complete";
    case RiceStatus::truncated:
      return "the code ends before the last pixel";
    case RiceStatus::bad_block:
      return "a block begins with an id that RICE_1 does not have";
    case RiceStatus::unused_bytes:
      return "bytes are left over after the last pixel";
  }
  return "unknown";
}

RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int32_t> pixels, unsigned block,
                       Level level) noexcept {
  return decode_tile(code, pixels, block, has_rice_kernel(level));
}

RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int16_t> pixels,
                       unsigned block) noexcept {
  return decode_tile(code, pixels, block, false);
}

RiceStatus rice_decode(std::span<const std::uint8_t> code, std::span<std::int8_t> pixels,
                       unsigned block) noexcept {
  return decode_tile(code, pixels, block, false);
}

}  // namespace raftwright
