// From packed samples to one int32 plane a channel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "raftwright/cpu.hpp"
#include "raftwright/stream_layout.hpp"

namespace raftwright {

/// Who reads the planes next, which decides how they are stored.
enum class Stores {
  cached,    ///< this core, soon: plain stores
  streaming  ///< another core, or later: non-temporal stores of whole cache lines where aligned
};

/// Unpacks whole samples: the value of channel p in sample i goes to `planes[plane_of[p]][i]`.
/// `packed.size()` must be `samples * layout.sample_bytes()`; nothing outside it is read.
/// `planes` has one pointer a plane (any alignment that int32 allows; streaming wants equal
/// alignment of all planes modulo 64 bytes and falls back to plain stores at the ragged ends).
/// 18 bits with 16, 32 or 48 channels run in the kernels of `level`; every other layout runs in the
/// scalar path. 32-bit values above 2^31 - 1 come out as the int32 of the same bits. What streaming stores
/// wrote is visible to any thread that is told of the return. Throws UsageError on a size that does not
/// fit or a level that this machine does not have. Thread-safe.
void unpack(const StreamLayout& layout, std::span<const std::uint8_t> packed,
            std::span<std::int32_t* const> planes, Stores stores = Stores::cached,
            Level level = active_level());

/// The plainest possible decoder, one pixel at a time: what every kernel is tested against.
void unpack_reference(const StreamLayout& layout, std::span<const std::uint8_t> packed,
                      std::span<std::int32_t* const> planes);

/// Whether `level` is available and has a kernel of its own for this layout (else the scalar path, which
/// takes every layout, serves).
[[nodiscard]] bool has_unpack_kernel(const StreamLayout& layout, Level level);

}  // namespace raftwright
