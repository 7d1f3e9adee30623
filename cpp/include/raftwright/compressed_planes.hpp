// The compressed product: every row of every plane as one RICE_1 tile, kept until the file is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace raftwright {

/// A few consecutive rows of all planes, encoded: for each plane its tiles back to back.
struct TileRun {
  std::size_t first_row = 0;
  std::size_t rows = 0;
  std::vector<std::span<const std::uint8_t>> code;  ///< a plane's tiles, contiguous, in row order
  std::vector<std::uint32_t> lengths;               ///< bytes of tile [plane * rows + row]
  std::vector<std::uint32_t> code_sums;             ///< FITS sum of code[plane] as if it began on a word
  std::vector<std::uint64_t> pixel_sums;            ///< sum of the pixels' 32-bit patterns, mod 2^64
};

/// Runs arrive in any order and from any thread; the result does not depend on either.
class CompressedPlanes {
 public:
  CompressedPlanes(std::size_t planes, std::size_t width, std::size_t height);

  [[nodiscard]] std::size_t planes() const noexcept { return planes_; }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t height() const noexcept { return height_; }

  /// Most rows that one call of encode() takes.
  static constexpr std::size_t kRunRows = 32;

  /// Encodes rows [first_row, first_row + rows): `row(r, pointers)` must set pointers[k] to the `width`
  /// pixels of row first_row + r of plane k, valid until its next call. Thread-safe. Each row once.
  template <typename RowSource>
  void encode(std::size_t first_row, std::size_t rows, RowSource&& row);

  /// Whether every row is there.
  [[nodiscard]] bool complete() const;
  /// Bytes held.
  [[nodiscard]] std::size_t memory() const;

  /// The runs in row order. Throws UsageError unless complete. Not to be called while encode() runs.
  [[nodiscard]] const std::vector<TileRun>& runs() const;
  [[nodiscard]] std::uint64_t code_bytes(std::size_t plane) const;

 private:
  class Encoder;  // scratch of one thread, compressed_planes.cpp
  struct Block;

  void begin_run(std::size_t first_row, std::size_t rows, Encoder*& encoder) const;
  static void encode_row(Encoder& encoder, std::span<const std::int32_t* const> pointers);
  void end_run(Encoder& encoder);
  [[nodiscard]] std::span<std::uint8_t> store(std::size_t bytes);  // with the lock held

  std::size_t planes_;
  std::size_t width_;
  std::size_t height_;
  std::size_t block_bytes_;
  mutable std::mutex mutex_;
  mutable std::vector<TileRun> runs_;
  mutable bool sorted_ = true;
  std::size_t rows_done_ = 0;
  std::vector<std::unique_ptr<Block>> blocks_;

 public:
  ~CompressedPlanes();
  CompressedPlanes(const CompressedPlanes&) = delete;
  CompressedPlanes& operator=(const CompressedPlanes&) = delete;
};

template <typename RowSource>
void CompressedPlanes::encode(std::size_t first_row, std::size_t rows, RowSource&& row) {
  Encoder* encoder = nullptr;
  begin_run(first_row, rows, encoder);
  std::vector<const std::int32_t*> pointers(planes_);
  for (std::size_t r = 0; r < rows; ++r) {
    row(r, std::span<const std::int32_t*>(pointers));
    encode_row(*encoder, pointers);
  }
  end_run(*encoder);
}

}  // namespace raftwright
