#include <algorithm>
#include <numeric>

#include "doctest.h"
#include "raftwright/error.hpp"
#include "raftwright/stream_layout.hpp"

using raftwright::StreamLayout;
using raftwright::UsageError;

namespace {

std::vector<std::uint16_t> in_order(std::size_t channels) {
  std::vector<std::uint16_t> planes(channels);
  std::iota(planes.begin(), planes.end(), std::uint16_t{0});
  return planes;
}

}  // namespace

TEST_CASE("a layout says how many bytes a sample has and what a pixel can hold") {
  const StreamLayout science(18, 0x1FFFF, in_order(48));
  CHECK(science.bits() == 18);
  CHECK(science.xor_mask() == 0x1FFFF);
  CHECK(science.channels() == 48);
  CHECK(science.plane_of() == in_order(48));
  CHECK(science.sample_bytes() == 108);
  CHECK(science.max_value() == 262143);
  CHECK(StreamLayout(18, 0, in_order(32)).sample_bytes() == 72);
  CHECK(StreamLayout(18, 0, in_order(16)).sample_bytes() == 36);
  CHECK(StreamLayout(32, 0xFFFFFFFFU, in_order(1)).max_value() == 0xFFFFFFFFU);
  CHECK(StreamLayout(1, 1, in_order(8)).sample_bytes() == 1);
  CHECK(StreamLayout(31, 0, in_order(4096)).sample_bytes() == 31 * 512);
}

TEST_CASE("layouts are equal when everything in them is") {
  const StreamLayout layout(18, 0x1FFFF, in_order(16));
  std::vector<std::uint16_t> turned = in_order(16);
  std::reverse(turned.begin(), turned.end());
  CHECK(layout == StreamLayout(18, 0x1FFFF, in_order(16)));
  CHECK(layout != StreamLayout(18, 0x20000, in_order(16)));
  CHECK(layout != StreamLayout(18, 0x1FFFF, turned));
  CHECK(layout != StreamLayout(16, 0x0FFFF, in_order(16)));
}

TEST_CASE("a layout that cannot be is refused") {
  CHECK_THROWS_AS(StreamLayout(0, 0, in_order(8)), UsageError);
  CHECK_THROWS_AS(StreamLayout(33, 0, in_order(8)), UsageError);
  CHECK_THROWS_AS(StreamLayout(18, 0, {}), UsageError);
  CHECK_THROWS_AS(StreamLayout(8, 0, in_order(4097)), UsageError);
  CHECK_THROWS_AS(StreamLayout(18, 0x40000, in_order(16)), UsageError);
  CHECK_NOTHROW(StreamLayout(18, 0x3FFFF, in_order(16)));
  CHECK_THROWS_AS(StreamLayout(18, 0, in_order(3)), UsageError);   // 54 bits
  CHECK_THROWS_AS(StreamLayout(18, 0, in_order(18)), UsageError);  // 324 bits
  CHECK_THROWS_AS(StreamLayout(8, 0, {0, 1, 1}), UsageError);
  CHECK_THROWS_AS(StreamLayout(8, 0, {0, 1, 3}), UsageError);
  CHECK_THROWS_AS(StreamLayout(8, 0, {1}), UsageError);
}

TEST_CASE("the refusal names the channel at fault") {
  CHECK_THROWS_WITH_AS(
      StreamLayout(8, 0, {2, 1, 1}),
      "stream layout: channel 2 goes to plane 1, which is taken already among the planes 0 to "
      "2; give each plane once",
      UsageError);
}
