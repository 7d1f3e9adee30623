#include "image_decode.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>

#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"

namespace raftwright::structure {

namespace {

template <class Number>
Number swapped(Number value) {
  if constexpr (std::endian::native == std::endian::big || sizeof(Number) == 1) {
    return value;
  } else if constexpr (sizeof(Number) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(Number) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

template <class Number>
Number big_endian(const std::uint8_t* bytes) {
  Number value;
  std::memcpy(&value, bytes, sizeof(Number));
  return swapped(value);
}

/// Where a tile begins in the image and how far it reaches.
struct Extent {
  std::size_t offset = 0;
  std::size_t pixels = 1;
};

Extent extent_of(const Tiles& tiles, std::size_t tile) {
  Extent extent;
  std::size_t stride = 1;
  for (std::size_t axis = 0; axis < tiles.axes.size(); ++axis) {
    const std::size_t origin = tile % tiles.grid[axis] * tiles.tile[axis];
    tile /= tiles.grid[axis];
    extent.offset += origin * stride;
    extent.pixels *= std::min(tiles.tile[axis], tiles.axes[axis] - origin);
    stride *= tiles.axes[axis];
  }
  return extent;
}

[[noreturn]] void fail(const Tiles& tiles, std::size_t tile, const std::string& what) {
  std::string pixel;
  for (std::size_t axis = 0, rest = tile; axis < tiles.axes.size(); ++axis) {
    if (axis > 0) pixel += ',';
    pixel += std::to_string(rest % tiles.grid[axis] * tiles.tile[axis] + 1);
    rest /= tiles.grid[axis];
  }
  throw FormatError("tile " + std::to_string(tile) + " of " + std::to_string(tiles.count) +
                    " (from FITS pixel " + pixel + ", descriptor at byte " +
                    std::to_string(tiles.rows_offset + tile * tiles.row_bytes) + ") " + what);
}

std::span<const std::uint8_t> code_of(std::span<const std::uint8_t> file, const Tiles& tiles,
                                      std::size_t tile) {
  const std::uint8_t* row = file.data() + tiles.rows_offset + tile * tiles.row_bytes;
  // Negative numbers turn into large ones, which are outside the heap.
  const std::uint64_t length = tiles.wide ? big_endian<std::uint64_t>(row) : big_endian<std::uint32_t>(row);
  const std::uint64_t offset =
      tiles.wide ? big_endian<std::uint64_t>(row + 8) : big_endian<std::uint32_t>(row + 4);
  if (offset > tiles.heap_bytes || length > tiles.heap_bytes - offset) {
    fail(tiles, tile,
         "claims " + std::to_string(length) + " bytes from byte " + std::to_string(offset) +
             " of a heap of " + std::to_string(tiles.heap_bytes));
  }
  return file.subspan(static_cast<std::size_t>(tiles.heap_offset + offset), static_cast<std::size_t>(length));
}

template <class Stored>
void decode(std::span<const std::uint8_t> file, const Tiles& tiles, std::size_t tile,
            std::span<Stored> pixels) {
  const std::span<const std::uint8_t> code = code_of(file, tiles, tile);
  const RiceStatus status = rice_decode(code, pixels, tiles.block);
  // Bytes left over are what some writers pad with: every pixel is there, and cfitsio takes them too.
  if (status == RiceStatus::ok || status == RiceStatus::unused_bytes) return;
  fail(tiles, tile,
       "cannot be decoded: " + std::string(rice_status_text(status)) + " (" + std::to_string(pixels.size()) +
           " pixels from " + std::to_string(code.size()) + " bytes at byte " +
           std::to_string(code.data() - file.data()) + ")");
}

/// Off by half the range, or back.
template <class Signed>
void flip_sign(std::span<Signed> pixels) {
  using Unsigned = std::make_unsigned_t<Signed>;
  constexpr auto half = static_cast<Unsigned>(Unsigned{1} << (8 * sizeof(Signed) - 1));
  for (Signed& pixel : pixels)
    pixel = static_cast<Signed>(static_cast<Unsigned>(static_cast<Unsigned>(pixel) ^ half));
}

/// Tiles that lie in one piece in the image and are coded in its own width: straight into place.
template <class Signed>
void decode_in_place(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                     Signed* out) {
  const Tiles& tiles = *hdu.tiles;
  for (std::size_t tile = first; tile < first + count; ++tile) {
    const Extent extent = extent_of(tiles, tile);
    const std::span<Signed> pixels(out + extent.offset, extent.pixels);
    decode(file, tiles, tile, pixels);
    if (hdu.flip_sign) flip_sign(pixels);
  }
}

/// As a stored number reads: BYTEPIX 1 is unsigned, as 8-bit FITS pixels are.
template <class Stored>
std::int64_t reading(Stored stored) {
  if constexpr (sizeof(Stored) == 1) return static_cast<std::uint8_t>(stored);
  return stored;
}

/// Any other tiles: decoded aside, then row by row into place, widened or narrowed as it must be.
template <class Stored, class Signed>
void decode_aside(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                  Signed* out) {
  const Tiles& tiles = *hdu.tiles;
  constexpr std::int64_t lowest = sizeof(Signed) == 1 ? 0 : std::numeric_limits<Signed>::min();
  constexpr std::int64_t highest = sizeof(Signed) == 1 ? 255 : std::numeric_limits<Signed>::max();
  const auto aside = std::make_unique_for_overwrite<Stored[]>(tiles.pixels);
  for (std::size_t tile = first; tile < first + count; ++tile) {
    const Extent extent = extent_of(tiles, tile);
    const std::span<Stored> stored(aside.get(), extent.pixels);
    decode(file, tiles, tile, stored);
    std::size_t run = 0;  // pixels along the fastest axis
    for (std::size_t done = 0; done < extent.pixels; done += run) {
      std::size_t place = extent.offset;
      std::size_t stride = 1;
      for (std::size_t axis = 0, rest = tile, row = done; axis < tiles.axes.size(); ++axis) {
        const std::size_t origin = rest % tiles.grid[axis] * tiles.tile[axis];
        const std::size_t length = std::min(tiles.tile[axis], tiles.axes[axis] - origin);
        if (axis == 0) run = length;
        place += row % length * stride;
        row /= length;
        rest /= tiles.grid[axis];
        stride *= tiles.axes[axis];
      }
      for (std::size_t pixel = 0; pixel < run; ++pixel) {
        const std::int64_t value = reading(stored[done + pixel]);
        if (value < lowest || value > highest) {
          fail(tiles, tile,
               "holds the value " + std::to_string(value) + ", which " + std::to_string(8 * sizeof(Signed)) +
                   " bits (ZBITPIX) cannot hold");
        }
        out[place + pixel] = static_cast<Signed>(value);
      }
      if (hdu.flip_sign) flip_sign(std::span<Signed>(out + place, run));
    }
  }
}

template <class Signed>
void decode_as(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
               void* out) {
  auto* pixels = static_cast<Signed*>(out);
  const Tiles& tiles = *hdu.tiles;
  if (tiles.contiguous && tiles.stored_bytes == sizeof(Signed)) {
    decode_in_place(file, hdu, first, count, pixels);
  } else if (tiles.stored_bytes == 1) {
    decode_aside<std::int8_t>(file, hdu, first, count, pixels);
  } else if (tiles.stored_bytes == 2) {
    decode_aside<std::int16_t>(file, hdu, first, count, pixels);
  } else {
    decode_aside<std::int32_t>(file, hdu, first, count, pixels);
  }
}

template <class Bits>
void copy_as(const std::uint8_t* from, std::size_t count, bool flip, Bits* out) {
  constexpr auto half = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  const Bits change = flip ? half : Bits{0};
  if (sizeof(Bits) == 1 && !flip) {
    std::memcpy(out, from, count);
    return;
  }
  for (std::size_t pixel = 0; pixel < count; ++pixel) {
    out[pixel] = static_cast<Bits>(big_endian<Bits>(from + pixel * sizeof(Bits)) ^ change);
  }
}

}  // namespace

void decode_tiles(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                  void* out) {
  switch (pixel_bytes(hdu.image.type)) {
    case 1:
      return decode_as<std::int8_t>(file, hdu, first, count, out);
    case 2:
      return decode_as<std::int16_t>(file, hdu, first, count, out);
    default:
      return decode_as<std::int32_t>(file, hdu, first, count, out);
  }
}

void copy_pixels(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                 void* out) {
  const std::size_t element = pixel_bytes(hdu.image.type);
  const std::uint8_t* from = file.data() + hdu.info.data_offset + first * element;
  switch (element) {
    case 1:
      return copy_as(from, count, hdu.flip_sign, static_cast<std::uint8_t*>(out) + first);
    case 2:
      return copy_as(from, count, hdu.flip_sign, static_cast<std::uint16_t*>(out) + first);
    case 4:
      return copy_as(from, count, hdu.flip_sign, static_cast<std::uint32_t*>(out) + first);
    default:
      return copy_as(from, count, hdu.flip_sign, static_cast<std::uint64_t*>(out) + first);
  }
}

}  // namespace raftwright::structure
