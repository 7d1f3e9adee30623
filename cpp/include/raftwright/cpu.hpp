// Which kernels this processor can run, and which are in use. Resolved once, at run time.
#pragma once

#include <string>
#include <vector>

namespace raftwright {

/// An instruction-set level for which there is a set of kernels.
enum class Level { scalar = 0, avx2 = 1, neon = 2 };

/// "scalar", "avx2" or "neon".
[[nodiscard]] const char* level_name(Level level) noexcept;

/// Every level that was built and that the processor and the operating system support; scalar always.
[[nodiscard]] const std::vector<Level>& available_levels();

/// The level in use: the best available, or the one that the environment variable RAFTWRIGHT_KERNELS
/// names ("scalar", "avx2", "neon"). Throws UsageError when that names one that is not available.
[[nodiscard]] Level active_level();

/// Every feature found and used, for `raftwright info --build`: e.g. {"avx2", "sse4.2", "pclmul"}.
[[nodiscard]] std::vector<std::string> cpu_features();

}  // namespace raftwright
