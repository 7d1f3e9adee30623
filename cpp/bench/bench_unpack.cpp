// Unpacking and packing a full board, beside a memcpy of its int32 pixels. Boards of fewer channels get more
// rows, so that every memcpy is of the same size: the C library copies smaller blocks in another way.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "bench.hpp"
#include "raftwright/planes.hpp"
#include "raftwright/scramble.hpp"
#include "raftwright/unpack.hpp"

namespace {

using namespace raftwright;

constexpr std::size_t kWidth = 576;
constexpr std::size_t kRows = 2048;      // of 48 channels
constexpr std::size_t kTilePitch = 592;  // 37 cache lines: neighbouring channels share no cache set

// A board of random pixels, its packed stream, and room to unpack into.
struct Board {
  explicit Board(std::size_t channels)
      : height(kRows * 48 / channels),
        samples(kWidth * height),
        layout(18, 0x1FFFF, in_order(channels)),
        truth(channels, kWidth, height),
        planes(channels, kWidth, height),
        packed(samples * layout.sample_bytes()) {
    std::uint64_t state = channels;
    for (std::size_t p = 0; p < channels; ++p) {
      for (std::size_t i = 0; i < samples; ++i) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        truth.plane(p)[i] = static_cast<std::int32_t>(state >> 46);
      }
    }
    clear();
    const std::vector<const std::int32_t*> from(truth.pointers().begin(), truth.pointers().end());
    if (scramble(layout, from, packed) != 0) std::abort();
  }

  static std::vector<std::uint16_t> in_order(std::size_t channels) {
    std::vector<std::uint16_t> plane_of(channels);
    std::iota(plane_of.begin(), plane_of.end(), std::uint16_t{0});
    return plane_of;
  }

  void clear() { std::memset(planes.plane(0), 0x55, planes.count() * pitch()); }
  [[nodiscard]] std::size_t pitch() const { return samples * sizeof(std::int32_t) + 64; }
  void copy() { std::memcpy(planes.plane(0), truth.plane(0), planes.count() * pitch() - 64); }
  [[nodiscard]] bool is_restored() const {
    for (std::size_t p = 0; p < planes.count(); ++p) {
      if (!std::equal(truth.plane(p), truth.plane(p) + samples, planes.plane(p))) return false;
    }
    return true;
  }
  [[nodiscard]] double gigapixels() const { return 1e-9 * static_cast<double>(samples * layout.channels()); }

  std::size_t height;
  std::size_t samples;
  StreamLayout layout;
  Planes truth;
  Planes planes;
  std::vector<std::uint8_t> packed;
};

std::string label(const char* what, Level level, std::size_t channels) {
  return std::string(what) + ", " + std::to_string(channels) + " channels, " + level_name(level);
}

void bench_board(std::size_t channels) {
  Board board(channels);
  std::vector<std::int32_t> tile(channels * kTilePitch + 16);
  std::vector<std::int32_t*> tile_planes;
  const std::size_t misfit = reinterpret_cast<std::uintptr_t>(tile.data()) % 64 / sizeof(std::int32_t);
  for (std::size_t p = 0; p < channels; ++p) {
    tile_planes.push_back(tile.data() + (16 - misfit) % 16 + p * kTilePitch);
  }
  const std::size_t row_bytes = kWidth * board.layout.sample_bytes();
  const auto row = [&](std::size_t y) { return std::span(board.packed).subspan(y * row_bytes, row_bytes); };

  std::vector<bench::Candidate> candidates = {{"memcpy", [&] { board.copy(); }}};
  for (const Level level : available_levels()) {
    candidates.push_back({label("unpack to memory", level, channels), [&, level] {
                            unpack(board.layout, board.packed, board.planes.pointers(), Stores::streaming,
                                   level);
                          }});
    candidates.push_back({label("unpack rows into a tile", level, channels), [&, level] {
                            for (std::size_t y = 0; y < board.height; ++y) {
                              unpack(board.layout, row(y), tile_planes, Stores::cached, level);
                            }
                          }});
  }
  const std::vector<bench::Timing> timings = bench::measure(candidates);

  board.clear();
  board.copy();
  bench::report("memcpy, " + std::to_string(channels) + " planes", timings[0], "memcpy", board.gigapixels(),
                "Gpix", board.is_restored());

  // The same calls once more, each result compared with the pixels that the stream was made from.
  std::size_t k = 1;
  for (const Level level : available_levels()) {
    board.clear();
    candidates[k].run();
    bench::report(candidates[k].name, timings[k], "memcpy", board.gigapixels(), "Gpix", board.is_restored());
    ++k;
    bool equal = true;
    for (std::size_t y = 0; y < board.height; ++y) {
      std::fill(tile.begin(), tile.end(), -1);
      unpack(board.layout, row(y), tile_planes, Stores::cached, level);
      for (std::size_t p = 0; p < channels; ++p) {
        equal =
            equal && std::equal(tile_planes[p], tile_planes[p] + kWidth, board.truth.plane(p) + y * kWidth);
      }
    }
    bench::report(candidates[k].name, timings[k], "memcpy", board.gigapixels(), "Gpix", equal);
    ++k;
  }
}

void bench_unpack() {
  for (const std::size_t channels : {48U, 32U, 16U}) bench_board(channels);
}

void bench_scramble() {
  Board board(48);
  const std::vector<std::uint8_t> truth = board.packed;
  const std::vector<const std::int32_t*> from(board.truth.pointers().begin(), board.truth.pointers().end());
  const std::vector<bench::Candidate> candidates = {
      {"memcpy", [&] { board.copy(); }},
      {"scramble, 48 channels", [&] { scramble(board.layout, from, board.packed); }}};
  const std::vector<bench::Timing> timings = bench::measure(candidates);
  std::fill(board.packed.begin(), board.packed.end(), std::uint8_t{0});
  candidates[1].run();
  unpack(board.layout, board.packed, board.planes.pointers(), Stores::streaming, Level::scalar);
  bench::report(candidates[1].name, timings[1], "memcpy", board.gigapixels(), "Gpix",
                board.packed == truth && board.is_restored());
}

const bench::Benchmark kUnpack{"unpack", bench_unpack};
const bench::Benchmark kScramble{"scramble", bench_scramble};

}  // namespace
