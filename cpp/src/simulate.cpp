#include "raftwright/simulate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string>
#include <utility>

#include "coordinate_pattern.hpp"
#include "raftwright/error.hpp"
#include "raftwright/parallel.hpp"
#include "raftwright/scramble.hpp"
#include "simulated_noise.hpp"

namespace raftwright {
namespace {

using namespace simulated;

constexpr int profile_bits = 24;
constexpr double sigma_one = 1U << sigma_bits;
constexpr double pixel_one = 1U << pixel_bits;
constexpr double profile_one = 1U << profile_bits;

constexpr double largest = 1e9;                 // adu; also pixels from the origin
constexpr std::size_t piece = 1024;             // pixels made at once: their deviates stay in L1
constexpr std::size_t tile_pixels = 32 * 1024;  // pixels packed at once: they stay in L2
constexpr std::size_t bucket_rows = 64;         // stars are looked up by bucket of rows

// --- checks --------------------------------------------------------------------------------------------

[[noreturn]] void refuse(std::size_t index, const std::string& what) {
  throw UsageError("simulated segment " + std::to_string(index) + ": " + what);
}

void check_number(std::size_t index, const char* name, float value, double low, double high) {
  if (!(static_cast<double>(value) >= low && static_cast<double>(value) <= high)) {  // NaN included
    refuse(index, std::string(name) + " is " + std::to_string(value) + ", must be from " +
                      std::to_string(low) + " to " + std::to_string(high));
  }
}

void check_segment(std::size_t index, const SimulatedSegment& s, std::size_t width, std::size_t height) {
  if (s.active_x0 > s.active_x1 || s.active_x1 > width || s.active_y0 > s.active_y1 || s.active_y1 > height) {
    refuse(index, "the active area, columns " + std::to_string(s.active_x0) + " to " +
                      std::to_string(s.active_x1) + " and rows " + std::to_string(s.active_y0) + " to " +
                      std::to_string(s.active_y1) + ", is not inside the " + std::to_string(width) + " x " +
                      std::to_string(height) + " pixels of the readout");
  }
  check_number(index, "bias", s.bias, -largest, largest);
  check_number(index, "bias_slope", s.bias_slope, -largest, largest);
  if (std::abs(static_cast<double>(s.bias_slope)) * static_cast<double>(height) > largest) {
    refuse(index, "bias_slope times the number of rows is above 1e9 adu");
  }
  check_number(index, "read_noise", s.read_noise, 0.0, 1e6);
  check_number(index, "sky", s.sky, 0.0, largest);
  check_number(index, "gain", s.gain, 1e-3, 1e6);
  check_number(index, "saturation", s.saturation, 0.0, largest);
  for (const SimulatedStar& star : s.stars) {
    check_number(index, "star x", star.x, -largest, largest);
    check_number(index, "star y", star.y, -largest, largest);
    check_number(index, "star flux", star.flux, -largest, largest);
    check_number(index, "star sigma", star.sigma, 1e-3, 1e4);
  }
  for (const SimulatedTrack& track : s.tracks) {
    check_number(index, "track x0", track.x0, -largest, largest);
    check_number(index, "track y0", track.y0, -largest, largest);
    check_number(index, "track x1", track.x1, -largest, largest);
    check_number(index, "track y1", track.y1, -largest, largest);
    check_number(index, "track counts", track.counts, -largest, largest);
    if (std::hypot(track.x1 - track.x0, track.y1 - track.y0) > 1e6F) {
      refuse(index, "a track is longer than 1e6 pixels");
    }
  }
}

}  // namespace

// --- what is made ready once a segment -------------------------------------------------------------------

struct SimulatedReadout::Prepared {
  // The light of a star, as the product of a profile along x and one along y.
  struct Star {
    std::int64_t flux;  // 8 fractional bits
    std::size_t x0, y0;
    std::vector<std::int32_t> column, row;  // 24 fractional bits
  };
  struct Cell {  // a pixel that a cosmic ray crosses
    std::size_t y, x;
    std::int64_t counts;  // 8 fractional bits
  };

  std::uint64_t key = 0;
  std::int32_t read_sigma = 0;  // 8 fractional bits
  std::int32_t sky_sigma = 0;   // likewise, with the shot noise of the sky
  std::int64_t sky = 0;         // 8 fractional bits
  std::int64_t saturation = 0;  // likewise
  double variance = 0.0;        // of the read noise, adu squared
  double inverse_gain = 1.0;    // adu an electron
  std::vector<Star> stars;
  std::vector<std::uint32_t> in_bucket;     // indices of stars, bucket after bucket
  std::vector<std::uint32_t> bucket_start;  // one more than buckets
  std::vector<Cell> cells;                  // by row

  void prepare(const SimulatedSegment& s, std::uint64_t seed, std::size_t height);
  void add_star(const SimulatedSegment& s, const SimulatedStar& star);
  void add_track(const SimulatedSegment& s, const SimulatedTrack& track);
  void sort_stars(std::size_t height);

  /// Adds stars and tracks to `signal`, which begins at column x; returns the columns touched.
  std::pair<std::size_t, std::size_t> light(std::size_t y, std::size_t x,
                                            std::span<std::int64_t> signal) const;
  [[nodiscard]] std::int32_t sigma_of(std::int64_t signal) const noexcept {
    const double shot = signal > 0 ? static_cast<double>(signal) / sigma_one * inverse_gain : 0.0;
    return static_cast<std::int32_t>(std::sqrt(variance + shot) * sigma_one + 0.5);
  }
};

void SimulatedReadout::Prepared::prepare(const SimulatedSegment& s, std::uint64_t seed, std::size_t height) {
  key = segment_key(seed, s.detector, s.segment);
  variance = static_cast<double>(s.read_noise) * static_cast<double>(s.read_noise);
  inverse_gain = 1.0 / static_cast<double>(s.gain);
  saturation = std::llround(static_cast<double>(s.saturation) * sigma_one);
  sky = std::min<std::int64_t>(std::llround(static_cast<double>(s.sky) * sigma_one), saturation);
  read_sigma = sigma_of(0);
  sky_sigma = sigma_of(sky);
  for (const SimulatedStar& star : s.stars) add_star(s, star);
  for (const SimulatedTrack& track : s.tracks) add_track(s, track);
  sort_stars(height);
  std::sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) { return a.y < b.y; });
}

namespace {

// The pixels [first, last) within five sigma of a centre and within [low, high).
std::pair<std::size_t, std::size_t> reach_of(double centre, double sigma, std::size_t low,
                                             std::size_t high) noexcept {
  const double bottom = static_cast<double>(low), top = static_cast<double>(high);
  const double first = std::clamp(std::floor(centre - 5.0 * sigma + 0.5), bottom, top);
  const double last = std::clamp(std::ceil(centre + 5.0 * sigma + 0.5), bottom, top);
  return {static_cast<std::size_t>(first), static_cast<std::size_t>(std::max(first, last))};
}

// A unit Gaussian integrated over each pixel.
std::vector<std::int32_t> profile(double centre, double sigma, std::size_t first, std::size_t last) {
  const double scale = 1.0 / (std::numbers::sqrt2 * sigma);
  std::vector<std::int32_t> values;
  values.reserve(last - first);
  double below = std::erf((static_cast<double>(first) - 0.5 - centre) * scale);
  for (std::size_t i = first; i < last; ++i) {
    const double above = std::erf((static_cast<double>(i) + 0.5 - centre) * scale);
    values.push_back(static_cast<std::int32_t>(std::lround(0.5 * (above - below) * profile_one)));
    below = above;
  }
  return values;
}

}  // namespace

void SimulatedReadout::Prepared::add_star(const SimulatedSegment& s, const SimulatedStar& star) {
  const double sigma = static_cast<double>(star.sigma);
  const auto [x0, x1] = reach_of(static_cast<double>(star.x), sigma, s.active_x0, s.active_x1);
  const auto [y0, y1] = reach_of(static_cast<double>(star.y), sigma, s.active_y0, s.active_y1);
  if (x0 == x1 || y0 == y1) return;
  stars.push_back({std::llround(static_cast<double>(star.flux) * sigma_one), x0, y0,
                   profile(static_cast<double>(star.x), sigma, x0, x1),
                   profile(static_cast<double>(star.y), sigma, y0, y1)});
}

void SimulatedReadout::Prepared::add_track(const SimulatedSegment& s, const SimulatedTrack& track) {
  // Pixel i covers [i, i + 1) here. The line is cut to the active area (Liang & Barsky 1984), then at
  // every pixel border it crosses; what lies between two cuts is in one pixel.
  const double x0 = static_cast<double>(track.x0) + 0.5, y0 = static_cast<double>(track.y0) + 0.5;
  const double dx = static_cast<double>(track.x1) + 0.5 - x0, dy = static_cast<double>(track.y1) + 0.5 - y0;
  const double length = std::hypot(dx, dy);
  double begin = 0.0, end = 1.0;
  const auto cut = [&](double step, double from_start) {  // keeps step * t >= from_start
    if (step == 0.0) {
      if (from_start > 0.0) end = -1.0;
    } else if (step > 0.0) {
      begin = std::max(begin, from_start / step);
    } else {
      end = std::min(end, from_start / step);
    }
  };
  cut(dx, static_cast<double>(s.active_x0) - x0);
  cut(-dx, x0 - static_cast<double>(s.active_x1));
  cut(dy, static_cast<double>(s.active_y0) - y0);
  cut(-dy, y0 - static_cast<double>(s.active_y1));
  if (!(begin < end) || s.active_x0 == s.active_x1 || s.active_y0 == s.active_y1) return;

  std::vector<double> cuts{begin, end};
  const auto borders = [&](double start, double step) {
    if (step == 0.0) return;
    const double a = start + step * begin, b = start + step * end;
    for (double border = std::ceil(std::min(a, b)); border <= std::max(a, b); border += 1.0) {
      const double t = (border - start) / step;
      if (t > begin && t < end) cuts.push_back(t);
    }
  };
  borders(x0, dx);
  borders(y0, dy);
  std::sort(cuts.begin(), cuts.end());
  const auto pixel = [](double position, std::size_t low, std::size_t high) {
    return static_cast<std::size_t>(
        std::clamp(std::floor(position), static_cast<double>(low), static_cast<double>(high - 1)));
  };
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const double middle = 0.5 * (cuts[i] + cuts[i + 1]);
    const double counts = static_cast<double>(track.counts) * length * (cuts[i + 1] - cuts[i]);
    cells.push_back({pixel(y0 + dy * middle, s.active_y0, s.active_y1),
                     pixel(x0 + dx * middle, s.active_x0, s.active_x1), std::llround(counts * sigma_one)});
  }
}

void SimulatedReadout::Prepared::sort_stars(std::size_t height) {
  const std::size_t buckets = height / bucket_rows + 1;
  bucket_start.assign(stars.empty() ? 0 : buckets + 1, 0);
  if (stars.empty()) return;
  const auto span_of = [](const Star& star) {
    return std::pair{star.y0 / bucket_rows, (star.y0 + star.row.size() - 1) / bucket_rows};
  };
  std::uint64_t entries = 0;
  for (const Star& star : stars) {
    const auto [first, last] = span_of(star);
    for (std::size_t bucket = first; bucket <= last; ++bucket) ++bucket_start[bucket + 1];
    entries += last - first + 1;
  }
  if (entries > 0x7FFFFFFFU) throw UsageError("too many stars in a simulated segment; ask for fewer");
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) bucket_start[bucket + 1] += bucket_start[bucket];
  in_bucket.resize(entries);
  std::vector<std::uint32_t> next(bucket_start.begin(), bucket_start.end() - 1);
  for (std::size_t i = 0; i < stars.size(); ++i) {
    const auto [first, last] = span_of(stars[i]);
    for (std::size_t bucket = first; bucket <= last; ++bucket) {
      in_bucket[next[bucket]++] = static_cast<std::uint32_t>(i);
    }
  }
}

std::pair<std::size_t, std::size_t> SimulatedReadout::Prepared::light(std::size_t y, std::size_t x,
                                                                      std::span<std::int64_t> signal) const {
  std::size_t touched_first = signal.size(), touched_last = 0;
  // Zeroes what is newly touched, so that an untouched row costs nothing.
  const auto touch = [&](std::size_t first, std::size_t last) {
    if (touched_first >= touched_last) {
      std::fill(signal.begin() + static_cast<std::ptrdiff_t>(first),
                signal.begin() + static_cast<std::ptrdiff_t>(last), 0);
      touched_first = first;
      touched_last = last;
      return;
    }
    for (std::size_t i = first; i < touched_first; ++i) signal[i] = 0;
    for (std::size_t i = touched_last; i < last; ++i) signal[i] = 0;
    touched_first = std::min(touched_first, first);
    touched_last = std::max(touched_last, last);
  };
  const std::size_t end = x + signal.size();
  if (!stars.empty()) {
    const std::size_t bucket = y / bucket_rows;
    for (std::size_t i = bucket_start[bucket]; i < bucket_start[bucket + 1]; ++i) {
      const Star& star = stars[in_bucket[i]];
      if (y < star.y0 || y - star.y0 >= star.row.size()) continue;
      const std::size_t first = std::max(star.x0, x), last = std::min(star.x0 + star.column.size(), end);
      if (first >= last) continue;
      touch(first - x, last - x);
      const std::int64_t in_row = (star.flux * star.row[y - star.y0]) >> profile_bits;
      for (std::size_t column = first; column < last; ++column) {
        signal[column - x] += (in_row * star.column[column - star.x0]) >> profile_bits;
      }
    }
  }
  auto cell = std::lower_bound(cells.begin(), cells.end(), y,
                               [](const Cell& c, std::size_t row) { return c.y < row; });
  for (; cell != cells.end() && cell->y == y; ++cell) {
    if (cell->x < x || cell->x >= end) continue;
    touch(cell->x - x, cell->x - x + 1);
    signal[cell->x - x] += cell->counts;
  }
  return {touched_first, touched_last};
}

// --- the readout -------------------------------------------------------------------------------------------

SimulatedReadout::SimulatedReadout(StreamLayout layout, std::size_t width, std::size_t height,
                                   Pattern pattern, std::uint64_t seed,
                                   std::vector<SimulatedSegment> segments)
    : layout_(std::move(layout)),
      width_(width),
      height_(height),
      pattern_(pattern),
      seed_(seed),
      segments_(std::move(segments)) {
  constexpr std::size_t limit = std::size_t{1} << 31;  // pixels of a segment
  if (width_ == 0 || height_ == 0 || width_ > limit / height_) {
    throw UsageError("a simulated readout of " + std::to_string(width_) + " x " + std::to_string(height_) +
                     " pixels is empty or too large; give the width and height of a segment");
  }
  if (segments_.size() != layout_.channels()) {
    throw UsageError("a simulated readout of " + std::to_string(layout_.channels()) +
                     " channels needs as many "
                     "segments, not " +
                     std::to_string(segments_.size()));
  }
  for (std::size_t k = 0; k < segments_.size(); ++k) check_segment(k, segments_[k], width_, height_);
  if (pattern_ == Pattern::coordinates) {
    if (layout_.bits() < 8) {
      throw UsageError("the coordinate pattern needs at least 8 bits a pixel, not " +
                       std::to_string(layout_.bits()));
    }
    const std::size_t group = Spelling(layout_.bits()).group;
    if (height_ > 0x4000U || width_ > 0x4000U * group) {
      throw UsageError("the coordinate pattern has names for " + std::to_string(0x4000U * group) +
                       " x 16384 pixels, not for " + std::to_string(width_) + " x " +
                       std::to_string(height_));
    }
    for (std::size_t k = 0; k < segments_.size(); ++k) {
      if (segments_[k].detector > 0xFFFU) refuse(k, "the coordinate pattern needs detector ids up to 4095");
      if (segments_[k].segment > 0x3FU) refuse(k, "the coordinate pattern needs segment numbers up to 63");
    }
    return;
  }
  auto prepared = std::make_shared<std::vector<Prepared>>(segments_.size());
  for (std::size_t k = 0; k < segments_.size(); ++k) (*prepared)[k].prepare(segments_[k], seed_, height_);
  prepared_ = std::move(prepared);
  prepare_deviates();
}

std::uint64_t SimulatedReadout::size() const noexcept {
  return std::uint64_t{width_} * height_ * layout_.sample_bytes();
}

void SimulatedReadout::row(std::size_t plane, std::size_t y, std::span<std::int32_t> out) const {
  if (plane >= segments_.size() || y >= height_ || out.size() != width_) {
    throw UsageError("row " + std::to_string(y) + " of plane " + std::to_string(plane) + " in " +
                     std::to_string(out.size()) + " pixels was asked of a simulated readout of " +
                     std::to_string(segments_.size()) + " planes of " + std::to_string(width_) + " x " +
                     std::to_string(height_) + " pixels");
  }
  pixels(plane, y, 0, out);
}

void SimulatedReadout::pixels(std::size_t plane, std::size_t y, std::size_t x,
                              std::span<std::int32_t> out) const {
  const SimulatedSegment& segment = segments_[plane];
  if (pattern_ == Pattern::coordinates) {
    fill_coordinates(Spelling(layout_.bits()), segment.detector, segment.segment, y, x, out);
    return;
  }
  const Prepared& ready = (*prepared_)[plane];
  const std::int64_t max =
      std::min<std::int64_t>(layout_.max_value(), std::numeric_limits<std::int32_t>::max());
  const std::uint64_t key = row_key(ready.key, y);
  const std::int64_t bias = std::llround(
      (static_cast<double>(segment.bias) + static_cast<double>(segment.bias_slope) * static_cast<double>(y)) *
      pixel_one);
  const bool active_row = y >= segment.active_y0 && y < segment.active_y1;

  std::array<std::int16_t, piece + 8> noise;
  std::array<std::int64_t, piece> signal;
  for (std::size_t done = 0; done < out.size(); done += piece) {
    const std::size_t first = x + done, last = x + std::min(done + piece, out.size());
    const std::span<std::int32_t> part = out.subspan(done, last - first);
    fill_deviates(key, first / 4, (last + 3) / 4, noise.data());
    const std::int16_t* z = noise.data() + first % 4;

    const std::size_t a = active_row ? std::clamp(segment.active_x0, first, last) : last;
    const std::size_t b = active_row ? std::clamp(segment.active_x1, first, last) : last;
    fill_flat(bias, ready.read_sigma, z, a - first, max, part.data());
    fill_flat(bias + (ready.sky << deviate_bits), ready.sky_sigma, z + (a - first), b - a, max,
              part.data() + (a - first));
    fill_flat(bias, ready.read_sigma, z + (b - first), last - b, max, part.data() + (b - first));
    if (!active_row) continue;

    const auto [lit, dark] = ready.light(y, first, std::span(signal).first(last - first));
    for (std::size_t i = lit; i < dark; ++i) {
      if (signal[i] == 0) continue;
      const std::int64_t total = std::clamp(ready.sky + signal[i], -ready.saturation, ready.saturation);
      const std::int64_t level = bias + total * (std::int64_t{1} << deviate_bits) + half_pixel;
      const std::int64_t value = (level + std::int64_t{ready.sigma_of(total)} * z[i]) >> pixel_bits;
      part[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(value, 0, max));
    }
  }
}

void SimulatedReadout::samples(std::uint64_t first, std::span<std::uint8_t> packed) const {
  const std::size_t channels = layout_.channels(), bytes = layout_.sample_bytes();
  const std::size_t total = packed.size() / bytes;
  const std::size_t tile = std::min(std::max<std::size_t>(tile_pixels / channels, 64), total);
  const std::size_t pitch = tile + 16;  // rows of a power of two would share cache sets
  std::vector<std::int32_t> scratch(pitch * channels);
  std::vector<const std::int32_t*> planes(channels);
  for (std::size_t k = 0; k < channels; ++k) planes[k] = scratch.data() + k * pitch;
  for (std::size_t done = 0; done < total; done += tile) {
    const std::size_t count = std::min(tile, total - done);
    for (std::size_t k = 0; k < channels; ++k) {
      for (std::size_t made = 0; made < count;) {
        const std::uint64_t position = first + done + made;
        const auto y = static_cast<std::size_t>(position / width_);
        const auto x = static_cast<std::size_t>(position % width_);
        const std::size_t run = std::min(count - made, width_ - x);
        pixels(k, y, x, std::span(scratch).subspan(k * pitch + made, run));
        made += run;
      }
    }
    scramble(layout_, planes, packed.subspan(done * bytes, count * bytes));
  }
}

void SimulatedReadout::read(std::uint64_t offset, std::span<std::uint8_t> out, unsigned threads) const {
  if (offset > size() || out.size() > size() - offset) {
    throw UsageError("bytes " + std::to_string(offset) + " to " + std::to_string(offset) + " + " +
                     std::to_string(out.size()) + " were asked of a simulated stream of " +
                     std::to_string(size()) + " bytes");
  }
  const std::size_t bytes = layout_.sample_bytes();
  std::uint64_t sample = offset / bytes;
  std::size_t skip = static_cast<std::size_t>(offset % bytes);
  std::vector<std::uint8_t> cut;
  const auto partial = [&](std::size_t from, std::size_t count) {  // a piece of one sample
    cut.resize(bytes);
    samples(sample, cut);
    std::memcpy(out.data(), cut.data() + from, count);
    out = out.subspan(count);
  };
  if (skip != 0 && !out.empty()) {
    partial(skip, std::min(bytes - skip, out.size()));
    ++sample;
  }
  const std::size_t whole = out.size() / bytes;
  if (whole != 0) {
    if (threads == 0) threads = usable_processors();
    const std::size_t tile = std::max<std::size_t>(tile_pixels / layout_.channels(), 64);
    const std::size_t tasks =
        threads == 1 ? 1 : std::min<std::size_t>((whole + tile - 1) / tile, std::size_t{threads} * 8);
    const std::size_t share = (whole + tasks - 1) / tasks;
    parallel_for(tasks, threads, [&](std::size_t task) {
      const std::size_t begin = std::min(task * share, whole), end = std::min(begin + share, whole);
      if (begin < end) samples(sample + begin, out.subspan(begin * bytes, (end - begin) * bytes));
    });
    out = out.subspan(whole * bytes);
    sample += whole;
  }
  if (!out.empty()) partial(0, out.size());
}

}  // namespace raftwright
