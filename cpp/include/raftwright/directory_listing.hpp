// What directories hold, with what the kernel tells of each file: the inner loop of a walk over a tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace raftwright {

/// What stands before each name in ListedDirectory::entries, in the byte order of the machine. Of a
/// directory only `mode` (its type alone) and the name's length are told: whatever goes on below it is not
/// seen here.
struct ListedEntry {
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint64_t name_length = 0;
};
static_assert(sizeof(ListedEntry) == 48, "no padding: its bytes are compared");

struct ListedDirectory {
  int error = 0;          ///< errno where it could not be read; `entries` is empty then
  std::string entries;    ///< a ListedEntry and a name for each, `.` and `..` left out, in the kernel's order
  std::size_t files = 0;  ///< entries that are no directories
};

/// Reads an open directory from its beginning; links are not followed. A name that goes meanwhile is left
/// out: the directory's time changes with it. The descriptor stays open, and where it is.
[[nodiscard]] ListedDirectory list_directory(int descriptor);

/// Several at once, on at most `threads` threads as parallel_for counts them; results in the order asked.
[[nodiscard]] std::vector<ListedDirectory> list_directories(std::span<const int> descriptors,
                                                            unsigned threads = 1);

}  // namespace raftwright
