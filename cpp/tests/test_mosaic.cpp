#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "doctest.h"
#include "raftwright/error.hpp"
#include "raftwright/mosaic.hpp"

namespace {

using raftwright::paint_mosaic;
using raftwright::Placement;
using raftwright::UsageError;
using Image = std::vector<std::int32_t>;

constexpr std::int32_t kMissing = -1;
constexpr std::int32_t kFill = 77;

/// Unbinned mosaic position of pixel (i, j) of a placement's rectangle: flips, then turns, one at a time.
std::pair<std::ptrdiff_t, std::ptrdiff_t> position(const Placement& p, std::size_t i, std::size_t j) {
  auto x = static_cast<std::ptrdiff_t>(p.flip_x ? p.nx - 1 - i : i);
  auto y = static_cast<std::ptrdiff_t>(p.flip_y ? p.ny - 1 - j : j);
  auto width = static_cast<std::ptrdiff_t>(p.nx);
  auto height = static_cast<std::ptrdiff_t>(p.ny);
  for (unsigned turn = 0; turn < p.quarter_turns; ++turn) {
    // Counter-clockwise with y upwards: the x axis becomes the y axis.
    const std::ptrdiff_t turned_x = height - 1 - y;
    y = x;
    x = turned_x;
    std::swap(width, height);
  }
  return {p.out_x + x, p.out_y + y};
}

std::int64_t rounded(std::int64_t sum, std::int64_t count) {
  const std::int64_t size = sum < 0 ? -sum : sum;
  const std::int64_t mean = (2 * size + count) / (2 * count);
  return sum < 0 ? -mean : mean;
}

/// The documentation of paint_mosaic, pixel by pixel.
Image naive(const std::vector<Placement>& placements, unsigned bin, std::size_t width, std::size_t height) {
  struct Cell {
    std::int64_t sum = 0;
    std::int64_t count = 0;
    std::int32_t last = kFill;
  };
  std::vector<Cell> cells(width * height);
  for (const Placement& p : placements) {
    for (std::size_t j = 0; j < p.ny; ++j) {
      for (std::size_t i = 0; i < p.nx; ++i) {
        const auto [x, y] = position(p, i, j);
        if (x < 0 || y < 0) continue;
        const std::size_t column = static_cast<std::size_t>(x) / bin;
        const std::size_t row = static_cast<std::size_t>(y) / bin;
        if (column >= width || row >= height) continue;
        const std::int32_t value = p.pixels[(p.y0 + j) * p.width + p.x0 + i];
        Cell& cell = cells[row * width + column];
        cell.last = value;
        if (value == kMissing) continue;
        cell.sum += value;
        ++cell.count;
      }
    }
  }
  Image out(width * height);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Cell& cell = cells[i];
    if (bin == 1) {
      out[i] = cell.last;
    } else {
      out[i] = cell.count == 0 ? kFill : static_cast<std::int32_t>(rounded(cell.sum, cell.count));
    }
  }
  return out;
}

Image paint(const std::vector<Placement>& placements, unsigned bin, std::size_t width, std::size_t height,
            unsigned threads = 1) {
  Image out(width * height, 123456789);
  paint_mosaic(placements, bin, kMissing, kFill, out.data(), width, height, threads);
  return out;
}

Image noise(std::size_t count, std::mt19937& random, int missing_percent = 5) {
  Image pixels(count);
  for (auto& pixel : pixels) {
    const bool missing = static_cast<int>(random() % 100) < missing_percent;
    pixel = missing ? kMissing : static_cast<std::int32_t>(random() % 262144) - 1000;
  }
  return pixels;
}

Placement whole(const Image& pixels, std::size_t width) {
  Placement p;
  p.pixels = pixels.data();
  p.width = width;
  p.height = pixels.size() / width;
  p.nx = p.width;
  p.ny = p.height;
  return p;
}

}  // namespace

TEST_CASE("a mosaic turns counter-clockwise after the flips, row 0 at the bottom") {
  const Image pixels = {1, 2, 3,  //
                        4, 5, 6};
  Placement p = whole(pixels, 3);
  CHECK(paint({p}, 1, 3, 2) == pixels);
  p.quarter_turns = 1;
  CHECK(paint({p}, 1, 2, 3) == Image{4, 1, 5, 2, 6, 3});
  p.quarter_turns = 2;
  CHECK(paint({p}, 1, 3, 2) == Image{6, 5, 4, 3, 2, 1});
  p.quarter_turns = 3;
  CHECK(paint({p}, 1, 2, 3) == Image{3, 6, 2, 5, 1, 4});
  p.quarter_turns = 1;
  p.flip_x = true;
  CHECK(paint({p}, 1, 2, 3) == Image{6, 3, 5, 2, 4, 1});
  p.flip_x = false;
  p.flip_y = true;
  CHECK(paint({p}, 1, 2, 3) == Image{1, 4, 2, 5, 3, 6});
}

TEST_CASE("a mosaic equals the naive one for every flip, turn, bin and cut") {
  std::mt19937 random(1);
  const Image pixels = noise(71 * 53, random);
  for (const unsigned bin : {1U, 2U, 3U, 5U, 8U, 64U, 100U}) {
    for (unsigned turns = 0; turns < 4; ++turns) {
      for (int flips = 0; flips < 4; ++flips) {
        // Inside, and cut at each border and at all of them.
        for (const auto& [x, y] : {std::pair{3, 5}, {-9, 5}, {3, -7}, {40, 5}, {3, 38}, {-9, -7}, {40, 38}}) {
          Placement p = whole(pixels, 71);
          p.x0 = 3;
          p.nx = 64;
          p.y0 = 2;
          p.ny = 47;
          p.flip_x = flips % 2 != 0;
          p.flip_y = flips / 2 != 0;
          p.quarter_turns = turns;
          p.out_x = x;
          p.out_y = y;
          const std::size_t width = (75 + bin - 1) / bin;
          const std::size_t height = (72 + bin - 1) / bin;
          CAPTURE(bin);
          CAPTURE(turns);
          CAPTURE(flips);
          CAPTURE(x);
          CAPTURE(y);
          REQUIRE(paint({p}, bin, width, height) == naive({p}, bin, width, height));
        }
      }
    }
  }
}

TEST_CASE("placements that overlap and leave gaps, in any number, by any number of threads") {
  std::mt19937 random(2);
  for (int round = 0; round < 150; ++round) {
    std::vector<Image> planes;
    for (int k = 0; k < 4; ++k) planes.push_back(noise(40 * 30, random, round % 3 == 0 ? 0 : 20));
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    std::vector<Placement> placements(below(9));
    for (Placement& p : placements) {
      p = whole(planes[below(4)], 40);
      p.x0 = below(41);
      p.nx = below(41 - p.x0 + 1);
      p.nx = std::min(p.nx, p.width - p.x0);
      p.y0 = below(31);
      p.ny = below(31 - p.y0 + 1);
      p.ny = std::min(p.ny, p.height - p.y0);
      p.flip_x = below(2) != 0;
      p.flip_y = below(2) != 0;
      p.quarter_turns = static_cast<unsigned>(below(4));
      p.out_x = static_cast<std::ptrdiff_t>(below(150)) - 40;
      p.out_y = static_cast<std::ptrdiff_t>(below(240)) - 40;
    }
    const auto bin = static_cast<unsigned>(1 + below(9));
    const std::size_t width = 1 + below(110) / bin;
    const std::size_t height = 1 + below(200) / bin;
    CAPTURE(round);
    const Image expected = naive(placements, bin, width, height);
    REQUIRE(paint(placements, bin, width, height, 1) == expected);
    REQUIRE(paint(placements, bin, width, height, 3) == expected);
    REQUIRE(paint(placements, bin, width, height, 0) == expected);
  }
}

TEST_CASE("a mosaic larger than the caches is copied exactly") {
  // Past the size from which output is streamed around the caches, with rows that start anywhere in a line.
  std::mt19937 random(3);
  const Image pixels = noise(576 * 260, random);
  std::vector<Placement> placements;
  for (std::ptrdiff_t k = 0; k < 34; ++k) {
    Placement p = whole(pixels, 576);
    p.x0 = 3;
    p.nx = 509 - static_cast<std::size_t>(k % 5);
    p.flip_x = k % 2 != 0;
    p.flip_y = k % 3 != 0;
    p.out_x = k % 4 * 509 - 7;
    p.out_y = k / 4 * 251;
    placements.push_back(p);
  }
  const std::size_t width = 2047;
  const std::size_t height = 2100;
  const Image expected = naive(placements, 1, width, height);
  CHECK(paint(placements, 1, width, height, 2) == expected);
  // The same where the output is not aligned to a cache line.
  Image shifted(width * height + 1, 5);
  paint_mosaic(placements, 1, kMissing, kFill, shifted.data() + 1, width, height, 1);
  CHECK(shifted.front() == 5);
  CHECK(std::equal(expected.begin(), expected.end(), shifted.begin() + 1));
}

TEST_CASE("means are exact, rounded half away from zero, whatever the values") {
  const auto mean = [](Image pixels) {
    const Placement p = whole(pixels, 2);
    return paint({p}, 2, 1, 1).front();
  };
  CHECK(mean({1, 2, 1, 2}) == 2);
  CHECK(mean({-2, -3, -2, -3}) == -3);
  CHECK(mean({0, 0, 0, 1}) == 0);
  CHECK(mean({0, 0, 1, 1}) == 1);
  CHECK(mean({0, 0, -3, -3}) == -2);
  CHECK(mean({kMissing, 10, kMissing, 11}) == 11);
  CHECK(mean({kMissing, kMissing, kMissing, 4}) == 4);
  CHECK(mean({kMissing, kMissing, kMissing, kMissing}) == kFill);
  constexpr std::int32_t high = std::numeric_limits<std::int32_t>::max();
  constexpr std::int32_t low = std::numeric_limits<std::int32_t>::min();
  CHECK(mean({high, high, high, high}) == high);
  CHECK(mean({low, low, low, low}) == low);
  CHECK(mean({high, low, high, low}) == -1);          // -0.5
  CHECK(mean({high, high, high, high - 2}) == high);  // half below it
  CHECK(mean({high, high, high, high - 3}) == high - 1);

  std::mt19937 random(4);
  Image any(64 * 64);
  for (auto& pixel : any) pixel = static_cast<std::int32_t>(random());
  for (const unsigned bin : {2U, 7U, 32U, 4096U}) {
    const Placement p = whole(any, 64);
    CHECK(paint({p}, bin, 64 / bin + 1, 64 / bin + 1) == naive({p}, bin, 64 / bin + 1, 64 / bin + 1));
  }
}

TEST_CASE("what cannot be meant is refused, what cannot be seen is left out") {
  const Image pixels(12, 9);
  Placement p = whole(pixels, 4);
  Image out(16);
  const auto paint_with = [&](const Placement& placement, unsigned bin = 1) {
    paint_mosaic({&placement, 1}, bin, kMissing, kFill, out.data(), 4, 4, 1);
  };
  const auto with = [&](auto change) {
    Placement changed = p;
    change(changed);
    return changed;
  };
  constexpr std::size_t huge = std::numeric_limits<std::size_t>::max();
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.x0 = 1; })), UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.x0 = 5, q.nx = huge; })), UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.y0 = huge; })), UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.ny = 4; })), UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.width = q.nx = q.height = q.ny = huge; })),
                  UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.quarter_turns = 4; })), UsageError);
  CHECK_THROWS_AS(paint_with(with([](Placement& q) { q.pixels = nullptr; })), UsageError);
  CHECK_THROWS_AS(paint_with(p, 0), UsageError);
  CHECK_THROWS_AS(paint_with(p, raftwright::kMostBin + 1), UsageError);
  CHECK_THROWS_AS(paint_mosaic({&p, 1}, 1, 0, 0, nullptr, 4, 4, 1), UsageError);
  CHECK_THROWS_AS(paint_mosaic({&p, 1}, 1, 0, 0, out.data(), huge, 4, 1), UsageError);
  CHECK_THROWS_WITH_AS(
      paint_with(with([](Placement& q) { q.y0 = 3; })),
      "placement 0 of the mosaic takes columns from 0, 4 of them, and rows from 3, 3 of them, "
      "of a plane of only 4 x 3 (columns x rows)",
      UsageError);

  constexpr std::ptrdiff_t most = std::numeric_limits<std::ptrdiff_t>::max();
  for (const std::ptrdiff_t far :
       {most, -most - 1, most / 2, -most / 2, std::ptrdiff_t{4}, std::ptrdiff_t{-4}}) {
    std::fill(out.begin(), out.end(), 1);
    paint_with(with([&](Placement& q) { q.out_x = far; }));
    CHECK(out == Image(16, kFill));
    paint_with(with([&](Placement& q) { q.out_y = far, q.quarter_turns = 1; }));
    CHECK(out == Image(16, kFill));
  }
  paint_with(with([](Placement& q) { q.nx = 0, q.pixels = nullptr; }));
  CHECK(out == Image(16, kFill));
  paint_mosaic({&p, 1}, 3, 0, 0, nullptr, 0, 9, 1);  // nothing to paint
  paint_mosaic({}, 1, 0, 3, out.data(), 4, 4, 1);
  CHECK(out == Image(16, 3));
}
