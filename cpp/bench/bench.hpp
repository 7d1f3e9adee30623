// What a benchmark file needs: it registers functions, measures its candidates beside a baseline on the same
// warm data, checks what they made, and prints one line each.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

/// A group of measurements. Define one at namespace scope in its own file: `const Benchmark x{"unpack",
/// run};`
class Benchmark {
 public:
  using Run = void (*)();
  Benchmark(std::string name, Run run);
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  void operator()() const { run_(); }

 private:
  std::string name_;
  Run run_;
};

/// Every benchmark of the program, by name.
[[nodiscard]] std::vector<const Benchmark*> all_benchmarks();

/// One thing to measure.
struct Candidate {
  std::string name;
  std::function<void()> run;
};

/// How long a candidate took: medians over the repetitions.
struct Timing {
  double seconds;  ///< processor time of this thread
  double ratio;    ///< time of the first candidate over time of this, each pair from the same repetition
};

/// Runs every candidate once to warm it, then all of them in turn, again and again, in this thread. The
/// first is the baseline.
[[nodiscard]] std::vector<Timing> measure(std::span<const Candidate> candidates);

/// Prints one line: name, ratio to the baseline, time, rate in `units` of `unit` a second, and that the
/// result was checked. `equal` must come from a comparison made in this run; a false one ends the program.
void report(const std::string& name, const Timing& timing, const std::string& baseline, double units,
            const std::string& unit, bool equal);

/// Repetitions of every measurement (option --repetitions, 15 unless told).
void set_repetitions(unsigned repetitions);

}  // namespace bench
