#include "raftwright/compressed_planes.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"

namespace raftwright {

namespace {
constexpr std::size_t kBlockBytes = std::size_t{8} << 20U;
constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kPage = std::size_t{4} << 10U;
// The code of a row, longer than its pixels at worst, has a length of 32 bits.
constexpr std::size_t kMostColumns = std::size_t{1} << 28U;
}  // namespace

/// A slab that tiles are stored in, huge pages where the kernel has them.
struct CompressedPlanes::Block {
  explicit Block(std::size_t bytes) : size(bytes) {
    address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    if (size >= kHugePage) madvise(address, size, MADV_HUGEPAGE);
  }
  ~Block() { munmap(address, size); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void* address;
  std::size_t size;
  std::size_t used = 0;
};

/// One thread's scratch: an arena a plane, as long as its worst run. Kept by the thread for its next run.
class CompressedPlanes::Encoder {
 public:
  void begin(const CompressedPlanes& owner, std::size_t first_row, std::size_t rows) {
    arena_bytes_ = rows * rice_bound(owner.width_);
    const std::size_t need = owner.planes_ * arena_bytes_;
    if (arenas_.size() < need) {
      arenas_.clear();
      arenas_.shrink_to_fit();
      arenas_ = std::vector<std::uint8_t, Uninitialized>(need);
    }
    width_ = owner.width_;
    rows_ = rows;
    row_ = 0;
    run = TileRun{};
    run.first_row = first_row;
    run.rows = rows;
    run.lengths.resize(owner.planes_ * rows);
    run.pixel_sums.assign(owner.planes_, 0);
    used_.assign(owner.planes_, 0);
  }

  void row(std::span<const std::int32_t* const> pointers) {
    for (std::size_t plane = 0; plane < pointers.size(); ++plane) {
      std::uint8_t* out = arenas_.data() + plane * arena_bytes_ + used_[plane];
      const std::size_t room = arena_bytes_ - used_[plane];
      const std::size_t length =
          rice_encode_summed({pointers[plane], width_}, {out, room}, &run.pixel_sums[plane]);
      run.lengths[plane * rows_ + row_] = static_cast<std::uint32_t>(length);
      used_[plane] += length;
    }
    ++row_;
  }

  [[nodiscard]] std::span<const std::uint8_t> code(std::size_t plane) const {
    return {arenas_.data() + plane * arena_bytes_, used_[plane]};
  }

  TileRun run;

 private:
  /// Leaves fresh bytes as they are: untouched pages of the arenas never become resident.
  struct Uninitialized : std::allocator<std::uint8_t> {
    template <typename U>
    struct rebind {
      using other = Uninitialized;
    };
    template <typename U, typename... Args>
    void construct(U* at, Args&&... args) {
      if constexpr (sizeof...(Args) == 0) {
        ::new (static_cast<void*>(at)) U;
      } else {
        ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
      }
    }
  };

  std::vector<std::uint8_t, Uninitialized> arenas_;
  std::vector<std::size_t> used_;
  std::size_t arena_bytes_ = 0;
  std::size_t width_ = 0;
  std::size_t rows_ = 0;
  std::size_t row_ = 0;
};

CompressedPlanes::CompressedPlanes(std::size_t planes, std::size_t width, std::size_t height)
    : planes_(planes), width_(width), height_(height), block_bytes_(kBlockBytes) {
  if (planes == 0 || width == 0 || height == 0 || width > kMostColumns) {
    throw UsageError("compressed planes need at least one plane and one row, and 1 to " +
                     std::to_string(kMostColumns) + " columns, not " + std::to_string(width));
  }
  // A small image takes no more than it may need at worst: hundreds of them may be held at a time.
  const std::size_t bound = rice_bound(width);
  const std::size_t most = kBlockBytes / bound;
  if (height <= most && planes <= most / height) {
    block_bytes_ = (planes * height * bound + kPage - 1) / kPage * kPage;
  }
}

CompressedPlanes::~CompressedPlanes() = default;

void CompressedPlanes::begin_run(std::size_t first_row, std::size_t rows, Encoder*& encoder) const {
  if (rows == 0 || rows > kRunRows || first_row >= height_ || rows > height_ - first_row) {
    throw UsageError("rows " + std::to_string(first_row) + " to " + std::to_string(first_row + rows) +
                     " do not fit an image of " + std::to_string(height_) + " rows in runs of at most " +
                     std::to_string(kRunRows));
  }
  thread_local Encoder scratch;
  encoder = &scratch;
  scratch.begin(*this, first_row, rows);
}

void CompressedPlanes::encode_row(Encoder& encoder, std::span<const std::int32_t* const> pointers) {
  encoder.row(pointers);
}

std::span<std::uint8_t> CompressedPlanes::store(std::size_t bytes) {
  if (blocks_.empty() || blocks_.back()->size - blocks_.back()->used < bytes) {
    blocks_.push_back(std::make_unique<Block>(std::max(block_bytes_, bytes)));
  }
  Block& block = *blocks_.back();
  std::uint8_t* at = static_cast<std::uint8_t*>(block.address) + block.used;
  block.used += bytes;
  return {at, bytes};
}

void CompressedPlanes::end_run(Encoder& encoder) {
  std::size_t total = 0;
  for (std::size_t plane = 0; plane < planes_; ++plane) total += encoder.code(plane).size();
  std::span<std::uint8_t> space;
  {
    const std::lock_guard lock(mutex_);
    space = store(total);
  }
  TileRun run = std::move(encoder.run);
  run.code.reserve(planes_);
  run.code_sums.reserve(planes_);
  std::uint8_t* at = space.data();
  for (std::size_t plane = 0; plane < planes_; ++plane) {
    const std::span<const std::uint8_t> code = encoder.code(plane);
    std::memcpy(at, code.data(), code.size());
    FitsSum sum;
    sum.add(code);
    run.code_sums.push_back(sum.value());
    run.code.emplace_back(at, code.size());
    at += code.size();
  }
  const std::lock_guard lock(mutex_);
  const bool in_order = runs_.empty() || runs_.back().first_row < run.first_row;
  const std::size_t rows = run.rows;
  runs_.push_back(std::move(run));  // may throw: only rows that are kept are counted
  rows_done_ += rows;
  if (!in_order) sorted_ = false;
}

bool CompressedPlanes::complete() const {
  const std::lock_guard lock(mutex_);
  return rows_done_ == height_;
}

std::size_t CompressedPlanes::memory() const {
  const std::lock_guard lock(mutex_);
  std::size_t bytes = runs_.size() * planes_ * (sizeof(std::span<const std::uint8_t>) + 12);
  for (const auto& block : blocks_) bytes += block->size;
  return bytes + rows_done_ * planes_ * sizeof(std::uint32_t);
}

const std::vector<TileRun>& CompressedPlanes::runs() const {
  const std::lock_guard lock(mutex_);
  if (rows_done_ != height_) {
    throw UsageError("only " + std::to_string(rows_done_) + " of " + std::to_string(height_) +
                     " rows are encoded: finish the readout first");
  }
  if (!sorted_) {
    std::sort(runs_.begin(), runs_.end(),
              [](const TileRun& a, const TileRun& b) { return a.first_row < b.first_row; });
    sorted_ = true;
  }
  return runs_;
}

std::uint64_t CompressedPlanes::code_bytes(std::size_t plane) const {
  std::uint64_t bytes = 0;
  for (const TileRun& run : runs()) bytes += run.code[plane].size();
  return bytes;
}

}  // namespace raftwright
