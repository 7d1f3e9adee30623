// Byte identity with cfitsio's own coder, where the library is installed.
#if defined(RAFTWRIGHT_HAVE_CFITSIO)

#include "doctest.h"
#include "raftwright/rice.hpp"
#include "rice_tiles.hpp"

using namespace raftwright;
using namespace rice_tests;

// Exported by every libcfitsio, declared in no public header.
extern "C" {
int fits_rcomp(int pixels[], int count, unsigned char* code, int room, int block);
int fits_rcomp_short(short pixels[], int count, unsigned char* code, int room, int block);
int fits_rcomp_byte(signed char pixels[], int count, unsigned char* code, int room, int block);
int fits_rdecomp(unsigned char* code, int length, unsigned int pixels[], int count, int block);
int fits_rdecomp_short(unsigned char* code, int length, unsigned short pixels[], int count, int block);
int fits_rdecomp_byte(unsigned char* code, int length, unsigned char pixels[], int count, int block);
}

namespace {

int foreign_encode(std::int32_t* pixels, int count, std::uint8_t* code, int room, int block) {
  return fits_rcomp(pixels, count, code, room, block);
}
int foreign_encode(std::int16_t* pixels, int count, std::uint8_t* code, int room, int block) {
  return fits_rcomp_short(pixels, count, code, room, block);
}
int foreign_encode(std::int8_t* pixels, int count, std::uint8_t* code, int room, int block) {
  return fits_rcomp_byte(pixels, count, code, room, block);
}
int foreign_decode(std::uint8_t* code, int length, std::uint32_t* pixels, int count, int block) {
  return fits_rdecomp(code, length, pixels, count, block);
}
int foreign_decode(std::uint8_t* code, int length, std::uint16_t* pixels, int count, int block) {
  return fits_rdecomp_short(code, length, pixels, count, block);
}
int foreign_decode(std::uint8_t* code, int length, std::uint8_t* pixels, int count, int block) {
  return fits_rdecomp_byte(code, length, pixels, count, block);
}

template <class Pixel>
void compare(int rounds, bool other_blocks) {
  std::mt19937_64 random(10);
  for (int round = 0; round < rounds; ++round) {
    const std::size_t count = random() % 3 == 0 ? 576 : 1 + random() % 100;
    // In int32 blocks of 64 and more cfitsio loses differences of 2^30 (a signed shift): not our model.
    const unsigned block = other_blocks ? 1 + static_cast<unsigned>(random() % 63) : 32;
    auto pixels = tile<Pixel>(static_cast<Content>(round % kContents), count, random);
    const int width = static_cast<int>(count);
    const int blocks = static_cast<int>(block);

    std::vector<std::uint8_t> theirs(sizeof(Pixel) * 2 * count + 200);
    const int length =
        foreign_encode(pixels.data(), width, theirs.data(), static_cast<int>(theirs.size()), blocks);
    REQUIRE(length > 0);
    theirs.resize(static_cast<std::size_t>(length));
    std::vector<std::uint8_t> ours(rice_bound(count, sizeof(Pixel), block));
    ours.resize(rice_encode_reference(pixels, ours, block));
    if (ours != theirs) FAIL("the reference, round " << round);
    if constexpr (sizeof(Pixel) == 4) {
      for (const Level level : available_levels()) {
        ours.resize(rice_bound(count, 4, block));
        ours.resize(rice_encode(pixels, ours, block, level));
        if (ours != theirs) FAIL(level_name(level) << ", round " << round);
      }
    }
    std::vector<Pixel> again(count);
    if (rice_decode(theirs, again, block) != RiceStatus::ok || again != pixels)
      FAIL("ours of theirs, " << round);
    std::vector<std::make_unsigned_t<Pixel>> foreign(count);
    if (foreign_decode(ours.data(), static_cast<int>(ours.size()), foreign.data(), width, blocks) != 0) {
      FAIL("theirs of ours, round " << round);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (static_cast<Pixel>(foreign[i]) != pixels[i]) FAIL("pixel " << i << ", round " << round);
    }
  }
}

}  // namespace

TEST_CASE("rice: cfitsio and we write the same bytes and read each other's") {
  compare<std::int32_t>(20000, false);
  compare<std::int32_t>(4000, true);
  compare<std::int16_t>(4000, false);
  compare<std::int16_t>(2000, true);
  compare<std::int8_t>(4000, false);
  compare<std::int8_t>(2000, true);
}

#endif
