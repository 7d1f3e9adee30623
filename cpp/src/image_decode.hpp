// Pixels of one HDU, a run at a time. The structure has been checked; the tiles themselves have not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fits_structure.hpp"

namespace raftwright::structure {

/// Decodes tiles first .. first + count - 1 to their places in `out`, the whole image. Throws FormatError
/// (bare text that names the tile) on bad tiles. Runs that do not overlap may go on at the same time.
void decode_tiles(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                  void* out);

/// Pixels first .. first + count - 1 of an image that is not compressed, in native byte order.
void copy_pixels(std::span<const std::uint8_t> file, const Hdu& hdu, std::size_t first, std::size_t count,
                 void* out);

}  // namespace raftwright::structure
