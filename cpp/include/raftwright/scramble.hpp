// The inverse of unpack: planes into a packed stream, for simulation, replay and tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "raftwright/stream_layout.hpp"

namespace raftwright {

/// Packs `packed.size() / layout.sample_bytes()` samples; channel p of sample i is taken from
/// `planes[plane_of[p]][i]`. Values outside 0 .. max_value are clipped to that range, as the camera's
/// own writer does; the number of clipped pixels is returned. With 32 bits a pixel is the bits of its
/// int32 and nothing is clipped. Throws UsageError on sizes that do not fit. Thread-safe.
std::size_t scramble(const StreamLayout& layout, std::span<const std::int32_t* const> planes,
                     std::span<std::uint8_t> packed);

}  // namespace raftwright
