#include "raftwright/coverage.hpp"

#include <random>
#include <vector>

#include "doctest.h"

using raftwright::Coverage;
using raftwright::Interval;

TEST_CASE("coverage: new parts are returned once, touching parts melt") {
  Coverage coverage;
  CHECK(coverage.add(10, 20) == std::vector<Interval>{{10, 20}});
  CHECK(coverage.add(20, 30) == std::vector<Interval>{{20, 30}});
  CHECK(coverage.fragments() == 1);
  CHECK(coverage.add(5, 35) == std::vector<Interval>{{5, 10}, {30, 35}});
  CHECK(coverage.add(5, 35).empty());
  CHECK(coverage.add(7, 7).empty());
  CHECK(coverage.covered() == 30);
  CHECK(coverage.gaps(0, 40) == std::vector<Interval>{{0, 5}, {35, 40}});
  CHECK(coverage.touches(6, 8));
  CHECK(coverage.touches(0, 5));
  CHECK(coverage.touches(35, 36));
  CHECK(coverage.touches(0, 100));
  CHECK_FALSE(coverage.touches(0, 4));
  CHECK_FALSE(coverage.touches(36, 40));
}

TEST_CASE("coverage: agrees with a bit per byte for random intervals") {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    Coverage coverage;
    std::vector<bool> bytes(200, false);
    for (int step = 0; step < 40; ++step) {
      const auto begin = random() % 200;
      const auto end = begin + random() % (201 - begin);
      std::uint64_t fresh = 0;
      for (const Interval& part : coverage.add(begin, end)) {
        fresh += part.end - part.begin;
        for (auto i = part.begin; i < part.end; ++i) {
          REQUIRE_FALSE(bytes[i]);
          bytes[i] = true;
        }
      }
      for (auto i = begin; i < end; ++i) REQUIRE(bytes[i]);
      std::uint64_t count = 0;
      for (const bool byte : bytes) count += byte ? 1 : 0;
      REQUIRE(coverage.covered() == count);
      std::vector<bool> from_gaps(200, true);
      for (const Interval& gap : coverage.gaps(0, 200)) {
        for (auto i = gap.begin; i < gap.end; ++i) from_gaps[i] = false;
      }
      REQUIRE(from_gaps == bytes);
    }
  }
}
