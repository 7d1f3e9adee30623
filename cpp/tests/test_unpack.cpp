#include "raftwright/unpack.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "doctest.h"
#include "guarded.hpp"
#include "raftwright/error.hpp"
#include "raftwright/scramble.hpp"

using namespace raftwright;

namespace {

constexpr std::uint32_t kScienceMask = 0x1FFFF;
constexpr std::uint32_t kOtherMask = 0x20000;
constexpr std::int32_t kUntouched = -559038737;

std::vector<std::uint16_t> in_order(std::size_t channels) {
  std::vector<std::uint16_t> planes(channels);
  std::iota(planes.begin(), planes.end(), std::uint16_t{0});
  return planes;
}

std::vector<std::uint16_t> shuffled(std::size_t channels, std::mt19937& random) {
  std::vector<std::uint16_t> planes = in_order(channels);
  std::shuffle(planes.begin(), planes.end(), random);
  return planes;
}

// Planes with `guard` untouched values before and after each; plane k begins `skew(k)` elements late.
class GuardedPlanes {
 public:
  template <class Skew>
  GuardedPlanes(std::size_t count, std::size_t samples, Skew skew) : samples_(samples) {
    pitch_ = (samples + 3 * kGuard + 15) / 16 * 16;
    store_.assign(count * pitch_ + 16, kUntouched);
    const auto misfit = reinterpret_cast<std::uintptr_t>(store_.data()) % 64 / sizeof(std::int32_t);
    std::int32_t* const base = store_.data() + (16 - misfit) % 16;  // on a cache line
    for (std::size_t k = 0; k < count; ++k) {
      planes_.push_back(base + k * pitch_ + kGuard + static_cast<std::size_t>(skew(k)) % 16);
    }
  }

  [[nodiscard]] const std::vector<std::int32_t*>& planes() const { return planes_; }
  [[nodiscard]] std::vector<const std::int32_t*> readable() const { return {planes_.begin(), planes_.end()}; }

  [[nodiscard]] std::ptrdiff_t touched_outside() const {
    const auto is_touched = [](std::int32_t value) { return value != kUntouched; };
    std::ptrdiff_t touched = 0;
    const std::int32_t* from = store_.data();
    for (const std::int32_t* plane : planes_) {
      touched += std::count_if(from, plane, is_touched);
      from = plane + samples_;
    }
    touched += std::count_if(from, store_.data() + store_.size(), is_touched);
    return touched;
  }

  [[nodiscard]] std::size_t differences(const GuardedPlanes& other) const {
    std::size_t found = 0;
    for (std::size_t k = 0; k < planes_.size(); ++k) {
      for (std::size_t i = 0; i < samples_; ++i) found += planes_[k][i] != other.planes_[k][i] ? 1U : 0U;
    }
    return found;
  }

 private:
  static constexpr std::size_t kGuard = 16;
  std::size_t samples_;
  std::size_t pitch_ = 0;
  std::vector<std::int32_t> store_;
  std::vector<std::int32_t*> planes_;
};

const auto kAligned = [](std::size_t) { return 0U; };

void fill_random(std::span<std::uint8_t> bytes, std::mt19937& random) {
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
}

// One sample, decoded by every level; the values in plane order.
std::vector<std::int32_t> decode_one(const StreamLayout& layout, std::vector<std::uint8_t> sample,
                                     Level level) {
  sample.resize(layout.sample_bytes());
  std::vector<std::int32_t> values(layout.channels());
  std::vector<std::int32_t*> planes;
  for (std::int32_t& value : values) planes.push_back(&value);
  unpack(layout, sample, planes, Stores::cached, level);
  return values;
}

}  // namespace

TEST_CASE("worked bytes of the DAQ stream, every level") {
  const std::vector<std::uint8_t> science = {0x57, 0x9E, 0x59, 0x79, 0xF6, 0x42, 0x80, 0xFF, 0xFF};
  const std::vector<std::uint8_t> other = {0xA8, 0x61, 0xA6, 0x86, 0x09, 0xBD, 0x7F, 0x00, 0x00};
  const std::vector<std::uint8_t> plain = {0x01, 0x00, 0x00, 0x00, 0xF8, 0xFF, 0x7F, 0x55, 0x55};
  const std::vector<std::int32_t> fits = {25000, 25001, 130000, 131073};
  const std::vector<std::int32_t> raw = {0x00001, 0x20000, 0x3FFFF, 0x15555};
  for (const Level level : available_levels()) {
    CAPTURE(level_name(level));
    for (const std::size_t channels : {16U, 32U, 48U}) {
      CAPTURE(channels);
      auto first4 = [&](std::uint32_t mask, const std::vector<std::uint8_t>& bytes) {
        std::vector<std::int32_t> all = decode_one(StreamLayout(18, mask, in_order(channels)), bytes, level);
        all.resize(4);
        return all;
      };
      CHECK(first4(kScienceMask, science) == fits);
      CHECK(first4(kOtherMask, other) == fits);
      CHECK(first4(0, plain) == raw);
      CHECK(first4(0, science) == std::vector<std::int32_t>{0x19E57, 0x19E56, 0x0042F, 0x3FFFE});
      CHECK(first4(0, other) == std::vector<std::int32_t>{0x261A8, 0x261A9, 0x3FBD0, 0x00001});
    }
  }
}

TEST_CASE("worked bytes of a science CCD, in the order of its image HDUs") {
  // Blocks come as S?2, S?1, S?0; k < 8 is Segment0k in HDU 16-k, k >= 8 Segment1(k-8) in HDU k-7.
  std::vector<std::uint16_t> plane_of;
  for (unsigned p = 0; p < 48; ++p) {
    const unsigned k = p % 16;
    const unsigned hdu = k < 8 ? 16 - k : k - 7;
    plane_of.push_back(static_cast<std::uint16_t>((2 - p / 16) * 16 + hdu - 1));
  }
  const std::vector<std::uint8_t> bytes = {0x0F, 0xAA, 0x39, 0xA8, 0xD6, 0xA0, 0x1A, 0x83, 0x6A,  //
                                           0x0B, 0xAA, 0x29, 0xA8, 0x96, 0xA0, 0x1A, 0x82, 0x6A,  //
                                           0x05, 0xAA, 0x11, 0xA8, 0x36, 0xA0, 0x9A, 0x80, 0x6A,  //
                                           0x01, 0xAA, 0x01, 0xA8, 0xF6, 0x9F, 0x9A, 0x7F, 0x6A};
  for (const Level level : available_levels()) {
    CAPTURE(level_name(level));
    const std::vector<std::int32_t> values =
        decode_one(StreamLayout(18, kScienceMask, plane_of), bytes, level);
    const std::vector<std::int32_t> s2(values.begin() + 32, values.end());
    CHECK(s2 == std::vector<std::int32_t>{22010, 22011, 22012, 22013, 22014, 22015, 22016, 22017,  //
                                          22007, 22006, 22005, 22004, 22003, 22002, 22001, 22000});
  }
}

TEST_CASE("pairs of raw and FITS values") {
  struct Pair {
    std::int32_t fits;
    std::uint32_t science, other;
  };
  const Pair pairs[] = {{0, 0x1FFFF, 0x20000},
                        {131071, 0x00000, 0x3FFFF},
                        {131072, 0x3FFFF, 0x00000},
                        {262143, 0x20000, 0x1FFFF}};
  for (const Pair& pair : pairs) {
    std::vector<std::uint8_t> bytes(36);
    for (unsigned bit = 0; bit < 18; ++bit) {  // the seventh pixel
      const unsigned at = 6 * 18 + bit;
      bytes[at / 8] = static_cast<std::uint8_t>(bytes[at / 8] | (pair.science >> bit & 1U) << (at % 8));
    }
    for (const Level level : available_levels()) {
      CHECK(decode_one(StreamLayout(18, kScienceMask, in_order(16)), bytes, level)[6] == pair.fits);
      CHECK(decode_one(StreamLayout(18, 0, in_order(16)), bytes, level)[6] ==
            static_cast<std::int32_t>(pair.science));
    }
    CHECK((pair.science ^ kScienceMask) == (pair.other ^ kOtherMask));
  }
}

TEST_CASE("the reference reads three bytes and a shift, as the byte form of the stream says") {
  std::mt19937 random(7);
  const std::size_t samples = 5;
  for (const std::size_t channels : {16U, 32U, 48U}) {
    const StreamLayout layout(18, 0, in_order(channels));
    std::vector<std::uint8_t> packed(samples * layout.sample_bytes());
    fill_random(packed, random);
    const GuardedPlanes planes(channels, samples, kAligned);
    unpack_reference(layout, packed, planes.planes());
    for (std::size_t i = 0; i < samples; ++i) {
      for (std::size_t p = 0; p < channels; ++p) {
        const std::uint8_t* b = packed.data() + i * layout.sample_bytes() + 9 * p / 4;
        const int raw = ((b[0] | b[1] << 8 | b[2] << 16) >> (2 * (p % 4))) & 0x3FFFF;
        REQUIRE(planes.planes()[p][i] == raw);
      }
    }
  }
}

TEST_CASE("kernels give what the reference gives, and touch nothing else") {
  std::mt19937 random(1);
  std::vector<std::size_t> counts(72);
  std::iota(counts.begin(), counts.end(), std::size_t{0});
  counts.insert(counts.end(), {127, 128, 129, 576, 577, 1001});
  for (const std::size_t channels : {4U, 8U, 16U, 20U, 32U, 48U, 64U}) {
    for (const std::size_t samples : counts) {
      const StreamLayout layout(18, static_cast<std::uint32_t>(random() & 0x3FFFF),
                                shuffled(channels, random));
      const Guarded packed(samples * layout.sample_bytes());
      fill_random(packed.bytes(), random);
      const unsigned skew = static_cast<unsigned>(random() % 16);
      const GuardedPlanes expected(channels, samples, kAligned);
      unpack_reference(layout, packed.bytes(), expected.planes());
      for (const Level level : available_levels()) {
        for (const Stores stores : {Stores::cached, Stores::streaming}) {
          const GuardedPlanes together(channels, samples, [&](std::size_t) { return skew; });
          const GuardedPlanes apart(channels, samples, [&](std::size_t k) { return skew + 5 * k; });
          unpack(layout, packed.bytes(), together.planes(), stores, level);
          unpack(layout, packed.bytes(), apart.planes(), stores, level);
          CAPTURE(level_name(level));
          CAPTURE(channels);
          CAPTURE(samples);
          CAPTURE(skew);
          REQUIRE(together.differences(expected) == 0);
          REQUIRE(together.touched_outside() == 0);
          REQUIRE(apart.differences(expected) == 0);
          REQUIRE(apart.touched_outside() == 0);
        }
      }
    }
  }
}

TEST_CASE("inputs at any address, between forbidden pages") {
  std::mt19937 random(2);
  for (const std::size_t channels : {16U, 32U, 48U}) {
    const StreamLayout layout(18, kScienceMask, shuffled(channels, random));
    for (const std::size_t samples : {1U, 2U, 15U, 16U, 17U, 33U, 64U, 100U}) {
      for (const Guarded::At at : {Guarded::At::end, Guarded::At::begin}) {
        const std::size_t room = 40;  // moves the input along, away from the forbidden page
        const Guarded memory(samples * layout.sample_bytes() + room, at);
        fill_random(memory.bytes(), random);
        const GuardedPlanes expected(channels, samples, kAligned);
        const GuardedPlanes found(channels, samples, kAligned);
        for (std::size_t offset = 0; offset <= room; ++offset) {
          const auto packed = memory.bytes().subspan(offset, samples * layout.sample_bytes());
          unpack_reference(layout, packed, expected.planes());
          for (const Level level : available_levels()) {
            unpack(layout, packed, found.planes(), Stores::streaming, level);
            CAPTURE(level_name(level));
            CAPTURE(samples);
            CAPTURE(offset);
            REQUIRE(found.differences(expected) == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("every value of 18 bits in every channel") {
  constexpr std::size_t kValues = std::size_t{1} << 18;
  for (const std::size_t channels : {16U, 32U, 48U}) {
    const StreamLayout layout(18, channels == 48 ? kScienceMask : kOtherMask, in_order(channels));
    std::vector<std::int32_t> store(channels * kValues);
    std::vector<std::int32_t> decoded(channels * kValues);
    std::vector<const std::int32_t*> from;
    std::vector<std::int32_t*> to;
    for (std::size_t p = 0; p < channels; ++p) {
      for (std::size_t i = 0; i < kValues; ++i) {
        store[p * kValues + i] = static_cast<std::int32_t>((i + 16411 * p) % kValues);
      }
      from.push_back(store.data() + p * kValues);
      to.push_back(decoded.data() + p * kValues);
    }
    std::vector<std::uint8_t> packed(kValues * layout.sample_bytes());
    CHECK(scramble(layout, from, packed) == 0);
    for (const Level level : available_levels()) {
      CAPTURE(level_name(level));
      std::fill(decoded.begin(), decoded.end(), kUntouched);
      unpack(layout, packed, to, Stores::streaming, level);
      CHECK(decoded == store);
    }
    if (channels == 16) {
      std::fill(decoded.begin(), decoded.end(), kUntouched);
      unpack_reference(layout, packed, to);
      CHECK(decoded == store);
    }
  }
}

TEST_CASE("every width: the scalar path gives what the reference gives, and scramble turns it back") {
  std::mt19937 random(3);
  for (unsigned bits = 1; bits <= 32; ++bits) {
    const std::size_t step = 8 / std::gcd(8U, bits);  // channels that fill whole bytes
    for (const std::size_t channels : {step, 2 * step, 3 * step, 6 * step, 24 * step}) {
      for (const std::size_t samples : {0U, 1U, 2U, 3U, 7U, 8U, 9U, 17U, 64U, 65U, 130U}) {
        const std::uint32_t most = bits == 32 ? 0xFFFFFFFFU : (1U << bits) - 1;
        const StreamLayout layout(bits, static_cast<std::uint32_t>(random()) & most,
                                  shuffled(channels, random));
        const Guarded packed(samples * layout.sample_bytes());
        fill_random(packed.bytes(), random);
        const GuardedPlanes expected(channels, samples, kAligned);
        const GuardedPlanes found(channels, samples, [](std::size_t k) { return k; });
        unpack_reference(layout, packed.bytes(), expected.planes());
        unpack(layout, packed.bytes(), found.planes(), Stores::cached, Level::scalar);
        CAPTURE(bits);
        CAPTURE(channels);
        CAPTURE(samples);
        REQUIRE(found.differences(expected) == 0);
        REQUIRE(found.touched_outside() == 0);

        const Guarded again(samples * layout.sample_bytes());
        REQUIRE(scramble(layout, found.readable(), again.bytes()) == 0);
        REQUIRE(std::equal(again.bytes().begin(), again.bytes().end(), packed.bytes().begin()));
      }
    }
  }
}

TEST_CASE("scramble clips what a pixel cannot hold, and counts it") {
  constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  for (const unsigned bits : {18U, 16U, 31U}) {
    const StreamLayout layout(bits, 1, in_order(16));
    const auto top = static_cast<std::int32_t>(layout.max_value());
    const std::array<std::int32_t, 8> given = {-1, 0, 1, top - 1, top, kMost, kLeast, 7};
    const std::array<std::int32_t, 8> kept = {0, 0, 1, top - 1, top, top, 0, 7};
    const std::size_t bad = bits == 31 ? 2 : 3;  // 2^31 - 1 fits 31 bits
    for (std::size_t channel = 0; channel < 16; ++channel) {
      const std::vector<std::int32_t> fair(given.size(), 5);
      std::vector<const std::int32_t*> from(16, fair.data());
      from[channel] = given.data();
      std::vector<std::uint8_t> packed(given.size() * layout.sample_bytes());
      CHECK(scramble(layout, from, packed) == bad);
      const GuardedPlanes found(16, given.size(), kAligned);
      unpack_reference(layout, packed, found.planes());
      for (std::size_t p = 0; p < 16; ++p) {
        for (std::size_t i = 0; i < given.size(); ++i) {
          REQUIRE(found.planes()[p][i] == (p == channel ? kept[i] : 5));
        }
      }
    }
  }
}

TEST_CASE("32-bit pixels are bit patterns: nothing is clipped") {
  const StreamLayout layout(32, 0, in_order(2));
  const std::array<std::int32_t, 2> a = {-1, std::numeric_limits<std::int32_t>::min()};
  const std::array<std::int32_t, 2> b = {std::numeric_limits<std::int32_t>::max(), 0};
  const std::array<const std::int32_t*, 2> from = {a.data(), b.data()};
  std::vector<std::uint8_t> packed(16);
  CHECK(scramble(layout, from, packed) == 0);
  std::array<std::int32_t, 2> c{};
  std::array<std::int32_t, 2> d{};
  const std::array<std::int32_t*, 2> to = {c.data(), d.data()};
  unpack(layout, packed, to);
  CHECK(c == a);
  CHECK(d == b);
}

TEST_CASE("sizes that do not fit are refused") {
  const StreamLayout layout(18, 0, in_order(16));
  std::vector<std::int32_t> plane(4);
  const std::vector<std::int32_t*> to(16, plane.data());
  const std::vector<const std::int32_t*> from(16, plane.data());
  const std::vector<std::int32_t*> few(15, plane.data());
  const std::vector<const std::int32_t*> few_from(15, plane.data());
  std::vector<std::uint8_t> packed(72);
  CHECK_NOTHROW(unpack_reference(layout, {}, to));
  CHECK_THROWS_AS(unpack(layout, packed, few), UsageError);
  CHECK_THROWS_AS(unpack_reference(layout, packed, few), UsageError);
  CHECK_THROWS_AS(scramble(layout, few_from, packed), UsageError);
  packed.resize(71);
  CHECK_THROWS_AS(unpack(layout, packed, to), UsageError);
  CHECK_THROWS_AS(unpack_reference(layout, packed, to), UsageError);
  CHECK_THROWS_AS(scramble(layout, from, packed), UsageError);
}

TEST_CASE("levels: scalar always, kernels only where they are") {
  const std::vector<Level>& levels = available_levels();
  REQUIRE(!levels.empty());
  CHECK(levels.front() == Level::scalar);
  CHECK(std::find(levels.begin(), levels.end(), active_level()) != levels.end());
  if (const char* forced = std::getenv("RAFTWRIGHT_KERNELS"); forced != nullptr && *forced != '\0') {
    CHECK(level_name(active_level()) == std::string(forced));
  } else {
    CHECK(active_level() == levels.back());
  }
  const StreamLayout science(18, kScienceMask, in_order(48));
  const StreamLayout odd(18, 0, in_order(20));
  const StreamLayout narrow(16, 0, in_order(48));
  std::vector<std::int32_t> plane(4);
  const std::vector<std::int32_t*> to(48, plane.data());
  for (const Level level : {Level::scalar, Level::avx2, Level::neon}) {
    CAPTURE(level_name(level));
    const bool available = std::find(levels.begin(), levels.end(), level) != levels.end();
    CHECK(has_unpack_kernel(science, level) == available);
    CHECK(has_unpack_kernel(odd, level) == (level == Level::scalar));
    CHECK(has_unpack_kernel(narrow, level) == (level == Level::scalar));
    if (!available) CHECK_THROWS_AS(unpack(science, {}, to, Stores::cached, level), UsageError);
  }
}
