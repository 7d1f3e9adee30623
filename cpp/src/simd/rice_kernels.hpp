// What the portable coder and the kernels of RICE_1 share: the state of a bit stream between two blocks,
// and the kernels' entry points. Plain data and declarations only, because this header is also read by
// sources that are compiled for newer processors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raftwright::rice_detail {

constexpr std::size_t kKernelBlock = 32;  // the only block size with kernels
constexpr unsigned kIdBits = 5;           // BYTEPIX 4: width of a block's id,
constexpr unsigned kRawShift = 25;        // and the shift from which a block is stored raw

/// A bit stream being written, most significant bit first. `last` holds its last 64 bits (fewer while
/// there are fewer), the newest in bit 0; everything above is garbage. All but the bits pushed since the
/// last store are in memory, padded with zeros to a whole byte.
struct BitWriter {
  std::uint8_t* out;
  std::uint64_t last;
  std::uint64_t end;  ///< bits written + 7, so that end / 8 is the length in bytes
};

/// A bit stream being read. The next bit is the top one of `next`; `have` bits of it may be used. What
/// stands below those is either zero or the stream's own continuation.
struct BitReader {
  const std::uint8_t* at;  ///< the first byte of which nothing counts in `have`
  const std::uint8_t* stop;
  std::uint64_t next;
  std::uint64_t have;  ///< at most 63
};

/// One block of `count` > 0 pixels, of any length and content. Reads the pixel in front of it as well, but
/// not at the start of a tile. Baseline instructions only.
void encode_block(BitWriter& writer, const std::int32_t* pixels, std::size_t count, bool tile_start);

/// The first `blocks` whole blocks of a tile whose first pixel has been written. With `sum`, adds the
/// pixels' 32-bit patterns to it.
BitWriter encode_blocks_avx2(BitWriter writer, const std::int32_t* pixels, std::size_t blocks,
                             std::uint64_t* sum);

/// Decodes whole blocks of 32 pixels, at most `blocks` of them, and stops in front of the first that is
/// damaged or cut off. `*before` is the pixel in front of the next block. Returns the number of blocks.
std::size_t decode_blocks_avx2(BitReader* reader, std::int32_t* pixels, std::size_t blocks,
                               std::uint32_t* before);

}  // namespace raftwright::rice_detail
