#include "raftwright/stream_layout.hpp"

#include <string>
#include <utility>

#include "raftwright/error.hpp"

namespace raftwright {

StreamLayout::StreamLayout(unsigned bits, std::uint32_t xor_mask, std::vector<std::uint16_t> plane_of)
    : bits_(bits), xor_mask_(xor_mask), plane_of_(std::move(plane_of)), sample_bytes_(0) {
  if (bits_ < 1 || bits_ > 32) {
    throw UsageError("stream layout: " + std::to_string(bits_) + " bits a pixel; give 1 to 32");
  }
  if (plane_of_.empty() || plane_of_.size() > 4096) {
    throw UsageError("stream layout: " + std::to_string(plane_of_.size()) +
                     " channels a sample; give 1 to 4096");
  }
  if (xor_mask_ > max_value()) {
    throw UsageError("stream layout: XOR mask " + std::to_string(xor_mask_) + " has more than the " +
                     std::to_string(bits_) + " bits of a pixel; give at most " + std::to_string(max_value()));
  }
  std::vector<bool> seen(plane_of_.size(), false);
  for (std::size_t p = 0; p < plane_of_.size(); ++p) {
    const std::size_t plane = plane_of_[p];
    if (plane >= seen.size() || seen[plane]) {
      throw UsageError("stream layout: channel " + std::to_string(p) + " goes to plane " +
                       std::to_string(plane) + ", which is " +
                       (plane >= seen.size() ? "not one of" : "taken already among") + " the planes 0 to " +
                       std::to_string(seen.size() - 1) + "; give each plane once");
    }
    seen[plane] = true;
  }
  const std::size_t sample_bits = std::size_t{bits_} * plane_of_.size();
  if (sample_bits % 8 != 0) {
    throw UsageError("stream layout: " + std::to_string(plane_of_.size()) + " channels of " +
                     std::to_string(bits_) +
                     " bits do not fill whole bytes; add channels to a multiple of 8 bits");
  }
  sample_bytes_ = sample_bits / 8;
}

}  // namespace raftwright
