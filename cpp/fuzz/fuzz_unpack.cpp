// Packed streams: every layout, every kernel equals the reference; scramble is the inverse.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "fuzz_input.hpp"
#include "raftwright/error.hpp"
#include "raftwright/scramble.hpp"
#include "raftwright/stream_layout.hpp"
#include "raftwright/unpack.hpp"

namespace {

using raftwright::fuzz::Input;
using raftwright::fuzz::require;

std::vector<std::uint16_t> plane_order(Input& input, std::size_t channels) {
  std::vector<std::uint16_t> order(channels);
  std::iota(order.begin(), order.end(), std::uint16_t{0});
  const unsigned swaps = input.byte() % 64U;
  for (unsigned i = 0; i < swaps && !order.empty(); ++i) {
    const std::size_t a = input.byte() % order.size();
    const std::size_t b = input.byte() % order.size();
    std::swap(order[a], order[b]);
  }
  if (input.byte() == 0xFF && !order.empty()) order.front() = input.word();  // no permutation any more
  return order;
}

struct PlaneSet {
  PlaneSet(std::size_t channels, std::size_t samples) : pixels(channels * samples, -7) {
    for (std::size_t c = 0; c < channels; ++c) pointers.push_back(pixels.data() + c * samples);
  }
  std::vector<std::int32_t> pixels;
  std::vector<std::int32_t*> pointers;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace raftwright;
  Input input(data, size);
  const unsigned bits = input.byte() % 40U;
  const std::size_t channels =
      input.byte() % 4 == 0 ? input.below(200) : std::size_t{16} * (1 + input.byte() % 3U);
  const std::uint32_t mask = input.word() | static_cast<std::uint32_t>(input.word()) << 16U;
  try {
    const StreamLayout layout(bits, bits < 32 ? mask & ((1U << bits) - 1U) : mask,
                              plane_order(input, channels));
    const std::size_t samples = input.rest().size() / layout.sample_bytes();
    const auto packed = input.rest().first(samples * layout.sample_bytes());

    PlaneSet expected(channels, samples);
    unpack_reference(layout, packed, expected.pointers);
    for (const Level level : available_levels()) {
      for (const Stores stores : {Stores::cached, Stores::streaming}) {
        PlaneSet got(channels, samples);
        unpack(layout, packed, got.pointers, stores, level);
        require(got.pixels == expected.pixels, "a kernel gives what the reference gives");
      }
    }
    if (bits == 32) return 0;  // negative values are clipped: no inverse
    std::vector<std::uint8_t> again(packed.size());
    const std::vector<const std::int32_t*> planes(expected.pointers.begin(), expected.pointers.end());
    require(scramble(layout, planes, again) == 0, "unpacked values are in range");
    require(std::ranges::equal(again, packed), "scramble is the inverse of unpack");
  } catch (const Error&) {
    // A layout that cannot be, refused.
  }
  return 0;
}
