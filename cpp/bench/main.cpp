// raftwright_bench [--list] [--repetitions N] [NAME ...]: runs the benchmarks whose names begin so, or all.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "bench.hpp"
#include "raftwright/cpu.hpp"

#if !defined(NDEBUG)
#error "The benchmark measures optimised code: build it with CMAKE_BUILD_TYPE=Release"
#endif

namespace bench {
namespace {

std::vector<const Benchmark*>& registry() {
  static std::vector<const Benchmark*> benchmarks;
  return benchmarks;
}

unsigned repetitions = 15;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Benchmark::Benchmark(std::string name, Run run) : name_(std::move(name)), run_(run) {
  registry().push_back(this);
}

std::vector<const Benchmark*> all_benchmarks() {
  std::vector<const Benchmark*> sorted = registry();
  std::sort(sorted.begin(), sorted.end(),
            [](const Benchmark* a, const Benchmark* b) { return a->name() < b->name(); });
  return sorted;
}

void set_repetitions(unsigned count) { repetitions = count; }

std::vector<Timing> measure(std::span<const Candidate> candidates) {
  for (const Candidate& candidate : candidates) candidate.run();
  std::vector<std::vector<double>> seconds(candidates.size());
  std::vector<std::vector<double>> ratios(candidates.size());
  for (unsigned round = 0; round < repetitions; ++round) {
    for (std::size_t k = 0; k < candidates.size(); ++k) {
      const double start = thread_seconds();
      candidates[k].run();
      seconds[k].push_back(thread_seconds() - start);
      ratios[k].push_back(seconds[0].back() / seconds[k].back());
    }
  }
  std::vector<Timing> timings;
  for (std::size_t k = 0; k < candidates.size(); ++k) {
    timings.push_back({median(seconds[k]), median(ratios[k])});
  }
  return timings;
}

void report(const std::string& name, const Timing& timing, const std::string& baseline, double units,
            const std::string& unit, bool equal) {
  if (!equal) throw std::runtime_error(name + ": the result is wrong, so its time says nothing");
  std::printf("%-44s %7.3f x %-10s %9.3f ms %8.3f %s/s  equal\n", name.c_str(), timing.ratio,
              baseline.c_str(), 1e3 * timing.seconds, units / timing.seconds, unit.c_str());
  std::fflush(stdout);
}

}  // namespace bench

int main(int argc, char** argv) {
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--list") {
      for (const bench::Benchmark* benchmark : bench::all_benchmarks()) {
        std::puts(benchmark->name().c_str());
      }
      return 0;
    }
    if (argument == "--repetitions" && i + 1 < argc) {
      const int count = std::atoi(argv[++i]);
      if (count < 1) {
        std::fprintf(stderr, "--repetitions wants a number of at least 1, not '%s'\n", argv[i]);
        return 2;
      }
      bench::set_repetitions(static_cast<unsigned>(count));
      continue;
    }
    if (argument.substr(0, 1) == "-") {
      std::fprintf(stderr, "usage: %s [--list] [--repetitions N] [NAME ...]\n", argv[0]);
      return argument == "--help" ? 0 : 2;
    }
    wanted.emplace_back(argument);
  }

  try {
    std::printf("one thread, medians, kernels: %s, features:",
                raftwright::level_name(raftwright::active_level()));
    for (const std::string& feature : raftwright::cpu_features()) std::printf(" %s", feature.c_str());
    std::printf("\n");
    bool ran = false;
    for (const bench::Benchmark* benchmark : bench::all_benchmarks()) {
      const bool chosen =
          wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
            return benchmark->name().substr(0, name.size()) == name;
          });
      if (!chosen) continue;
      ran = true;
      (*benchmark)();
    }
    if (!ran) {
      std::fprintf(stderr, "no benchmark has such a name; --list tells them\n");
      return 2;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
