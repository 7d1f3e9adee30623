// A file appears under its name whole and durable, or not at all; nothing that is there is replaced.
#pragma once

#include <cstdint>
#include <string>

#include "raftwright/file_pieces.hpp"

namespace raftwright {

enum class Published {
  written,    ///< the name was free and now holds the content
  unchanged,  ///< the name already held the same bytes
  conflict    ///< the name holds other bytes, which stay; the new content was kept beside it
};

[[nodiscard]] const char* published_name(Published status) noexcept;

struct PublishResult {
  Published status = Published::written;
  std::string path;  ///< where the content is: the name asked for, or the one beside it after a conflict
  std::uint64_t bytes = 0;
  std::uint32_t crc32c = 0;
  std::uint32_t adler32 = 1;
};

/// Writes the pieces to a temporary name in the directory of `path`, syncs the file, renames it without
/// replacing anything and syncs the directory; `durable` false leaves out the syncs. A content that
/// differs from the one under the name is kept as `<name>.conflict-<crc32c>`. Throws IoError
/// (temporary file removed) when the file system refuses, UsageError for a path without file name.
PublishResult publish(const FilePieces& pieces, const std::string& path, bool durable = true);

}  // namespace raftwright
