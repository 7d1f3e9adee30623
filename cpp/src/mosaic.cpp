#include "raftwright/mosaic.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "mosaic_pieces.hpp"
#include "raftwright/error.hpp"
#include "raftwright/parallel.hpp"

namespace raftwright {

using mosaic::Axis;
using mosaic::Canvas;
using mosaic::Piece;
using mosaic::Range;

namespace {

void check(const Placement& placement, std::size_t index) {
  const auto refuse = [&](const std::string& what) {
    throw UsageError("placement " + std::to_string(index) + " of the mosaic " + what);
  };
  if (placement.quarter_turns > 3) {
    refuse("has " + std::to_string(placement.quarter_turns) + " quarter turns; give 0 .. 3");
  }
  if (placement.x0 > placement.width || placement.nx > placement.width - placement.x0 ||
      placement.y0 > placement.height || placement.ny > placement.height - placement.y0) {
    refuse("takes columns from " + std::to_string(placement.x0) + ", " + std::to_string(placement.nx) +
           " of them, and rows from " + std::to_string(placement.y0) + ", " + std::to_string(placement.ny) +
           " of them, of a plane of only " + std::to_string(placement.width) + " x " +
           std::to_string(placement.height) + " (columns x rows)");
  }
  if (placement.width != 0 &&
      placement.height > std::numeric_limits<std::size_t>::max() / 8 / placement.width) {
    refuse("has a plane that no memory holds");
  }
  if (placement.pixels == nullptr && placement.nx != 0 && placement.ny != 0) refuse("has no pixels");
}

/// Placements of which something can be seen, in their order.
std::vector<Piece> visible_pieces(std::span<const Placement> placements, Range columns, Range rows) {
  // Beyond this nothing is visible, and within it nothing overflows.
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 61U;
  std::vector<Piece> pieces;
  for (std::size_t index = 0; index < placements.size(); ++index) {
    const Placement& placement = placements[index];
    check(placement, index);
    if (placement.nx == 0 || placement.ny == 0) continue;
    if (placement.out_x < -far || placement.out_x > far || placement.out_y < -far || placement.out_y > far) {
      continue;
    }
    const bool turned = placement.quarter_turns % 2 != 0;
    const bool back_x = placement.flip_x != (placement.quarter_turns >= 2);
    const bool back_y = placement.flip_y != (placement.quarter_turns == 1 || placement.quarter_turns == 2);
    Piece piece;
    piece.pitch = static_cast<std::ptrdiff_t>(placement.width);
    piece.pixels = placement.pixels + placement.y0 * placement.width + placement.x0;
    piece.turned = turned;
    const Axis x{turned ? placement.out_y : placement.out_x, static_cast<std::ptrdiff_t>(placement.nx),
                 !back_x};
    const Axis y{turned ? placement.out_x : placement.out_y, static_cast<std::ptrdiff_t>(placement.ny),
                 !back_y};
    piece.across = turned ? y : x;
    piece.along = turned ? x : y;
    const bool visible =
        !common(piece.across.mosaic(), columns).empty() && !common(piece.along.mosaic(), rows).empty();
    if (visible) pieces.push_back(piece);
  }
  return pieces;
}

/// Sums of 2^32 pixels of 32 bits could overflow 64 bits.
void check_sums(std::span<const Piece> pieces, std::ptrdiff_t bin) {
  constexpr std::uint64_t most = std::uint64_t{1} << 32U;
  std::uint64_t pixels = 0;
  for (const Piece& piece : pieces) {
    const std::uint64_t on_one = static_cast<std::uint64_t>(std::min(piece.across.length, bin)) *
                                 static_cast<std::uint64_t>(std::min(piece.along.length, bin));
    pixels += on_one;  // at most 2^30 each
    if (pixels >= most) {
      throw UsageError(std::to_string(pieces.size()) +
                       " placements could put 2^32 or more pixels on one of bin " + std::to_string(bin) +
                       "; use a smaller bin");
    }
  }
}

}  // namespace

void paint_mosaic(std::span<const Placement> placements, unsigned bin, std::int32_t missing,
                  std::int32_t fill, std::int32_t* out, std::size_t out_width, std::size_t out_height,
                  unsigned threads) {
  if (bin < 1 || bin > kMostBin) {
    throw UsageError("a mosaic cannot be binned by " + std::to_string(bin) + "; give 1 .. " +
                     std::to_string(kMostBin));
  }
  constexpr std::size_t most = std::size_t{1} << 40U;
  if (out_width > most || out_height > most) {
    throw UsageError("a mosaic of " + std::to_string(out_width) + " x " + std::to_string(out_height) +
                     " pixels is too large; give at most 2^40 a side");
  }
  if (out == nullptr && out_width != 0 && out_height != 0) {
    throw UsageError("the mosaic has no output to paint");
  }
  const auto side = static_cast<std::ptrdiff_t>(bin);
  const Range columns{0, static_cast<std::ptrdiff_t>(out_width) * side};
  const Range rows{0, static_cast<std::ptrdiff_t>(out_height) * side};
  const std::vector<Piece> pieces = visible_pieces(placements, columns, rows);
  if (columns.empty() || rows.empty()) return;
  if (bin > 1) check_sums(pieces, side);

  const Canvas canvas{out, out_width, out_height, side, missing, fill, pieces};
  const std::ptrdiff_t together = bin == 1 ? mosaic::rows_of_copies(canvas) : mosaic::rows_of_means(canvas);
  const auto height = static_cast<std::ptrdiff_t>(out_height);
  const auto bands = static_cast<std::size_t>((height + together - 1) / together);
  parallel_for(bands, threads, [&](std::size_t index) {
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(index) * together;
    const Range band{first, std::min(first + together, height)};
    bin == 1 ? mosaic::paint_copies(canvas, band) : mosaic::paint_means(canvas, band);
  });
}

}  // namespace raftwright
