// Which bytes of a stream have arrived: a set of half-open intervals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace raftwright {

struct Interval {
  std::uint64_t begin;
  std::uint64_t end;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// An ordered set of disjoint, non-touching intervals. Not thread-safe.
class Coverage {
 public:
  /// Adds [begin, end) and returns the parts of it that were not there before, in order.
  std::vector<Interval> add(std::uint64_t begin, std::uint64_t end);
  /// The parts of [begin, end) that are not covered, in order.
  [[nodiscard]] std::vector<Interval> gaps(std::uint64_t begin, std::uint64_t end) const;
  [[nodiscard]] std::vector<Interval> intervals() const;
  [[nodiscard]] std::uint64_t covered() const noexcept { return covered_; }
  [[nodiscard]] std::size_t fragments() const noexcept { return parts_.size(); }
  /// Whether [begin, end) meets or borders on what is there: adding it then makes no further fragment.
  [[nodiscard]] bool touches(std::uint64_t begin, std::uint64_t end) const;

 private:
  std::map<std::uint64_t, std::uint64_t> parts_;  // begin -> end
  std::uint64_t covered_ = 0;
};

}  // namespace raftwright
