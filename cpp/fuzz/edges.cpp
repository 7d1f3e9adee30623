// Callbacks of g++'s -fsanitize-coverage=trace-pc,trace-cmp. Not instrumented themselves.
#include "edges.hpp"

namespace raftwright::fuzz {

namespace {

Edges the_edges;

void note(std::uint64_t constant) noexcept {
  if (constant < 16) return;
  const std::uint32_t slot = the_edges.comparisons.fetch_add(1, std::memory_order_relaxed);
  the_edges.compared[slot % constant_slots].store(constant, std::memory_order_relaxed);
}

}  // namespace

Edges& edges() noexcept { return the_edges; }

}  // namespace raftwright::fuzz

extern "C" {

[[gnu::visibility("default")]] void __sanitizer_cov_trace_pc() {
  using raftwright::fuzz::edge_slots;
  // Relative to this library, so that the slots are the same in every run.
  static thread_local std::uintptr_t previous = 0;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)) -
                    reinterpret_cast<std::uintptr_t>(&__sanitizer_cov_trace_pc);
  const std::uintptr_t block = (here * 0x9E3779B97F4A7C15U) >> 40U;
  auto& hit = raftwright::fuzz::the_edges.hits[(block ^ previous) % edge_slots];
  previous = block >> 1U;
  const std::uint8_t count = hit.load(std::memory_order_relaxed);
  if (count != 255) hit.store(static_cast<std::uint8_t>(count + 1), std::memory_order_relaxed);
}

// The first argument is the constant; for a comparison of two variables either may be what is wanted.
#define RAFTWRIGHT_TRACE(name, type)                                                     \
  [[gnu::visibility("default")]] void __sanitizer_cov_trace_const_##name(type a, type) { \
    raftwright::fuzz::note(a);                                                           \
  }                                                                                      \
  [[gnu::visibility("default")]] void __sanitizer_cov_trace_##name(type a, type b) {     \
    raftwright::fuzz::note(a);                                                           \
    raftwright::fuzz::note(b);                                                           \
  }
RAFTWRIGHT_TRACE(cmp1, std::uint8_t)
RAFTWRIGHT_TRACE(cmp2, std::uint16_t)
RAFTWRIGHT_TRACE(cmp4, std::uint32_t)
RAFTWRIGHT_TRACE(cmp8, std::uint64_t)
#undef RAFTWRIGHT_TRACE

[[gnu::visibility("default")]] void __sanitizer_cov_trace_switch(std::uint64_t value, std::uint64_t*) {
  raftwright::fuzz::note(value);
}
[[gnu::visibility("default")]] void __sanitizer_cov_trace_cmpf(float, float) {}
[[gnu::visibility("default")]] void __sanitizer_cov_trace_cmpd(double, double) {}
}
