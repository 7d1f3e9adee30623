#include "raftwright/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <span>
#include <vector>

#include "doctest.h"
#include "raftwright/error.hpp"
#include "raftwright/unpack.hpp"

using namespace raftwright;

namespace {

// `channels` planes in reverse stream order.
StreamLayout layout_of(unsigned bits, std::size_t channels, std::uint32_t mask = 0) {
  std::vector<std::uint16_t> plane_of(channels);
  for (std::size_t p = 0; p < channels; ++p) plane_of[p] = static_cast<std::uint16_t>(channels - 1 - p);
  return {bits, mask, plane_of};
}

// Prescan of 5, overscan of 9 columns and 3 rows where there is room for them.
std::vector<SimulatedSegment> segments_of(std::size_t count, std::size_t width, std::size_t height) {
  std::vector<SimulatedSegment> segments(count);
  for (std::size_t k = 0; k < count; ++k) {
    SimulatedSegment& s = segments[k];
    s.detector = static_cast<std::uint32_t>(k / 16 + 90);
    s.segment = static_cast<std::uint32_t>(k % 16);
    s.active_x0 = std::min<std::size_t>(5, width);
    s.active_x1 = std::max(s.active_x0, width - std::min<std::size_t>(9, width));
    s.active_y1 = height - std::min<std::size_t>(3, height);
    s.sky = 500.0F;
    s.bias_slope = 0.25F;
    s.stars.push_back({20.3F, 7.6F, 30000.0F, 1.7F});
    s.stars.push_back({static_cast<float>(width) / 2.0F, static_cast<float>(height) / 2.0F, 4e5F, 2.5F});
    s.tracks.push_back({2.0F, 1.0F, static_cast<float>(width), static_cast<float>(height), 700.0F});
  }
  return segments;
}

// One plane without any noise: the light and the bias alone.
SimulatedSegment quiet(std::size_t width, std::size_t height) {
  SimulatedSegment s;
  s.bias = 1000.0F;
  s.read_noise = 0.0F;
  s.gain = 1e6F;  // so many electrons that shot noise is less than rounding
  s.active_x1 = width;
  s.active_y1 = height;
  return s;
}

SimulatedReadout one_plane(std::size_t width, std::size_t height, SimulatedSegment segment,
                           unsigned bits = 24, std::uint64_t seed = 1) {
  return {layout_of(bits, 1), width, height, Pattern::sky, seed, {std::move(segment)}};
}

std::vector<std::int32_t> plane(const SimulatedReadout& readout, std::size_t index = 0) {
  std::vector<std::int32_t> pixels(readout.width() * readout.height());
  for (std::size_t y = 0; y < readout.height(); ++y) {
    readout.row(index, y, std::span(pixels).subspan(y * readout.width(), readout.width()));
  }
  return pixels;
}

std::vector<std::uint8_t> stream(const SimulatedReadout& readout, unsigned threads = 1) {
  std::vector<std::uint8_t> bytes(readout.size());
  readout.read(0, bytes, threads);
  return bytes;
}

struct Moments {
  double mean = 0, sigma = 0, skewness = 0, kurtosis = 0;
};

Moments moments(std::span<const std::int32_t> pixels) {
  Moments m;
  const double n = static_cast<double>(pixels.size());
  for (const std::int32_t v : pixels) m.mean += v / n;
  double second = 0, third = 0, fourth = 0;
  for (const std::int32_t v : pixels) {
    const double d = v - m.mean;
    second += d * d / n;
    third += d * d * d / n;
    fourth += d * d * d * d / n;
  }
  m.sigma = std::sqrt(second);
  m.skewness = third / (second * m.sigma);
  m.kurtosis = fourth / (second * second);
  return m;
}

double correlation(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  const Moments ma = moments(a), mb = moments(b);
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - ma.mean) * (b[i] - mb.mean);
  return sum / (static_cast<double>(a.size()) * ma.sigma * mb.sigma);
}

}  // namespace

TEST_CASE("simulate: the stream unpacks to the rows") {
  struct Case {
    unsigned bits;
    std::size_t channels, width, height;
    std::uint32_t mask;
  };
  for (const Case& c : {Case{18, 48, 72, 20, 0x1FFFF}, Case{18, 32, 577, 9, 0x20000},
                        Case{18, 16, 41, 33, 0x20000}, Case{16, 8, 2101, 5, 0}, Case{12, 2, 30, 4, 0xFFF},
                        Case{32, 3, 13, 7, 0x80000000U}, Case{8, 1, 1, 1, 0}}) {
    for (const Pattern pattern : {Pattern::sky, Pattern::coordinates}) {
      CAPTURE(c.bits);
      CAPTURE(c.channels);
      const SimulatedReadout readout(layout_of(c.bits, c.channels, c.mask), c.width, c.height, pattern, 7,
                                     segments_of(c.channels, c.width, c.height));
      CHECK(readout.size() == c.width * c.height * c.channels * c.bits / 8);
      std::vector<std::vector<std::int32_t>> planes(c.channels,
                                                    std::vector<std::int32_t>(c.width * c.height));
      std::vector<std::int32_t*> pointers;
      for (auto& p : planes) pointers.push_back(p.data());
      unpack_reference(readout.layout(), stream(readout), pointers);
      for (std::size_t k = 0; k < c.channels; ++k) REQUIRE(planes[k] == plane(readout, k));
    }
  }
}

TEST_CASE("simulate: bytes do not depend on offsets, splits, order, threads or copies") {
  const std::size_t width = 300, height = 40;
  for (const Pattern pattern : {Pattern::sky, Pattern::coordinates}) {
    const SimulatedReadout readout(layout_of(18, 48, 0x1FFFF), width, height, pattern, 11,
                                   segments_of(48, width, height));
    const std::vector<std::uint8_t> whole = stream(readout);
    CHECK(stream(readout, 2) == whole);
    CHECK(stream(readout, 0) == whole);
    CHECK(stream(readout, 100) == whole);
    const SimulatedReadout copy = readout;
    CHECK(stream(copy, 3) == whole);
    // Backwards, in pieces that cut samples anywhere.
    std::vector<std::uint8_t> pieces(whole.size());
    std::size_t end = whole.size(), length = 1;
    while (end > 0) {
      length = length * 5 % 20011 + 1;
      const std::size_t count = std::min(length, end);
      readout.read(end - count, std::span(pieces).subspan(end - count, count),
                   static_cast<unsigned>(length % 3 + 1));
      end -= count;
    }
    CHECK(pieces == whole);
    // A single byte, none at all, and none at the very end.
    std::vector<std::uint8_t> one(1);
    readout.read(107, one);
    CHECK(one[0] == whole[107]);
    readout.read(0, {});
    readout.read(readout.size(), {});
  }
}

TEST_CASE("simulate: the seed, detector, segment and row each give another noise") {
  const std::size_t width = 64;
  const auto first_row = [&](std::uint64_t seed, std::uint32_t detector, std::uint32_t segment,
                             std::size_t y) {
    SimulatedSegment s = quiet(width, 4);
    s.read_noise = 100.0F;
    s.detector = detector;
    s.segment = segment;
    std::vector<std::int32_t> out(width);
    one_plane(width, 4, s, 24, seed).row(0, y, out);
    return out;
  };
  CHECK(first_row(1, 2, 3, 0) == first_row(1, 2, 3, 0));
  const std::set<std::vector<std::int32_t>> different{first_row(1, 2, 3, 0), first_row(2, 2, 3, 0),
                                                      first_row(1, 3, 3, 0), first_row(1, 2, 4, 0),
                                                      first_row(1, 3, 2, 0), first_row(1, 2, 3, 1)};
  CHECK(different.size() == 6);
}

TEST_CASE("simulate: read noise is Gaussian and independent") {
  SimulatedSegment s;
  s.bias = 25000.25F;
  s.read_noise = 8.0F;
  s.segment = 3;
  const std::size_t width = 1000, height = 1000;
  const auto pixels = plane(one_plane(width, height, s, 18 + 6));
  const Moments m = moments(pixels);
  // One million pixels: the standard errors are 0.008, 0.0057, 0.0024 and 0.0049.
  CHECK(m.mean == doctest::Approx(25000.25).epsilon(0.04 / 25000));
  CHECK(m.sigma == doctest::Approx(std::sqrt(64.0 + 1.0 / 12.0)).epsilon(0.004));
  CHECK(std::abs(m.skewness) < 0.012);
  CHECK(m.kurtosis == doctest::Approx(3.0).epsilon(0.01));
  const auto [low, high] = std::minmax_element(pixels.begin(), pixels.end());
  CHECK(*low < 25000 - 32);
  CHECK(*high > 25000 + 32);
  // Fractions beyond 1, 2 and 3 standard deviations.
  for (const auto& [limit, expected] : {std::pair{8.5, 0.2880}, {16.5, 0.03917}, {24.5, 0.002196}}) {
    const auto beyond = std::count_if(pixels.begin(), pixels.end(),
                                      [&](std::int32_t v) { return std::abs(v - 25000.25) >= limit - 0.25; });
    CHECK(static_cast<double>(beyond) / 1e6 == doctest::Approx(expected).epsilon(0.08));
  }
  // Neighbours along the row (within and across the four that share a hash) and along the column.
  const std::span all(pixels);
  for (const std::size_t lag : {1U, 2U, 3U, 4U, 5U, 1000U, 4000U}) {
    CHECK(std::abs(correlation(all.first(all.size() - lag), all.subspan(lag))) < 0.005);
  }
  s.segment = 4;
  CHECK(std::abs(correlation(pixels, plane(one_plane(width, height, s)))) < 0.005);
}

TEST_CASE("simulate: sky lies in the active area alone and has shot noise") {
  SimulatedSegment s;
  s.bias = 20000.0F;
  s.read_noise = 5.0F;
  s.sky = 3000.0F;
  s.gain = 1.5F;
  s.active_x0 = 10;
  s.active_x1 = 522;
  s.active_y1 = 500;
  const std::size_t width = 576, height = 600;
  const auto pixels = plane(one_plane(width, height, s));
  std::vector<std::int32_t> active, dark;
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < width; ++x) {
      (y < 500 && x >= 10 && x < 522 ? active : dark).push_back(pixels[y * width + x]);
    }
  }
  const Moments lit = moments(active), unlit = moments(dark);
  CHECK(lit.mean == doctest::Approx(23000.0).epsilon(0.4 / 23000));
  CHECK(lit.sigma == doctest::Approx(std::sqrt(25.0 + 3000.0 / 1.5)).epsilon(0.006));
  CHECK(unlit.mean == doctest::Approx(20000.0).epsilon(0.1 / 20000));
  CHECK(unlit.sigma == doctest::Approx(std::sqrt(25.0 + 1.0 / 12.0)).epsilon(0.01));
}

TEST_CASE("simulate: large noise takes the wide path with the same result in the middle") {
  SimulatedSegment s;
  s.bias = 1e6F;
  s.read_noise = 1000.0F;  // beyond 16 bits of fixed point
  const Moments m = moments(plane(one_plane(500, 500, s)));
  CHECK(m.mean == doctest::Approx(1e6).epsilon(1e-5));
  CHECK(m.sigma == doctest::Approx(1000.0).epsilon(0.006));
}

TEST_CASE("simulate: bias and slope without noise") {
  SimulatedSegment s = quiet(10, 100);
  s.bias_slope = 0.5F;
  const auto pixels = plane(one_plane(10, 100, s));
  for (std::size_t y = 0; y < 100; ++y) {
    CHECK(std::abs(pixels[y * 10] - (1000.0 + 0.5 * static_cast<double>(y))) <= 0.5);
    CHECK(pixels[y * 10] == pixels[y * 10 + 9]);
  }
}

TEST_CASE("simulate: a star keeps its flux and place") {
  SimulatedSegment s = quiet(120, 90);
  s.stars.push_back({50.25F, 40.75F, 2e6F, 2.2F});
  s.saturation = 1e8F;
  const auto pixels = plane(one_plane(120, 90, s));
  double flux = 0, mx = 0, my = 0;
  for (std::size_t y = 0; y < 90; ++y) {
    for (std::size_t x = 0; x < 120; ++x) {
      const double light = pixels[y * 120 + x] - 1000;
      flux += light;
      mx += light * static_cast<double>(x);
      my += light * static_cast<double>(y);
    }
  }
  CHECK(flux == doctest::Approx(2e6).epsilon(2e-4));
  CHECK(mx / flux == doctest::Approx(50.25).epsilon(2e-4));
  CHECK(my / flux == doctest::Approx(40.75).epsilon(2e-4));
  // A narrow one keeps its flux too: light is integrated over the pixels, not sampled.
  s.stars = {{50.4F, 40.1F, 1e6F, 0.1F}};
  const auto narrow = plane(one_plane(120, 90, s));
  CHECK(std::accumulate(narrow.begin(), narrow.end(), 0.0) - 1000.0 * 120 * 90 ==
        doctest::Approx(1e6).epsilon(1e-4));
}

TEST_CASE("simulate: a star across a border continues in the neighbour") {
  SimulatedSegment whole = quiet(200, 60);
  whole.stars.push_back({99.2F, 30.4F, 3e5F, 3.0F});
  const auto expected = plane(one_plane(200, 60, whole));
  SimulatedSegment left = quiet(100, 60), right = quiet(100, 60);
  left.stars = whole.stars;
  right.stars.push_back({99.2F - 100.0F, 30.4F, 3e5F, 3.0F});
  const auto a = plane(one_plane(100, 60, left)), b = plane(one_plane(100, 60, right));
  int worst = 0;
  for (std::size_t y = 0; y < 60; ++y) {
    for (std::size_t x = 0; x < 200; ++x) {
      const std::int32_t got = x < 100 ? a[y * 100 + x] : b[y * 100 + x - 100];
      worst = std::max(worst, std::abs(got - expected[y * 200 + x]));
    }
  }
  CHECK(worst <= 1);  // the centre is a float: its place is rounded otherwise
}

TEST_CASE("simulate: light stays inside the active area") {
  SimulatedSegment s = quiet(60, 50);
  s.active_x0 = 8;
  s.active_x1 = 50;
  s.active_y0 = 2;
  s.active_y1 = 45;
  s.stars = {{8.0F, 2.0F, 1e6F, 4.0F}, {49.0F, 44.0F, 1e6F, 4.0F}, {-1e9F, 1e9F, 1e9F, 1e4F}};
  s.tracks = {{-1e3F, -1e3F, 1e3F, 1e3F, 5000.0F}, {0.0F, 47.0F, 59.0F, 47.0F, 1e6F}};
  const auto pixels = plane(one_plane(60, 50, s));
  int lit = 0;
  for (std::size_t y = 0; y < 50; ++y) {
    for (std::size_t x = 0; x < 60; ++x) {
      const bool active = x >= 8 && x < 50 && y >= 2 && y < 45;
      if (!active) REQUIRE(pixels[y * 60 + x] == 1000);
      lit += active && pixels[y * 60 + x] > 1000;
    }
  }
  CHECK(lit > 400);
}

TEST_CASE("simulate: a cosmic ray leaves its counts along its length") {
  struct Case {
    float x0, y0, x1, y1;
  };
  for (const Case& c : {Case{10, 20, 40, 20}, Case{40.5F, 20.25F, 10.5F, 33.75F}, Case{15, 5, 15, 55},
                        Case{70, 50, 20, 1}, Case{30.1F, 30.2F, 30.3F, 30.4F}}) {
    SimulatedSegment s = quiet(80, 60);
    s.tracks.push_back({c.x0, c.y0, c.x1, c.y1, 900.0F});
    const auto pixels = plane(one_plane(80, 60, s));
    const double length = std::hypot(c.x1 - c.x0, c.y1 - c.y0);
    const double light = std::accumulate(pixels.begin(), pixels.end(), 0.0) - 1000.0 * 80 * 60;
    CHECK(light == doctest::Approx(900.0 * length).epsilon(0.002).scale(1000.0));
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      if (pixels[i] == 1000) continue;
      // Lit pixels lie on the segment between the two ends.
      const double px = static_cast<double>(i % 80) - c.x0, py = static_cast<double>(i / 80) - c.y0;
      const double away = std::abs(px * (c.y1 - c.y0) - py * (c.x1 - c.x0)) / length;
      CHECK(away < 0.75);
      CHECK(pixels[i] <= 1000 + 1274);  // sqrt(2) * 900
    }
  }
  SimulatedSegment s = quiet(80, 60);
  s.tracks = {{10, 10, 10, 10, 900.0F}, {200, 10, 300, 10, 900.0F}, {10, -5, 40, -5, 900.0F}};
  const auto pixels = plane(one_plane(80, 60, s));
  CHECK(std::all_of(pixels.begin(), pixels.end(), [](std::int32_t v) { return v == 1000; }));
}

TEST_CASE("simulate: saturation and the range of the layout") {
  SimulatedSegment s = quiet(60, 60);
  s.sky = 100.0F;
  s.stars.push_back({30, 30, 1e8F, 3.0F});
  s.saturation = 50000.0F;
  auto pixels = plane(one_plane(60, 60, s));
  CHECK(*std::max_element(pixels.begin(), pixels.end()) == 51000);
  CHECK(std::count(pixels.begin(), pixels.end(), 51000) > 20);
  CHECK(*std::min_element(pixels.begin(), pixels.end()) == 1100);
  // 16 bits hold less than that.
  s.saturation = 1e6F;
  pixels = plane(one_plane(60, 60, s, 16));
  CHECK(*std::max_element(pixels.begin(), pixels.end()) == 65535);
  s.bias = -1e9F;
  pixels = plane(one_plane(60, 60, s, 16));
  CHECK(*std::max_element(pixels.begin(), pixels.end()) == 0);
  s.bias = 1e9F;
  s.sky = 1e9F;
  s.saturation = 1e9F;
  s.gain = 1e-3F;
  s.read_noise = 1e6F;
  pixels = plane(one_plane(60, 60, s, 32));
  CHECK(*std::max_element(pixels.begin(), pixels.end()) <= std::numeric_limits<std::int32_t>::max());
  CHECK(*std::min_element(pixels.begin(), pixels.end()) >= 0);
  pixels = plane(one_plane(60, 60, s, 8));
  CHECK(*std::max_element(pixels.begin(), pixels.end()) == 255);
  // Dark stars and tracks do not go below the bias by more than the well, nor below zero.
  s = quiet(60, 60);
  s.stars.assign(2000, {30, 30, -1e9F, 1.0F});
  s.tracks.assign(50, {0, 0, 60, 60, -1e9F});
  pixels = plane(one_plane(60, 60, s));
  CHECK(*std::min_element(pixels.begin(), pixels.end()) == 0);
}

TEST_CASE("simulate: pixels are the same on every machine") {
  // Made once on x86-64; fixed point keeps them so elsewhere.
  const SimulatedReadout readout(layout_of(24, 2), 40, 20, Pattern::sky, 20261122, segments_of(2, 40, 20));
  std::vector<std::int32_t> row(40);
  readout.row(1, 7, row);
  const std::vector<std::int32_t> got(row.begin() + 12, row.begin() + 24);
  const std::vector<std::int32_t> expected{25524, 25986, 26613, 26591, 26930, 28175,
                                           29677, 31151, 31918, 31465, 30081, 28345};
  CHECK(got == expected);
}

TEST_CASE("simulate: coordinates name every pixel, at any number of bits") {
  for (unsigned bits = 8; bits <= 32; ++bits) {
    CAPTURE(bits);
    const std::size_t group = (48 + bits - 1) / bits;
    for (const Coordinate& name :
         {Coordinate{0, 0, 0, 0}, Coordinate{94, 15, 2047, 575}, Coordinate{204, 7, 1, 0},
          Coordinate{4095, 63, 16383, 16383 * static_cast<std::uint32_t>(group)}, Coordinate{1, 2, 3, 4}}) {
      const auto first = static_cast<std::uint32_t>(name.x / group * group);
      std::vector<std::int32_t> pixels;
      for (std::size_t i = 0; i < group; ++i) {
        const std::uint32_t value = coordinate_value(bits, name.detector, name.segment, name.y,
                                                     first + static_cast<std::uint32_t>(i));
        CHECK((bits == 32 || value >> bits == 0));
        CHECK(value <= 0x7FFFFFFFU);
        pixels.push_back(static_cast<std::int32_t>(value));
      }
      CHECK(coordinate_name(bits, pixels) == Coordinate{name.detector, name.segment, name.y, first});
      pixels.push_back(0);
      CHECK(coordinate_name(bits, pixels) == no_coordinate);
      pixels.pop_back();
      pixels[0] = -1;
      CHECK(coordinate_name(bits, pixels) == no_coordinate);
    }
  }
  for (const unsigned bits : {0U, 1U, 7U, 33U, 64U}) {
    CHECK(coordinate_value(bits, 1, 2, 3, 4) == 0);
    CHECK(coordinate_name(bits, std::vector<std::int32_t>(3)) == no_coordinate);
  }
}

TEST_CASE("simulate: in the coordinate pattern any shift or swap shows") {
  const std::size_t width = 576;
  SimulatedReadout readout(layout_of(18, 48), width, 16, Pattern::coordinates, 0, segments_of(48, width, 16));
  std::vector<std::int32_t> row(width), other(width);
  readout.row(20, 9, row);
  for (std::uint32_t x = 0; x < width; ++x) {
    REQUIRE(static_cast<std::uint32_t>(row[x]) == coordinate_value(18, 91, 4, 9, x));
  }
  for (std::size_t x = 0; x < width; x += 3) {
    REQUIRE(coordinate_name(18, std::span(row).subspan(x, 3)) ==
            Coordinate{91, 4, 9, static_cast<std::uint32_t>(x)});
  }
  const auto equal = [&](std::size_t shift) {
    std::size_t same = 0;
    for (std::size_t x = 0; x + shift < width; ++x) same += row[x] == other[x + shift];
    return same;
  };
  other = row;
  CHECK(equal(1) < 4);
  CHECK(equal(3) < 4);
  for (const auto& [plane_index, y] : {std::pair<std::size_t, std::size_t>{20, 8}, {21, 9}, {36, 9}}) {
    readout.row(plane_index, y, other);
    CHECK(equal(0) < 4);
    CHECK(equal(1) < 4);
  }
}

TEST_CASE("simulate: sizes and values that cannot be are refused") {
  const auto make = [](std::size_t width, std::size_t height, const SimulatedSegment& segment,
                       Pattern pattern = Pattern::sky, unsigned bits = 16, std::size_t count = 1) {
    return SimulatedReadout(layout_of(bits, 1), width, height, pattern, 0,
                            std::vector<SimulatedSegment>(count, segment));
  };
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
  const SimulatedSegment plain{};
  CHECK_THROWS_AS(make(0, 10, plain), UsageError);
  CHECK_THROWS_AS(make(10, 0, plain), UsageError);
  CHECK_THROWS_AS(make(most, most, plain), UsageError);
  CHECK_THROWS_AS(make(most, 2, plain), UsageError);
  CHECK_THROWS_AS(make(std::size_t{1} << 32, std::size_t{1} << 32, plain), UsageError);
  CHECK_THROWS_AS(make(10, 10, plain, Pattern::sky, 16, 0), UsageError);
  CHECK_THROWS_AS(make(10, 10, plain, Pattern::sky, 16, 2), UsageError);

  const auto refused = [&](auto change, Pattern pattern = Pattern::sky) {
    SimulatedSegment s = quiet(10, 10);
    change(s);
    CHECK_THROWS_AS(make(10, 10, s, pattern), UsageError);
  };
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf, -inf}) {
    refused([&](SimulatedSegment& s) { s.bias = bad; });
    refused([&](SimulatedSegment& s) { s.bias_slope = bad; });
    refused([&](SimulatedSegment& s) { s.read_noise = bad; });
    refused([&](SimulatedSegment& s) { s.sky = bad; });
    refused([&](SimulatedSegment& s) { s.gain = bad; });
    refused([&](SimulatedSegment& s) { s.saturation = bad; });
    refused([&](SimulatedSegment& s) { s.stars.push_back({bad, 0, 1, 1}); });
    refused([&](SimulatedSegment& s) { s.stars.push_back({0, bad, 1, 1}); });
    refused([&](SimulatedSegment& s) { s.stars.push_back({0, 0, bad, 1}); });
    refused([&](SimulatedSegment& s) { s.stars.push_back({0, 0, 1, bad}); });
    refused([&](SimulatedSegment& s) { s.tracks.push_back({bad, 0, 1, 1, 1}); });
    refused([&](SimulatedSegment& s) { s.tracks.push_back({0, 0, 1, bad, 1}); });
    refused([&](SimulatedSegment& s) { s.tracks.push_back({0, 0, 1, 1, bad}); });
  }
  refused([](SimulatedSegment& s) { s.gain = 0.0F; });
  refused([](SimulatedSegment& s) { s.read_noise = -1.0F; });
  refused([](SimulatedSegment& s) { s.bias_slope = 5e8F; });
  refused([](SimulatedSegment& s) { s.stars.push_back({0, 0, 1, 0}); });
  refused([](SimulatedSegment& s) { s.tracks.push_back({0, 0, 9e8F, 0, 1}); });
  refused([](SimulatedSegment& s) { s.active_x1 = 11; });
  refused([](SimulatedSegment& s) { s.active_y1 = 11; });
  refused([](SimulatedSegment& s) { s.active_x0 = 11; });
  refused([](SimulatedSegment& s) { s.active_y0 = most; });
  refused([](SimulatedSegment& s) { s.detector = 4096; }, Pattern::coordinates);
  refused([](SimulatedSegment& s) { s.segment = 64; }, Pattern::coordinates);
  CHECK_THROWS_AS(make(8, 16385, plain, Pattern::coordinates), UsageError);
  CHECK_THROWS_AS(make(3 * 16384 + 1, 8, plain, Pattern::coordinates), UsageError);
  CHECK_THROWS_AS(SimulatedReadout(layout_of(4, 2), 8, 8, Pattern::coordinates, 0, {plain, plain}),
                  UsageError);

  const SimulatedReadout readout = make(10, 10, plain);
  std::vector<std::int32_t> row(10);
  CHECK_THROWS_AS(readout.row(1, 0, row), UsageError);
  CHECK_THROWS_AS(readout.row(0, 10, row), UsageError);
  CHECK_THROWS_AS(readout.row(0, 0, std::span(row).first(9)), UsageError);
  std::vector<std::uint8_t> bytes(10);
  CHECK_THROWS_AS(readout.read(191, bytes), UsageError);
  CHECK_THROWS_AS(readout.read(201, {}), UsageError);
  CHECK_THROWS_AS(readout.read(std::numeric_limits<std::uint64_t>::max(), bytes), UsageError);
  CHECK_NOTHROW(readout.read(190, bytes));
}
