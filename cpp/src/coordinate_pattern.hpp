// The coordinate pattern of simulated readouts: groups of pixels that spell their own place.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace raftwright::simulated {

/// How a name is spelled: pixels a group, bits used of each, and their product, the width of the word.
struct Spelling {
  unsigned group, bits, word;
  explicit constexpr Spelling(unsigned pixel_bits) noexcept
      : group((48 + pixel_bits - 1) / pixel_bits),
        bits(std::min(pixel_bits, 63 / group)),
        word(bits * group) {}
  [[nodiscard]] constexpr std::uint64_t mask() const noexcept { return (std::uint64_t{1} << word) - 1; }
  [[nodiscard]] constexpr std::uint32_t pixel_mask() const noexcept { return (1U << bits) - 1; }
};

inline constexpr unsigned detector_bits = 12, segment_bits = 6, row_bits = 14, group_bits = 14;

/// Pixels [x, x + out.size()) of row y.
void fill_coordinates(const Spelling& spelling, std::uint32_t detector, std::uint32_t segment, std::size_t y,
                      std::size_t x, std::span<std::int32_t> out);

}  // namespace raftwright::simulated
