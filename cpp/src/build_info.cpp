#include "raftwright/build_info.hpp"

namespace raftwright {

std::vector<std::pair<std::string, std::string>> build_info() {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#elif defined(__GNUC__)
  const std::string compiler = "gcc " __VERSION__;
#else
  const std::string compiler = "unknown";
#endif
#if defined(RAFTWRIGHT_X86_64)
  const std::string architecture = "x86_64";
#elif defined(RAFTWRIGHT_AARCH64)
  const std::string architecture = "aarch64";
#else
  const std::string architecture = "other";
#endif
  return {{"version", RAFTWRIGHT_VERSION},
          {"compiler", compiler},
          {"build type", RAFTWRIGHT_BUILD_TYPE},
          {"architecture", architecture},
          {"sanitizers", RAFTWRIGHT_SANITIZERS}};
}

}  // namespace raftwright
