#include "raftwright/raw_reader.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "doctest.h"
#include "fits_builder.hpp"
#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "reader_checks.hpp"

namespace {

using namespace fits_builder;
using namespace reader_checks;
using raftwright::FitsFile;
using raftwright::FormatError;
using raftwright::HduInfo;
using raftwright::HduKind;
using raftwright::ImageTarget;
using raftwright::IoError;
using raftwright::PixelType;
using raftwright::UsageError;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "raftwright-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  [[nodiscard]] std::string write(const std::string& name, const Bytes& bytes) const {
    std::ofstream stream(file(name), std::ios::binary);
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("fits file: the structure is what the headers say") {
  const std::vector<std::int32_t> pixels = {1, -2, 3, 4, 5, 1 << 30};
  RiceImage rice;
  rice.axes = {3, 2};
  rice.more = card("EXTNAME", "'Segment10'   / it's a name") + card("EXTVER", 7) +
              plain_card("HIERARCH STUTTER ROWS= 4 / NAXIS1  = 9") + plain_card("COMMENT = 'END'") +
              plain_card("CONTINUE  'NAXIS1 = 12'") + plain_card("        ---- caf\xe9 ----");
  const Bytes table =
      hdu(card("XTENSION", "'BINTABLE'") + card("BITPIX", 8) + axis_cards("NAXIS", {0, 0}) +
          card("PCOUNT", 0LL) + card("GCOUNT", 1) + card("TFIELDS", 0LL) + card("EXTNAME", "'REB_COND'"));
  const Bytes odd = hdu(card("XTENSION", "'FOREIGN '") + card("BITPIX", 16) + axis_cards("NAXIS", {5}) +
                            card("PCOUNT", 3) + card("GCOUNT", 2) + card("EXTNAME", "'caf\xe9 ''s'"),
                        Bytes(32, 1));
  const Bytes bytes = primary() + image_hdu(32, {3, 2}, big_endian(pixels)) + rice_hdu(rice, pixels) + table +
                      odd + Bytes(100, 'x');
  const FitsFile file = open_bytes(bytes);
  REQUIRE(file.size() == 5);
  CHECK(file.trailing() == 100);
  CHECK(file.name() == "test.fits");

  CHECK(file.info(0).kind == HduKind::primary);
  CHECK(file.info(0).shape.empty());
  CHECK_FALSE(file.info(0).decodable);
  CHECK(file.info(0).data_offset == 2880);
  CHECK(file.info(0).data_bytes == 0);
  CHECK(file.cards(0) == primary_cards());

  const HduInfo& image = file.info(1);
  CHECK(image.kind == HduKind::image);
  CHECK(image.name.empty());
  CHECK(image.version == 1);
  CHECK(image.bitpix == 32);
  CHECK(image.shape == std::vector<std::size_t>{2, 3});
  CHECK(image.header_offset == 2880);
  CHECK(image.data_offset == 5760);
  CHECK(image.data_bytes == 24);
  CHECK(image.decodable);
  CHECK(image.compression.empty());

  const HduInfo& compressed = file.info(2);
  CHECK(compressed.kind == HduKind::compressed);
  CHECK(compressed.name == "Segment10");
  CHECK(compressed.version == 7);
  CHECK(compressed.bitpix == 32);
  CHECK(compressed.shape == std::vector<std::size_t>{2, 3});
  CHECK(compressed.compression == "RICE_1");
  CHECK(compressed.decodable);
  CHECK(file.cards(2).size() % 80 == 0);
  CHECK(file.cards(2).substr(file.cards(2).size() - 80) == plain_card("        ---- caf\xe9 ----"));

  CHECK(file.info(3).kind == HduKind::table);
  CHECK(file.info(3).name == "REB_COND");
  CHECK(file.info(3).shape == std::vector<std::size_t>{0, 0});
  CHECK(file.info(4).kind == HduKind::other);
  CHECK(file.info(4).name == "caf? 's");
  CHECK(file.info(4).data_bytes == 32);  // (5 + 3) * 2 numbers of 2 bytes

  CHECK(read<std::int32_t>(file, 1) == pixels);
  CHECK(read<std::int32_t>(file, 2) == pixels);
  CHECK(has(error_of([&] { (void)file.image(3); }),
            "test.fits: HDU 3 'REB_COND' (header at byte 14400): it holds no image; "));
  CHECK_THROWS_AS((void)file.info(5), UsageError);
  CHECK_THROWS_AS((void)file.cards(5), UsageError);
  CHECK_THROWS_AS((void)file.sums(5), UsageError);
  CHECK(std::string(raftwright::hdu_kind_name(HduKind::compressed)) == "compressed");
  CHECK(std::string(raftwright::pixel_type_name(PixelType::u16)) == "uint16");
}

TEST_CASE("fits file: names of compressed images") {
  RiceImage rice;
  rice.axes = {2};
  const auto name = [&](const std::string& cards) {
    rice.more = cards;
    return open_bytes(primary() + rice_hdu<std::int32_t>(rice, {1, 2})).info(1).name;
  };
  CHECK(name("").empty());
  CHECK(name(card("EXTNAME", "'COMPRESSED_IMAGE'")) == "COMPRESSED_IMAGE");
  CHECK(name(card("EXTNAME", "'COMPRESSED_IMAGE'") + card("EXTNAME", "'Segment10'")) == "Segment10");
  CHECK(name(card("EXTNAME", "'Segment10'") + card("EXTNAME", "'Segment11'")) == "Segment10");
  CHECK(name(card("EXTNAME", "Segment10")).empty());
  CHECK(name(card("EXTNAME", "'Segment10")) == "Segment10");
}

TEST_CASE_TEMPLATE("fits file: plain pixels of every type", Number, std::uint8_t, std::int8_t, std::int16_t,
                   std::uint16_t, std::int32_t, std::uint32_t, std::int64_t, float, double) {
  std::mt19937 random(1);
  constexpr std::size_t width = 301;
  constexpr std::size_t height = 700;  // more than one run of 256 KiB
  std::vector<Number> pixels;
  if constexpr (std::is_floating_point_v<Number>) {
    for (const auto bits : numbers<std::int32_t>(width * height, random, false)) {
      pixels.push_back(static_cast<Number>(bits) / 7);
    }
    pixels[5] = std::numeric_limits<Number>::infinity();
  } else {
    pixels = numbers<Number>(width * height, random, false);
  }
  int bitpix = static_cast<int>(8 * sizeof(Number));
  std::string more;
  std::vector<Number> stored = pixels;
  constexpr bool opposite = std::is_same_v<Number, std::int8_t> || std::is_same_v<Number, std::uint16_t> ||
                            std::is_same_v<Number, std::uint32_t>;
  if constexpr (std::is_floating_point_v<Number>) bitpix = -bitpix;
  if constexpr (opposite) {
    using Bits = std::make_unsigned_t<Number>;
    constexpr auto half = static_cast<Bits>(Bits{1} << (8 * sizeof(Number) - 1));
    for (Number& number : stored) number = static_cast<Number>(static_cast<Bits>(number) ^ half);
    const long long zero = static_cast<long long>(half);
    more = card("BZERO", sizeof(Number) == 1 ? -zero : zero) + card("BSCALE", "1.0D0");
  }
  const Bytes bytes = image_hdu(bitpix, {width, height}, big_endian(stored), more);
  const FitsFile file = open_bytes(primary() + bytes);
  CHECK(file.info(1).bitpix == bitpix);
  CHECK(file.image(1).shape == std::vector<std::size_t>{height, width});
  const auto first = read<Number>(file, 1);
  CHECK(std::memcmp(first.data(), pixels.data(), pixels.size() * sizeof(Number)) == 0);
  const auto again = read<Number>(file, 1, 3);
  CHECK(std::memcmp(again.data(), pixels.data(), pixels.size() * sizeof(Number)) == 0);
  constexpr PixelType expected = std::is_same_v<Number, std::uint8_t>    ? PixelType::u8
                                 : std::is_same_v<Number, std::int8_t>   ? PixelType::i8
                                 : std::is_same_v<Number, std::int16_t>  ? PixelType::i16
                                 : std::is_same_v<Number, std::uint16_t> ? PixelType::u16
                                 : std::is_same_v<Number, std::int32_t>  ? PixelType::i32
                                 : std::is_same_v<Number, std::uint32_t> ? PixelType::u32
                                 : std::is_same_v<Number, std::int64_t>  ? PixelType::i64
                                 : std::is_same_v<Number, float>         ? PixelType::f32
                                                                         : PixelType::f64;
  CHECK(file.image(1).type == expected);
}

TEST_CASE("fits file: an image in the primary HDU, and one without pixels") {
  const std::vector<std::int16_t> pixels = {1, 2, -3, 4};
  const Bytes bytes =
      hdu(card("SIMPLE", "T") + card("BITPIX", 16) + axis_cards("NAXIS", {2, 2}), big_endian(pixels)) +
      image_hdu(32, {0, 5}, {});
  const FitsFile file = open_bytes(bytes);
  CHECK(file.info(0).kind == HduKind::primary);
  CHECK(file.info(0).decodable);
  CHECK(read<std::int16_t>(file, 0) == pixels);
  CHECK(file.image(1).pixels == 0);
  file.read_into(1, nullptr, 0);
}

TEST_CASE_TEMPLATE("fits file: RICE_1 tiles of every shape", Stored, std::int32_t, std::int16_t,
                   std::int8_t) {
  std::mt19937 random(2);
  const std::vector<std::vector<std::size_t>> images = {{1000},       {61, 37}, {33, 17, 5},
                                                        {6, 5, 4, 3}, {1, 1},   {576, 300}};
  for (const auto& axes : images) {
    std::size_t count = 1;
    for (const std::size_t axis : axes) count *= axis;
    for (const bool smooth : {false, true}) {
      const std::vector<Stored> pixels = numbers<Stored>(count, random, smooth);
      std::vector<std::vector<std::size_t>> tilings = {{}, axes};
      std::vector<std::size_t> tiling;
      for (const std::size_t axis : axes) tiling.push_back((axis + 1) / 2 > 1 ? axis / 2 - axis / 8 : 1);
      tilings.push_back(tiling);  // partial tiles at the edges
      tiling = axes;
      tiling.back() = (axes.back() + 2) / 3;  // whole rows, several a tile
      tilings.push_back(tiling);
      for (const auto& tile : tilings) {
        for (const unsigned block : {32U, 16U, 5U, 1000U}) {
          RiceImage rice;
          rice.axes = axes;
          rice.tile = tile;
          rice.bitpix = static_cast<int>(8 * sizeof(Stored));
          rice.block = block;
          rice.wide = block == 16;
          rice.reversed = block == 5;
          rice.gap = block == 1000 ? 11 : 0;
          const Bytes bytes = primary() + rice_hdu(rice, pixels);
          const FitsFile file = open_bytes(bytes);
          CAPTURE(block);
          CAPTURE(axes.size());
          CAPTURE(tile.size());
          REQUIRE(read<Stored>(file, 1) == pixels);
          REQUIRE(read<Stored>(file, 1, 3) == pixels);
        }
      }
    }
  }
}

TEST_CASE("fits file: what RICE_1 headers leave out or swap") {
  std::mt19937 random(3);
  const auto pixels = numbers<std::int32_t>(200, random, true);
  RiceImage rice;
  rice.axes = {20, 10};
  for (const char* parameters : {"named", "absent", "nameless", "swapped"}) {
    rice.parameters = parameters;
    CHECK(read<std::int32_t>(open_bytes(primary() + rice_hdu(rice, pixels)), 1) == pixels);
  }
  rice.type = "'RICE_ONE'";
  rice.unused = 3;
  CHECK(read<std::int32_t>(open_bytes(primary() + rice_hdu(rice, pixels)), 1) == pixels);
}

TEST_CASE("fits file: codes wider or narrower than the pixels") {
  std::mt19937 random(4);
  RiceImage rice;
  rice.axes = {50, 9};
  rice.tile = {20, 2};
  // 16 bits coded as 32, and the unsigned ones.
  const auto small = numbers<std::int16_t>(450, random, false);
  rice.bitpix = 16;
  const std::vector<std::int32_t> wide(small.begin(), small.end());
  CHECK(read<std::int16_t>(open_bytes(primary() + rice_hdu(rice, wide)), 1) == small);
  rice.more = card("BZERO", 32768);
  std::vector<std::uint16_t> positive;
  for (const auto pixel : small) positive.push_back(static_cast<std::uint16_t>(pixel + 32768));
  for (const bool in_place : {false, true}) {
    rice.tile = in_place ? std::vector<std::size_t>{} : std::vector<std::size_t>{20, 2};
    CHECK(read<std::uint16_t>(open_bytes(primary() + rice_hdu(rice, wide)), 1) == positive);
    CHECK(read<std::uint16_t>(open_bytes(primary() + rice_hdu(rice, small)), 1) == positive);
  }
  // 32 bits coded as 16 and, unsigned as 8-bit FITS pixels are, as 8.
  rice.more.clear();
  rice.bitpix = 32;
  CHECK(read<std::int32_t>(open_bytes(primary() + rice_hdu(rice, small)), 1) == wide);
  const auto tiny = numbers<std::int8_t>(450, random, false);
  std::vector<std::int32_t> bytes;
  for (const auto pixel : tiny) bytes.push_back(static_cast<std::uint8_t>(pixel));
  CHECK(read<std::int32_t>(open_bytes(primary() + rice_hdu(rice, tiny)), 1) == bytes);
  rice.bitpix = 8;
  const auto as_bytes = read<std::uint8_t>(open_bytes(primary() + rice_hdu(rice, bytes)), 1);
  CHECK(std::equal(as_bytes.begin(), as_bytes.end(), bytes.begin(), bytes.end()));
  rice.more = card("BZERO", "-128.0");
  const auto as_signed = read<std::int8_t>(open_bytes(primary() + rice_hdu(rice, tiny)), 1);
  CHECK(as_signed[7] == static_cast<std::uint8_t>(tiny[7]) - 128);
  // Unsigned 32 bits.
  const auto any = numbers<std::int32_t>(450, random, false);
  rice.bitpix = 32;
  rice.more = card("BZERO", "2147483648.") + card("BSCALE", "1");
  const auto unsigned_pixels = read<std::uint32_t>(open_bytes(primary() + rice_hdu(rice, any)), 1);
  CHECK(unsigned_pixels[9] == static_cast<std::uint32_t>(any[9]) + 0x80000000U);
  // A value that the pixels cannot hold is no pixel.
  rice.more.clear();
  rice.bitpix = 16;
  rice.tile.clear();
  std::vector<std::int32_t> large(450, 7);
  large[103] = 32768;
  const FitsFile file = open_bytes(primary() + rice_hdu(rice, large));
  CHECK(
      has(error_of([&] { (void)read<std::int16_t>(file, 1); }),
          "tile 2 of 9 (from FITS pixel 1,3, descriptor at byte 5776) holds the value 32768, which 16 bits"));
}

TEST_CASE("fits file: sums") {
  const auto summed = [](std::string cards, const Bytes& data, const std::string& datasum) {
    // CHECKSUM of zeros, then what makes the HDU sum to minus zero.
    cards += card("DATASUM", datasum);
    const Bytes zero = hdu(cards + card("CHECKSUM", "'0000000000000000'"), data);
    raftwright::FitsSum sum;
    sum.add(zero);
    const std::string text = raftwright::fits_checksum_text(sum.value());
    return hdu(cards + card("CHECKSUM", "'" + text + "'"), data);
  };
  const Bytes data = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  raftwright::FitsSum sum;
  sum.add(data);
  const std::string cards = card("XTENSION", "'IMAGE   '") + card("BITPIX", 8) + axis_cards("NAXIS", {9}) +
                            card("PCOUNT", 0LL) + card("GCOUNT", 1);
  const std::string right = std::to_string(sum.value());
  const auto check = [&](const std::string& datasum) {
    return open_bytes(primary() + summed(cards, data, datasum)).sums(1);
  };
  CHECK(check("'" + right + "'").datasum == true);
  CHECK(check("'   " + right + "'").datasum == true);
  CHECK(check(right).datasum == true);
  CHECK(check("'" + right + "'").checksum == true);
  CHECK(check("'12345'").datasum == false);
  CHECK(check("'12345'").checksum == true);  // the HDU as a whole still sums up
  CHECK(check("'x'").datasum == false);
  CHECK(check("'99999999999'").datasum == false);
  CHECK(check("''").datasum == std::nullopt);
  CHECK(check("").datasum == std::nullopt);

  Bytes bytes = primary() + summed(cards, data, "'" + right + "'");
  CHECK(open_bytes(bytes).sums(0).checksum == std::nullopt);
  CHECK(open_bytes(bytes).sums(0).datasum == std::nullopt);
  bytes[5760 + 3] ^= 1;
  CHECK(open_bytes(bytes).sums(1).datasum == false);
  CHECK(open_bytes(bytes).sums(1).checksum == false);
  bytes[5760 + 3] ^= 1;
  bytes[bytes.size() - 1] = 1;  // padding counts
  CHECK(open_bytes(bytes).sums(1).checksum == false);
  bytes[bytes.size() - 1] = 0;
  bytes[5700] ^= 1;  // and so does the header
  CHECK(open_bytes(bytes).sums(1).checksum == false);
  CHECK(open_bytes(bytes).sums(1).datasum == true);
  const Bytes nothing =
      summed(card("SIMPLE", "T") + card("BITPIX", 8) + card("NAXIS", 0LL), {}, "'0       '");
  CHECK(open_bytes(nothing).sums(0).datasum == true);
  CHECK(open_bytes(nothing).sums(0).checksum == true);
}

TEST_CASE("fits file: many images at once, into the caller's memory or into fresh") {
  std::mt19937 random(6);
  RiceImage rice;
  rice.axes = {576, 400};
  Bytes bytes = primary();
  std::vector<std::vector<std::int32_t>> pixels;
  for (int k = 0; k < 4; ++k) {
    pixels.push_back(numbers<std::int32_t>(576 * 400, random, true));
    bytes = bytes +
            (k == 2 ? image_hdu(32, {576, 400}, big_endian(pixels.back())) : rice_hdu(rice, pixels.back()));
  }
  bytes = bytes + image_hdu(16, {3}, big_endian(std::vector<std::int16_t>{1, 2, 3}));
  const auto owner = std::make_shared<Bytes>(std::move(bytes));
  FitsFile first(*owner, owner, "shared.fits");
  CHECK(owner.use_count() == 2);
  const FitsFile file = std::move(first);

  for (const unsigned threads : {0U, 1U, 2U, 5U}) {
    std::vector<std::vector<std::int32_t>> out(4, std::vector<std::int32_t>(576 * 400));
    std::vector<ImageTarget> targets;
    for (std::size_t k = 0; k < 4; ++k) targets.push_back({4 - k, out[k].data(), out[k].size() * 4});
    file.read_many(targets, threads);
    for (std::size_t k = 0; k < 4; ++k) CHECK(out[k] == pixels[3 - k]);

    const std::vector<std::size_t> hdus = {5, 1, 3};
    const raftwright::ImageSlab slab = file.read_slab(hdus, threads);
    REQUIRE(slab.images.size() == 3);
    CHECK(static_cast<const std::int16_t*>(slab.images[0])[2] == 3);
    CHECK(std::memcmp(slab.images[1], pixels[0].data(), pixels[0].size() * 4) == 0);
    CHECK(std::memcmp(slab.images[2], pixels[2].data(), pixels[2].size() * 4) == 0);
    for (const void* image : slab.images) CHECK(reinterpret_cast<std::uintptr_t>(image) % 64 == 0);
  }
  CHECK(file.read_slab({}).images.empty());

  // One object, many threads.
  std::vector<std::thread> threads;
  std::vector<std::vector<std::int32_t>> seen(4);
  for (std::size_t k = 0; k < 4; ++k) {
    threads.emplace_back([&, k] {
      seen[k].resize(576 * 400);
      file.read_into(k + 1, seen[k].data(), seen[k].size() * 4, 2);
      (void)file.sums(k + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(seen == pixels);

  std::vector<std::int32_t> out(576 * 400 + 1);
  CHECK(has(error_of<UsageError>([&] { file.read_into(1, out.data(), 4); }), "whose image takes 921600"));
  CHECK(has(error_of<UsageError>([&] { file.read_into(1, nullptr, 921600); }), "aligned"));
  CHECK(has(error_of<UsageError>([&] { file.read_into(1, reinterpret_cast<char*>(out.data()) + 2, 921600); }),
            "aligned"));
  CHECK(has(error_of<UsageError>([&] { file.read_into(6, out.data(), 921600); }),
            "shared.fits: there is no HDU 6"));
  CHECK(has(error_of([&] { file.read_into(0, out.data(), 0); }), "it holds no image"));
  const std::vector<std::size_t> twice = {1, 2};
  const FitsFile limited(*owner, owner, "small.fits", owner->size());
  CHECK(limited.read_slab({&twice[0], 1}).images.size() == 1);
  std::vector<std::size_t> often(100, 1);
  CHECK(has(error_of([&] { (void)limited.read_slab(often); }), "read fewer at once"));
}

TEST_CASE("fits file: files") {
  const TemporaryDirectory directory;
  RiceImage rice;
  rice.axes = {576, 64};
  std::mt19937 random(7);
  const auto pixels = numbers<std::int32_t>(576 * 64, random, true);
  const Bytes good = primary() + rice_hdu(rice, pixels);
  const std::string path = directory.write("good.fits", good);
  const FitsFile file = FitsFile::open(path);
  CHECK(file.name() == path);
  std::filesystem::resize_file(path, 10);  // others may do to it what they want
  CHECK(read<std::int32_t>(file, 1) == pixels);
  std::vector<std::int32_t> large(576 * 2048, 3);
  const FitsFile of_pages = FitsFile::open(
      directory.write("large.fits", primary() + image_hdu(32, {576, 2048}, big_endian(large))));
  CHECK(read<std::int32_t>(of_pages, 1, 2) == large);

  try {
    (void)FitsFile::open(directory.file("absent.fits"));
    FAIL("no error");
  } catch (const IoError& error) {
    CHECK(error.error_number() == ENOENT);
    CHECK(error.path() == directory.file("absent.fits"));
    CHECK(has(error.what(), "cannot open it: No such file"));
  }
  CHECK(has(error_of<IoError>([&] { (void)FitsFile::open(directory.file("")); }), "Is a directory"));
  CHECK(has(error_of([&] { (void)FitsFile::open(directory.write("empty.fits", {})); }), "the file is empty"));
  CHECK(has(error_of([&] { (void)FitsFile::open(directory.write("big.fits", good), 5000); }),
            "above the limit of 5000"));
  CHECK(has(error_of([&] {
              (void)FitsFile::open(directory.write("cut.fits", {good.begin(), good.begin() + 9000}));
            }),
            "cut.fits: HDU 1"));
  REQUIRE(mkfifo(directory.file("pipe").c_str(), 0600) == 0);
  CHECK(has(error_of([&] { (void)FitsFile::open(directory.file("pipe")); }), "is no regular file"));
}
