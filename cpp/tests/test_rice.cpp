#include "raftwright/rice.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "doctest.h"
#include "guarded.hpp"
#include "raftwright/error.hpp"
#include "rice_tiles.hpp"

using namespace raftwright;
using namespace rice_tests;

namespace {

using Bytes = std::vector<std::uint8_t>;

template <class Pixel>
Bytes encoded(const std::vector<Pixel>& pixels, unsigned block = 32) {
  Bytes out(rice_bound(pixels.size(), sizeof(Pixel), block));
  out.resize(rice_encode_reference(pixels, out, block));
  return out;
}

Bytes encoded(const std::vector<std::int32_t>& pixels, unsigned block, Level level) {
  Bytes out(rice_bound(pixels.size(), 4, block));
  out.resize(rice_encode(pixels, out, block, level));
  return out;
}

/// How every level, or the only decoder of a narrow type, takes `code`; each checked against the others.
template <class Pixel>
RiceStatus decoded(const Bytes& code, std::vector<Pixel>& pixels, unsigned block = 32) {
  if constexpr (sizeof(Pixel) == 4) {
    const RiceStatus status = rice_decode(code, pixels, block, Level::scalar);
    for (const Level level : available_levels()) {
      std::vector<Pixel> again(pixels.size());
      if (rice_decode(code, again, block, level) != status) FAIL("levels disagree about the status");
      if (status == RiceStatus::ok && again != pixels) FAIL("levels disagree about the pixels");
    }
    return status;
  } else {
    return rice_decode(code, pixels, block);
  }
}

template <class Pixel>
bool survives(const std::vector<Pixel>& pixels, const Bytes& code, unsigned block) {
  std::vector<Pixel> again(pixels.size(), Pixel{77});
  return decoded(code, again, block) == RiceStatus::ok && again == pixels;
}

template <class Pixel>
Bytes book(const std::vector<Pixel>& pixels, unsigned block = 32) {
  return encode_by_the_book(std::span<const Pixel>(pixels), block);
}

const std::vector<std::size_t> kLengths = {1, 2, 3, 31, 32, 33, 50, 63, 64, 65, 95, 96, 97, 576, 577, 1200};

}  // namespace

TEST_CASE("rice: bytes that cfitsio writes") {
  struct Known {
    std::vector<std::int32_t> pixels;
    unsigned block;
    Bytes code;
  };
  std::vector<std::int32_t> squares;
  for (int i = 0; i < 33; ++i) squares.push_back(25000 + (i * i * 7) % 23);
  std::vector<std::int32_t> hot(40, 1000);
  hot[17] = 51000;
  const std::int32_t low = std::numeric_limits<std::int32_t>::min();
  const std::int32_t high = std::numeric_limits<std::int32_t>::max();
  const std::vector<Known> known = {
      {{7}, 32, {0, 0, 0, 7, 0}},
      {{100, 101, 99, 100}, 32, {0, 0, 0, 0x64, 0x0C, 0x89}},
      {std::vector<std::int32_t>(576, 25000), 32, {0, 0, 0x61, 0xA8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
      {{low, high, low, 0, -1}, 32, {0x80, 0x00, 0x00, 0x00, 0xD0, 0x00, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x17, 0xFF,
                                     0xFF, 0xFF, 0xF8, 0x00, 0x00, 0x00, 0x08}},
      {{5, 9, 1, 1, 1, 60000, 60001},
       2,
       {0x00, 0x00, 0x00, 0x05, 0x14, 0x10, 0xC7, 0x90, 0x80, 0x00, 0x1A, 0x97, 0xC1, 0x20}},
      {squares, 32, {0x00, 0x00, 0x61, 0xA8, 0x24, 0x3A, 0xC4, 0x72, 0xC8, 0x92, 0xD0, 0x92, 0xA0,
                     0x95, 0x79, 0x94, 0xF6, 0x69, 0xF8, 0xD7, 0x58, 0x8E, 0x59, 0x12, 0x58, 0xC8}},
      {hot, 32, {0x00, 0x00, 0x03, 0xE8, 0x6C, 0x00, 0x20, 0x01, 0x00, 0x08, 0x00, 0x40, 0x02,
                 0x00, 0x10, 0x00, 0x80, 0x04, 0x00, 0x20, 0x01, 0x00, 0x08, 0x00, 0x40, 0x02,
                 0x00, 0x10, 0x00, 0x80, 0x04, 0x00, 0x00, 0x00, 0x00, 0x2D, 0x40, 0x00, 0x00,
                 0x01, 0x69, 0xF8, 0x00, 0x40, 0x02, 0x00, 0x10, 0x00, 0x80, 0x04, 0x00, 0x20,
                 0x01, 0x00, 0x08, 0x00, 0x40, 0x02, 0x00, 0x10, 0x00, 0x80, 0x00, 0x00}},
  };
  for (const Known& tile : known) {
    CHECK(encoded(tile.pixels, tile.block) == tile.code);
    CHECK(book(tile.pixels, tile.block) == tile.code);
    for (const Level level : available_levels()) CHECK(encoded(tile.pixels, tile.block, level) == tile.code);
    CHECK(survives(tile.pixels, tile.code, tile.block));
  }
  const std::vector<std::int16_t> shorts = {32767, -32768, 0, 100, 101, 99, 100};
  const Bytes short_code = {0x7F, 0xFF, 0xE8, 0x00, 0x20, 0x02, 0x01, 0xFF,
                            0xFC, 0x19, 0x10, 0x01, 0x40, 0x07, 0x00, 0x10};
  CHECK(encoded(shorts) == short_code);
  CHECK(survives(shorts, short_code, 32));
  const std::vector<std::int8_t> bytes = {127, -128, 0, 100, 101, 99, 100};
  const Bytes byte_code = {0x7F, 0xE0, 0x00, 0x5F, 0xF9, 0x00, 0x40, 0x60, 0x40};
  CHECK(encoded(bytes) == byte_code);
  CHECK(survives(bytes, byte_code, 32));
}

TEST_CASE("rice: every level writes what the reference writes") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20000; ++round) {
    const auto content = static_cast<Content>(round % kContents);
    const std::size_t count = round % 3 == 0 ? random() % 140 : kLengths[random() % kLengths.size()];
    const auto pixels = tile<std::int32_t>(content, count, random);
    const Bytes code = encoded(pixels);
    for (const Level level : available_levels()) {
      if (encoded(pixels, 32, level) != code) {
        FAIL("content " << round % kContents << ", " << count << " pixels, round " << round << ", level "
                        << level_name(level));
      }
    }
  }
}

TEST_CASE("rice: the reference encodes by the book") {
  std::mt19937_64 random(2);
  const auto check = [&]<class Pixel>(Pixel, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      const auto content = static_cast<Content>(round % kContents);
      const std::size_t count = round % 2 == 0 ? 1 + random() % 70 : kLengths[random() % kLengths.size()];
      const unsigned block = round % 3 == 0 ? 1 + static_cast<unsigned>(random() % 100) : 32;
      const auto pixels = tile<Pixel>(content, count, random);
      const Bytes code = encoded(pixels, block);
      if (code != book(pixels, block) || !survives(pixels, code, block)) {
        FAIL(8 * sizeof(Pixel) << " bits, content " << round % kContents << ", " << count << " pixels, block "
                               << block << ", round " << round);
      }
      if constexpr (sizeof(Pixel) == 4) {
        if (encoded(pixels, block, Level::scalar) != code) FAIL("block " << block << ", round " << round);
      }
    }
  };
  check(std::int32_t{}, 2000);
  check(std::int16_t{}, 2000);
  check(std::int8_t{}, 2000);
}

TEST_CASE("rice: every shift, in every lane of a block") {
  // One zig-zag code of a run that no fast path takes, at each place, over blocks of each shift.
  for (unsigned shift = 0; shift < 26; ++shift) {
    for (std::size_t place = 0; place < 64; ++place) {
      std::vector<std::int32_t> pixels;
      std::int32_t pixel = 1 << 20;
      for (std::size_t i = 0; i < 96; ++i) {
        pixel += (i % 2 == 0 ? 1 : -1) * static_cast<std::int32_t>((1U << shift) + (i * 37) % (1U << shift));
        pixels.push_back(pixel + (i == 32 + place ? (40 << std::min(shift, 24U)) : 0));
      }
      const Bytes code = encoded(pixels);
      for (const Level level : available_levels()) {
        if (encoded(pixels, 32, level) != code) FAIL("shift " << shift << ", place " << place);
      }
      if (!survives(pixels, code, 32)) FAIL("shift " << shift << ", place " << place);
    }
  }
}

TEST_CASE("rice: large blocks") {
  std::mt19937_64 random(3);
  for (const unsigned block : {33U, 64U, 100U, 1000U, 70000U, 4000000000U}) {
    for (int content = 0; content < kContents; ++content) {
      const auto pixels = tile<std::int32_t>(static_cast<Content>(content), 70001, random);
      const Bytes code = encoded(pixels, block);
      CHECK(encoded(pixels, block, active_level()) == code);
      CHECK(survives(pixels, code, block));
    }
  }
}

TEST_CASE("rice: the sum of the pixels' patterns") {
  std::mt19937_64 random(4);
  for (int round = 0; round < 500; ++round) {
    const auto pixels = tile<std::int32_t>(static_cast<Content>(round % kContents), random() % 1300, random);
    std::uint64_t expected = 12345;
    for (const std::int32_t pixel : pixels) expected += static_cast<std::uint32_t>(pixel);
    for (const Level level : available_levels()) {
      Bytes out(rice_bound(pixels.size()));
      std::uint64_t sum = 12345;
      out.resize(rice_encode_summed(pixels, out, &sum, level));
      if (sum != expected || out != encoded(pixels)) FAIL("round " << round << ", " << level_name(level));
    }
  }
}

TEST_CASE("rice: nothing but the tile is read and nothing beyond the bound is written") {
  std::mt19937_64 random(5);
  for (const Guarded::At at : {Guarded::At::end, Guarded::At::begin}) {
    for (const std::size_t count : kLengths) {
      for (int content = 0; content < kContents; ++content) {
        const auto pixels = tile<std::int32_t>(static_cast<Content>(content), count, random);
        const Bytes code = encoded(pixels);
        const Guarded in(count * 4, at);
        const Guarded out(rice_bound(count), at);
        std::memcpy(in.bytes().data(), pixels.data(), count * 4);
        const std::span<const std::int32_t> from(reinterpret_cast<const std::int32_t*>(in.bytes().data()),
                                                 count);
        for (const Level level : available_levels()) {
          const std::size_t length = rice_encode(from, out.bytes(), 32, level);
          CHECK(std::ranges::equal(code, out.bytes().first(length)));
        }
        const Guarded stored(code.size(), at);
        std::copy(code.begin(), code.end(), stored.bytes().begin());
        const std::span<std::int32_t> to(reinterpret_cast<std::int32_t*>(in.bytes().data()), count);
        for (const Level level : available_levels()) {
          std::fill(to.begin(), to.end(), 5);
          CHECK(rice_decode(stored.bytes(), to, 32, level) == RiceStatus::ok);
          CHECK(std::equal(to.begin(), to.end(), pixels.begin()));
        }
      }
    }
  }
}

TEST_CASE("rice: the bound holds, and is needed") {
  std::mt19937_64 random(6);
  // Noise of all bits is stored raw: as long as a tile of int32 can be.
  const auto noise = tile<std::int32_t>(Content::any_bits, 576, random);
  CHECK(encoded(noise).size() == 2320);
  CHECK(rice_bound(576) == 2320 + 8);
  CHECK(rice_bound(0) == 4 + 8);
  CHECK(rice_bound(1) == 4 + 4 + 1 + 8);
  CHECK(rice_bound(576, 4, 0) == std::numeric_limits<std::size_t>::max());
  CHECK(rice_bound(std::numeric_limits<std::size_t>::max()) == std::numeric_limits<std::size_t>::max());

  // Narrow pixels in long blocks with the longest shift can take more than raw: two zeros in front of every
  // code, and of `more` codes three.
  const auto longest = [&]<class Pixel>(Pixel, unsigned block, unsigned shift, unsigned more) {
    using Unsigned = std::make_unsigned_t<Pixel>;
    std::vector<Pixel> pixels(1, 0);
    for (unsigned i = 1; i < block; ++i) {
      const unsigned difference = ((i <= more ? 3U : 2U) << shift) / 2;
      pixels.push_back(
          static_cast<Pixel>(static_cast<Unsigned>(static_cast<Unsigned>(pixels.back()) + difference)));
    }
    return encoded(pixels, block).size();
  };
  CHECK(longest(std::int8_t{}, 4096, 5, 66) == 1 + (3 + 8 * 4096 + 64 + 7) / 8);
  CHECK(rice_bound(4096, 1, 4096) == 1 + (3 + 8 * 4096 + 64 + 7) / 8 + 8);
  CHECK(longest(std::int8_t{}, 4096, 5, 67) == 1 + (3 + 8 * 4096 + 7) / 8);  // raw
  CHECK(longest(std::int16_t{}, 70000, 13, 6) <= rice_bound(70000, 2, 70000) - 8);

  const auto check = [&]<class Pixel>(Pixel) {
    for (int round = 0; round < 3000; ++round) {
      const std::size_t count = 1 + random() % 300;
      const unsigned block = 1 + static_cast<unsigned>(random() % 80);
      const auto pixels = tile<Pixel>(static_cast<Content>(round % kContents), count, random);
      if (encoded(pixels, block).size() > rice_bound(count, sizeof(Pixel), block) - 8)
        FAIL("round " << round);
    }
  };
  check(std::int32_t{});
  check(std::int16_t{});
  check(std::int8_t{});
}

TEST_CASE("rice: arguments that cannot be meant") {
  const std::vector<std::int32_t> pixels(50, 1);
  for (const Level level : available_levels()) {
    Bytes room(rice_bound(50) - 1);
    CHECK_THROWS_AS(rice_encode(pixels, room, 32, level), UsageError);
    CHECK_THROWS_AS(rice_encode(pixels, room, 0, level), UsageError);
    Bytes enough(rice_bound(0));
    CHECK(rice_encode({}, enough, 32, level) == 0);
  }
  Bytes room(rice_bound(50, 2, 32) - 1);
  CHECK_THROWS_WITH_AS(rice_encode_reference(std::vector<std::int16_t>(50), room),
                       "room for a RICE_1 tile of 50 pixels is 110 bytes; give rice_bound() = 111",
                       UsageError);
  std::vector<std::int32_t> out(3);
  CHECK(rice_decode(Bytes{0, 0, 0, 1, 0}, out, 0) == RiceStatus::bad_block);
}

TEST_CASE("rice: a tile that is cut or too long is refused") {
  std::mt19937_64 random(7);
  const auto check = [&]<class Pixel>(Pixel) {
    for (int content = 0; content < kContents; ++content) {
      const std::size_t count = 1 + random() % 200;
      const auto pixels = tile<Pixel>(static_cast<Content>(content), count, random);
      const Bytes code = encoded(pixels);
      for (std::size_t length = 0; length < code.size(); ++length) {
        std::vector<Pixel> again(count);
        const Bytes cut(code.begin(), code.begin() + static_cast<std::ptrdiff_t>(length));
        if (decoded(cut, again) != RiceStatus::truncated) FAIL("cut to " << length << " of " << code.size());
      }
      for (std::size_t more = 1; more < 70; ++more) {
        std::vector<Pixel> again(count);
        Bytes longer = code;
        longer.resize(code.size() + more, more % 2 == 0 ? 0 : 0xFF);
        if (decoded(longer, again) != RiceStatus::unused_bytes) FAIL(more << " bytes more");
        if (again != pixels) FAIL("the pixels in front of unused bytes");
      }
    }
  };
  check(std::int32_t{});
  check(std::int16_t{});
  check(std::int8_t{});
  std::vector<std::int32_t> none;
  CHECK(decoded({}, none) == RiceStatus::ok);
  CHECK(decoded({0}, none) == RiceStatus::unused_bytes);
}

TEST_CASE("rice: block ids that the format does not have") {
  for (unsigned id = 0; id < 32; ++id) {
    for (const std::size_t whole : {0U, 1U, 5U}) {  // in the first block or behind others
      Bits bits;
      bits.put(7, 32);
      for (std::size_t block = 0; block < whole; ++block) bits.put(0, 5);
      bits.put(id, 5);
      for (int k = 0; k < 32; ++k) bits.put(0x80000001, 32);
      std::vector<std::int32_t> pixels(32 * (whole + 1));
      const RiceStatus status = decoded(bits.bytes(), pixels);
      CHECK((status == RiceStatus::bad_block) == (id > 26));
      if (whole != 0) CHECK(pixels[32 * whole - 1] == 7);
    }
  }
}

TEST_CASE("rice: codes of another encoder") {
  std::mt19937_64 random(8);
  // Any shift is legal for any block; zig-zag codes here are small enough for runs to stay affordable.
  const auto check = [&]<class Pixel>(Pixel) {
    for (int id = 1; id <= Widths<Pixel>::raw_id; ++id) {
      for (const std::size_t count : {1U, 31U, 32U, 33U, 50U, 576U}) {
        std::vector<Pixel> pixels(count, 100);
        for (Pixel& pixel : pixels) {
          const auto spread = static_cast<std::uint64_t>(1)
                              << std::min(id + 5, 8 * static_cast<int>(sizeof(Pixel)));
          pixel = static_cast<Pixel>(random() % spread);
        }
        const Bytes code = encode_by_the_book(std::span<const Pixel>(pixels), 32, id);
        CHECK(survives(pixels, code, 32));
      }
    }
  };
  check(std::int32_t{});
  check(std::int16_t{});
  check(std::int8_t{});

  // A run of zeros of any length; what exceeds 32 bits wraps.
  for (const std::size_t run : {55U, 56U, 57U, 63U, 64U, 65U, 100U, 255U, 256U, 257U, 100000U}) {
    Bits bits;
    bits.put(0, 32);
    bits.put(5, 5);
    for (int k = 0; k < 40; ++k) {
      if (k == 32) bits.put(5, 5);
      bits.put_code(k == 20 ? (run << 4) + 6 : 0, 4);
    }
    std::vector<std::int32_t> pixels(40);
    CHECK(decoded(bits.bytes(), pixels) == RiceStatus::ok);
    CHECK(pixels[19] == 0);
    CHECK(pixels[20] == static_cast<std::int32_t>((run << 3) + 3));
    CHECK(pixels[39] == pixels[20]);
  }
  // A stream that is one endless run.
  std::vector<std::int32_t> pixels(64);
  Bytes zeros(1000, 0);
  zeros[4] = 0x08;
  CHECK(decoded(zeros, pixels) == RiceStatus::truncated);
}

TEST_CASE("rice: any bytes at all are decoded alike or refused alike") {
  std::mt19937_64 random(9);
  for (int round = 0; round < 20000; ++round) {
    Bytes code;
    if (round % 2 == 0) {
      code.resize(random() % 200);
      for (std::uint8_t& byte : code) byte = static_cast<std::uint8_t>(random());
    } else {
      code = encoded(
          tile<std::int32_t>(static_cast<Content>(round / 2 % kContents), 1 + random() % 140, random));
      for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
        std::uint8_t& byte = code[random() % code.size()];
        byte = static_cast<std::uint8_t>(byte ^ (1U << random() % 8));
      }
      if (random() % 4 == 0) code.resize(random() % (code.size() + 20));
    }
    const Guarded stored(code.size());
    std::copy(code.begin(), code.end(), stored.bytes().begin());
    const std::size_t count = random() % 200;
    std::vector<std::int32_t> scalar(count);
    const RiceStatus status = rice_decode(stored.bytes(), scalar, 32, Level::scalar);
    for (const Level level : available_levels()) {
      std::vector<std::int32_t> again(count);
      if (rice_decode(stored.bytes(), again, 32, level) != status) FAIL("status, round " << round);
      if (status == RiceStatus::ok && again != scalar) FAIL("pixels, round " << round);
    }
    std::vector<std::int16_t> shorts(count);
    std::vector<std::int8_t> bytes(count);
    static_cast<void>(rice_decode(stored.bytes(), shorts, 1 + static_cast<unsigned>(random() % 40)));
    static_cast<void>(rice_decode(stored.bytes(), bytes, 1 + static_cast<unsigned>(random() % 40)));
  }
}

TEST_CASE("rice: every status has its text") {
  for (const RiceStatus status :
       {RiceStatus::ok, RiceStatus::truncated, RiceStatus::bad_block, RiceStatus::unused_bytes}) {
    CHECK(std::string(rice_status_text(status)).size() > 5);
    CHECK(std::string(rice_status_text(status)) != "unknown");
  }
}
