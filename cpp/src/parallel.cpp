#include "raftwright/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace raftwright {
namespace {
constexpr std::size_t kMostThreads = 1024;
}

unsigned usable_processors() noexcept {
#if defined(__linux__)
  // The kernel refuses a mask smaller than its own, so ask again with a larger one.
  for (std::size_t processors = 1024; processors <= 65536; processors *= 4) {
    cpu_set_t* set = CPU_ALLOC(processors);
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(processors);
    CPU_ZERO_S(bytes, set);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    const int count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return static_cast<unsigned>(count);
  }
#endif
  return std::max(1U, std::thread::hardware_concurrency());
}

void parallel_for(std::size_t count, unsigned threads, const std::function<void(std::size_t)>& task) {
  const std::size_t wanted =
      std::min({std::size_t{threads == 0 ? usable_processors() : threads}, count, kMostThreads});
  if (wanted <= 1) {
    for (std::size_t index = 0; index < count; ++index) task(index);
    return;
  }

  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr first;
  const auto work = [&]() noexcept {
    while (!failed.load(std::memory_order_relaxed)) {
      const std::size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        task(index);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        failed.store(true, std::memory_order_relaxed);
      }
    }
  };

  {
    std::vector<std::jthread> helpers;
    helpers.reserve(wanted - 1);
    try {
      while (helpers.size() < wanted - 1) helpers.emplace_back(work);
    } catch (const std::system_error&) {
      // The system has no more threads to give: those that there are, and the caller, do the work.
    }
    work();
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace raftwright
