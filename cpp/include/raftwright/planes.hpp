// The int32 planes of a source: one aligned slab, one plane a segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace raftwright {

/// Memory that somebody else keeps: where the planes of a readout are to lie, and what keeps it alive.
struct PlaneMemory {
  std::span<std::uint8_t> bytes;
  std::shared_ptr<void> owner;
};

/// A slab of `count` planes of width x height int32 pixels, row-major and dense within a plane. Planes
/// start on cache lines, one line more than their size apart: 576 x 2048 planes are a whole number of
/// pages, and without the pad equal samples of all planes would share one cache set. Zero at first, unless
/// they lie in memory of the caller's, which shows what it held until it is written.
class Planes {
 public:
  /// Throws UsageError for sizes that cannot be, or memory that is too small or not aligned.
  Planes(std::size_t count, std::size_t width, std::size_t height, PlaneMemory memory = {});

  /// Bytes that memory for so many planes must have; it must start on a cache line (64 bytes).
  [[nodiscard]] static std::size_t needed(std::size_t count, std::size_t width, std::size_t height);

  [[nodiscard]] std::size_t count() const noexcept { return pointers_.size(); }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t height() const noexcept { return height_; }
  [[nodiscard]] std::int32_t* plane(std::size_t index) noexcept { return pointers_[index]; }
  [[nodiscard]] const std::int32_t* plane(std::size_t index) const noexcept { return pointers_[index]; }
  [[nodiscard]] const std::vector<std::int32_t*>& pointers() const noexcept { return pointers_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::size_t width_;
  std::size_t height_;
  std::size_t bytes_;
  std::shared_ptr<void> slab_;
  std::vector<std::int32_t*> pointers_;
};

}  // namespace raftwright
