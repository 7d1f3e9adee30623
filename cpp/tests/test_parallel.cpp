#include "raftwright/parallel.hpp"

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "doctest.h"

using raftwright::parallel_for;

TEST_CASE("every index is run once, whatever the number of threads") {
  for (const unsigned threads : {0U, 1U, 2U, 3U, 8U, 40U}) {
    for (const std::size_t count : {0U, 1U, 2U, 7U, 1000U}) {
      CAPTURE(threads);
      CAPTURE(count);
      std::vector<std::atomic<int>> runs(count);
      parallel_for(count, threads, [&](std::size_t index) { ++runs.at(index); });
      for (const std::atomic<int>& times : runs) REQUIRE(times == 1);
    }
  }
}

TEST_CASE("no more threads than asked for, the caller's among them") {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  parallel_for(64, 3, [&](std::size_t) {
    {
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  CHECK(seen.size() <= 3);
  CHECK(seen.contains(std::this_thread::get_id()));
  seen.clear();
  parallel_for(8, 1, [&](std::size_t) { seen.insert(std::this_thread::get_id()); });
  CHECK(seen == std::set{std::this_thread::get_id()});
}

TEST_CASE("the first exception comes back and the rest is skipped") {
  for (const unsigned threads : {1U, 2U, 4U}) {
    CAPTURE(threads);
    std::atomic<std::size_t> runs{0};
    CHECK_THROWS_WITH_AS(parallel_for(1'000'000, threads,
                                      [&](std::size_t index) {
                                        ++runs;
                                        if (index == 5) throw std::runtime_error("at five");
                                      }),
                         "at five", std::runtime_error);
    CHECK(runs < 1'000'000);
  }
}

TEST_CASE("there is a processor to use") { CHECK(raftwright::usable_processors() >= 1); }
