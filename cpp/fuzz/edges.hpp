// What the instrumented core tells the fuzz driver (g++ only): edges taken and constants compared with.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace raftwright::fuzz {

inline constexpr std::size_t edge_slots = 1U << 16U;
inline constexpr std::size_t constant_slots = 256;

struct Edges {
  std::array<std::atomic<std::uint8_t>, edge_slots> hits;           ///< saturating count an edge
  std::array<std::atomic<std::uint64_t>, constant_slots> compared;  ///< constants that code compared with
  std::atomic<std::uint32_t> comparisons;                           ///< how many were put into `compared`
};

/// The one instance, in the core library.
[[gnu::visibility("default")]] Edges& edges() noexcept;

}  // namespace raftwright::fuzz
