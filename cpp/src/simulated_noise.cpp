#include "simulated_noise.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace raftwright::simulated {
namespace {

constexpr std::uint64_t gamma = 0x9E3779B97F4A7C15ULL;

// Finaliser of SplitMix64 (Steele, Lea & Flood 2014, constants of Stafford's variant 13).
constexpr std::uint64_t mix(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

double normal_density(double z) { return std::exp(-0.5 * z * z) / std::sqrt(2.0 * std::numbers::pi); }

// Quantile of the normal distribution for 0 < p <= 1/2: Abramowitz & Stegun 26.2.23, polished by Newton.
double normal_quantile(double p) {
  const double t = std::sqrt(-2.0 * std::log(p));
  double z = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                       (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))));
  for (int step = 0; step < 3; ++step) {
    z -= (0.5 * std::erfc(-z / std::numbers::sqrt2) - p) / normal_density(z);
  }
  return z;
}

// 65536 equally likely deviates: the mean of the normal distribution over each of as many equal slices
// of probability, scaled to unit variance.
class DeviateTable {
 public:
  static constexpr std::size_t size = 65536;

  DeviateTable() {
    std::array<double, size / 2> means{};
    double lower_density = 0.0;  // at the slice's lower edge, which begins at minus infinity
    double variance = 0.0;
    for (std::size_t i = 0; i < size / 2; ++i) {
      const double density = normal_density(normal_quantile(static_cast<double>(i + 1) / size));
      means[i] = (lower_density - density) * size;
      variance += 2.0 * means[i] * means[i] / size;
      lower_density = density;
    }
    const double scale = (1U << deviate_bits) / std::sqrt(variance);
    for (std::size_t i = 0; i < size / 2; ++i) {
      const auto value = static_cast<std::int16_t>(std::lround(means[i] * scale));
      values_[i] = value;
      values_[size - 1 - i] = static_cast<std::int16_t>(-value);
    }
  }

  [[nodiscard]] const std::int16_t* data() const noexcept { return values_.data(); }
  [[nodiscard]] std::int32_t extreme() const noexcept { return values_[size - 1]; }

 private:
  alignas(64) std::array<std::int16_t, size> values_{};
};

const DeviateTable& deviates() {
  static const DeviateTable table;
  return table;
}

}  // namespace

std::uint64_t segment_key(std::uint64_t seed, std::uint32_t detector, std::uint32_t segment) noexcept {
  return mix(mix(seed + gamma) ^ (std::uint64_t{detector} << 32 | segment));
}

std::uint64_t row_key(std::uint64_t segment, std::uint64_t y) noexcept {
  return mix(segment + gamma * (y + 1));
}

void prepare_deviates() { static_cast<void>(deviates()); }

void fill_deviates(std::uint64_t key, std::size_t first, std::size_t last, std::int16_t* out) {
  const std::int16_t* table = deviates().data();
  std::uint64_t counter = key + gamma * first;
  for (std::size_t quad = first; quad < last; ++quad) {
    const std::uint64_t h = mix(counter);
    counter += gamma;
    out[0] = table[h & 0xFFFFU];
    out[1] = table[(h >> 16) & 0xFFFFU];
    out[2] = table[(h >> 32) & 0xFFFFU];
    out[3] = table[h >> 48];
    out += 4;
  }
}

void fill_flat(std::int64_t level, std::int32_t sigma, const std::int16_t* z, std::size_t count,
               std::int64_t max, std::int32_t* out) {
  const std::int64_t shifted = level + half_pixel;
  const std::int64_t reach = std::int64_t{sigma} * deviates().extreme();
  const bool inside = shifted - reach >= 0 && (shifted + reach) >> pixel_bits <= max;
  if (inside && sigma <= std::numeric_limits<std::int16_t>::max()) {
    // A product of 16 x 16 bits fits 32 bits with the fraction added, and no pixel can need clipping.
    const auto whole = static_cast<std::int32_t>(shifted >> pixel_bits);
    const auto fraction = static_cast<std::int32_t>(shifted & ((std::int64_t{1} << pixel_bits) - 1));
    const auto factor = static_cast<std::int16_t>(sigma);
    for (std::size_t i = 0; i < count; ++i) {
      const std::int32_t product = std::int32_t{z[i]} * std::int32_t{factor};
      out[i] = whole + ((product + fraction) >> pixel_bits);
    }
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t value = (shifted + std::int64_t{sigma} * z[i]) >> pixel_bits;
    out[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(value, 0, max));
  }
}

}  // namespace raftwright::simulated
