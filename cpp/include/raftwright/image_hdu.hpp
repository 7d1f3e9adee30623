// HDUs of a raw file, appended to its pieces with their checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "raftwright/compressed_planes.hpp"
#include "raftwright/file_pieces.hpp"
#include "raftwright/fits_header.hpp"

namespace raftwright {

/// A header without data (a primary HDU, a table without rows or columns). CHECKSUM and DATASUM are set
/// where their cards stand, or appended. Returns the header as written. Throws FormatError when the
/// header announces data.
FitsHeader append_header_only(FilePieces& file, FitsHeader header);

/// A plane of `tiles` as a RICE_1 tile-compressed image, one row a tile. `image` is the header of the
/// uncompressed IMAGE extension; its structural cards, in whatever order, are replaced by those of the
/// binary table, the others keep their order; CHECKSUM and DATASUM become ZHECKSUM and ZDATASUM with the
/// sums of the uncompressed HDU, so that a decompressor restores a header that verifies.
/// Throws FormatError when the header contradicts the plane's size or its type (BITPIX 32).
void append_compressed_image(FilePieces& file, const FitsHeader& image,
                             std::shared_ptr<const CompressedPlanes> tiles, std::size_t plane);

/// An uncompressed image extension (or primary) of `count` elements of |bitpix| bits in native byte order.
/// Throws FormatError when the header contradicts `bitpix` or `count`.
void append_plain_image(FilePieces& file, FitsHeader image, int bitpix, const void* elements,
                        std::size_t count);

}  // namespace raftwright
