#include "raftwright/image_hdu.hpp"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "doctest.h"
#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "raftwright/raw_reader.hpp"

using namespace raftwright;

namespace {

FitsHeader image_header(std::int64_t width, std::int64_t height, int bitpix = 32) {
  FitsHeader header;
  header.append_string("XTENSION", "IMAGE", "image extension");
  header.append_integer("BITPIX", bitpix, "bits");
  header.append_integer("NAXIS", 2, "");
  header.append_integer("NAXIS1", width, "");
  header.append_integer("NAXIS2", height, "");
  header.append_integer("PCOUNT", 0, "");
  header.append_integer("GCOUNT", 1, "");
  header.append_string("CHECKSUM", "0000000000000000", "checksum for the current HDU");
  header.append_string("EXTNAME", "Segment10", "");
  header.append_string("DATASUM", "0", "checksum of the data records");
  return header;
}

FitsHeader primary_header() {
  FitsHeader header;
  header.append_logical("SIMPLE", true, "");
  header.append_integer("BITPIX", 8, "");
  header.append_integer("NAXIS", 0, "");
  header.append_logical("EXTEND", true, "");
  return header;
}

std::vector<std::uint8_t> content(const FilePieces& file) {
  std::vector<std::uint8_t> bytes;
  for (const auto piece : file.pieces()) bytes.insert(bytes.end(), piece.begin(), piece.end());
  REQUIRE(bytes.size() == file.size());
  REQUIRE(bytes.size() % kFitsBlock == 0);
  return bytes;
}

std::vector<std::int32_t> noise(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(25000.F, 8.F);
  std::vector<std::int32_t> pixels(count);
  for (auto& pixel : pixels) pixel = static_cast<std::int32_t>(normal(random));
  return pixels;
}

std::shared_ptr<CompressedPlanes> tiles_of(const std::vector<std::int32_t>& pixels, std::size_t width,
                                           std::vector<std::size_t> run_rows) {
  const std::size_t height = pixels.size() / width;
  auto tiles = std::make_shared<CompressedPlanes>(1, width, height);
  std::vector<std::pair<std::size_t, std::size_t>> runs;
  for (std::size_t row = 0, i = 0; row < height; ++i) {
    const std::size_t rows = std::min(run_rows[i % run_rows.size()], height - row);
    runs.emplace_back(row, rows);
    row += rows;
  }
  std::reverse(runs.begin(), runs.end());
  for (const auto& [first, rows] : runs) {
    tiles->encode(first, rows, [&, start = first](std::size_t r, std::span<const std::int32_t*> pointers) {
      pointers[0] = pixels.data() + (start + r) * width;
    });
  }
  return tiles;
}

}  // namespace

TEST_CASE("image hdu: compressed image reads back, sums verify, runs do not matter") {
  constexpr std::size_t kWidth = 50;
  constexpr std::size_t kHeight = 77;
  const std::vector<std::int32_t> pixels = noise(kWidth * kHeight, 5);
  std::vector<std::vector<std::uint8_t>> files;
  for (const std::vector<std::size_t>& runs : {std::vector<std::size_t>{32}, {1}, {3, 7, 1}}) {
    FilePieces file;
    append_header_only(file, primary_header());
    append_compressed_image(file, image_header(kWidth, kHeight), tiles_of(pixels, kWidth, runs), 0);
    files.push_back(content(file));
  }
  CHECK(files[0] == files[1]);
  CHECK(files[0] == files[2]);

  const FitsFile fits(files[0], nullptr, "test");
  REQUIRE(fits.size() == 2);
  CHECK(fits.trailing() == 0);
  CHECK(fits.info(1).name == "Segment10");
  CHECK(fits.info(1).compression == "RICE_1");
  std::vector<std::int32_t> back(pixels.size());
  fits.read_into(1, back.data(), back.size() * 4);
  CHECK(back == pixels);
  for (std::size_t hdu = 0; hdu < 2; ++hdu) {
    CHECK(fits.sums(hdu).checksum == true);
    CHECK(fits.sums(hdu).datasum == true);
  }
  // The sums of the uncompressed HDU are kept as a decompressor expects them.
  FilePieces plain;
  append_header_only(plain, primary_header());
  append_plain_image(plain, image_header(kWidth, kHeight), 32, pixels.data(), pixels.size());
  const std::vector<std::uint8_t> plain_bytes = content(plain);
  const FitsFile plain_fits(plain_bytes, nullptr, "plain");
  CHECK(plain_fits.sums(1).checksum == true);
  CHECK(plain_fits.sums(1).datasum == true);
  const auto value_of = [](std::string_view cards, std::string_view keyword) {
    for (std::size_t at = 0; at < cards.size(); at += kFitsCard) {
      if (cards.substr(at, 8) == keyword) return std::string(cards.substr(at + 10, 20));
    }
    return std::string("absent");
  };
  CHECK(value_of(fits.cards(1), "ZHECKSUM") == value_of(plain_fits.cards(1), "CHECKSUM"));
  CHECK(value_of(fits.cards(1), "ZDATASUM") == value_of(plain_fits.cards(1), "DATASUM "));
}

TEST_CASE("image hdu: headers that contradict the pixels are refused") {
  const std::vector<std::int32_t> pixels = noise(40, 1);
  FilePieces file;
  CHECK_THROWS_AS(append_compressed_image(file, image_header(10, 5), tiles_of(pixels, 10, {32}), 0),
                  FormatError);
  CHECK_THROWS_AS(append_compressed_image(file, image_header(10, 4, 16), tiles_of(pixels, 10, {32}), 0),
                  FormatError);
  CHECK_THROWS_AS(append_compressed_image(file, image_header(10, 4), tiles_of(pixels, 10, {32}), 1),
                  UsageError);
  CHECK_THROWS_AS(
      append_compressed_image(file, image_header(10, 4), std::make_shared<CompressedPlanes>(1, 10, 4), 0),
      UsageError);
  CHECK_THROWS_AS(append_plain_image(file, image_header(10, 5), 32, pixels.data(), 40), FormatError);
  CHECK_THROWS_AS(append_plain_image(file, image_header(10, 3), 32, pixels.data(), 40), FormatError);
  CHECK_THROWS_AS(append_plain_image(file, image_header(10, 4), 16, pixels.data(), 40), FormatError);
  for (const char* keyword : {"THEAP", "TFORM1", "ZNAXIS2", "ZDATASUM"}) {
    CAPTURE(keyword);  // two of them, and the second would move the heap or be the one that is read
    FitsHeader header = image_header(10, 4);
    header.append_integer(keyword, 99, "");
    CHECK_THROWS_AS(append_compressed_image(file, header, tiles_of(pixels, 10, {32}), 0), FormatError);
  }
  for (const char* keyword : {"PCOUNT", "GCOUNT"}) {
    CAPTURE(keyword);  // data would be longer than its pixels
    FitsHeader header = image_header(10, 4);
    header.rename(keyword, "OLD");
    header.append_integer(keyword, 1000, "");
    CHECK_THROWS_AS(append_compressed_image(file, header, tiles_of(pixels, 10, {32}), 0), FormatError);
    CHECK_THROWS_AS(append_plain_image(file, header, 32, pixels.data(), 40), FormatError);
  }
  FitsHeader primary = image_header(10, 4);
  primary.rename("XTENSION", "SIMPLE");
  CHECK_THROWS_AS(append_compressed_image(file, primary, tiles_of(pixels, 10, {32}), 0), FormatError);
  primary.rename("SIMPLE", "OTHER");
  CHECK_THROWS_AS(append_plain_image(file, primary, 32, pixels.data(), 40), FormatError);
  CHECK_THROWS_AS(CompressedPlanes(1, std::size_t{1} << 30U, 1), UsageError);
  CHECK_THROWS_AS(append_header_only(file, image_header(10, 4)), FormatError);
  CHECK_THROWS_AS(append_header_only(file, FitsHeader()), FormatError);
  CHECK(file.size() == 0);
}
