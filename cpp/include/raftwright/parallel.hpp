// Bounded parallel loops. Threads live for one call only; the core keeps no pool and no global state.
#pragma once

#include <cstddef>
#include <functional>

namespace raftwright {

/// Number of processors that this process may use (affinity counted), at least 1.
[[nodiscard]] unsigned usable_processors() noexcept;

/// Runs `task(index)` for every index below `count` on at most `threads` threads, the caller's among
/// them (0 = usable_processors(); never more than 1024, fewer when the system refuses more). Indices are
/// handed out in order. The first exception is rethrown in the caller after every thread has stopped;
/// indices not yet begun are then skipped.
void parallel_for(std::size_t count, unsigned threads, const std::function<void(std::size_t)>& task);

}  // namespace raftwright
