#include "raftwright/coverage.hpp"

#include <algorithm>

namespace raftwright {

std::vector<Interval> Coverage::add(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return {};
  std::vector<Interval> fresh = gaps(begin, end);
  // Everything that overlaps or touches [begin, end) melts into one interval.
  auto first = parts_.upper_bound(begin);
  if (first != parts_.begin()) {
    const auto before = std::prev(first);
    if (before->second >= begin) first = before;
  }
  std::uint64_t low = begin;
  std::uint64_t high = end;
  while (first != parts_.end() && first->first <= end) {
    low = std::min(low, first->first);
    high = std::max(high, first->second);
    first = parts_.erase(first);
  }
  parts_.emplace(low, high);
  for (const Interval& part : fresh) covered_ += part.end - part.begin;
  return fresh;
}

std::vector<Interval> Coverage::gaps(std::uint64_t begin, std::uint64_t end) const {
  std::vector<Interval> result;
  std::uint64_t at = begin;
  auto part = parts_.upper_bound(begin);
  if (part != parts_.begin()) at = std::max(at, std::prev(part)->second);
  for (; part != parts_.end() && part->first < end && at < end; ++part) {
    if (part->first > at) result.push_back({at, part->first});
    at = part->second;
  }
  if (at < end) result.push_back({at, end});
  return result;
}

std::vector<Interval> Coverage::intervals() const {
  std::vector<Interval> result;
  result.reserve(parts_.size());
  for (const auto& [begin, end] : parts_) result.push_back({begin, end});
  return result;
}

bool Coverage::touches(std::uint64_t begin, std::uint64_t end) const {
  const auto past = parts_.upper_bound(end);
  return past != parts_.begin() && std::prev(past)->second >= begin;
}

}  // namespace raftwright
