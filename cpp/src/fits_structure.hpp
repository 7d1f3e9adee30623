// The HDUs of a FITS file that may have been made to mislead: cards by keyword, sizes, tile geometry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "raftwright/raw_reader.hpp"

namespace raftwright::structure {

/// Cards with a value, found by keyword. A view: the text must outlive it.
class CardTable {
 public:
  explicit CardTable(std::string_view cards);

  [[nodiscard]] bool has(std::string_view keyword) const { return !find(keyword).empty(); }
  /// The number, or nullopt when the card is absent or its value blank. Throws FormatError (bare text,
  /// for the caller to complete) on text that is no integer and on cards that contradict each other.
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view keyword) const;
  /// As integer, for cards that must be there and lie within [lowest, highest].
  [[nodiscard]] std::int64_t integer_within(std::string_view keyword, std::int64_t lowest,
                                            std::int64_t highest) const;
  /// nullopt when absent; NaN when there is something else than a number.
  [[nodiscard]] std::optional<double> real(std::string_view keyword) const;
  /// First card's string without trailing blanks; nullopt when absent or not a string.
  [[nodiscard]] std::optional<std::string> text(std::string_view keyword) const;
  /// All of them.
  [[nodiscard]] std::vector<std::string> texts(std::string_view keyword) const;
  [[nodiscard]] bool is_true(std::string_view keyword) const;

 private:
  using Entry = std::pair<std::uint64_t, std::uint32_t>;  // keyword, card
  [[nodiscard]] std::span<const Entry> find(std::string_view keyword) const;
  [[nodiscard]] std::string_view value(const Entry& entry) const;

  std::string_view cards_;
  std::vector<Entry> entries_;
};

/// Where the tiles of a RICE_1 image are. Offsets are absolute and inside the file.
struct Tiles {
  std::uint64_t rows_offset = 0;  ///< first descriptor
  std::uint64_t row_bytes = 0;
  bool wide = false;  ///< descriptors of 64-bit numbers (Q) rather than 32-bit (P)
  std::uint64_t heap_offset = 0;
  std::uint64_t heap_bytes = 0;
  unsigned block = 32;
  unsigned stored_bytes = 4;      ///< BYTEPIX
  std::vector<std::size_t> axes;  ///< of the image, fastest first
  std::vector<std::size_t> tile;  ///< of a tile, fastest first, at most the axes
  std::vector<std::size_t> grid;  ///< tiles along each axis
  std::size_t count = 0;          ///< product of grid = rows of the table
  std::size_t pixels = 0;         ///< of a whole tile
  bool contiguous = false;        ///< the pixels of every tile follow each other in the image
};

struct Hdu {
  HduInfo info;
  std::size_t cards = 0;
  ImageLayout image;
  bool flip_sign = false;  ///< stored pixels are off by half the range
  std::optional<Tiles> tiles;
  std::string fault;      ///< what is wrong with an image that contradicts itself
  std::uint64_t end = 0;  ///< first byte after data and padding
  bool has_checksum = false;
  bool has_datasum = false;
  std::optional<std::uint32_t> datasum;
};

/// "NAME: HDU 3 'Segment12' (header at byte 5760)".
[[nodiscard]] std::string place(const std::string& name, std::size_t index, const Hdu& hdu);

/// Every HDU; throws FormatError where the chain of HDUs breaks. Bytes past the last HDU are no error.
[[nodiscard]] std::vector<Hdu> walk(std::span<const std::uint8_t> bytes, const std::string& name,
                                    std::uint64_t limit);

/// Text from a file, fit to be shown: other bytes than printable ASCII as '?', at most 80 characters.
[[nodiscard]] std::string printable(std::string_view text);

/// NAXIS and NAXISn, or ZNAXIS and ZNAXISn, slowest axis first.
[[nodiscard]] std::vector<std::size_t> shape_of(const CardTable& cards, const std::string& stem);

/// Sets hdu.image and flip_sign from bitpix, shape, BSCALE and BZERO, and `decodable` or `reason`.
void set_layout(const CardTable& cards, std::uint64_t limit, Hdu& hdu);

/// Fills `hdu` from the header of a table with ZIMAGE = T. Throws FormatError (bare text) when the
/// image contradicts itself.
void describe_compressed(const CardTable& cards, std::uint64_t limit, Hdu& hdu);
/// The same for an image that is not compressed.
void describe_plain(const CardTable& cards, std::uint64_t limit, Hdu& hdu);

}  // namespace raftwright::structure
