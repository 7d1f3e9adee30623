// What this build is, for `raftwright info --build`.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace raftwright {

/// Pairs of name and value: version, compiler, build type, architecture, sanitizers.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> build_info();

}  // namespace raftwright
