// One source under assembly: chunks of its packed stream go in, planes and compressed tiles come out.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "raftwright/compressed_planes.hpp"
#include "raftwright/coverage.hpp"
#include "raftwright/planes.hpp"
#include "raftwright/stream_layout.hpp"

namespace raftwright {

/// A run of pixels of one plane in readout order: positions y * width + x.
struct PixelRun {
  std::uint64_t first;
  std::uint64_t count;
  friend bool operator==(const PixelRun&, const PixelRun&) = default;
};

/// What a readout makes of its rows. Both may be asked for together.
struct Products {
  bool pixels = true;       ///< int32 planes
  bool compressed = false;  ///< RICE_1 tiles, encoded row by row as rows complete
};

/// Chunks may come in any order, split anywhere (within a sample, within a pixel), more than once or
/// never. A byte counts once; what comes again is counted and ignored. Rows are worked on as soon as
/// they are whole; until then their pieces wait in a copy (never more than the packed stream itself).
///
/// Thread-safe: add() may run in many threads at once, each working on the rows its chunk completed.
class Readout {
 public:
  /// Planes lie in `memory` if it is given (see Planes). Throws UsageError on an empty image, one of more
  /// than 2^28 pixels a plane, no product, or memory that does not fit or without pixels to put there.
  Readout(StreamLayout layout, std::size_t width, std::size_t height, Products products,
          PlaneMemory memory = {});

  [[nodiscard]] const StreamLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t height() const noexcept { return height_; }
  /// Bytes of the complete stream.
  [[nodiscard]] std::uint64_t size() const noexcept { return row_bytes_ * height_; }

  /// Adds the bytes at [offset, offset + data.size()) and returns how many were new. Works on the rows
  /// that became whole with at most `threads` threads before it returns. Throws FormatError when the
  /// chunk reaches past the stream or would be one more than 2^18 separate pieces, UsageError after
  /// finish().
  std::uint64_t add(std::uint64_t offset, std::span<const std::uint8_t> data, unsigned threads = 1);

  /// Forgets everything that came, and finish(): the readout is as new. Waits for add() calls under way.
  void restart();

  [[nodiscard]] std::uint64_t received() const;
  [[nodiscard]] std::uint64_t duplicate() const;
  /// Bytes of rows that came in pieces: those alone are copied before they are worked on.
  [[nodiscard]] std::uint64_t copied() const;
  /// Whether every byte has come and every row has been worked on.
  [[nodiscard]] bool complete() const;
  /// Byte ranges that have not come.
  [[nodiscard]] std::vector<Interval> gaps() const;
  /// Pixels of a plane of which at least one bit has not come, exactly.
  [[nodiscard]] std::vector<PixelRun> missing(std::size_t plane) const;

  /// Gives every missing pixel the value `fill` and completes the products; what came of a cut row is
  /// kept. Waits for add() calls under way. Doing it again changes nothing.
  void finish(std::int32_t fill, unsigned threads = 1);
  [[nodiscard]] bool finished() const;

  /// Throws UsageError when pixels were not asked for.
  [[nodiscard]] const Planes& planes() const;
  /// Throws UsageError when the compressed product was not asked for.
  [[nodiscard]] const CompressedPlanes& compressed() const;
  /// Bytes held: planes, tiles, and rows that wait for their rest.
  [[nodiscard]] std::size_t memory() const;

 private:
  /// Whole rows that lie one after another in memory.
  struct Rows {
    std::size_t first_row;
    std::size_t count;
    const std::uint8_t* packed;
    std::vector<std::uint8_t> owned;  // holds the row when it was put together from pieces
  };
  struct PartialRow {
    std::vector<std::uint8_t> bytes;
    std::uint64_t present = 0;
  };

  std::vector<Rows> claim(std::uint64_t offset, std::span<const std::uint8_t> data, std::uint64_t* fresh);
  void work_on(const std::vector<Rows>& rows, unsigned threads);
  void work_on_run(std::size_t first_row, std::size_t count, const std::uint8_t* packed);
  void fill_row(std::size_t row, std::int32_t fill);
  [[nodiscard]] std::vector<PixelRun> missing_in(std::size_t channel,
                                                 const std::vector<Interval>& gaps) const;

  StreamLayout layout_;
  std::vector<std::size_t> channel_of_;  // plane -> stream channel
  std::size_t width_;
  std::size_t height_;
  std::uint64_t row_bytes_;
  std::unique_ptr<Planes> planes_;
  std::unique_ptr<CompressedPlanes> compressed_;

  mutable std::mutex mutex_;
  std::condition_variable idle_;
  Coverage coverage_;
  std::map<std::size_t, PartialRow> partial_;
  std::uint64_t duplicate_ = 0;
  std::uint64_t copied_ = 0;
  std::size_t rows_done_ = 0;
  std::size_t working_ = 0;
  bool failed_ = false;
  bool finishing_ = false;
  bool finished_ = false;
};

}  // namespace raftwright
