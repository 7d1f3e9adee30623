#include "raftwright/scramble.hpp"

#include <algorithm>
#include <string>

#include "load_store.hpp"
#include "raftwright/error.hpp"

namespace raftwright {
namespace {

// Samples a tile: runs of each plane so long that the processor foresees them, and packed bytes that stay
// near.
constexpr std::size_t kTile = 256;

// Clips `value` to 0 .. most and counts if that changed it.
inline std::uint32_t clip(std::int32_t value, std::uint32_t most, std::size_t& clipped) noexcept {
  const std::uint32_t bits = static_cast<std::uint32_t>(value);
  if (bits <= most) return bits;
  ++clipped;
  return value < 0 ? 0 : most;
}

// Four channels of 18 bits are nine bytes.
std::size_t scramble18(const StreamLayout& layout, std::span<const std::int32_t* const> planes,
                       std::uint8_t* packed, std::size_t samples) noexcept {
  constexpr std::uint32_t kMost = 0x3FFFF;
  const std::size_t stride = layout.sample_bytes();
  const std::uint64_t flip = layout.xor_mask();
  const std::uint64_t flip_low = flip | flip << 18 | flip << 36 | flip << 54;
  const std::uint16_t* const plane_of = layout.plane_of().data();
  std::size_t clipped = 0;
  for (std::size_t tile = 0; tile < samples; tile += kTile) {
    const std::size_t count = std::min(kTile, samples - tile);
    for (std::size_t p = 0; p < layout.channels(); p += 4) {
      std::uint8_t* at = packed + tile * stride + p / 4 * 9;
      const std::int32_t* const from0 = planes[plane_of[p]] + tile;
      const std::int32_t* const from1 = planes[plane_of[p + 1]] + tile;
      const std::int32_t* const from2 = planes[plane_of[p + 2]] + tile;
      const std::int32_t* const from3 = planes[plane_of[p + 3]] + tile;
      for (std::size_t i = 0; i < count; ++i, at += stride) {
        std::uint64_t v0 = static_cast<std::uint32_t>(from0[i]);
        std::uint64_t v1 = static_cast<std::uint32_t>(from1[i]);
        std::uint64_t v2 = static_cast<std::uint32_t>(from2[i]);
        std::uint64_t v3 = static_cast<std::uint32_t>(from3[i]);
        if ((v0 | v1 | v2 | v3) > kMost) [[unlikely]] {
          v0 = clip(from0[i], kMost, clipped);
          v1 = clip(from1[i], kMost, clipped);
          v2 = clip(from2[i], kMost, clipped);
          v3 = clip(from3[i], kMost, clipped);
        }
        store_le64(at, (v0 | v1 << 18 | v2 << 36 | v3 << 54) ^ flip_low);
        at[8] = static_cast<std::uint8_t>((v3 ^ flip) >> 10);
      }
    }
  }
  return clipped;
}

std::size_t scramble_any(const StreamLayout& layout, std::span<const std::int32_t* const> planes,
                         std::uint8_t* packed, std::size_t samples) noexcept {
  std::size_t clipped = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    std::uint64_t pending = 0;  // fewer than 32 bits between pixels; a sample ends with none
    unsigned count = 0;
    for (const std::uint16_t plane : layout.plane_of()) {
      const std::uint64_t value = clip(planes[plane][i], layout.max_value(), clipped) ^ layout.xor_mask();
      pending |= value << count;
      count += layout.bits();
      if (count >= 32) {
        store_le32(packed, static_cast<std::uint32_t>(pending));
        packed += 4;
        pending >>= 32;
        count -= 32;
      }
    }
    for (; count > 0; count -= 8, pending >>= 8) *packed++ = static_cast<std::uint8_t>(pending);
  }
  return clipped;
}

}  // namespace

std::size_t scramble(const StreamLayout& layout, std::span<const std::int32_t* const> planes,
                     std::span<std::uint8_t> packed) {
  if (planes.size() != layout.channels()) {
    throw UsageError("scramble: " + std::to_string(planes.size()) + " planes for " +
                     std::to_string(layout.channels()) + " channels; give one plane a channel");
  }
  if (packed.size() % layout.sample_bytes() != 0) {
    throw UsageError("scramble: " + std::to_string(packed.size()) + " bytes are not whole samples of " +
                     std::to_string(layout.sample_bytes()) + " bytes; give whole samples");
  }
  const std::size_t samples = packed.size() / layout.sample_bytes();
  if (layout.bits() == 18) return scramble18(layout, planes, packed.data(), samples);
  return scramble_any(layout, planes, packed.data(), samples);
}

}  // namespace raftwright
