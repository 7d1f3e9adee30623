// Counter-based Gaussian noise in fixed point: every machine makes the same pixels in any order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace raftwright::simulated {

// Normal deviates have 12 fractional bits, standard deviations and signals 8, a pixel before rounding 20.
inline constexpr int deviate_bits = 12;
inline constexpr int sigma_bits = 8;
inline constexpr int pixel_bits = deviate_bits + sigma_bits;
inline constexpr std::int64_t half_pixel = std::int64_t{1} << (pixel_bits - 1);

/// The noise stream of one segment, and of one row of it.
[[nodiscard]] std::uint64_t segment_key(std::uint64_t seed, std::uint32_t detector,
                                        std::uint32_t segment) noexcept;
[[nodiscard]] std::uint64_t row_key(std::uint64_t segment, std::uint64_t y) noexcept;

/// Makes the table of deviates (once a process), so that later calls find it.
void prepare_deviates();

/// Deviates of the quads [first, last) of a row, four pixels a quad: `out` has 4 * (last - first).
void fill_deviates(std::uint64_t key, std::size_t first, std::size_t last, std::int16_t* out);

/// out[i] = level + sigma * z[i], rounded and clipped to 0 .. max <= 2^31 - 1. `level` has 20
/// fractional bits and is below 2^52, sigma has 8.
void fill_flat(std::int64_t level, std::int32_t sigma, const std::int16_t* z, std::size_t count,
               std::int64_t max, std::int32_t* out);

}  // namespace raftwright::simulated
