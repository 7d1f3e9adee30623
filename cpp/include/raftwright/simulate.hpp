// Simulated readouts: any row of any segment can be made again from the seed alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "raftwright/stream_layout.hpp"

namespace raftwright {

/// One star in segment coordinates: pixels of the plane in readout order, the centre of the first at 0.
/// Its light is a Gaussian integrated over each pixel, cut off at five sigma and at the active area.
struct SimulatedStar {
  float x, y;   ///< centre
  float flux;   ///< total counts (adu), at most 1e9
  float sigma;  ///< Gaussian width in pixels
};

/// A straight cosmic-ray track, in the coordinates of SimulatedStar.
struct SimulatedTrack {
  float x0, y0, x1, y1;
  float counts;  ///< adu a pixel of its length, at most 1e9
};

/// What a segment looks like. Everything is in adu as written to FITS.
struct SimulatedSegment {
  std::uint32_t detector = 0;  ///< detector id, for the coordinate pattern and the noise stream
  std::uint32_t segment = 0;   ///< 0-based segment (HDU order), likewise
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
/// Noise is Gaussian from a table of 65536 equally likely values (so it ends at 4.4 standard deviations)
/// indexed by a hash of (seed, detector, segment, row, column). Copies share what was prepared.
class SimulatedReadout {
 public:
  /// `segments[k]` describes output plane k of `layout`. Throws UsageError on sizes that do not fit, on
  /// values that are not finite or beyond 1e9 adu, and on names too large for the coordinate pattern.
  SimulatedReadout(StreamLayout layout, std::size_t width, std::size_t height, Pattern pattern,
                   std::uint64_t seed, std::vector<SimulatedSegment> segments);

  [[nodiscard]] const StreamLayout& layout() const noexcept { return layout_; }
  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t height() const noexcept { return height_; }
  [[nodiscard]] std::uint64_t size() const noexcept;  ///< bytes of the packed stream

  /// Pixels of one row of one plane: `out.size()` must be width. Values are within the layout's range
  /// (and within int32).
  void row(std::size_t plane, std::size_t y, std::span<std::int32_t> out) const;

  /// Bytes [offset, offset + out.size()) of the packed stream, on at most `threads` threads (0 = all).
  /// Throws UsageError outside the stream. Working memory is about 200 KB a thread, whatever the size.
  void read(std::uint64_t offset, std::span<std::uint8_t> out, unsigned threads = 1) const;

 private:
  struct Prepared;

  /// Pixels [x, x + out.size()) of row y.
  void pixels(std::size_t plane, std::size_t y, std::size_t x, std::span<std::int32_t> out) const;
  /// Whole samples [first, first + packed.size() / sample_bytes) of the stream.
  void samples(std::uint64_t first, std::span<std::uint8_t> packed) const;

  StreamLayout layout_;
  std::size_t width_, height_;
  Pattern pattern_;
  std::uint64_t seed_;
  std::vector<SimulatedSegment> segments_;
  std::shared_ptr<const std::vector<Prepared>> prepared_;  ///< one a segment; empty for coordinates
};

/// Where a pixel of the coordinate pattern says that it comes from.
struct Coordinate {
  std::uint32_t detector, segment, y, x;
  friend bool operator==(const Coordinate&, const Coordinate&) = default;
};

/// What coordinate_name returns when the pixels do not spell a name.
inline constexpr Coordinate no_coordinate{0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU, 0xFFFFFFFFU};

/// The value of a pixel in the coordinate pattern. Every group of ceil(48 / bits) neighbouring pixels of
/// a row (x counted from 0) spells a 46-bit name: detector (12 bits), segment (6), y (14) and group
/// number (14), whitened so that neighbours, rows, segments and detectors differ and any shift or swap
/// of pixels shows. The bits of the group beyond 46 are a check; a group uses at most 63 bits, so that
/// pixels of 22, 23 and 32 bits leave their highest zero. Needs 8 <= bits <= 32 (else 0); numbers too
/// large for their width are taken modulo it.
[[nodiscard]] std::uint32_t coordinate_value(unsigned bits, std::uint32_t detector, std::uint32_t segment,
                                             std::uint32_t y, std::uint32_t x) noexcept;

/// Reads the name back from the ceil(48 / bits) pixels of one group: x is that of its first pixel.
/// Returns no_coordinate when the check bits or a value are wrong, or `group` is not that long.
[[nodiscard]] Coordinate coordinate_name(unsigned bits, std::span<const std::int32_t> group) noexcept;

}  // namespace raftwright
