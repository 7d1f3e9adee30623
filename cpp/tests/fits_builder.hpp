// FITS files made by hand, so that tests can make them wrong. Shares no code with the core but the encoder.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "raftwright/rice.hpp"

namespace fits_builder {

using Bytes = std::vector<std::uint8_t>;

/// "KEYWORD = value" as one card; text that has no '=' in column 9 is taken as it is.
inline std::string card(const std::string& keyword, const std::string& value) {
  std::string text = keyword;
  text.resize(8, ' ');
  text += "= " + value;
  text.resize(80, ' ');
  return text;
}
inline std::string card(const std::string& keyword, long long value) {
  return card(keyword, std::to_string(value));
}
inline std::string plain_card(std::string text) {
  text.resize(80, ' ');
  return text;
}

inline void pad(Bytes& bytes, std::uint8_t with) {
  while (bytes.size() % 2880 != 0) bytes.push_back(with);
}

inline void append(Bytes& bytes, const std::string& text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
}

/// An HDU of cards (END is added) and data.
inline Bytes hdu(const std::string& cards, const Bytes& data = {}) {
  Bytes bytes;
  append(bytes, cards + plain_card("END"));
  pad(bytes, ' ');
  bytes.insert(bytes.end(), data.begin(), data.end());
  pad(bytes, 0);
  return bytes;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline std::string primary_cards() { return card("SIMPLE", "T") + card("BITPIX", 8) + card("NAXIS", 0LL); }
inline Bytes primary() { return hdu(primary_cards()); }

template <class Number>
void append_big_endian(Bytes& bytes, Number number) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &number, sizeof number);  // little-endian hosts only, as are the machines of the tests
  for (std::size_t byte = sizeof number; byte-- > 0;)
    bytes.push_back(static_cast<std::uint8_t>(bits >> (8 * byte)));
}

template <class Number>
Bytes big_endian(const std::vector<Number>& numbers) {
  Bytes bytes;
  for (const Number number : numbers) append_big_endian(bytes, number);
  return bytes;
}

inline std::string axis_cards(const std::string& stem, const std::vector<std::size_t>& axes) {
  std::string cards = card(stem, static_cast<long long>(axes.size()));
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    cards += card(stem + std::to_string(axis + 1), static_cast<long long>(axes[axis]));
  }
  return cards;
}

inline Bytes image_hdu(int bitpix, const std::vector<std::size_t>& axes, const Bytes& data,
                       const std::string& more = "") {
  return hdu(card("XTENSION", "'IMAGE   '") + card("BITPIX", bitpix) + axis_cards("NAXIS", axes) +
                 card("PCOUNT", 0LL) + card("GCOUNT", 1) + more,
             data);
}

/// A RICE_1 image of numbers that are stored as `Stored` (BYTEPIX = its size). Axes fastest first.
struct RiceImage {
  std::vector<std::size_t> axes;
  std::vector<std::size_t> tile;  // empty: no ZTILEn cards, so rows
  int bitpix = 32;
  unsigned block = 32;
  bool wide = false;                 // Q descriptors
  bool reversed = false;             // heap in the other order
  std::size_t gap = 0;               // bytes between table and heap
  std::size_t unused = 0;            // bytes left over after each tile's code
  std::string parameters = "named";  // "named", "absent", "nameless", "swapped"
  std::string type = "'RICE_1  '";
  std::string more;
};

template <class Stored>
std::vector<Stored> tile_of(const RiceImage& image, const std::vector<Stored>& pixels,
                            std::size_t tile_index) {
  std::vector<std::size_t> origin;
  std::vector<std::size_t> size;
  for (std::size_t axis = 0; axis < image.axes.size(); ++axis) {
    const std::size_t whole = image.tile.empty() ? (axis == 0 ? image.axes[0] : 1) : image.tile[axis];
    const std::size_t count = (image.axes[axis] + whole - 1) / whole;
    origin.push_back(tile_index % count * whole);
    size.push_back(std::min(whole, image.axes[axis] - origin.back()));
    tile_index /= count;
  }
  const std::size_t total = std::accumulate(size.begin(), size.end(), std::size_t{1}, std::multiplies<>());
  std::vector<Stored> tile;
  for (std::size_t index = 0; index < total; ++index) {
    std::size_t rest = index;
    std::size_t place = 0;
    std::size_t stride = 1;
    for (std::size_t axis = 0; axis < size.size(); ++axis) {
      place += (origin[axis] + rest % size[axis]) * stride;
      rest /= size[axis];
      stride *= image.axes[axis];
    }
    tile.push_back(pixels[place]);
  }
  return tile;
}

template <class Stored>
Bytes rice_hdu(const RiceImage& image, const std::vector<Stored>& pixels) {
  std::size_t tiles = 1;
  for (std::size_t axis = 0; axis < image.axes.size(); ++axis) {
    const std::size_t whole = image.tile.empty() ? (axis == 0 ? image.axes[0] : 1) : image.tile[axis];
    tiles *= (image.axes[axis] + whole - 1) / whole;
  }
  std::vector<Bytes> codes;
  for (std::size_t index = 0; index < tiles; ++index) {
    const std::vector<Stored> tile = tile_of(image, pixels, index);
    Bytes code(raftwright::rice_bound(tile.size(), sizeof(Stored), image.block));
    const std::span<const Stored> view(tile);
    code.resize(raftwright::rice_encode_reference(view, code, image.block));
    code.insert(code.end(), image.unused, 0);
    codes.push_back(std::move(code));
  }
  Bytes heap(image.gap, 0xEE);
  std::vector<std::size_t> offsets(tiles);
  for (std::size_t step = 0; step < tiles; ++step) {
    const std::size_t index = image.reversed ? tiles - 1 - step : step;
    offsets[index] = heap.size() - image.gap;
    heap.insert(heap.end(), codes[index].begin(), codes[index].end());
  }
  Bytes data;
  for (std::size_t index = 0; index < tiles; ++index) {
    if (image.wide) {
      append_big_endian(data, std::uint64_t{codes[index].size()});
      append_big_endian(data, std::uint64_t{offsets[index]});
    } else {
      append_big_endian(data, static_cast<std::uint32_t>(codes[index].size()));
      append_big_endian(data, static_cast<std::uint32_t>(offsets[index]));
    }
  }
  const std::size_t row = image.wide ? 16 : 8;
  std::string cards = card("XTENSION", "'BINTABLE'") + card("BITPIX", 8) + axis_cards("NAXIS", {row, tiles}) +
                      card("PCOUNT", static_cast<long long>(heap.size())) + card("GCOUNT", 1) +
                      card("TFIELDS", 1) + card("TTYPE1", "'COMPRESSED_DATA'") +
                      card("TFORM1", image.wide ? "'1QB(99) '" : "'1PB(99) '") + card("ZIMAGE", "T") +
                      card("ZCMPTYPE", image.type) + card("ZBITPIX", image.bitpix) +
                      axis_cards("ZNAXIS", image.axes);
  for (std::size_t axis = 0; axis < image.tile.size(); ++axis) {
    cards += card("ZTILE" + std::to_string(axis + 1), static_cast<long long>(image.tile[axis]));
  }
  if (image.gap != 0) cards += card("THEAP", static_cast<long long>(row * tiles + image.gap));
  if (image.parameters == "named" || image.parameters == "swapped") {
    cards += card("ZNAME1", "'BLOCKSIZE'") + card("ZNAME2", "'BYTEPIX '");
  }
  if (image.parameters != "absent") {
    const bool swapped = image.parameters == "swapped";
    cards += card(swapped ? "ZVAL2" : "ZVAL1", image.block) +
             card(swapped ? "ZVAL1" : "ZVAL2", static_cast<long long>(sizeof(Stored)));
  }
  data.insert(data.end(), heap.begin(), heap.end());
  return hdu(cards + image.more, data);
}

}  // namespace fits_builder
