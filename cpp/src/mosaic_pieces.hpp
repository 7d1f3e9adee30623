// What mosaic.cpp hands to the copies (bin 1) and to the means (bin > 1).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace raftwright::mosaic {

/// Pixels begin .. end - 1.
struct Range {
  std::ptrdiff_t begin = 0;
  std::ptrdiff_t end = 0;
  [[nodiscard]] bool empty() const { return begin >= end; }
  [[nodiscard]] std::size_t size() const { return empty() ? 0 : static_cast<std::size_t>(end - begin); }
};

inline Range common(Range a, Range b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

/// One axis of a rectangle, from source pixels 0 .. length - 1 to unbinned mosaic pixels and back.
struct Axis {
  std::ptrdiff_t origin = 0;
  std::ptrdiff_t length = 0;
  bool forward = true;

  [[nodiscard]] Range mosaic() const { return {origin, origin + length}; }
  /// Source pixels of a range inside mosaic(); they run backwards when not `forward`.
  [[nodiscard]] Range source(Range mosaic) const {
    if (forward) return {mosaic.begin - origin, mosaic.end - origin};
    return {origin + length - mosaic.end, origin + length - mosaic.begin};
  }
  [[nodiscard]] std::ptrdiff_t source(std::ptrdiff_t mosaic) const {
    return forward ? mosaic - origin : origin + length - 1 - mosaic;
  }
};

/// A placement brought into mosaic terms.
struct Piece {
  const std::int32_t* pixels = nullptr;  ///< first pixel of the rectangle
  std::ptrdiff_t pitch = 0;
  Axis across;          ///< mosaic x
  Axis along;           ///< mosaic y
  bool turned = false;  ///< mosaic x comes from the source's y
};

struct Canvas {
  std::int32_t* out;
  std::size_t width;
  std::size_t height;
  std::ptrdiff_t bin;
  std::int32_t missing;
  std::int32_t fill;
  std::span<const Piece> pieces;
};

/// Paint the rows `band` of the output; every row is somebody's, no row two threads'.
void paint_copies(const Canvas& canvas, Range band);
void paint_means(const Canvas& canvas, Range band);
/// Output rows that are best painted together.
[[nodiscard]] std::ptrdiff_t rows_of_copies(const Canvas& canvas);
[[nodiscard]] std::ptrdiff_t rows_of_means(const Canvas& canvas);

}  // namespace raftwright::mosaic
