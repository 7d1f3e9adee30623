// What the width of a pixel decides in RICE_1, and which kernels may run.
#pragma once

#include "raftwright/cpu.hpp"

namespace raftwright {

template <class Pixel>
struct RiceFormat {
  static constexpr unsigned raw_bits = 8 * sizeof(Pixel);
  static constexpr unsigned id_bits = sizeof(Pixel) == 4 ? 5 : sizeof(Pixel) == 2 ? 4 : 3;
  static constexpr unsigned raw_shift = sizeof(Pixel) == 4 ? 25 : sizeof(Pixel) == 2 ? 14 : 6;
};

/// Whether `level` is one with a kernel for RICE_1 that was built and that this processor runs.
[[nodiscard]] bool has_rice_kernel(Level level) noexcept;

}  // namespace raftwright
