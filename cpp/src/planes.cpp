#include "raftwright/planes.hpp"

#include <sys/mman.h>

#include <new>
#include <string>
#include <utility>

#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kMostPixels = std::size_t{1} << 32U;  // of a plane

std::size_t round_up(std::size_t value, std::size_t step) { return (value + step - 1) / step * step; }

/// Bytes from one plane to the next: a line between them keeps equal samples apart in the caches.
std::size_t pitch_of(std::size_t count, std::size_t width, std::size_t height) {
  if (count == 0 || width == 0 || height == 0 || height > kMostPixels / width || count > 65536) {
    throw UsageError("planes of " + std::to_string(count) + " x " + std::to_string(height) + " x " +
                     std::to_string(width) + " pixels cannot be: every size must be positive and sane");
  }
  return round_up(width * height * sizeof(std::int32_t), kLine) + kLine;
}

PlaneMemory map_memory(std::size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  madvise(address, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
  return {{static_cast<std::uint8_t*>(address), bytes},
          std::shared_ptr<void>(address, [bytes](void* mapped) { munmap(mapped, bytes); })};
}

}  // namespace

std::size_t Planes::needed(std::size_t count, std::size_t width, std::size_t height) {
  return count * pitch_of(count, width, height);
}

Planes::Planes(std::size_t count, std::size_t width, std::size_t height, PlaneMemory memory)
    : width_(width), height_(height), bytes_(0) {
  const std::size_t pitch = pitch_of(count, width, height);
  if (memory.bytes.data() == nullptr) {
    memory = map_memory(round_up(count * pitch, kHugePage));
  } else if (memory.bytes.size() < count * pitch) {
    throw UsageError("memory of " + std::to_string(memory.bytes.size()) +
                     " bytes is too small for planes of " + std::to_string(count) + " x " +
                     std::to_string(height) + " x " + std::to_string(width) + " pixels: give " +
                     std::to_string(count * pitch));
  } else if (reinterpret_cast<std::uintptr_t>(memory.bytes.data()) % kLine != 0) {
    throw UsageError("the memory for the planes does not start on a cache line: align it to " +
                     std::to_string(kLine) + " bytes");
  }
  bytes_ = memory.bytes.size();
  slab_ = std::move(memory.owner);
  pointers_.reserve(count);
  for (std::size_t index = 0; index < count; ++index) {
    pointers_.push_back(reinterpret_cast<std::int32_t*>(memory.bytes.data() + index * pitch));
  }
}

}  // namespace raftwright
