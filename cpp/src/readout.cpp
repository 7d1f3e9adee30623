#include "raftwright/readout.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "raftwright/error.hpp"
#include "raftwright/parallel.hpp"
#include "raftwright/unpack.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kMostPixels = std::size_t{1} << 28U;
constexpr std::size_t kMostFragments = std::size_t{1} << 18U;
constexpr std::size_t kLinePixels = 16;

/// Pitch of the scratch rows, in pixels: whole cache lines, and an odd number of them, so that equal
/// columns of neighbouring planes fall into different cache sets.
std::size_t scratch_pitch(std::size_t width) {
  const std::size_t lines = (width + kLinePixels - 1) / kLinePixels;
  return (lines | 1U) * kLinePixels;
}

/// One row of every plane, kept by the thread for its next row: stays in the second-level cache.
std::vector<std::int32_t*> scratch_rows(std::size_t planes, std::size_t width) {
  thread_local std::vector<std::int32_t> scratch;
  const std::size_t pitch = scratch_pitch(width);
  if (scratch.size() < planes * pitch + kLinePixels) scratch.resize(planes * pitch + kLinePixels);
  const auto misalignment =
      (reinterpret_cast<std::uintptr_t>(scratch.data()) / sizeof(std::int32_t)) % kLinePixels;
  std::int32_t* base = scratch.data() + (kLinePixels - misalignment) % kLinePixels;
  std::vector<std::int32_t*> rows(planes);
  for (std::size_t plane = 0; plane < planes; ++plane) rows[plane] = base + plane * pitch;
  return rows;
}

}  // namespace

Readout::Readout(StreamLayout layout, std::size_t width, std::size_t height, Products products,
                 PlaneMemory memory)
    : layout_(std::move(layout)), width_(width), height_(height), row_bytes_(0) {
  if (width == 0 || height == 0 || width > kMostPixels || height > kMostPixels / width) {
    throw UsageError("an image of " + std::to_string(width) + " x " + std::to_string(height) +
                     " pixels cannot be: check the readout registers");
  }
  if (!products.pixels && !products.compressed) {
    throw UsageError("a readout needs a product: pixels, compressed or both");
  }
  if (!products.pixels && memory.bytes.data() != nullptr) {
    throw UsageError("memory was given for the pixels, but none were asked for: ask for both or neither");
  }
  row_bytes_ = static_cast<std::uint64_t>(width) * layout_.sample_bytes();
  const std::size_t channels = layout_.channels();
  channel_of_.resize(channels);
  for (std::size_t channel = 0; channel < channels; ++channel)
    channel_of_[layout_.plane_of()[channel]] = channel;
  if (products.pixels) {
    planes_ = std::make_unique<Planes>(channels, width, height, std::move(memory));
  }
  if (products.compressed) compressed_ = std::make_unique<CompressedPlanes>(channels, width, height);
}

std::vector<Readout::Rows> Readout::claim(std::uint64_t offset, std::span<const std::uint8_t> data,
                                          std::uint64_t* fresh_bytes) {
  std::vector<Rows> rows;
  const std::vector<Interval> fresh = coverage_.add(offset, offset + data.size());
  const auto keep_piece = [&](std::uint64_t begin, std::uint64_t end) {
    const auto row = static_cast<std::size_t>(begin / row_bytes_);
    PartialRow& partial = partial_[row];
    if (partial.bytes.empty()) partial.bytes.resize(row_bytes_);
    std::memcpy(partial.bytes.data() + (begin - row * row_bytes_), data.data() + (begin - offset),
                end - begin);
    partial.present += end - begin;
    copied_ += end - begin;
    if (partial.present == row_bytes_) {
      Rows whole{row, 1, nullptr, std::move(partial.bytes)};
      whole.packed = whole.owned.data();
      rows.push_back(std::move(whole));
      partial_.erase(row);
    }
  };
  for (const auto& [begin, end] : fresh) {
    *fresh_bytes += end - begin;
    const std::uint64_t first = (begin + row_bytes_ - 1) / row_bytes_;  // first and past-last whole row
    const std::uint64_t last = end / row_bytes_;
    if (first > last) {  // within one row, not touching its ends
      keep_piece(begin, end);
      continue;
    }
    if (begin < first * row_bytes_) keep_piece(begin, first * row_bytes_);
    if (first < last) {
      rows.push_back({static_cast<std::size_t>(first),
                      static_cast<std::size_t>(last - first),
                      data.data() + (first * row_bytes_ - offset),
                      {}});
    }
    if (last * row_bytes_ < end) keep_piece(last * row_bytes_, end);
  }
  duplicate_ += data.size() - *fresh_bytes;
  return rows;
}

std::uint64_t Readout::add(std::uint64_t offset, std::span<const std::uint8_t> data, unsigned threads) {
  if (offset > size() || data.size() > size() - offset) {
    throw FormatError("chunk of " + std::to_string(data.size()) + " bytes at byte " + std::to_string(offset) +
                      " reaches past the stream's " + std::to_string(size()) +
                      " bytes: the registers or the offset are wrong");
  }
  if (data.empty()) return 0;
  std::uint64_t fresh = 0;
  std::vector<Rows> rows;
  {
    const std::lock_guard lock(mutex_);
    if (failed_) throw UsageError("an earlier chunk failed: start the readout again");
    if (finishing_) throw UsageError("the readout is finished: a late chunk cannot be added");
    if (coverage_.fragments() >= kMostFragments && !coverage_.touches(offset, offset + data.size())) {
      throw FormatError("the stream has fallen into more than " + std::to_string(kMostFragments) +
                        " pieces at byte " + std::to_string(offset) + ": send larger chunks");
    }
    try {
      rows = claim(offset, data, &fresh);
    } catch (...) {
      failed_ = true;  // bytes may count as covered whose pieces could not be kept
      throw;
    }
    ++working_;
  }
  std::size_t done = 0;
  for (const Rows& part : rows) done += part.count;
  bool good = false;
  const auto settle = [&] {
    const std::lock_guard lock(mutex_);
    if (good) {
      rows_done_ += done;
    } else {
      failed_ = true;
    }
    if (--working_ == 0) idle_.notify_all();
  };
  try {
    work_on(rows, threads);
    good = true;
  } catch (...) {
    settle();
    throw;
  }
  settle();
  return fresh;
}

void Readout::work_on(const std::vector<Rows>& rows, unsigned threads) {
  struct Run {
    std::size_t first_row;
    std::size_t count;
    const std::uint8_t* packed;
  };
  std::vector<Run> runs;
  for (const Rows& part : rows) {
    for (std::size_t at = 0; at < part.count; at += CompressedPlanes::kRunRows) {
      runs.push_back({part.first_row + at, std::min(CompressedPlanes::kRunRows, part.count - at),
                      part.packed + at * row_bytes_});
    }
  }
  if (threads == 1 || runs.size() <= 1) {
    for (const Run& run : runs) work_on_run(run.first_row, run.count, run.packed);
  } else {
    parallel_for(runs.size(), threads,
                 [&](std::size_t i) { work_on_run(runs[i].first_row, runs[i].count, runs[i].packed); });
  }
}

void Readout::work_on_run(std::size_t first_row, std::size_t count, const std::uint8_t* packed) {
  const std::size_t channels = layout_.channels();
  std::vector<std::int32_t*> rows;
  if (compressed_ == nullptr) {
    rows = planes_->pointers();
    for (std::int32_t*& row : rows) row += first_row * width_;
    unpack(layout_, {packed, count * row_bytes_}, rows, Stores::streaming);
    return;
  }
  if (planes_ == nullptr) rows = scratch_rows(channels, width_);
  compressed_->encode(first_row, count, [&](std::size_t r, std::span<const std::int32_t*> pointers) {
    if (planes_ != nullptr) {
      rows = planes_->pointers();
      for (std::int32_t*& row : rows) row += (first_row + r) * width_;
    }
    unpack(layout_, {packed + r * row_bytes_, row_bytes_}, rows, Stores::cached);
    std::copy(rows.begin(), rows.end(), pointers.begin());
  });
}

void Readout::finish(std::int32_t fill, unsigned threads) {
  {
    std::unique_lock lock(mutex_);
    finishing_ = true;
    idle_.wait(lock, [&] { return working_ == 0; });
    if (finished_) return;
    if (failed_) throw UsageError("an earlier chunk failed: start the readout again");
    working_ = 1;  // a second finish() waits for this one
  }
  try {
    std::vector<std::size_t> rows;
    std::uint64_t row = 0;
    for (const Interval& gap : coverage_.gaps(0, size())) {
      for (row = std::max(row, gap.begin / row_bytes_); row * row_bytes_ < gap.end; ++row) {
        rows.push_back(static_cast<std::size_t>(row));
      }
    }
    parallel_for(rows.size(), threads, [&](std::size_t i) { fill_row(rows[i], fill); });
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    working_ = 0;
    idle_.notify_all();
    throw;
  }
  const std::lock_guard lock(mutex_);
  partial_.clear();
  rows_done_ = height_;
  finished_ = true;
  working_ = 0;
  idle_.notify_all();
}

void Readout::fill_row(std::size_t row, std::int32_t fill) {
  const std::size_t channels = layout_.channels();
  std::vector<std::int32_t*> rows;
  if (planes_ != nullptr) {
    rows = planes_->pointers();
    for (std::int32_t*& pointer : rows) pointer += row * width_;
  } else {
    rows = scratch_rows(channels, width_);
  }
  const auto partial = partial_.find(row);
  if (partial == partial_.end()) {
    for (std::int32_t* pointer : rows) std::fill_n(pointer, width_, fill);
  } else {
    unpack(layout_, partial->second.bytes, rows, Stores::cached);
    const std::vector<Interval> gaps = coverage_.gaps(row * row_bytes_, (row + 1) * row_bytes_);
    const std::uint64_t first_pixel = static_cast<std::uint64_t>(row) * width_;
    for (std::size_t plane = 0; plane < channels; ++plane) {
      for (const PixelRun& run : missing_in(channel_of_[plane], gaps)) {
        std::fill_n(rows[plane] + (run.first - first_pixel), run.count, fill);
      }
    }
  }
  if (compressed_ != nullptr) {
    compressed_->encode(row, 1, [&](std::size_t, std::span<const std::int32_t*> pointers) {
      std::copy(rows.begin(), rows.end(), pointers.begin());
    });
  }
}

std::vector<PixelRun> Readout::missing_in(std::size_t channel, const std::vector<Interval>& gaps) const {
  // Pixel n of channel p has the bits [(n C + p) B, (n C + p + 1) B): it is missing when they meet a gap.
  const std::uint64_t bits = layout_.bits();
  const std::uint64_t sample = static_cast<std::uint64_t>(layout_.sample_bytes()) * 8;
  const std::uint64_t begin_bit = channel * bits;
  const std::uint64_t end_bit = begin_bit + bits;
  std::vector<PixelRun> runs;
  for (const Interval& gap : gaps) {
    const std::uint64_t low = gap.begin * 8;
    const std::uint64_t high = gap.end * 8;
    const std::uint64_t first = low < end_bit ? 0 : (low - end_bit) / sample + 1;
    const std::uint64_t past = high <= begin_bit ? 0 : (high - begin_bit - 1) / sample + 1;
    if (first >= past) continue;
    if (!runs.empty() && runs.back().first + runs.back().count >= first) {
      runs.back().count = past - runs.back().first;
    } else {
      runs.push_back({first, past - first});
    }
  }
  return runs;
}

std::vector<PixelRun> Readout::missing(std::size_t plane) const {
  if (plane >= channel_of_.size()) {
    throw UsageError("plane " + std::to_string(plane) + " does not exist: give 0 to " +
                     std::to_string(channel_of_.size() - 1));
  }
  return missing_in(channel_of_[plane], gaps());
}

void Readout::restart() {
  std::unique_lock lock(mutex_);
  finishing_ = true;  // nobody begins while those who are in it leave
  idle_.wait(lock, [&] { return working_ == 0; });
  if (compressed_ != nullptr) {
    compressed_ = std::make_unique<CompressedPlanes>(layout_.channels(), width_, height_);
  }
  coverage_ = Coverage();
  partial_.clear();
  duplicate_ = 0;
  copied_ = 0;
  rows_done_ = 0;
  failed_ = finishing_ = finished_ = false;
}

std::uint64_t Readout::received() const {
  const std::lock_guard lock(mutex_);
  return coverage_.covered();
}

std::uint64_t Readout::duplicate() const {
  const std::lock_guard lock(mutex_);
  return duplicate_;
}

std::uint64_t Readout::copied() const {
  const std::lock_guard lock(mutex_);
  return copied_;
}

bool Readout::complete() const {
  const std::lock_guard lock(mutex_);
  return coverage_.covered() == size() && rows_done_ == height_;
}

std::vector<Interval> Readout::gaps() const {
  const std::lock_guard lock(mutex_);
  return coverage_.gaps(0, size());
}

bool Readout::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

const Planes& Readout::planes() const {
  if (planes_ == nullptr) throw UsageError("this readout keeps no pixels: ask for pixels when it is made");
  return *planes_;
}

const CompressedPlanes& Readout::compressed() const {
  if (compressed_ == nullptr) {
    throw UsageError("this readout keeps no compressed rows: ask for compressed when it is made");
  }
  return *compressed_;
}

std::size_t Readout::memory() const {
  std::size_t bytes = planes_ == nullptr ? 0 : planes_->bytes();
  if (compressed_ != nullptr) bytes += compressed_->memory();
  const std::lock_guard lock(mutex_);
  return bytes + partial_.size() * row_bytes_;
}

}  // namespace raftwright
