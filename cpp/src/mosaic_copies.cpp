// Bin 1: pixels as they are, at the speed of the memory.
#include <algorithm>
#include <cstring>
#include <vector>

#include "mosaic_pieces.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace raftwright::mosaic {

namespace {

/// Output of this many pixels (16 MB) does not stay in any cache that others want too.
constexpr std::size_t kStreamedPixels = std::size_t{4} << 20U;

#if defined(__SSE2__)
/// Copies around the caches: for output that is larger than they are. Whole lines only; the rest plainly.
/// The caller fences.
void stream(const std::int32_t* from, std::size_t count, bool forward, std::int32_t* to) {
  constexpr std::size_t line = 16;
  const std::size_t skew = reinterpret_cast<std::uintptr_t>(to) / sizeof(std::int32_t) % line;
  const std::size_t head = std::min(count, (line - skew) % line);
  const std::size_t done = head + (count - head) / line * line;
  if (forward) {
    std::copy_n(from, head, to);
    for (std::size_t at = head; at < done; at += 4) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
    }
    std::copy_n(from + done, count - done, to + done);
  } else {
    // Read forwards and written backwards: the other way round takes 1.7 times as long.
    std::reverse_copy(from, from + count - done, to + done);
    for (std::size_t at = done; at > head; at -= 4) {
      const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + count - at));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at - 4), _mm_shuffle_epi32(four, 0x1B));
    }
    std::reverse_copy(from + count - head, from + count, to);
  }
}
void fence() { _mm_sfence(); }
constexpr bool can_stream = true;
#else
void stream(const std::int32_t*, std::size_t, bool, std::int32_t*) {}
void fence() {}
constexpr bool can_stream = false;
#endif

/// Copies what `piece` shows in the rows `rows` x columns `columns` of the mosaic.
void copy_upright(const Piece& piece, Range columns, Range rows, const Canvas& canvas) {
  // In the order of the source, which the processor reads ahead; rows of the mosaic may come last to first.
  const Range source = piece.across.source(columns);
  const Range source_rows = piece.along.source(rows);
  const std::size_t count = columns.size();
  const bool around = can_stream && canvas.width * canvas.height >= kStreamedPixels;
  for (std::ptrdiff_t row = source_rows.begin; row < source_rows.end; ++row) {
    const std::ptrdiff_t step = row - source_rows.begin;
    const std::ptrdiff_t y = piece.along.forward ? rows.begin + step : rows.end - 1 - step;
    const std::int32_t* from = piece.pixels + row * piece.pitch + source.begin;
    std::int32_t* to = canvas.out + static_cast<std::size_t>(y) * canvas.width + columns.begin;
    if (around) {
      stream(from, count, piece.across.forward, to);
    } else if (piece.across.forward) {
      std::memcpy(to, from, count * sizeof(std::int32_t));
    } else {
      std::reverse_copy(from, from + count, to);
    }
  }
  if (around) fence();
}

/// The same through a quarter turn, in columns of one cache line: the rest of every line that was read is
/// still in the cache when the next row wants it.
void copy_turned(const Piece& piece, Range columns, Range rows, const Canvas& canvas) {
  constexpr std::ptrdiff_t side = 16;
  const std::ptrdiff_t step = piece.across.forward ? piece.pitch : -piece.pitch;  // one mosaic column on
  for (std::ptrdiff_t x0 = columns.begin; x0 < columns.end; x0 += side) {
    const std::ptrdiff_t count = std::min(side, columns.end - x0);
    const std::int32_t* const corner = piece.pixels + piece.across.source(x0) * piece.pitch;
    for (std::ptrdiff_t y = rows.begin; y < rows.end; ++y) {
      const std::int32_t* const from = corner + piece.along.source(y);
      std::int32_t* const to = canvas.out + static_cast<std::size_t>(y) * canvas.width + x0;
      if (count == side) {
        for (std::ptrdiff_t x = 0; x < side; ++x) to[x] = from[x * step];  // unrolled
      } else {
        for (std::ptrdiff_t x = 0; x < count; ++x) to[x] = from[x * step];
      }
    }
  }
}

/// Fills what no piece covers in the rows `band`.
void fill_gaps(const Canvas& canvas, Range band) {
  const Range columns{0, static_cast<std::ptrdiff_t>(canvas.width)};
  struct Patch {
    Range columns;
    Range rows;
  };
  std::vector<Patch> patches;
  std::vector<std::ptrdiff_t> borders{band.begin, band.end};
  for (const Piece& piece : canvas.pieces) {
    const Patch patch{common(piece.across.mosaic(), columns), common(piece.along.mosaic(), band)};
    if (patch.rows.empty()) continue;
    patches.push_back(patch);
    borders.push_back(patch.rows.begin);
    borders.push_back(patch.rows.end);
  }
  std::sort(patches.begin(), patches.end(),
            [](const Patch& a, const Patch& b) { return a.columns.begin < b.columns.begin; });
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  // Between two borders the same patches cover every row.
  for (std::size_t strip = 0; strip + 1 < borders.size(); ++strip) {
    const Range rows{borders[strip], borders[strip + 1]};
    const auto fill = [&](Range gap) {
      if (gap.empty()) return;
      for (std::ptrdiff_t y = rows.begin; y < rows.end; ++y) {
        std::fill_n(canvas.out + static_cast<std::size_t>(y) * canvas.width + gap.begin, gap.size(),
                    canvas.fill);
      }
    };
    std::ptrdiff_t covered = 0;
    for (const Patch& patch : patches) {
      if (patch.rows.begin > rows.begin || patch.rows.end < rows.end) continue;
      fill({covered, patch.columns.begin});
      covered = std::max(covered, patch.columns.end);
    }
    fill({covered, columns.end});
  }
}

}  // namespace

void paint_copies(const Canvas& canvas, Range band) {
  const Range all{0, static_cast<std::ptrdiff_t>(canvas.width)};
  fill_gaps(canvas, band);
  for (const Piece& piece : canvas.pieces) {
    const Range rows = common(piece.along.mosaic(), band);
    if (rows.empty()) continue;
    const Range columns = common(piece.across.mosaic(), all);
    piece.turned ? copy_turned(piece, columns, rows, canvas) : copy_upright(piece, columns, rows, canvas);
  }
}

std::ptrdiff_t rows_of_copies(const Canvas&) { return 64; }

}  // namespace raftwright::mosaic
