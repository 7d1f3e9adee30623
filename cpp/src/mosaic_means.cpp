// Bin > 1: exact sums and counts, so that neither the order of the work nor its division shows.
#include <algorithm>
#include <limits>
#include <vector>

#include "mosaic_pieces.hpp"

namespace raftwright::mosaic {

namespace {

struct Cell {
  std::int64_t sum = 0;
  std::int64_t count = 0;
};

/// Rows of source pixels added up column by column.
class ColumnSums {
 public:
  /// Adds `rows` rows of `length` pixels from `first` on.
  void add(const std::int32_t* first, std::ptrdiff_t pitch, std::ptrdiff_t rows, std::size_t length,
           std::int32_t missing) {
    if (narrow_.size() < length) narrow_.resize(length);
    clean_ = add_clean(first, pitch, rows, length, missing);
    rows_ = rows;
    if (!clean_) add_any(first, pitch, rows, length, missing);
  }

  /// Adds each group of columns to a cell, `stride` cells apart.
  void collect(std::span<const Range> groups, Cell* cells, std::ptrdiff_t stride) const {
    for (const Range group : groups) {
      std::int64_t sum = 0;
      if (clean_) {
        for (auto i = group.begin; i < group.end; ++i) {
          sum += static_cast<std::int32_t>(narrow_[static_cast<std::size_t>(i)]);
        }
        cells->count += (group.end - group.begin) * rows_;
      } else {
        for (auto i = group.begin; i < group.end; ++i) {
          sum += wide_[static_cast<std::size_t>(i)];
          cells->count += counts_[static_cast<std::size_t>(i)];
        }
      }
      cells->sum += sum;
      cells += stride;
    }
  }

 private:
  /// 32-bit sums; false when a pixel is missing or a sum could overflow.
  bool add_clean(const std::int32_t* first, std::ptrdiff_t pitch, std::ptrdiff_t rows, std::size_t length,
                 std::int32_t missing) {
    std::uint32_t* const sums = narrow_.data();
    std::int32_t magnitude = 0;  // its highest bit bounds every pixel
    std::int32_t found = 0;
    std::fill_n(sums, length, 0U);
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
      const std::int32_t* const pixels = first + row * pitch;
      for (std::size_t i = 0; i < length; ++i) {
        const std::int32_t pixel = pixels[i];
        magnitude |= pixel ^ (pixel >> 31);
        found |= pixel == missing ? -1 : 0;
        sums[i] += static_cast<std::uint32_t>(pixel);
      }
      if (found != 0) return false;
    }
    const std::int64_t most = std::numeric_limits<std::int32_t>::max();
    return (std::int64_t{magnitude} + 1) * rows <= most;
  }

  void add_any(const std::int32_t* first, std::ptrdiff_t pitch, std::ptrdiff_t rows, std::size_t length,
               std::int32_t missing) {
    wide_.assign(length, 0);
    counts_.assign(length, 0);
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
      const std::int32_t* const pixels = first + row * pitch;
      for (std::size_t i = 0; i < length; ++i) {
        const bool there = pixels[i] != missing;
        wide_[i] += there ? pixels[i] : 0;
        counts_[i] += there ? 1U : 0U;
      }
    }
  }

  std::vector<std::uint32_t> narrow_;
  std::vector<std::int64_t> wide_;
  std::vector<std::uint32_t> counts_;
  std::ptrdiff_t rows_ = 0;
  bool clean_ = true;
};

struct Scratch {
  ColumnSums sums;
  std::vector<Range> groups;
  std::vector<Cell> cells;
};

/// Output pixels that a range of unbinned ones touches.
Range binned(Range range, std::ptrdiff_t bin) { return {range.begin / bin, (range.end + bin - 1) / bin}; }
Range unbinned(std::ptrdiff_t index, std::ptrdiff_t bin) { return {index * bin, (index + 1) * bin}; }

std::int32_t rounded_mean(const Cell& cell) {
  const auto count = static_cast<std::uint64_t>(cell.count);
  const std::uint64_t size =
      cell.sum < 0 ? 0 - static_cast<std::uint64_t>(cell.sum) : static_cast<std::uint64_t>(cell.sum);
  std::uint64_t mean = size / count;
  const std::uint64_t rest = size - mean * count;
  if (rest >= count - rest) ++mean;
  return static_cast<std::int32_t>(cell.sum < 0 ? -static_cast<std::int64_t>(mean)
                                                : static_cast<std::int64_t>(mean));
}

/// Adds what `piece` shows in the unbinned rows `rows` and columns `columns` to the cells of the output
/// rows from `first_row` on. Source rows are added up bin by bin, then the columns of each sum.
void add_piece(const Piece& piece, Range columns, Range rows, const Canvas& canvas, std::ptrdiff_t first_row,
               Scratch& scratch) {
  // The source's y runs along the mosaic's y, or across it when turned; its x the other way.
  const auto width = static_cast<std::ptrdiff_t>(canvas.width);
  const Axis& y_axis = piece.turned ? piece.across : piece.along;
  const Axis& x_axis = piece.turned ? piece.along : piece.across;
  const Range y_range = piece.turned ? columns : rows;
  const Range x_range = piece.turned ? rows : columns;
  const Range x_source = x_axis.source(x_range);
  const Range y_bins = binned(y_range, canvas.bin);
  const Range x_bins = binned(x_range, canvas.bin);
  const std::ptrdiff_t x_stride = piece.turned ? width : 1;
  const std::ptrdiff_t y_stride = piece.turned ? 1 : width;

  scratch.groups.clear();
  for (std::ptrdiff_t x_bin = x_bins.begin; x_bin < x_bins.end; ++x_bin) {
    const Range group = x_axis.source(common(unbinned(x_bin, canvas.bin), x_range));
    scratch.groups.push_back({group.begin - x_source.begin, group.end - x_source.begin});
  }
  for (std::ptrdiff_t y_bin = y_bins.begin; y_bin < y_bins.end; ++y_bin) {
    const Range y_source = y_axis.source(common(unbinned(y_bin, canvas.bin), y_range));
    scratch.sums.add(piece.pixels + y_source.begin * piece.pitch + x_source.begin, piece.pitch,
                     y_source.end - y_source.begin, x_source.size(), canvas.missing);
    const std::ptrdiff_t first_cell = x_bins.begin * x_stride + y_bin * y_stride - first_row * width;
    scratch.sums.collect(scratch.groups, scratch.cells.data() + first_cell, x_stride);
  }
}

}  // namespace

/// Output rows that are summed up together. A turned piece is read in bits of that many columns, which
/// should be long; the cells of the rows should stay in the second cache.
std::ptrdiff_t rows_of_means(const Canvas& canvas) {
  constexpr std::size_t most_cells = std::size_t{1} << 16U;
  const bool turned =
      std::any_of(canvas.pieces.begin(), canvas.pieces.end(), [](const Piece& p) { return p.turned; });
  const std::ptrdiff_t wanted = (turned ? 256 : 64) / canvas.bin;
  const auto room = static_cast<std::ptrdiff_t>(most_cells / std::min(canvas.width, most_cells));
  return std::clamp<std::ptrdiff_t>(wanted, 1, room);
}

void paint_means(const Canvas& canvas, Range band) {
  const Range all{0, static_cast<std::ptrdiff_t>(canvas.width) * canvas.bin};
  const Range open{band.begin * canvas.bin, band.end * canvas.bin};
  Scratch scratch;
  scratch.cells.resize(band.size() * canvas.width);
  for (const Piece& piece : canvas.pieces) {
    const Range rows = common(piece.along.mosaic(), open);
    if (rows.empty()) continue;
    add_piece(piece, common(piece.across.mosaic(), all), rows, canvas, band.begin, scratch);
  }
  std::int32_t* to = canvas.out + static_cast<std::size_t>(band.begin) * canvas.width;
  for (const Cell& cell : scratch.cells) *to++ = cell.count == 0 ? canvas.fill : rounded_mean(cell);
}

}  // namespace raftwright::mosaic
