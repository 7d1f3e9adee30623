#include "raftwright/image_hdu.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::string_view kNoSum = "0000000000000000";
constexpr std::array<std::uint8_t, kFitsBlock> kZeros{};

std::size_t padding(std::uint64_t bytes) {
  return static_cast<std::size_t>((kFitsBlock - bytes % kFitsBlock) % kFitsBlock);
}

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Folds a sum of 32-bit words to the ones'-complement sum of FITS.
std::uint32_t fold(std::uint64_t sum) {
  while (sum >> 32U) sum = (sum & 0xFFFFFFFFU) + (sum >> 32U);
  return static_cast<std::uint32_t>(sum);
}

/// Sets DATASUM and then CHECKSUM, so that the whole HDU sums to minus zero.
void seal(FitsHeader& header, std::uint32_t data_sum) {
  header.set_string("CHECKSUM", kNoSum, "checksum for the current HDU");
  header.set_string("DATASUM", std::to_string(data_sum), "checksum of the data records");
  FitsSum sum;
  sum.add(bytes_of(header.block()));
  header.set_string("CHECKSUM", fits_checksum_text(fits_sum_add(sum.value(), data_sum)), "");
}

std::int64_t required(const FitsHeader& header, std::string_view keyword) {
  const std::optional<std::int64_t> value = header.integer(keyword);
  if (!value) throw FormatError("image header has no integer " + std::string(keyword) + ": it is required");
  return *value;
}

void expect(const FitsHeader& header, std::string_view keyword, std::int64_t value) {
  const std::int64_t found = required(header, keyword);
  if (found != value) {
    throw FormatError("image header says " + std::string(keyword) + " = " + std::to_string(found) +
                      " but the pixels make it " + std::to_string(value) + ": correct the header");
  }
}

/// An image has no parameters and is no group: else its data would be longer than its pixels.
void expect_no_groups(const FitsHeader& header) {
  if (header.find("PCOUNT")) expect(header, "PCOUNT", 0);
  if (header.find("GCOUNT")) expect(header, "GCOUNT", 1);
}

bool is_structural(std::string_view keyword) {
  static constexpr std::array<std::string_view, 7> kStructural = {"XTENSION", "BITPIX", "NAXIS", "NAXIS1",
                                                                  "NAXIS2",   "PCOUNT", "GCOUNT"};
  return std::find(kStructural.begin(), kStructural.end(), keyword) != kStructural.end();
}

void put_be32(std::uint8_t* at, std::uint32_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 24U);
  at[1] = static_cast<std::uint8_t>(value >> 16U);
  at[2] = static_cast<std::uint8_t>(value >> 8U);
  at[3] = static_cast<std::uint8_t>(value);
}

/// The header of the binary table, without its sums: structural cards first, then the image's own.
FitsHeader table_header(const FitsHeader& image, std::size_t width, std::size_t height, std::uint64_t heap,
                        std::uint32_t longest) {
  const auto rows = static_cast<std::int64_t>(height);
  FitsHeader table;
  table.append_string("XTENSION", "BINTABLE", "binary table extension");
  table.append_integer("BITPIX", 8, "8-bit bytes");
  table.append_integer("NAXIS", 2, "2-dimensional binary table");
  table.append_integer("NAXIS1", 8, "width of table in bytes");
  table.append_integer("NAXIS2", rows, "number of rows in table");
  table.append_integer("PCOUNT", static_cast<std::int64_t>(heap), "size of special data area");
  table.append_integer("GCOUNT", 1, "one data group (required keyword)");
  table.append_integer("TFIELDS", 1, "number of fields in each row");
  table.append_string("TTYPE1", "COMPRESSED_DATA", "label for field   1");
  table.append_string("TFORM1", "1PB(" + std::to_string(longest) + ")",
                      "data format of field: variable length array");
  table.append_logical("ZIMAGE", true, "extension contains compressed image");
  table.append_integer("ZTILE1", static_cast<std::int64_t>(width), "size of tiles to be compressed");
  table.append_integer("ZTILE2", 1, "size of tiles to be compressed");
  table.append_string("ZCMPTYPE", "RICE_1", "compression algorithm");
  table.append_string("ZNAME1", "BLOCKSIZE", "compression block size");
  table.append_integer("ZVAL1", 32, "pixels per block");
  table.append_string("ZNAME2", "BYTEPIX", "bytes per pixel (1, 2, 4, or 8)");
  table.append_integer("ZVAL2", 4, "bytes per pixel (1, 2, 4, or 8)");
  table.append_string("ZTENSION", "IMAGE", "marks beginning of new HDU");
  table.append_integer("ZBITPIX", 32, "bits per data value");
  table.append_integer("ZNAXIS", 2, "number of axis");
  table.append_integer("ZNAXIS1", static_cast<std::int64_t>(width), "size of the n'th axis");
  table.append_integer("ZNAXIS2", rows, "size of the n'th axis");
  table.append_integer("ZPCOUNT", 0, "Required value");
  table.append_integer("ZGCOUNT", 1, "Required value");
  const FitsHeader own = table;
  for (std::size_t index = 0; index < image.size(); ++index) {
    const std::string_view keyword = image.keyword(index);
    if (is_structural(keyword)) continue;
    if (keyword == "THEAP" || keyword == "ZHECKSUM" || keyword == "ZDATASUM" ||
        (!keyword.empty() && own.find(keyword))) {
      throw FormatError("image header has a card " + std::string(keyword) +
                        ", which is the compressed table's own: leave it out");
    }
    table.append(image.card(index));
  }
  table.rename("CHECKSUM", "ZHECKSUM");
  table.rename("DATASUM", "ZDATASUM");
  return table;
}

}  // namespace

FitsHeader append_header_only(FilePieces& file, FitsHeader header) {
  if (header.size() == 0 || (header.keyword(0) != "SIMPLE" && header.keyword(0) != "XTENSION")) {
    throw FormatError("a header must begin with SIMPLE or XTENSION");
  }
  std::int64_t elements = required(header, "NAXIS") == 0 ? 0 : 1;
  for (std::int64_t axis = 1; axis <= std::min<std::int64_t>(required(header, "NAXIS"), 999); ++axis) {
    elements = elements != 0 && required(header, "NAXIS" + std::to_string(axis)) != 0 ? 1 : 0;
  }
  if (elements != 0 || header.integer("PCOUNT").value_or(0) != 0) {
    throw FormatError("the header announces data, but this HDU has none: set an axis or NAXIS to 0");
  }
  seal(header, 0);
  file.add(header.block());
  return header;
}

void append_compressed_image(FilePieces& file, const FitsHeader& image,
                             std::shared_ptr<const CompressedPlanes> tiles, std::size_t plane) {
  if (plane >= tiles->planes()) {
    throw UsageError("plane " + std::to_string(plane) + " does not exist: give 0 to " +
                     std::to_string(tiles->planes() - 1));
  }
  const std::size_t width = tiles->width();
  const std::size_t height = tiles->height();
  if (image.size() == 0 || image.keyword(0) != "XTENSION") {
    throw FormatError(
        "the header of an image to be compressed must begin with XTENSION: only extensions can");
  }
  expect(image, "BITPIX", 32);
  expect(image, "NAXIS", 2);
  expect(image, "NAXIS1", static_cast<std::int64_t>(width));
  expect(image, "NAXIS2", static_cast<std::int64_t>(height));
  expect_no_groups(image);

  // Descriptors: length and heap offset of every row's tile.
  std::vector<std::uint8_t> descriptors(height * 8);
  std::uint64_t heap = 0;
  std::uint32_t longest = 0;
  std::uint64_t pixel_sum = 0;
  FitsSum heap_sum;
  for (const TileRun& run : tiles->runs()) {
    for (std::size_t r = 0; r < run.rows; ++r) {
      const std::uint32_t length = run.lengths[plane * run.rows + r];
      std::uint8_t* descriptor = descriptors.data() + (run.first_row + r) * 8;
      put_be32(descriptor, length);
      put_be32(descriptor + 4, static_cast<std::uint32_t>(heap));
      longest = std::max(longest, length);
      heap += length;
    }
    if (heap > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
      throw FormatError(
          "a compressed image of more than 2 GiB does not fit 32-bit descriptors: write it plain");
    }
    heap_sum.add_part(run.code_sums[plane], run.code[plane].size());
    pixel_sum += fold(run.pixel_sums[plane]);
  }

  // The sums of the uncompressed HDU, for ZHECKSUM and ZDATASUM.
  FitsHeader original = image;
  const bool had_sums = image.find("CHECKSUM") || image.find("DATASUM");
  if (had_sums) seal(original, fold(pixel_sum));

  FitsHeader table = table_header(original, width, height, heap, longest);
  FitsSum data_sum;
  data_sum.add(descriptors);
  data_sum.add_part(heap_sum.value(), heap);
  seal(table, data_sum.value());

  file.add(table.block());
  file.add(std::move(descriptors));
  for (const TileRun& run : tiles->runs()) file.refer(run.code[plane], tiles);
  file.refer({kZeros.data(), padding(height * 8 + heap)}, nullptr);
}

void append_plain_image(FilePieces& file, FitsHeader image, int bitpix, const void* elements,
                        std::size_t count) {
  if (image.size() == 0 || (image.keyword(0) != "SIMPLE" && image.keyword(0) != "XTENSION")) {
    throw FormatError("a header must begin with SIMPLE or XTENSION");
  }
  expect(image, "BITPIX", bitpix);
  expect_no_groups(image);
  std::uint64_t announced = 1;
  const std::int64_t axes = required(image, "NAXIS");
  if (axes < 1 || axes > 999) throw FormatError("an image with pixels needs NAXIS of 1 to 999");
  for (std::int64_t axis = 1; axis <= axes; ++axis) {
    const std::int64_t length = required(image, "NAXIS" + std::to_string(axis));
    if (length < 1 || announced > count / static_cast<std::uint64_t>(length)) {
      throw FormatError("image header's NAXIS" + std::to_string(axis) + " does not fit the " +
                        std::to_string(count) + " pixels given");
    }
    announced *= static_cast<std::uint64_t>(length);
  }
  if (announced != count) {
    throw FormatError("image header announces " + std::to_string(announced) + " pixels, but " +
                      std::to_string(count) + " were given");
  }
  const auto width = static_cast<std::size_t>(bitpix < 0 ? -bitpix : bitpix) / 8;
  std::vector<std::uint8_t> data(count * width);
  const auto* source = static_cast<const std::uint8_t*>(elements);
  if (std::endian::native == std::endian::big || width == 1) {
    std::memcpy(data.data(), source, data.size());
  } else if (width == 4) {
    for (std::size_t i = 0; i < count; ++i) {
      std::uint32_t value = 0;
      std::memcpy(&value, source + i * 4, 4);
      value = __builtin_bswap32(value);
      std::memcpy(data.data() + i * 4, &value, 4);
    }
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      std::reverse_copy(source + i * width, source + (i + 1) * width,
                        data.begin() + static_cast<std::ptrdiff_t>(i * width));
    }
  }
  FitsSum sum;
  sum.add(data);
  seal(image, sum.value());
  const std::size_t pad = padding(data.size());
  file.add(image.block());
  file.add(std::move(data));
  file.refer({kZeros.data(), pad}, nullptr);
}

}  // namespace raftwright
