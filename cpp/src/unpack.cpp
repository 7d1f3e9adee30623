#include "raftwright/unpack.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "load_store.hpp"
#include "raftwright/error.hpp"
#include "simd/kernels.hpp"

namespace raftwright {
namespace {

// Samples a tile: runs of each plane so long that the processor foresees them, and packed bytes that stay
// near.
constexpr std::size_t kTile = 256;

const simd::UnpackKernels* kernels_of(Level level) noexcept {
  switch (level) {
#if defined(RAFTWRIGHT_X86_64)
    case Level::avx2:
      return &simd::unpack_avx2;
#elif defined(RAFTWRIGHT_AARCH64)
    case Level::neon:
      return &simd::unpack_neon;
#endif
    default:
      return nullptr;
  }
}

bool is_available(Level level) {
  const std::vector<Level>& levels = available_levels();
  return std::find(levels.begin(), levels.end(), level) != levels.end();
}

simd::Unpack18 kernel_for(const StreamLayout& layout, Level level) {
  const simd::UnpackKernels* kernels = kernels_of(level);
  if (kernels == nullptr || layout.bits() != 18) return nullptr;
  switch (layout.channels()) {
    case 16:
      return kernels->channels16;
    case 32:
      return kernels->channels32;
    case 48:
      return kernels->channels48;
    default:
      return nullptr;
  }
}

std::size_t check_sizes(const StreamLayout& layout, std::span<const std::uint8_t> packed,
                        std::span<std::int32_t* const> planes) {
  if (planes.size() != layout.channels()) {
    throw UsageError("unpack: " + std::to_string(planes.size()) + " planes for " +
                     std::to_string(layout.channels()) + " channels; give one plane a channel");
  }
  if (packed.size() % layout.sample_bytes() != 0) {
    throw UsageError("unpack: " + std::to_string(packed.size()) + " bytes are not whole samples of " +
                     std::to_string(layout.sample_bytes()) + " bytes; give whole samples");
  }
  return packed.size() / layout.sample_bytes();
}

// Four channels of 18 bits are nine bytes: eight hold three pixels, the last four end with the fourth.
void unpack18(const StreamLayout& layout, const std::uint8_t* packed, std::size_t samples,
              std::span<std::int32_t* const> planes) noexcept {
  constexpr std::uint64_t kBits = 0x3FFFF;
  const std::size_t stride = layout.sample_bytes();
  const std::uint64_t flip = layout.xor_mask();
  const std::uint64_t flip3 = flip | flip << 18 | flip << 36;
  const std::uint16_t* const plane_of = layout.plane_of().data();
  for (std::size_t tile = 0; tile < samples; tile += kTile) {
    const std::size_t count = std::min(kTile, samples - tile);
    for (std::size_t p = 0; p < layout.channels(); p += 4) {
      const std::uint8_t* at = packed + tile * stride + p / 4 * 9;
      std::int32_t* const to0 = planes[plane_of[p]] + tile;
      std::int32_t* const to1 = planes[plane_of[p + 1]] + tile;
      std::int32_t* const to2 = planes[plane_of[p + 2]] + tile;
      std::int32_t* const to3 = planes[plane_of[p + 3]] + tile;
      for (std::size_t i = 0; i < count; ++i, at += stride) {
        const std::uint64_t three = load_le64(at) ^ flip3;
        const std::uint64_t fourth = load_le32(at + 5) >> 14 ^ flip;
        to0[i] = static_cast<std::int32_t>(three & kBits);
        to1[i] = static_cast<std::int32_t>(three >> 18 & kBits);
        to2[i] = static_cast<std::int32_t>(three >> 36 & kBits);
        to3[i] = static_cast<std::int32_t>(fourth);
      }
    }
  }
}

// Samples are whole bytes, so a channel lies at the same bit of the same byte in each of them. Reads eight
// bytes at a time, those of the last channels up to the end of the sample; of samples shorter than
// that the caller must let it read eight bytes more than there are.
void unpack_any(const StreamLayout& layout, const std::uint8_t* packed, std::size_t first,
                std::size_t samples, std::span<std::int32_t* const> planes) noexcept {
  const std::size_t stride = layout.sample_bytes();
  const std::uint64_t bits = layout.max_value();
  const std::uint64_t flip = layout.xor_mask();
  for (std::size_t tile = 0; tile < samples; tile += kTile) {
    const std::size_t count = std::min(kTile, samples - tile);
    for (std::size_t p = 0; p < layout.channels(); ++p) {
      const std::size_t bit = p * layout.bits();
      const std::size_t byte = stride < 8 ? bit / 8 : std::min(bit / 8, stride - 8);
      const std::size_t shift = bit - byte * 8;
      const std::uint8_t* at = packed + tile * stride + byte;
      std::int32_t* const to = planes[layout.plane_of()[p]] + first + tile;
      for (std::size_t i = 0; i < count; ++i, at += stride) {
        to[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>((load_le64(at) >> shift & bits) ^ flip));
      }
    }
  }
}

void unpack_scalar(const StreamLayout& layout, std::span<const std::uint8_t> packed, std::size_t samples,
                   std::span<std::int32_t* const> planes) noexcept {
  if (layout.bits() == 18) return unpack18(layout, packed.data(), samples, planes);
  const std::size_t stride = layout.sample_bytes();
  if (stride >= 8) return unpack_any(layout, packed.data(), 0, samples, planes);

  // A sample of fewer than eight bytes: the last of them are read from a padded copy.
  const std::size_t inside = packed.size() < 16 ? 0 : (packed.size() - 8) / stride;
  unpack_any(layout, packed.data(), 0, inside, planes);
  std::array<std::uint8_t, 32> tail{};
  std::copy(packed.begin() + static_cast<std::ptrdiff_t>(inside * stride), packed.end(), tail.begin());
  unpack_any(layout, tail.data(), inside, samples - inside, planes);
}

}  // namespace

void unpack(const StreamLayout& layout, std::span<const std::uint8_t> packed,
            std::span<std::int32_t* const> planes, Stores stores, Level level) {
  const std::size_t samples = check_sizes(layout, packed, planes);
  if (!is_available(level)) {
    throw UsageError(std::string("unpack: this machine has no kernels for ") + level_name(level) +
                     "; use one of available_levels()");
  }
  const simd::Unpack18 kernel = kernel_for(layout, level);
  if (kernel == nullptr) return unpack_scalar(layout, packed, samples, planes);
  std::array<std::int32_t*, 48> channels{};
  for (std::size_t p = 0; p < layout.channels(); ++p) channels[p] = planes[layout.plane_of()[p]];
  kernel(packed.data(), samples, layout.xor_mask(), channels.data(), stores == Stores::streaming);
}

void unpack_reference(const StreamLayout& layout, std::span<const std::uint8_t> packed,
                      std::span<std::int32_t* const> planes) {
  const std::size_t samples = check_sizes(layout, packed, planes);
  for (std::size_t i = 0; i < samples; ++i) {
    for (std::size_t p = 0; p < layout.channels(); ++p) {
      std::uint32_t raw = 0;
      for (std::size_t k = 0; k < layout.bits(); ++k) {
        const std::size_t bit = (i * layout.channels() + p) * layout.bits() + k;
        raw |= (std::uint32_t{packed[bit / 8]} >> (bit % 8) & 1U) << k;
      }
      planes[layout.plane_of()[p]][i] = static_cast<std::int32_t>(raw ^ layout.xor_mask());
    }
  }
}

bool has_unpack_kernel(const StreamLayout& layout, Level level) {
  if (level == Level::scalar) return true;
  return is_available(level) && kernel_for(layout, level) != nullptr;
}

}  // namespace raftwright
