// Segments into a CCD, CCDs into a raft or a focal plane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace raftwright {

/// A rectangle of a segment, and where it goes in the mosaic. Coordinates are 0-based pixels.
struct Placement {
  const std::int32_t* pixels = nullptr;  ///< first pixel of the segment's plane
  std::size_t width = 0;                 ///< columns of the plane: its row pitch in pixels
  std::size_t height = 0;                ///< rows of the plane
  std::size_t x0 = 0, y0 = 0;            ///< the rectangle's first column and row in the plane
  std::size_t nx = 0, ny = 0;            ///< its size before any turn
  bool flip_x = false, flip_y = false;   ///< mirrored on the way
  std::ptrdiff_t out_x = 0, out_y = 0;   ///< lower left corner in the mosaic, unbinned pixels
  unsigned quarter_turns = 0;            ///< turns counter-clockwise after the flips, 0 .. 3
};

/// The largest `bin`.
inline constexpr unsigned kMostBin = 32768;

/// Paints placements into `out` (out_height x out_width, row-major, row 0 at the bottom of the sky).
/// Output pixel (x, y) stands for the unbinned pixels x * bin .. (x + 1) * bin - 1, and rows alike.
///
/// With bin 1 pixels are copied as they are, those equal to `missing` too; where placements overlap, the
/// later covers the earlier. With bin > 1 an output pixel is the mean of the bin x bin source pixels that
/// fall on it (those equal to `missing` left out; none left gives `fill`), rounded half away from zero;
/// placements that fall on one binned pixel together are averaged together. Output pixels that no placement
/// touches get `fill`. Parts outside the mosaic are cut off. The result does not depend on `threads`
/// (0 = every processor).
///
/// Throws UsageError on rectangles outside their plane, more than 3 turns, a bin outside 1 .. kMostBin, and
/// where placements overlap so often that 2^32 source pixels could fall on one output pixel. `out` must not
/// overlap a plane.
void paint_mosaic(std::span<const Placement> placements, unsigned bin, std::int32_t missing,
                  std::int32_t fill, std::int32_t* out, std::size_t out_width, std::size_t out_height,
                  unsigned threads);

}  // namespace raftwright
