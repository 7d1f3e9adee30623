// A file appears under its name whole and durable, or not at all; nothing that is there is replaced.
#pragma once

#include <cstdint>
#include <memory>
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

/// What stands under a name, beside a content that might get it.
enum class Standing {
  free,  ///< nothing
  same,  ///< these bytes; they are synced if `durable`
  other  ///< something else: other bytes, a link, a directory
};

[[nodiscard]] Standing compare(const FilePieces& pieces, const std::string& path, bool durable = true);

/// A content on the disk that has no name yet. Several files can be made ready, one after another, and then
/// be named in a given order within microseconds. What is never named vanishes, also when the process is
/// killed (where the file system has files without a name; else a hidden name may stay behind after a kill).
class StagedFile {
 public:
  /// Writes the pieces into the directory of `path`; if `durable`, begins to write them out. Throws IoError,
  /// UsageError.
  StagedFile(const FilePieces& pieces, const std::string& path, bool durable = true);
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;

  /// Waits until a durable content is on the disk; commit() does so if it was not done before. Throws
  /// IoError.
  void sync();
  /// Gives it the name, replacing nothing: false when that is taken. The directory is not synced. Throws
  /// IoError when the file system refuses, UsageError once it has a name.
  [[nodiscard]] bool commit();
  /// A path by which this process can read it; empty once it has its name.
  [[nodiscard]] std::string readable_path() const;
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint32_t crc32c() const noexcept { return crc32c_; }
  [[nodiscard]] std::uint32_t adler32() const noexcept { return adler32_; }

 private:
  struct Stage;
  std::unique_ptr<Stage> stage_;
  bool unsynced_ = false;
  std::uint64_t bytes_ = 0;
  std::uint32_t crc32c_ = 0;
  std::uint32_t adler32_ = 1;
};

}  // namespace raftwright
