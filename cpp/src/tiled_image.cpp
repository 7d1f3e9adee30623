// The header of a tile-compressed image (FITS 4.0, section 10.1): what cfitsio, fpack and their elders write.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "fits_structure.hpp"
#include "raftwright/error.hpp"

namespace raftwright::structure {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

struct Column {
  std::string name;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  char type = ' ';
  char element = ' ';  // of a P or Q column
};

Column parse_column(const std::string& name, std::string_view form) {
  Column column{.name = name};
  std::uint64_t repeat = 1;
  const char* last = form.data() + form.size();
  if (!form.empty() && form.front() >= '0' && form.front() <= '9') {
    const auto [end, error] = std::from_chars(form.data(), last, repeat);
    if (error != std::errc{}) throw FormatError("column format '" + printable(form) + "' is absurd");
    form.remove_prefix(static_cast<std::size_t>(end - form.data()));
  }
  constexpr std::string_view types = "LBIJKAEDCMPQ";
  constexpr std::uint64_t sizes[] = {1, 1, 2, 4, 8, 1, 4, 8, 8, 16, 8, 16};
  if (form.empty()) throw FormatError("a column has no format: TFORM must name one");
  column.type = form.front();
  if (column.type == 'X') {
    column.bytes = repeat / 8 + (repeat % 8 != 0 ? 1 : 0);
    return column;
  }
  const std::size_t known = types.find(column.type);
  if (known == std::string_view::npos || __builtin_mul_overflow(repeat, sizes[known], &column.bytes)) {
    throw FormatError("column format '" + printable(form) + "' is none that FITS knows");
  }
  if ((column.type == 'P' || column.type == 'Q') && form.size() > 1) column.element = form[1];
  return column;
}

std::vector<Column> parse_columns(const CardTable& cards, std::uint64_t row_bytes) {
  const std::int64_t fields = cards.integer_within("TFIELDS", 0, 999);
  std::vector<Column> columns;
  std::uint64_t offset = 0;
  for (std::int64_t field = 1; field <= fields; ++field) {
    const std::string number = std::to_string(field);
    Column column =
        parse_column(cards.text("TTYPE" + number).value_or(""), cards.text("TFORM" + number).value_or(""));
    column.offset = offset;
    if (column.bytes > row_bytes - offset) {
      throw FormatError("the columns are wider than the table's rows of " + std::to_string(row_bytes) +
                        " bytes");
    }
    offset += column.bytes;
    columns.push_back(std::move(column));
  }
  return columns;
}

/// BLOCKSIZE and BYTEPIX by name, or by position where there are no names. Early writers put each one's
/// value under the other's name.
void parse_parameters(const CardTable& cards, Tiles& tiles) {
  std::int64_t block = 32;
  std::int64_t stored = 4;
  if (!cards.has("ZNAME1")) {
    block = cards.integer("ZVAL1").value_or(block);
    stored = cards.integer("ZVAL2").value_or(stored);
  }
  for (int index = 1; index < 1000; ++index) {
    const std::string number = std::to_string(index);
    const std::optional<std::string> name = cards.text("ZNAME" + number);
    if (!name) break;
    if (*name == "BLOCKSIZE") block = cards.integer("ZVAL" + number).value_or(block);
    if (*name == "BYTEPIX") stored = cards.integer("ZVAL" + number).value_or(stored);
  }
  if (stored > 8 && (block == 1 || block == 2 || block == 4)) std::swap(block, stored);
  if (stored != 1 && stored != 2 && stored != 4 && stored != 8) {
    throw FormatError("BYTEPIX " + std::to_string(stored) + " is none of 1, 2, 4 and 8");
  }
  if (block < 1 || block > std::numeric_limits<std::int32_t>::max()) {
    throw FormatError("BLOCKSIZE " + std::to_string(block) + " must be at least 1");
  }
  tiles.block = static_cast<unsigned>(block);
  tiles.stored_bytes = static_cast<unsigned>(stored);
}

void set_grid(const CardTable& cards, const Hdu& hdu, Tiles& tiles) {
  tiles.axes.assign(hdu.image.shape.rbegin(), hdu.image.shape.rend());
  tiles.count = 1;
  tiles.pixels = 1;
  tiles.contiguous = true;
  bool split = false;  // an axis below is cut into tiles
  for (std::size_t axis = 0; axis < tiles.axes.size(); ++axis) {
    const std::size_t length = tiles.axes[axis];
    const std::string card = "ZTILE" + std::to_string(axis + 1);
    const auto stated = cards.integer(card)
                            ? cards.integer_within(card, 1, kMost)
                            : static_cast<std::int64_t>(axis == 0 ? std::max<std::size_t>(length, 1) : 1);
    const std::size_t tile = std::min(static_cast<std::size_t>(stated), length);
    tiles.tile.push_back(tile);
    tiles.grid.push_back(length == 0 ? 0 : (length - 1) / tile + 1);
    tiles.count *= tiles.grid.back();  // at most the number of pixels, which fits
    tiles.pixels *= tile;
    if (split && tile != 1) tiles.contiguous = false;
    if (tile != length) split = true;
  }
}

/// Why another reader is needed; empty when this one will do.
std::string foreign(const CardTable& cards, const std::vector<Column>& columns, const HduInfo& info) {
  if (info.compression != "RICE_1" && info.compression != "RICE_ONE") {
    return "it is compressed with '" + info.compression + "'";
  }
  if (info.bitpix != 8 && info.bitpix != 16 && info.bitpix != 32) {
    return "its compressed pixels are not of 8, 16 or 32 bits (ZBITPIX " + std::to_string(info.bitpix) + ")";
  }
  for (const Column& column : columns) {
    if (column.name != "COMPRESSED_DATA" && column.name != "ZBLANK") {
      return "it has a column " + printable(column.name) + " beside the compressed tiles";
    }
  }
  const double scale = cards.real("ZSCALE").value_or(1);
  const double zero = cards.real("ZZERO").value_or(0);
  if (!(std::abs(scale - 1) <= 0) || !(std::abs(zero) <= 0))
    return "its pixels are scaled by ZSCALE or ZZERO";
  if (cards.has("ZMASKCMP")) return "its null pixels have a compressed mask";
  return {};
}

}  // namespace

void describe_compressed(const CardTable& cards, std::uint64_t limit, Hdu& hdu) {
  HduInfo& info = hdu.info;
  const std::vector<std::size_t> table = std::move(info.shape);
  const int table_bitpix = info.bitpix;
  info.shape.clear();
  info.compression = printable(cards.text("ZCMPTYPE").value_or(""));
  const std::int64_t bitpix = cards.integer_within("ZBITPIX", -64, 64);
  if (bitpix != 8 && bitpix != 16 && bitpix != 32 && bitpix != 64 && bitpix != -32 && bitpix != -64) {
    throw FormatError("ZBITPIX = " + std::to_string(bitpix) + " must be 8, 16, 32, 64, -32 or -64");
  }
  info.bitpix = static_cast<int>(bitpix);
  info.shape = shape_of(cards, "ZNAXIS");
  if (table.size() != 2 || table_bitpix != 8) throw FormatError("a table must have NAXIS = 2 and BITPIX = 8");
  if (info.shape.empty()) throw FormatError("ZNAXIS = 0: there is no image to decompress");

  const std::uint64_t row_bytes = table[1];
  const std::uint64_t rows = table[0];
  const std::vector<Column> columns = parse_columns(cards, row_bytes);
  info.reason = foreign(cards, columns, info);
  if (!info.reason.empty()) return;
  set_layout(cards, limit, hdu);
  if (!info.decodable) return;

  Tiles tiles;
  parse_parameters(cards, tiles);
  if (tiles.stored_bytes == 8) {
    info.decodable = false;
    info.reason = "its pixels are coded as 64-bit integers (BYTEPIX 8)";
    return;
  }
  set_grid(cards, hdu, tiles);
  if (tiles.count != rows) {
    throw FormatError("the table has " + std::to_string(rows) + " rows where the image has " +
                      std::to_string(tiles.count) + " tiles");
  }
  const auto column = std::find_if(columns.begin(), columns.end(),
                                   [](const Column& c) { return c.name == "COMPRESSED_DATA"; });
  if (column == columns.end() || column->bytes == 0) throw FormatError("there is no column COMPRESSED_DATA");
  if ((column->type != 'P' && column->type != 'Q') || column->element != 'B') {
    throw FormatError("column COMPRESSED_DATA must be an array of bytes, '1PB' or '1QB'");
  }
  tiles.wide = column->type == 'Q';
  tiles.row_bytes = row_bytes;
  tiles.rows_offset = info.data_offset + column->offset;

  const std::uint64_t table_bytes = rows * row_bytes;  // checked with the data size
  const std::int64_t theap = cards.integer("THEAP").value_or(static_cast<std::int64_t>(table_bytes));
  if (theap < 0 || static_cast<std::uint64_t>(theap) < table_bytes ||
      static_cast<std::uint64_t>(theap) > info.data_bytes) {
    throw FormatError("THEAP = " + std::to_string(theap) + " is outside the data unit after the table, " +
                      std::to_string(table_bytes) + " .. " + std::to_string(info.data_bytes));
  }
  tiles.heap_offset = info.data_offset + static_cast<std::uint64_t>(theap);
  tiles.heap_bytes = info.data_bytes - static_cast<std::uint64_t>(theap);
  if (tiles.pixels > limit / tiles.stored_bytes) {
    throw FormatError("its tiles of " + std::to_string(tiles.pixels) + " pixels are above the limit of " +
                      std::to_string(limit) + " bytes");
  }
  // A block takes at least the 3 bits of its id: no tile holds more pixels than the whole heap could.
  if (tiles.pixels / tiles.block > tiles.heap_bytes * 3) {
    throw FormatError("tiles of " + std::to_string(tiles.pixels) + " pixels cannot come out of " +
                      std::to_string(tiles.heap_bytes) + " compressed bytes");
  }
  hdu.tiles = std::move(tiles);
}

}  // namespace raftwright::structure
