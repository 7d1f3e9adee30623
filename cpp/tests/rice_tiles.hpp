// Tiles that are hard on a Rice coder, and an encoder written from the format's definition alone.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace rice_tests {

/// What to put in a tile.
enum class Content {
  constant,
  alternating,
  extremes,
  any_bits,
  noise,
  one_hot,
  steps,
  ramp,
  mixed_blocks,
  stars,
};
constexpr int kContents = 10;

/// One tile of `count` pixels. Everything is drawn from `random`; values wrap at the pixel's width.
template <class Pixel>
std::vector<Pixel> tile(Content content, std::size_t count, std::mt19937_64& random) {
  using Limits = std::numeric_limits<Pixel>;
  const auto below = [&](std::uint64_t n) { return random() % n; };
  const auto wrapped = [](double value) {
    return static_cast<Pixel>(static_cast<std::make_unsigned_t<Pixel>>(static_cast<std::int64_t>(value)));
  };
  const auto base = static_cast<double>(static_cast<Pixel>(random()));
  const double level = std::exp2(static_cast<double>(below(8 * sizeof(Pixel) * 4)) / 4);
  std::normal_distribution<double> normal(0, 1);
  std::vector<Pixel> pixels(count, wrapped(base));
  switch (content) {
    case Content::constant:
      break;
    case Content::alternating:
      for (std::size_t i = 0; i < count; ++i) pixels[i] = wrapped(base + (i % 2 == 0 ? level : -level));
      break;
    case Content::extremes:
      for (Pixel& pixel : pixels) pixel = below(2) == 0 ? Limits::min() : Limits::max();
      break;
    case Content::any_bits:
      for (Pixel& pixel : pixels) pixel = static_cast<Pixel>(random());
      break;
    case Content::noise:
      for (Pixel& pixel : pixels) pixel = wrapped(base + level * normal(random));
      break;
    case Content::one_hot:
      if (below(2) == 0) {
        for (Pixel& pixel : pixels) pixel = wrapped(base + 3 * normal(random));
      }
      if (count != 0) pixels[below(count)] = wrapped(base + level);
      break;
    case Content::steps:
      for (std::size_t i = 1; i < count; ++i) {
        pixels[i] = below(20) == 0 ? wrapped(static_cast<double>(pixels[i - 1]) + level) : pixels[i - 1];
      }
      break;
    case Content::ramp:
      for (std::size_t i = 0; i < count; ++i) pixels[i] = wrapped(base + level * static_cast<double>(i));
      break;
    case Content::mixed_blocks: {
      double sigma = 0;
      for (std::size_t i = 0; i < count; ++i) {
        if (i % 32 == 0) sigma = below(4) == 0 ? 0 : std::exp2(static_cast<double>(below(8 * sizeof(Pixel))));
        pixels[i] = wrapped(base + sigma * normal(random));
      }
      break;
    }
    case Content::stars:
      for (Pixel& pixel : pixels) pixel = wrapped(base + 5 * normal(random));
      for (std::size_t star = 0; star < count / 100 + 1; ++star) {
        const auto centre = static_cast<double>(below(count + 1));
        for (std::size_t i = 0; i < count; ++i) {
          const double distance = (static_cast<double>(i) - centre) / 2.5;
          if (std::abs(distance) < 6) {
            pixels[i] = wrapped(static_cast<double>(pixels[i]) + level * std::exp(-distance * distance / 2));
          }
        }
      }
      break;
  }
  return pixels;
}

/// Widths that the format depends on, written out once more.
template <class Pixel>
struct Widths;
template <>
struct Widths<std::int32_t> {
  static constexpr int id = 5, raw = 32, raw_id = 26;
};
template <>
struct Widths<std::int16_t> {
  static constexpr int id = 4, raw = 16, raw_id = 15;
};
template <>
struct Widths<std::int8_t> {
  static constexpr int id = 3, raw = 8, raw_id = 7;
};

/// A stream of bits as text, "0" and "1".
class Bits {
 public:
  void put(std::uint64_t value, int width) {
    for (int bit = width - 1; bit >= 0; --bit) text_ += ((value >> bit) & 1) != 0 ? '1' : '0';
  }
  void put_code(std::uint64_t value, int low_bits) {
    text_ += std::string(value >> low_bits, '0') + '1';
    put(value, low_bits);
  }
  [[nodiscard]] std::vector<std::uint8_t> bytes() const {
    std::vector<std::uint8_t> bytes((text_.size() + 7) / 8);
    for (std::size_t i = 0; i < text_.size(); ++i) {
      if (text_[i] == '1') bytes[i / 8] = static_cast<std::uint8_t>(bytes[i / 8] | (0x80 >> i % 8));
    }
    return bytes;
  }

 private:
  std::string text_;
};

/// Encodes by the letter of the standard, in text and floating point. With `forced` every block has that
/// id, as a foreign encoder might choose it, instead of the best.
template <class Pixel>
std::vector<std::uint8_t> encode_by_the_book(std::span<const Pixel> pixels, std::size_t block,
                                             std::optional<int> forced = std::nullopt) {
  using W = Widths<Pixel>;
  if (pixels.empty()) return {};
  constexpr std::uint64_t kMask = (std::uint64_t{1} << W::raw) - 1;
  std::vector<std::uint64_t> folded;
  std::int64_t before = pixels[0];
  for (const Pixel pixel : pixels) {
    const std::int64_t wide = std::int64_t{pixel} - before;
    before = pixel;
    const auto difference = static_cast<std::int64_t>(static_cast<Pixel>(
        static_cast<std::make_unsigned_t<Pixel>>(static_cast<std::uint64_t>(wide) & kMask)));
    folded.push_back(difference >= 0 ? 2 * static_cast<std::uint64_t>(difference)
                                     : 2 * static_cast<std::uint64_t>(-(difference + 1)) + 1);
  }
  Bits bits;
  bits.put(static_cast<std::uint64_t>(static_cast<std::int64_t>(pixels[0])) & kMask, W::raw);
  for (std::size_t start = 0; start < pixels.size(); start += block) {
    const std::size_t count = std::min(block, pixels.size() - start);
    const std::span<const std::uint64_t> codes(folded.data() + start, count);
    double sum = 0;
    for (const std::uint64_t code : codes) sum += static_cast<double>(code);
    const auto size = static_cast<double>(count);
    const double mean = std::max(0.0, (sum - std::floor(size / 2) - 1) / size);
    int low_bits = 0;
    for (double half = std::floor(std::floor(mean) / 2); half >= 1; half = std::floor(half / 2)) ++low_bits;
    const int id = forced ? *forced : sum == 0 ? 0 : std::min(low_bits + 1, W::raw_id);
    bits.put(static_cast<std::uint64_t>(id), W::id);
    if (id == 0) continue;
    for (const std::uint64_t code : codes) {
      if (id == W::raw_id) {
        bits.put(code, W::raw);
      } else {
        bits.put_code(code, id - 1);
      }
    }
  }
  return bits.bytes();
}

}  // namespace rice_tests
