// RICE_1 on rows as a camera reads them, beside cfitsio's own coder. Every code is compared with cfitsio's,
// and every decoded row with the pixels, in the run that is timed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "bench.hpp"
#include "raftwright/cpu.hpp"
#include "raftwright/rice.hpp"

#if defined(RAFTWRIGHT_HAVE_CFITSIO)
// Exported by every libcfitsio, declared in no public header.
extern "C" int fits_rcomp(int pixels[], int count, unsigned char* code, int room, int block);
extern "C" int fits_rdecomp(unsigned char* code, int length, unsigned int pixels[], int count, int block);
#endif

namespace {

using namespace raftwright;

constexpr std::size_t kWidth = 576;
constexpr std::size_t kRows = 512;  // 1.2 MB of pixels: read from L2 and L3, as after unpacking

/// Rows of pixels, and their code with the start of each row's.
struct Image {
  std::vector<std::int32_t> pixels = std::vector<std::int32_t>(kWidth * kRows);
  std::vector<std::uint8_t> code = std::vector<std::uint8_t>(kRows * rice_bound(kWidth));
  std::vector<std::size_t> starts = std::vector<std::size_t>(kRows + 1);

  [[nodiscard]] std::span<const std::int32_t> row(std::size_t y) const {
    return std::span(pixels).subspan(y * kWidth, kWidth);
  }
  [[nodiscard]] std::span<const std::uint8_t> code_of(std::size_t y) const {
    return std::span(code).subspan(starts[y], starts[y + 1] - starts[y]);
  }
};

Image noise(double sigma) {
  Image image;
  std::mt19937 random(1);
  std::normal_distribution<double> normal(25000, sigma);
  for (std::int32_t& pixel : image.pixels) pixel = static_cast<std::int32_t>(std::lround(normal(random)));
  return image;
}

/// Sky with stars of every brightness up to saturation.
Image stars() {
  Image image = noise(8);
  std::mt19937 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int star = 0; star < 60; ++star) {
    const double x = uniform(random) * kWidth;
    const double y = uniform(random) * kRows;
    const double peak = std::pow(10, 2 + 3 * uniform(random));
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
      const double dx = static_cast<double>(i % kWidth) - x;
      const double dy = static_cast<double>(i / kWidth) - y;
      const double flux = peak * std::exp(-(dx * dx + dy * dy) / 12.5);
      if (flux > 0.5)
        image.pixels[i] += static_cast<std::int32_t>(flux + std::sqrt(flux) * (uniform(random) - 0.5));
    }
  }
  return image;
}

/// Noise with one hot pixel in every twentieth block.
Image hot_pixels() {
  Image image = noise(8);
  std::mt19937 random(3);
  for (std::size_t block = 0; block < image.pixels.size() / 32; block += 20) {
    image.pixels[block * 32 + random() % 32] += 100 << random() % 10;
  }
  return image;
}

using EncodeRow = std::function<std::size_t(std::span<const std::int32_t>, std::span<std::uint8_t>)>;
using DecodeRow = std::function<bool(std::span<const std::uint8_t>, std::span<std::int32_t>)>;

struct Coder {
  std::string name;
  EncodeRow encode;
  DecodeRow decode;
};

std::vector<Coder> coders() {
  std::vector<Coder> all;
#if defined(RAFTWRIGHT_HAVE_CFITSIO)
  all.push_back({"cfitsio",
                 [](std::span<const std::int32_t> row, std::span<std::uint8_t> out) {
                   return static_cast<std::size_t>(fits_rcomp(const_cast<int*>(row.data()),
                                                              static_cast<int>(row.size()), out.data(),
                                                              static_cast<int>(out.size()), 32));
                 },
                 [](std::span<const std::uint8_t> code, std::span<std::int32_t> row) {
                   return fits_rdecomp(const_cast<unsigned char*>(code.data()), static_cast<int>(code.size()),
                                       reinterpret_cast<unsigned int*>(row.data()),
                                       static_cast<int>(row.size()), 32) == 0;
                 }});
#else
  all.push_back({"reference",
                 [](std::span<const std::int32_t> row, std::span<std::uint8_t> out) {
                   return rice_encode_reference(row, out);
                 },
                 [](std::span<const std::uint8_t> code, std::span<std::int32_t> row) {
                   return rice_decode(code, row, 32, Level::scalar) == RiceStatus::ok;
                 }});
#endif
  const auto decode_at = [](Level level) {
    return [level](std::span<const std::uint8_t> code, std::span<std::int32_t> row) {
      return rice_decode(code, row, 32, level) == RiceStatus::ok;
    };
  };
  for (const Level level : available_levels()) {
    all.push_back({level_name(level),
                   [level](std::span<const std::int32_t> row, std::span<std::uint8_t> out) {
                     return rice_encode(row, out, 32, level);
                   },
                   decode_at(level)});
  }
  all.push_back({std::string(level_name(active_level())) + " with sum",
                 [](std::span<const std::int32_t> row, std::span<std::uint8_t> out) {
                   std::uint64_t sum = 0;
                   return rice_encode_summed(row, out, &sum);
                 },
                 decode_at(active_level())});
  return all;
}

void bench_image(const std::string& content, Image image) {
  const std::vector<Coder> all = coders();
  const double gigapixels = 1e-9 * static_cast<double>(kWidth * kRows);
  const std::size_t room = rice_bound(kWidth) + kWidth;  // cfitsio wants more than it uses

  const auto encode = [&](const Coder& coder, Image& to) {
    std::size_t at = 0;
    to.code.resize(kRows * room);
    for (std::size_t y = 0; y < kRows; ++y) {
      to.starts[y] = at;
      at += coder.encode(image.row(y), std::span(to.code).subspan(at, room));
    }
    to.starts[kRows] = at;
  };
  encode(all.front(), image);
  const auto same_code = [&](const Image& other) {
    return other.starts == image.starts &&
           std::equal(image.code.begin(),
                      image.code.begin() + static_cast<std::ptrdiff_t>(image.starts[kRows]),
                      other.code.begin());
  };

  std::vector<Image> made(all.size());
  std::vector<std::uint8_t> good(all.size(), 1);
  std::vector<bench::Candidate> candidates;
  for (std::size_t k = 0; k < all.size(); ++k) {
    candidates.push_back({all[k].name, [&, k] { encode(all[k], made[k]); }});
  }
  std::vector<bench::Timing> timings = bench::measure(candidates);
  for (std::size_t k = 1; k < all.size(); ++k) {
    bench::report("rice encode, " + content + ", " + all[k].name, timings[k], all[0].name, gigapixels, "Gpix",
                  same_code(made[k]));
  }

  candidates.clear();
  for (std::size_t k = 0; k + 1 < all.size(); ++k) {
    candidates.push_back(
        {all[k].name, [&, k] {
           for (std::size_t y = 0; y < kRows; ++y) {
             if (!all[k].decode(image.code_of(y), std::span(made[k].pixels).subspan(y * kWidth, kWidth))) {
               good[k] = 0;
             }
           }
         }});
  }
  timings = bench::measure(candidates);
  for (std::size_t k = 1; k < candidates.size(); ++k) {
    bench::report("rice decode, " + content + ", " + all[k].name, timings[k], all[0].name, gigapixels, "Gpix",
                  good[k] != 0 && made[k].pixels == image.pixels);
  }
}

void run() {
  for (const int sigma : {4, 8, 20, 100, 1000, 5000}) {
    bench_image("sigma " + std::to_string(sigma), noise(sigma));
  }
  bench_image("stars", stars());
  bench_image("hot pixels", hot_pixels());
}

const bench::Benchmark rice{"rice", run};

}  // namespace
