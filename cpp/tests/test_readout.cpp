#include "raftwright/readout.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "doctest.h"
#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"
#include "raftwright/scramble.hpp"

using namespace raftwright;

namespace {

struct Case {
  StreamLayout layout;
  std::size_t width;
  std::size_t height;
};

std::vector<std::uint16_t> reversed(std::size_t channels) {
  std::vector<std::uint16_t> order(channels);
  std::iota(order.rbegin(), order.rend(), std::uint16_t{0});
  return order;
}

std::vector<Case> cases() {
  return {{StreamLayout(18, 0x1FFFF, reversed(48)), 37, 11},
          {StreamLayout(18, 0x20000, reversed(16)), 64, 9},
          {StreamLayout(18, 0x20000, reversed(32)), 16, 70},
          {StreamLayout(16, 0, reversed(8)), 5, 4},
          {StreamLayout(12, 0x123, reversed(2)), 33, 3}};
}

using PlaneSet = std::vector<std::vector<std::int32_t>>;

/// Random pixels within the layout's range, and their stream.
PlaneSet random_planes(const Case& c, std::mt19937& random) {
  PlaneSet planes(c.layout.channels(), std::vector<std::int32_t>(c.width * c.height));
  const std::uint32_t range = c.layout.max_value();
  for (auto& plane : planes) {
    for (auto& pixel : plane) pixel = static_cast<std::int32_t>(random() & range);
  }
  return planes;
}

std::vector<std::uint8_t> stream_of(const Case& c, const PlaneSet& planes) {
  std::vector<const std::int32_t*> rows;
  for (const auto& plane : planes) rows.push_back(plane.data());
  std::vector<std::uint8_t> packed(c.width * c.height * c.layout.sample_bytes());
  REQUIRE(scramble(c.layout, rows, packed) == 0);
  return packed;
}

std::vector<std::int32_t> decoded(const CompressedPlanes& tiles, std::size_t plane) {
  std::vector<std::int32_t> pixels;
  std::vector<std::int32_t> row(tiles.width());
  std::size_t next_row = 0;
  for (const TileRun& run : tiles.runs()) {
    REQUIRE(run.first_row == next_row);
    next_row += run.rows;
    std::size_t at = 0;
    for (std::size_t r = 0; r < run.rows; ++r) {
      const std::size_t length = run.lengths[plane * run.rows + r];
      REQUIRE(rice_decode(run.code[plane].subspan(at, length), row) == RiceStatus::ok);
      at += length;
      pixels.insert(pixels.end(), row.begin(), row.end());
    }
    REQUIRE(at == run.code[plane].size());
  }
  return pixels;
}

void check_products(const Readout& readout, const PlaneSet& expected) {
  for (std::size_t plane = 0; plane < expected.size(); ++plane) {
    const std::int32_t* pixels = readout.planes().plane(plane);
    REQUIRE(std::equal(expected[plane].begin(), expected[plane].end(), pixels));
    REQUIRE(decoded(readout.compressed(), plane) == expected[plane]);
  }
}

struct Cut {
  std::size_t begin;
  std::size_t end;
};

/// The stream cut at random places, in random order, some pieces twice and enlarged.
std::vector<Cut> random_cuts(std::size_t size, std::mt19937& random, std::size_t pieces) {
  std::vector<std::size_t> borders = {0, size};
  for (std::size_t i = 1; i < pieces; ++i) borders.push_back(random() % (size + 1));
  std::sort(borders.begin(), borders.end());
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) cuts.push_back({borders[i], borders[i + 1]});
  const std::size_t count = cuts.size();
  for (std::size_t i = 0; i < count / 3; ++i) {
    Cut again = cuts[random() % count];
    again.begin -= std::min(again.begin, std::size_t{random() % 50});
    again.end += std::min(size - again.end, std::size_t{random() % 50});
    cuts.push_back(again);
  }
  std::shuffle(cuts.begin(), cuts.end(), random);
  return cuts;
}

}  // namespace

TEST_CASE("readout: any order, any split, duplicates") {
  std::mt19937 random(1);
  for (const Case& c : cases()) {
    for (const std::size_t pieces : {1U, 2U, 7U, 60U, 400U}) {
      const PlaneSet planes = random_planes(c, random);
      const std::vector<std::uint8_t> packed = stream_of(c, planes);
      Readout readout(c.layout, c.width, c.height, {true, true});
      REQUIRE(readout.size() == packed.size());
      std::uint64_t fresh = 0;
      std::uint64_t sent = 0;
      for (const Cut& cut : random_cuts(packed.size(), random, pieces)) {
        fresh += readout.add(cut.begin, std::span(packed).subspan(cut.begin, cut.end - cut.begin));
        sent += cut.end - cut.begin;
      }
      CHECK(fresh == packed.size());
      CHECK(readout.received() == packed.size());
      CHECK(readout.duplicate() == sent - packed.size());
      CHECK(readout.complete());
      CHECK(readout.gaps().empty());
      check_products(readout, planes);
      readout.finish(-1);
      check_products(readout, planes);
    }
  }
}

TEST_CASE("readout: one byte at a time, backwards") {
  std::mt19937 random(2);
  const Case c = cases()[4];
  const PlaneSet planes = random_planes(c, random);
  const std::vector<std::uint8_t> packed = stream_of(c, planes);
  Readout readout(c.layout, c.width, c.height, {true, true});
  for (std::size_t i = packed.size(); i-- > 0;) {
    CHECK_FALSE(readout.complete());
    readout.add(i, std::span(packed).subspan(i, 1));
  }
  CHECK(readout.complete());
  check_products(readout, planes);
}

TEST_CASE("readout: what is missing is listed to the pixel and filled, the rest is exact") {
  std::mt19937 random(3);
  constexpr std::int32_t kFill = -1;
  for (const Case& c : cases()) {
    for (int round = 0; round < 20; ++round) {
      PlaneSet planes = random_planes(c, random);
      const std::vector<std::uint8_t> packed = stream_of(c, planes);
      std::vector<bool> present(packed.size(), false);
      Readout readout(c.layout, c.width, c.height, {true, true});
      for (const Cut& cut : random_cuts(packed.size(), random, 12)) {
        if (random() % 3 == 0) continue;
        readout.add(cut.begin, std::span(packed).subspan(cut.begin, cut.end - cut.begin));
        std::fill(present.begin() + static_cast<std::ptrdiff_t>(cut.begin),
                  present.begin() + static_cast<std::ptrdiff_t>(cut.end), true);
      }
      readout.finish(kFill, 2);
      CHECK(readout.finished());
      CHECK_THROWS_AS(readout.add(0, std::span(packed).first(1)), UsageError);
      // The plain definition: a pixel is there when each byte that holds one of its bits is.
      const std::size_t bits = c.layout.bits();
      for (std::size_t channel = 0; channel < c.layout.channels(); ++channel) {
        const std::size_t plane = c.layout.plane_of()[channel];
        std::vector<bool> missing(c.width * c.height, false);
        for (std::size_t n = 0; n < missing.size(); ++n) {
          const std::size_t first = n * c.layout.sample_bytes() * 8 + channel * bits;
          for (std::size_t byte = first / 8; byte <= (first + bits - 1) / 8; ++byte) {
            if (!present[byte]) missing[n] = true;
          }
          if (missing[n]) planes[plane][n] = kFill;
        }
        std::vector<bool> listed(missing.size(), false);
        std::uint64_t last_end = 0;
        for (const PixelRun& run : readout.missing(plane)) {
          REQUIRE(run.count > 0);
          REQUIRE((run.first > last_end || (run.first == 0 && last_end == 0)));
          last_end = run.first + run.count;
          REQUIRE(last_end <= listed.size());
          for (std::uint64_t n = run.first; n < last_end; ++n) listed[n] = true;
        }
        REQUIRE(listed == missing);
      }
      check_products(readout, planes);
    }
  }
}

TEST_CASE("readout: nothing arrived at all") {
  const Case c = cases()[0];
  Readout readout(c.layout, c.width, c.height, {true, true});
  readout.finish(12345);
  CHECK_FALSE(readout.complete());
  CHECK(readout.missing(0) == std::vector<PixelRun>{{0, c.width * c.height}});
  check_products(readout, PlaneSet(48, std::vector<std::int32_t>(c.width * c.height, 12345)));
}

TEST_CASE("readout: many threads add at once") {
  std::mt19937 random(4);
  const Case c{StreamLayout(18, 0x1FFFF, reversed(48)), 64, 200};
  const PlaneSet planes = random_planes(c, random);
  const std::vector<std::uint8_t> packed = stream_of(c, planes);
  for (const Products products : {Products{true, true}, Products{true, false}, Products{false, true}}) {
    Readout readout(c.layout, c.width, c.height, products);
    std::vector<Cut> cuts = random_cuts(packed.size(), random, 100);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t i = t; i < cuts.size(); i += 4) {
          readout.add(cuts[i].begin, std::span(packed).subspan(cuts[i].begin, cuts[i].end - cuts[i].begin),
                      2);
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(readout.complete());
    for (std::size_t plane = 0; plane < planes.size(); ++plane) {
      if (products.pixels) {
        REQUIRE(std::equal(planes[plane].begin(), planes[plane].end(), readout.planes().plane(plane)));
      }
      if (products.compressed) REQUIRE(decoded(readout.compressed(), plane) == planes[plane]);
    }
  }
}

TEST_CASE("readout: hostile chunks and sizes are refused") {
  const StreamLayout layout(18, 0x1FFFF, reversed(16));
  Readout readout(layout, 10, 10, {true, false});
  const std::vector<std::uint8_t> bytes(4000);
  CHECK_THROWS_AS(readout.add(readout.size() - 10, std::span(bytes).first(11)), FormatError);
  CHECK_THROWS_AS(readout.add(~std::uint64_t{0}, std::span(bytes).first(2)), FormatError);
  CHECK(readout.add(readout.size(), std::span(bytes).first(0)) == 0);
  CHECK(readout.received() == 0);
  CHECK_THROWS_AS(static_cast<void>(readout.compressed()), UsageError);
  CHECK_THROWS_AS(static_cast<void>(readout.missing(16)), UsageError);
  CHECK_THROWS_AS(Readout(layout, 0, 10, {true, false}), UsageError);
  CHECK_THROWS_AS(Readout(layout, std::size_t{1} << 40U, std::size_t{1} << 40U, {true, false}), UsageError);
  CHECK_THROWS_AS(Readout(layout, 10, 10, {false, false}), UsageError);
}

TEST_CASE("readout: a stream in too many pieces can still be put together") {
  constexpr std::size_t kPieces = std::size_t{1} << 18U;
  constexpr std::size_t kWidth = 2 * kPieces + 100;
  Readout readout(StreamLayout(8, 0, {0}), kWidth, 1, {true, false});
  const std::vector<std::uint8_t> stream(kWidth, 7);
  for (std::size_t piece = 0; piece < kPieces; ++piece) readout.add(2 * piece, {stream.data(), 1});
  CHECK_THROWS_AS(readout.add(2 * kPieces + 9, {stream.data(), 1}), FormatError);
  CHECK(readout.add(1, {stream.data(), 1}) == 1);  // joins two
  CHECK(readout.add(2 * kPieces + 9, {stream.data(), 1}) == 1);
  CHECK_THROWS_AS(readout.add(2 * kPieces + 19, {stream.data(), 1}), FormatError);
  CHECK(readout.add(0, stream) == kWidth - kPieces - 2);
  CHECK(readout.complete());
  const std::int32_t* pixels = readout.planes().plane(0);
  CHECK(std::all_of(pixels, pixels + kWidth, [](std::int32_t pixel) { return pixel == 7; }));
}

TEST_CASE("readout: memory of pieces that wait is freed when rows complete") {
  const StreamLayout layout(18, 0x1FFFF, reversed(16));
  Readout readout(layout, 64, 8, {true, false});
  const std::vector<std::uint8_t> packed(readout.size());
  const std::size_t before = readout.memory();
  for (std::size_t i = 0; i < packed.size(); i += 2) readout.add(i, std::span(packed).subspan(i, 1));
  CHECK(readout.memory() == before + readout.size());
  for (std::size_t i = 1; i < packed.size(); i += 2) readout.add(i, std::span(packed).subspan(i, 1));
  CHECK(readout.memory() == before);
  CHECK(readout.complete());
}

TEST_CASE("readout: the code of a small image takes no more than it may need") {
  std::mt19937 random(37);
  const Case c{StreamLayout(18, 0x1FFFF, reversed(48)), 28, 16};
  Readout readout(c.layout, c.width, c.height, {false, true});
  const PlaneSet planes = random_planes(c, random);
  readout.add(0, stream_of(c, planes));
  readout.finish(-1);
  CHECK(readout.memory() < 48 * 16 * (rice_bound(28) + 64) + 8192);
  for (std::size_t plane = 0; plane < planes.size(); ++plane) {
    CHECK(decoded(readout.compressed(), plane) == planes[plane]);
  }
}

TEST_CASE("readout: planes may lie in memory of the caller's") {
  std::mt19937 random(23);
  for (const Case& c : cases()) {
    const PlaneSet planes = random_planes(c, random);
    const std::vector<std::uint8_t> packed = stream_of(c, planes);
    const std::size_t needed = Planes::needed(c.layout.channels(), c.width, c.height);
    constexpr std::size_t kGuard = 64;
    const std::shared_ptr<std::uint8_t[]> memory(
        new (std::align_val_t{64}) std::uint8_t[needed + kGuard],
        [](std::uint8_t* held) { operator delete[](held, std::align_val_t{64}); });
    std::fill_n(memory.get(), needed + kGuard, std::uint8_t{0xA5});
    {
      Readout readout(c.layout, c.width, c.height, {true, false}, {{memory.get(), needed}, memory});
      CHECK(memory.use_count() == 2);
      readout.add(0, packed);
      readout.finish(-1);
      CHECK(readout.memory() == needed);
      for (std::size_t plane = 0; plane < planes.size(); ++plane) {
        const std::int32_t* pixels = readout.planes().plane(plane);
        CHECK(reinterpret_cast<const std::uint8_t*>(pixels) >= memory.get());
        CHECK(std::equal(planes[plane].begin(), planes[plane].end(), pixels));
      }
    }
    CHECK(memory.use_count() == 1);
    CHECK(std::all_of(memory.get() + needed, memory.get() + needed + kGuard,
                      [](std::uint8_t byte) { return byte == 0xA5; }));
    CHECK_THROWS_AS(Readout(c.layout, c.width, c.height, {true, false}, {{memory.get(), needed - 1}, memory}),
                    UsageError);
    CHECK_THROWS_AS(Readout(c.layout, c.width, c.height, {true, false}, {{memory.get() + 4, needed}, memory}),
                    UsageError);
    CHECK_THROWS_AS(Readout(c.layout, c.width, c.height, {false, true}, {{memory.get(), needed}, memory}),
                    UsageError);
    CHECK(memory.use_count() == 1);
  }
  CHECK_THROWS_AS(static_cast<void>(Planes::needed(0, 1, 1)), UsageError);
  CHECK_THROWS_AS(static_cast<void>(Planes::needed(1, ~std::size_t{0}, 3)), UsageError);
}

TEST_CASE("readout: started again it is as new, with both products") {
  std::mt19937 random(31);
  const Case c{StreamLayout(18, 0x1FFFF, reversed(16)), 64, 40};
  Readout readout(c.layout, c.width, c.height, {true, true});
  for (int round = 0; round < 3; ++round) {
    const PlaneSet planes = random_planes(c, random);
    const std::vector<std::uint8_t> packed = stream_of(c, planes);
    readout.add(0, std::span(packed).first(1000));
    if (round == 1) readout.finish(-1);
    readout.restart();
    CHECK(readout.received() == 0);
    CHECK(readout.copied() == 0);
    CHECK(readout.gaps().size() == 1);
    readout.add(0, packed);
    CHECK(readout.copied() == 0);  // whole rows are never copied
    readout.finish(-1);
    CHECK(readout.complete());
    for (std::size_t plane = 0; plane < planes.size(); ++plane) {
      CHECK(decoded(readout.compressed(), plane) == planes[plane]);
      CHECK(std::equal(planes[plane].begin(), planes[plane].end(), readout.planes().plane(plane)));
    }
    readout.restart();
  }
  const std::vector<std::uint8_t> packed(readout.size());
  readout.add(1, std::span(packed).subspan(1, 100));
  CHECK(readout.copied() == 100);
}
