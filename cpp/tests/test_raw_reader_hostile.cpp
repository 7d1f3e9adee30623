// Files that are wrong, in every way that a header, a table or a tile can be.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "doctest.h"
#include "fits_builder.hpp"
#include "raftwright/error.hpp"
#include "raftwright/raw_reader.hpp"
#include "reader_checks.hpp"

namespace {

using namespace fits_builder;
using namespace reader_checks;
using raftwright::FitsFile;
using raftwright::FormatError;

}  // namespace

TEST_CASE("fits file: what another reader must read is said, with the reason") {
  RiceImage rice;
  rice.axes = {4, 4};
  const std::vector<std::int32_t> pixels(16, 5);
  const auto reason = [&](const Bytes& bytes) {
    const FitsFile file = open_bytes(primary() + bytes);
    CHECK_FALSE(file.info(1).decodable);
    CHECK(has(error_of([&] { (void)file.image(1); }), file.info(1).reason));
    return file.info(1).reason;
  };
  const auto with = [&](const std::string& more) {
    RiceImage changed = rice;
    changed.more = more;
    return rice_hdu(changed, pixels);
  };
  RiceImage gzip = rice;
  gzip.type = "'GZIP_2  '";
  CHECK(reason(rice_hdu(gzip, pixels)) == "it is compressed with 'GZIP_2'");
  RiceImage floats = rice;
  floats.bitpix = -32;
  CHECK(has(reason(rice_hdu(floats, pixels)), "ZBITPIX -32"));
  CHECK(has(reason(with(card("BZERO", 1000))), "BSCALE or BZERO"));
  CHECK(has(reason(with(card("BSCALE", "0.5"))), "BSCALE or BZERO"));
  CHECK(has(reason(with(card("BSCALE", "'one'"))), "BSCALE or BZERO"));
  CHECK(has(reason(with(card("BSCALE", "nan"))), "BSCALE or BZERO"));
  CHECK(has(reason(with(card("ZSCALE", "2.0"))), "ZSCALE or ZZERO"));
  CHECK(has(reason(with(card("ZZERO", "1.0"))), "ZSCALE or ZZERO"));
  CHECK(has(reason(with(card("ZMASKCMP", "'RICE_1'"))), "mask"));
  RiceImage eight = rice;
  eight.parameters = "absent";
  eight.more = card("ZNAME1", "'BYTEPIX '") + card("ZVAL1", 8);
  CHECK(has(reason(rice_hdu(eight, pixels)), "BYTEPIX 8"));
  CHECK(has(reason(image_hdu(32, {2}, Bytes(8), card("BZERO", 1))), "BSCALE or BZERO"));
  CHECK(has(reason(image_hdu(64, {2}, Bytes(16), card("BZERO", "9223372036854775808"))), "BSCALE or BZERO"));
  const Bytes groups = hdu(card("XTENSION", "'IMAGE   '") + card("BITPIX", 8) + axis_cards("NAXIS", {4}) +
                               card("PCOUNT", 2) + card("GCOUNT", 3),
                           Bytes(18));
  CHECK(has(reason(groups), "PCOUNT"));

  // Another column: the tile may be there instead.
  Bytes other = rice_hdu(rice, pixels);
  std::string text(other.begin(), other.end());
  text.replace(text.find("'COMPRESSED_DATA'"), 17, "'GZIP_COMPRESSED'");
  other.assign(text.begin(), text.end());
  CHECK(has(reason(other), "column GZIP_COMPRESSED"));

  // BLANK changes nothing: pixels come as they are stored; neutral cards neither.
  const FitsFile neutral =
      open_bytes(primary() + with(card("BLANK", 5) + card("ZBLANK", 5) + card("BSCALE", "1.0E0") +
                                  card("BZERO", "0.0") + card("ZSCALE", "1.0") + card("ZZERO", 0LL)));
  CHECK(read<std::int32_t>(neutral, 1) == pixels);
}

TEST_CASE("fits file: a chain of HDUs that breaks is refused where it breaks") {
  const Bytes good = primary() + image_hdu(16, {8, 8}, Bytes(128));
  const auto refused = [](const Bytes& bytes) { return error_of([&] { open_bytes(bytes); }); };
  const auto image = [](const std::string& cards) {
    return primary() + hdu(card("XTENSION", "'IMAGE   '") + cards, Bytes(2880));
  };
  CHECK(has(refused({}), "test.fits: the file is empty"));
  CHECK(has(refused(Bytes(5000, 'x')), "byte 0 begins no FITS file"));
  CHECK(has(refused({0x1f, 0x8b, 8, 0}), "gunzip it first"));
  for (const std::size_t length : {std::size_t{9}, std::size_t{80}, std::size_t{2879}}) {
    CHECK(has(refused(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))),
              "test.fits: HDU 0"));
  }
  const auto cut = [&](std::size_t length) {
    return refused(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)));
  };
  CHECK(cut(2880) == "no error");
  CHECK(cut(2888) == "no error");  // 8 bytes that begin no extension
  CHECK(has(cut(2889), "HDU 1 (header at byte 2880): the header has no END card"));
  CHECK(has(cut(5700), "the file ends inside the padding of the header"));
  CHECK(has(cut(5760 + 127), "its data would end at byte 5888, the file ends at byte 5887"));
  CHECK(has(cut(5760 + 128), "the last 2752 bytes of padding after its data are missing"));

  CHECK(has(refused(image(card("BITPIX", 12) + axis_cards("NAXIS", {4}))), "BITPIX = 12 must be"));
  CHECK(has(refused(image(axis_cards("NAXIS", {4}))), "card BITPIX is missing"));
  CHECK(has(refused(image(card("BITPIX", "8.0") + axis_cards("NAXIS", {4}))), "card BITPIX reads '8.0'"));
  CHECK(has(refused(image(card("BITPIX", 8))), "card NAXIS is missing"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 2) + card("NAXIS1", 4))),
            "card NAXIS2 is missing"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 1000))), "NAXIS = 1000 must be within 0 .. 999"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", -1))), "NAXIS = -1"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 1) + card("NAXIS1", -4))),
            "NAXIS1 = -4 must be at least 0"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 1) + card("NAXIS1", "99999999999999999999"))),
            "card NAXIS1 reads '99999999999999999999' where a 64-bit integer must stand"));
  const std::string huge = card("NAXIS1", 4294967296LL) + card("NAXIS2", 4294967296LL);
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 2) + huge)), "multiply beyond 2^63"));
  CHECK(has(refused(image(card("BITPIX", 64) + card("NAXIS", 1) + card("NAXIS1", 9223372036854775807LL))),
            "multiply beyond 2^63"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 1) + card("NAXIS1", 9223372036854775807LL) +
                          card("PCOUNT", 1))),
            "add up beyond 2^63"));
  CHECK(has(refused(image(card("BITPIX", 8) + card("NAXIS", 1) + card("NAXIS1", 4) + card("GCOUNT", -1))),
            "GCOUNT = -1"));
  CHECK(has(refused(image(card("BITPIX", 8) + axis_cards("NAXIS", {4}) + card("NAXIS1", 5))),
            "card NAXIS1 stands twice, with 4 and 5"));
  CHECK(refused(image(card("BITPIX", 8) + axis_cards("NAXIS", {4}) + card("NAXIS1", 4))) == "no error");
  CHECK(has(refused(image(card("BITPIX", "\xff\x01") + card("NAXIS", 0LL))), "card BITPIX reads '?\?'"));
  // The name of the HDU is in the text, and hostile bytes are not.
  CHECK(has(refused(image(card("EXTNAME", "'a\nb'") + card("BITPIX", 7))),
            "HDU 1 'a?b' (header at byte 2880)"));
  CHECK(has(error_of([&] { open_bytes(good, 1000); }), "above the limit of 1000"));
  CHECK(has(error_of([&] { (void)open_bytes(primary() + image_hdu(16, {8, 8}, Bytes(128)), 8640).image(1); }),
            "no error"));

  // Random groups: an axis of length 0 that counts as none.
  const Bytes groups = hdu(card("SIMPLE", "T") + card("BITPIX", 16) + axis_cards("NAXIS", {0, 10}) +
                               card("GROUPS", "T") + card("PCOUNT", 2) + card("GCOUNT", 3),
                           Bytes(72));
  CHECK(open_bytes(groups).info(0).data_bytes == 72);
  CHECK_FALSE(open_bytes(groups).info(0).decodable);
}

TEST_CASE("fits file: an image that contradicts itself is refused, the others are read") {
  RiceImage rice;
  rice.axes = {20, 10};
  const std::vector<std::int32_t> pixels(200, 1234);
  const Bytes good = rice_hdu(rice, pixels);
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text(good.begin(), good.end());
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    REQUIRE(from.size() == to.size());
    text.replace(at, from.size(), to);
    const Bytes bytes = primary() + Bytes(text.begin(), text.end()) + good;
    const FitsFile file = open_bytes(bytes);
    REQUIRE(file.size() == 3);
    CHECK(read<std::int32_t>(file, 2) == pixels);
    CHECK(file.info(1).decodable);  // ours to refuse
    return error_of([&] { (void)file.image(1); });
  };
  CHECK(has(changed("ZNAXIS2 = 10", "ZNAXIS2 = 11"),
            "test.fits: HDU 1 (header at byte 2880): the table has 10 rows where the image has 11 tiles"));
  CHECK(has(changed("ZNAXIS2 = 10", "ZNAXIS2 = -1"), "ZNAXIS2 = -1 must be at least 0"));
  CHECK(has(changed("ZNAXIS1 = 20", "NOAXIS1 = 20"), "card ZNAXIS1 is missing"));
  CHECK(has(changed("ZNAXIS  = 2", "ZNAXIS  = 0"), "ZNAXIS = 0"));
  CHECK(has(changed("ZBITPIX = 32", "ZBITPIX = 33"), "ZBITPIX = 33 must be"));
  CHECK(has(changed("ZVAL1   = 32", "ZVAL1   = 0 "), "BLOCKSIZE 0"));
  CHECK(has(changed("ZVAL2   = 4", "ZVAL2   = 3"), "BYTEPIX 3"));
  CHECK(has(changed("'1PB(99) '", "'1PJ(99) '"), "must be an array of bytes"));
  CHECK(has(changed("'1PB(99) '", "'0PB(99) '"), "no column COMPRESSED_DATA"));
  CHECK(has(changed("'1PB(99) '", "'2PB(99) '"), "wider than the table's rows of 8 bytes"));
  CHECK(has(changed("'1PB(99) '", "'1ZB(99) '"), "none that FITS knows"));
  CHECK(has(changed("'1PB(99) '", "'        '"), "no format"));
  CHECK(has(changed("TFIELDS = 1", "TFIELDS = 2"), "no format"));
  CHECK(has(changed("TFIELDS = 1", "TFIELDS = 0"), "no column COMPRESSED_DATA"));

  RiceImage heap = rice;
  heap.more = card("THEAP", 79);
  const auto fault = [](const Bytes& bytes, std::uint64_t limit = FitsFile::kDefaultLimit) {
    return error_of([&] { (void)open_bytes(primary() + bytes, limit).image(1); });
  };
  CHECK(has(fault(rice_hdu(heap, pixels)), "THEAP = 79 is outside the data unit after the table, 80 .. "));
  heap.more = card("THEAP", 1 << 20);
  CHECK(has(fault(rice_hdu(heap, pixels)), "THEAP = 1048576 is outside"));
  heap.more = card("ZTILE1", 0LL);
  CHECK(has(fault(rice_hdu(heap, pixels)), "ZTILE1 = 0 must be at least 1"));

  // Sizes that the file cannot fill, or that the caller does not want.
  const auto claims = [&](const std::string& sizes) {
    return fault(hdu(card("XTENSION", "'BINTABLE'") + card("BITPIX", 8) + axis_cards("NAXIS", {8, 1}) +
                         card("PCOUNT", 100) + card("GCOUNT", 1) + card("TFIELDS", 1) +
                         card("TTYPE1", "'COMPRESSED_DATA'") + card("TFORM1", "'1PB'") + card("ZIMAGE", "T") +
                         card("ZCMPTYPE", "'RICE_1'") + card("ZBITPIX", 32) + sizes,
                     Bytes(108)),
                 1 << 20);
  };
  CHECK(has(claims(axis_cards("ZNAXIS", {std::size_t{1} << 40U})), "above the limit of 1048576"));
  CHECK(has(claims(axis_cards("ZNAXIS", {std::size_t{1} << 62U, 4})), "multiply beyond 2^63"));
  CHECK(has(claims(axis_cards("ZNAXIS", {200000})), "cannot come out of 100 compressed bytes"));
  CHECK(has(claims(axis_cards("ZNAXIS", {100}) + card("ZVAL2", "junk")), "card ZVAL2 reads 'junk'"));
}

TEST_CASE("fits file: a damaged tile is named") {
  RiceImage rice;
  rice.axes = {40, 30};
  rice.more = card("EXTNAME", "'Segment07'");
  std::mt19937 random(5);
  const auto pixels = numbers<std::int32_t>(1200, random, false);
  const Bytes good = primary() + rice_hdu(rice, pixels);
  const std::size_t table = open_bytes(good).info(1).data_offset;
  const auto damaged = [&](const std::function<void(Bytes&)>& damage, unsigned threads = 1) {
    Bytes bytes = good;
    damage(bytes);
    const FitsFile file = open_bytes(bytes);
    return error_of([&] { (void)read<std::int32_t>(file, 1, threads); });
  };
  const auto put = [&](Bytes& bytes, std::size_t tile, std::size_t field, std::uint32_t value) {
    for (std::size_t byte = 0; byte < 4; ++byte) {
      bytes[table + 8 * tile + 4 * field + byte] = static_cast<std::uint8_t>(value >> (24 - 8 * byte));
    }
  };
  for (const unsigned threads : {1U, 2U}) {
    const std::string outside = damaged([&](Bytes& b) { put(b, 7, 1, 0x7fffffff); }, threads);
    CHECK(has(outside,
              "test.fits: HDU 1 'Segment07' (header at byte 2880): tile 7 of 30 (from FITS pixel 1,8, "
              "descriptor at byte 5816) claims "));
    CHECK(has(outside, " bytes from byte 2147483647 of a heap of "));
    CHECK(has(outside, "fetch it again"));
  }
  CHECK(has(damaged([&](Bytes& b) { put(b, 0, 0, 0xffffffff); }), "tile 0 of 30"));
  CHECK(has(damaged([&](Bytes& b) { put(b, 29, 0, 0); }),
            "tile 29 of 30 (from FITS pixel 1,30, descriptor at byte "));
  CHECK(has(damaged([&](Bytes& b) { put(b, 3, 0, 20); }), "(40 pixels from 20 bytes at byte "));
  CHECK(has(damaged([&](Bytes& b) {
              // A block id above 26.
              const std::size_t code = table + 30 * 8 + 4;
              b[code] = 0xff;
            }),
            "tile 0 of 30"));
}

TEST_CASE("fits file: whatever the bytes, the answer is pixels or an error") {
  std::mt19937 random(8);
  RiceImage rice;
  rice.axes = {40, 12};
  rice.more = card("EXTNAME", "'Segment10'") + card("BZERO", "0.0") + card("THEAP", 96);
  const auto pixels = numbers<std::int32_t>(480, random, true);
  RiceImage tiled;
  tiled.axes = {13, 7, 3};
  tiled.tile = {5, 3, 2};
  tiled.bitpix = 16;
  const auto small = numbers<std::int16_t>(273, random, true);
  const Bytes good =
      primary() + rice_hdu(rice, pixels) + rice_hdu(tiled, small) + image_hdu(-32, {9, 9}, Bytes(324));
  int read_images = 0;
  for (int round = 0; round < 4000; ++round) {
    Bytes bytes = good;
    const int changes = 1 + static_cast<int>(random() % 3);
    for (int change = 0; change < changes; ++change) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<std::uint8_t>(random());
          break;
        case 1:
          bytes[at] = static_cast<std::uint8_t>("0123456789-. '=TFPQ"[random() % 19]);
          break;
        case 2: {
          const std::string value =
              card("X", static_cast<long long>(random()) << (random() % 32)).substr(10, 18);
          std::copy_n(value.begin(), std::min(value.size(), bytes.size() - at),
                      bytes.begin() + static_cast<std::ptrdiff_t>(
                                          at / 80 * 80 + 10 < bytes.size() - 18 ? at / 80 * 80 + 10 : 0));
          break;
        }
        default:
          if (random() % 8 == 0) bytes.resize(at);
      }
      if (bytes.empty()) break;
    }
    try {
      const FitsFile file = open_bytes(bytes, 1 << 22);
      for (std::size_t hdu = 0; hdu < file.size(); ++hdu) {
        (void)file.sums(hdu);
        try {
          std::vector<std::uint64_t> out(file.image(hdu).bytes / 8 + 1);
          file.read_into(hdu, out.data(), file.image(hdu).bytes);
          ++read_images;
        } catch (const FormatError&) {
        }
      }
    } catch (const FormatError&) {
    }
  }
  CHECK(read_images > 1000);
}
