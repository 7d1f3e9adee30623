// Simulated readouts: any row of any segment can be made again from the seed alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "raftwright/stream_layout.hpp"

namespace raftwright {

/// One star in segment coordinates (unbinned pixels of the plane, 0-based, readout order).
struct SimulatedStar {
  float x, y;      ///< centre
  float flux;      ///< total counts (adu)
  float sigma;     ///< Gaussian width in pixels
};

/// A straight cosmic-ray track.
struct SimulatedTrack {
  float x0, y0, x1, y1;
  float counts;    ///< adu a pixel along the track
};

/// What a segment looks like. Everything is in adu as written to FITS.
struct SimulatedSegment {
  std::uint32_t detector = 0;    ///< detector id, for the coordinate pattern and the noise stream
  std::uint32_t segment = 0;     ///< 0-based segment (HDU order), likewise
  float bias = 25000.0F;
  float bias_slope = 0.0F;       ///< adu a row, a gentle ramp
  float read_noise = 8.0F;       ///< standard deviation
  float sky = 0.0F;              ///< mean sky in the active area; its shot noise is sqrt(sky / gain)
  float gain = 1.5F;             ///< electrons an adu
  float saturation = 200000.0F;  ///< full well above bias
  std::size_t active_x0 = 0, active_x1 = 0;  ///< active columns [x0, x1)
  std::size_t active_y0 = 0, active_y1 = 0;  ///< active rows [y0, y1)
  std::vector<SimulatedStar> stars;
  std::vector<SimulatedTrack> tracks;
};

/// How pixels are made.
enum class Pattern {
  sky,         ///< bias, noise, sky, stars, cosmic rays, overscan
  coordinates  ///< every pixel names its own detector, segment, row and column (see coordinate_value)
};

/// A board's readout that is made on demand: deterministic from `seed`, whatever order rows are asked in.
class SimulatedReadout {
 public:
  /// `segments[k]` describes output plane k of `layout`. Throws UsageError on sizes that do not fit.
  SimulatedReadout(StreamLayout layout, std::size_t width, std::size_t height, Pattern pattern,
                   std::uint64_t seed, std::vector<SimulatedSegment> segments);

  [[nodiscard]] const StreamLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t height() const noexcept { return height_; }
  [[nodiscard]] std::uint64_t size() const noexcept;  ///< bytes of the packed stream

  /// Pixels of one row of one plane: `out.size()` must be width. Values are within the layout's range.
  void row(std::size_t plane, std::size_t y, std::span<std::int32_t> out) const;

  /// Bytes [offset, offset + out.size()) of the packed stream. Throws UsageError outside the stream.
  void read(std::uint64_t offset, std::span<std::uint8_t> out, unsigned threads = 1) const;

 private:
  StreamLayout layout_;
  std::size_t width_, height_;
  Pattern pattern_;
  std::uint64_t seed_;
  std::vector<SimulatedSegment> segments_;
};

/// Where a pixel of the coordinate pattern says that it comes from.
struct Coordinate {
  std::uint32_t detector, segment, y, x;
  friend bool operator==(const Coordinate&, const Coordinate&) = default;
};

/// The value of a pixel in the coordinate pattern. Every group of ceil(48 / bits) neighbouring pixels of
/// a row (x counted from 0) spells a 46-bit name: detector (12 bits), segment (6), y (14) and group
/// number (14), whitened so that neighbours, rows, segments and detectors differ and any shift or swap
/// of pixels shows. Needs bits >= 8.
[[nodiscard]] std::uint32_t coordinate_value(unsigned bits, std::uint32_t detector, std::uint32_t segment,
                                             std::uint32_t y, std::uint32_t x) noexcept;

/// Reads the name back from the ceil(48 / bits) pixels of one group: x is that of its first pixel.
[[nodiscard]] Coordinate coordinate_name(unsigned bits, std::span<const std::int32_t> group) noexcept;

}  // namespace raftwright
