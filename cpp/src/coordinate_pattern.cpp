#include "coordinate_pattern.hpp"

#include "raftwright/simulate.hpp"

namespace raftwright {
namespace simulated {
namespace {

constexpr unsigned name_bits = detector_bits + segment_bits + row_bits + group_bits;
constexpr std::uint64_t whitener_a = 0xD6E8FEB86659FD93ULL, whitener_b = 0xA0761D6478BD642FULL;

constexpr std::uint32_t low(std::uint64_t value, unsigned bits) noexcept {
  return static_cast<std::uint32_t>(value & ((std::uint64_t{1} << bits) - 1));
}

// The inverse of an odd number modulo 2^64: each step of Newton's iteration doubles the good bits.
constexpr std::uint64_t inverse(std::uint64_t odd) noexcept {
  std::uint64_t x = odd;
  for (int step = 0; step < 6; ++step) x *= 2 - odd * x;
  return x;
}
static_assert(inverse(whitener_a) * whitener_a == 1 && inverse(whitener_b) * whitener_b == 1);

// A bijection of `word`-bit numbers. Multiplying by an odd number has an inverse; a shift by at least
// half a word undoes itself.
constexpr std::uint64_t whiten(const Spelling& s, std::uint64_t v) noexcept {
  const unsigned shift = (s.word + 1) / 2;
  v = (v * whitener_a) & s.mask();
  v ^= v >> shift;
  v = (v * whitener_b) & s.mask();
  v ^= v >> shift;
  return (v * whitener_a) & s.mask();
}

constexpr std::uint64_t unwhiten(const Spelling& s, std::uint64_t v) noexcept {
  const unsigned shift = (s.word + 1) / 2;
  v = (v * inverse(whitener_a)) & s.mask();
  v ^= v >> shift;
  v = (v * inverse(whitener_b)) & s.mask();
  v ^= v >> shift;
  return (v * inverse(whitener_a)) & s.mask();
}

// The group number is left zero, to be added.
constexpr std::uint64_t row_name(std::uint32_t detector, std::uint32_t segment, std::uint64_t y) noexcept {
  std::uint64_t name = low(detector, detector_bits);
  name = name << segment_bits | low(segment, segment_bits);
  name = name << row_bits | low(y, row_bits);
  return name << group_bits;
}

template <unsigned Group>
void fill_groups(const Spelling& s, std::uint64_t name, std::size_t x, std::span<std::int32_t> out) {
  std::size_t group = x / Group;
  const std::size_t first = x % Group;
  std::size_t done = 0;
  const auto part = [&](std::size_t from, std::size_t count) {
    std::uint64_t word = whiten(s, name | low(group++, group_bits)) >> (from * s.bits);
    for (std::size_t i = 0; i < count; ++i, word >>= s.bits) {
      out[done++] = static_cast<std::int32_t>(word & s.pixel_mask());
    }
  };
  if (first != 0) part(first, std::min<std::size_t>(Group - first, out.size()));
  while (out.size() - done >= Group) part(0, Group);
  if (done < out.size()) part(0, out.size() - done);
}

}  // namespace

void fill_coordinates(const Spelling& s, std::uint32_t detector, std::uint32_t segment, std::size_t y,
                      std::size_t x, std::span<std::int32_t> out) {
  switch (s.group) {
    case 2:
      return fill_groups<2>(s, row_name(detector, segment, y), x, out);
    case 3:
      return fill_groups<3>(s, row_name(detector, segment, y), x, out);
    case 4:
      return fill_groups<4>(s, row_name(detector, segment, y), x, out);
    case 5:
      return fill_groups<5>(s, row_name(detector, segment, y), x, out);
    default:
      return fill_groups<6>(s, row_name(detector, segment, y), x, out);
  }
}

}  // namespace simulated

std::uint32_t coordinate_value(unsigned bits, std::uint32_t detector, std::uint32_t segment, std::uint32_t y,
                               std::uint32_t x) noexcept {
  using namespace simulated;
  if (bits < 8 || bits > 32) return 0;
  const Spelling s(bits);
  const std::uint64_t word = whiten(s, row_name(detector, segment, y) | low(x / s.group, group_bits));
  return static_cast<std::uint32_t>(word >> (x % s.group * s.bits)) & s.pixel_mask();
}

Coordinate coordinate_name(unsigned bits, std::span<const std::int32_t> group) noexcept {
  using namespace simulated;
  if (bits < 8 || bits > 32) return no_coordinate;
  const Spelling s(bits);
  if (group.size() != s.group) return no_coordinate;
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const auto value = static_cast<std::uint32_t>(group[i]);
    if (value > s.pixel_mask()) return no_coordinate;
    word |= std::uint64_t{value} << (i * s.bits);
  }
  const std::uint64_t name = unwhiten(s, word);
  if (name >> name_bits != 0) return no_coordinate;
  return {low(name >> (group_bits + row_bits + segment_bits), detector_bits),
          low(name >> (group_bits + row_bits), segment_bits), low(name >> group_bits, row_bits),
          low(name, group_bits) * s.group};
}

}  // namespace raftwright
