// A readout under assembly: chunks of any offset and length, in any order, again and again, beyond the end.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "fuzz_input.hpp"
#include "raftwright/error.hpp"
#include "raftwright/readout.hpp"
#include "raftwright/rice.hpp"
#include "raftwright/stream_layout.hpp"
#include "raftwright/unpack.hpp"

namespace {

using namespace raftwright;
using raftwright::fuzz::Input;
using raftwright::fuzz::require;

StreamLayout layout_of(Input& input) {
  constexpr unsigned bits[] = {18, 16, 12, 18};
  constexpr std::uint16_t channels[] = {16, 8, 4, 48};
  const std::size_t kind = input.byte() % 4U;
  std::vector<std::uint16_t> order(channels[kind]);
  std::iota(order.rbegin(), order.rend(), std::uint16_t{0});
  return {bits[kind], input.byte() % 2U == 0 ? 0U : 0x1FU, order};
}

void check(const Readout& readout, const StreamLayout& layout, const std::vector<std::uint8_t>& stream,
           const std::vector<bool>& came, std::int32_t fill) {
  const std::size_t samples = readout.width() * readout.height();
  std::vector<std::int32_t> pixels(layout.channels() * samples);
  std::vector<std::int32_t*> planes;
  for (std::size_t c = 0; c < layout.channels(); ++c) planes.push_back(pixels.data() + c * samples);
  unpack_reference(layout, stream, planes);
  for (std::size_t channel = 0; channel < layout.channels(); ++channel) {
    const std::size_t plane = layout.plane_of()[channel];
    std::vector<bool> missing(samples, false);
    for (std::size_t i = 0; i < samples; ++i) {
      const std::size_t first_bit = (i * layout.channels() + channel) * layout.bits();
      for (std::size_t byte = first_bit / 8; byte <= (first_bit + layout.bits() - 1) / 8; ++byte) {
        if (!came[byte]) missing[i] = true;
      }
      if (missing[i]) planes[plane][i] = fill;
    }
    std::vector<bool> said(samples, false);
    for (const PixelRun& run : readout.missing(plane)) {
      require(run.count > 0 && run.first + run.count <= samples, "missing runs lie in the image");
      for (std::uint64_t i = 0; i < run.count; ++i) said[run.first + i] = true;
    }
    require(said == missing, "exactly the pixels that did not come are said to be missing");
    const std::span<const std::int32_t> expected(planes[plane], samples);
    require(std::ranges::equal(expected, std::span(readout.planes().plane(plane), samples)),
            "every pixel has its value or the fill value");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const StreamLayout layout = layout_of(input);
  const std::size_t width = input.byte() % 24U;
  const std::size_t height = input.byte() % 12U;
  const unsigned threads = input.byte() % 16U == 0 ? 2U : 1U;
  const std::int32_t fill = static_cast<std::int16_t>(input.word());
  try {
    Readout readout(layout, width, height, Products{.pixels = true, .compressed = true});
    std::vector<std::uint8_t> stream(readout.size());
    std::uint32_t state = input.word();
    for (auto& byte : stream) {
      state = state * 1664525U + 1013904223U;
      byte = static_cast<std::uint8_t>(state >> 24U);
    }
    std::vector<bool> came(stream.size(), false);
    std::uint64_t fresh = 0;
    for (unsigned chunks = 0; chunks < 96 && !input.empty(); ++chunks) {
      const std::uint64_t offset = input.below(stream.size() + 4);
      const std::size_t length = input.below(stream.size() + 4) >> (input.byte() % 8U);
      if (offset + length > stream.size()) {
        const std::vector<std::uint8_t> beyond(length, 0x5A);
        try {
          readout.add(offset, beyond, threads);
          require(length == 0, "a chunk past the end is refused");
        } catch (const FormatError&) {
        }
        continue;
      }
      const auto count = static_cast<std::uint64_t>(
          std::count(came.begin() + static_cast<std::ptrdiff_t>(offset),
                     came.begin() + static_cast<std::ptrdiff_t>(offset + length), false));
      require(readout.add(offset, std::span(stream).subspan(offset, length), threads) == count,
              "add() returns how many bytes were new");
      std::fill_n(came.begin() + static_cast<std::ptrdiff_t>(offset), length, true);
      fresh += count;
    }
    require(readout.received() == fresh, "what was received is what was new");
    require(readout.complete() == (fresh == stream.size()), "complete means every byte");
    readout.finish(fill, threads);
    require(readout.finished(), "finish finishes");
    check(readout, layout, stream, came, fill);
  } catch (const UsageError&) {
    require(width == 0 || height == 0, "only an empty image is refused");
  }
  return 0;
}
