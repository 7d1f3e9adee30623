// RICE_1: any code is decoded or refused within its bounds; any pixels survive a round trip.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fuzz_input.hpp"
#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"

namespace {

using namespace raftwright;
using raftwright::fuzz::Input;
using raftwright::fuzz::require;

template <class Pixel>
std::vector<std::uint8_t> encoded(const std::vector<Pixel>& pixels, unsigned block) {
  std::vector<std::uint8_t> out(rice_bound(pixels.size(), sizeof(Pixel), block));
  out.resize(rice_encode_reference(pixels, out, block));
  return out;
}

template <class Pixel>
void decode_any(std::span<const std::uint8_t> code, std::size_t count, unsigned block) {
  std::vector<Pixel> pixels(count);
  const RiceStatus status = rice_decode(code, pixels, block);
  if constexpr (sizeof(Pixel) == 4) {
    for (const Level level : available_levels()) {
      std::vector<Pixel> same(count);
      require(rice_decode(code, same, block, level) == status, "every level says the same of a code");
      require(status != RiceStatus::ok || same == pixels, "every level makes the same pixels");
    }
  }
  if (status != RiceStatus::ok) return;
  std::vector<Pixel> again(count);
  require(rice_decode(encoded(pixels, block), again, block) == RiceStatus::ok, "our own code can be decoded");
  require(again == pixels, "decoded pixels survive a round trip");
}

template <class Pixel>
void round_trip(std::span<const std::uint8_t> bytes, unsigned block) {
  std::vector<Pixel> pixels(bytes.size() / sizeof(Pixel));
  if (!pixels.empty()) std::memcpy(pixels.data(), bytes.data(), pixels.size() * sizeof(Pixel));
  const std::vector<std::uint8_t> code = encoded(pixels, block);
  std::vector<Pixel> again(pixels.size());
  require(rice_decode(code, again, block) == RiceStatus::ok, "our own code can be decoded");
  require(again == pixels, "pixels survive a round trip");
  if constexpr (sizeof(Pixel) == 4) {
    for (const Level level : available_levels()) {
      std::vector<std::uint8_t> out(rice_bound(pixels.size(), 4, block));
      out.resize(rice_encode(pixels, out, block, level));
      require(out == code, "a kernel writes what the reference writes");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const unsigned kind = input.byte() % 6U;
  const unsigned block = input.byte() % 4U == 0 ? 1U + input.byte() % 64U : 32U;
  const std::size_t count = input.below(2048);
  switch (kind) {
    case 0:
      decode_any<std::int32_t>(input.rest(), count, block);
      break;
    case 1:
      decode_any<std::int16_t>(input.rest(), count, block);
      break;
    case 2:
      decode_any<std::int8_t>(input.rest(), count, block);
      break;
    case 3:
      round_trip<std::int32_t>(input.rest(), block);
      break;
    case 4:
      round_trip<std::int16_t>(input.rest(), block);
      break;
    default:
      round_trip<std::int8_t>(input.rest(), block);
      break;
  }
  return 0;
}
