#include "raftwright/cpu.hpp"

#include <cstdlib>

#include "raftwright/error.hpp"

#if defined(RAFTWRIGHT_X86_64)
#include <cpuid.h>
#elif defined(RAFTWRIGHT_AARCH64) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace raftwright {
namespace {

#if defined(RAFTWRIGHT_X86_64)
bool has_lzcnt() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(0x80000001U, &a, &b, &c, &d) != 0 && (c & (1U << 5)) != 0;
}
#endif

std::vector<std::string> find_features() {
  std::vector<std::string> found;
#if defined(RAFTWRIGHT_X86_64)
  __builtin_cpu_init();  // counts what the operating system saves, too
  if (__builtin_cpu_supports("sse4.2")) found.emplace_back("sse4.2");
  if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("bmi")) found.emplace_back("bmi");
  if (__builtin_cpu_supports("bmi2")) found.emplace_back("bmi2");
  if (has_lzcnt()) found.emplace_back("lzcnt");
#elif defined(RAFTWRIGHT_AARCH64)
  found.emplace_back("neon");
#if defined(__linux__)
  constexpr unsigned long kHwcapCrc32 = 1UL << 7;
  if ((getauxval(AT_HWCAP) & kHwcapCrc32) != 0) found.emplace_back("crc");
#endif
#endif
  return found;
}

bool has(const std::vector<std::string>& features, const char* name) {
  for (const std::string& feature : features) {
    if (feature == name) return true;
  }
  return false;
}

std::vector<Level> find_levels() {
  std::vector<Level> levels{Level::scalar};
  const std::vector<std::string> features = find_features();
  if (has(features, "avx2") && has(features, "bmi") && has(features, "bmi2") && has(features, "lzcnt")) {
    levels.push_back(Level::avx2);
  }
  if (has(features, "neon")) levels.push_back(Level::neon);
  return levels;
}

Level find_active_level() {
  const char* wanted = std::getenv("RAFTWRIGHT_KERNELS");
  if (wanted == nullptr || *wanted == '\0') return available_levels().back();
  std::string names;
  for (const Level level : available_levels()) {
    if (wanted == std::string(level_name(level))) return level;
    names += (names.empty() ? "" : ", ") + std::string(level_name(level));
  }
  throw UsageError("environment variable RAFTWRIGHT_KERNELS names the kernels '" +
                   std::string(wanted).substr(0, 40) +
                   "', which this machine does not have; unset it or use " + names);
}

}  // namespace

const char* level_name(Level level) noexcept {
  switch (level) {
    case Level::scalar:
      return "scalar";
    case Level::avx2:
      return "avx2";
    case Level::neon:
      return "neon";
  }
  return "unknown";
}

const std::vector<Level>& available_levels() {
  static const std::vector<Level> levels = find_levels();
  return levels;
}

Level active_level() {
  static const Level level = find_active_level();
  return level;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> used = find_features();
  if (active_level() == Level::scalar) used.clear();
  return used;
}

}  // namespace raftwright
