#include "raftwright/directory_listing.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "raftwright/parallel.hpp"

namespace raftwright {

namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { closedir(directory); }
};
using OpenDirectory = std::unique_ptr<DIR, CloseDirectory>;

std::int64_t nanoseconds(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::int64_t>(time.tv_nsec);
}

void append(std::string& entries, ListedEntry entry, std::string_view name) {
  entry.name_length = name.size();
  const std::size_t at = entries.size();
  entries.resize(at + sizeof entry + name.size());
  std::memcpy(entries.data() + at, &entry, sizeof entry);
  std::memcpy(entries.data() + at + sizeof entry, name.data(), name.size());
}

ListedEntry entry_of(const struct stat& found) {
  ListedEntry entry;
  entry.mode = found.st_mode;
  if (S_ISDIR(found.st_mode)) {
    entry.mode = S_IFDIR;
    return entry;
  }
  entry.inode = found.st_ino;
  entry.bytes = static_cast<std::uint64_t>(found.st_size);
  entry.mtime_ns = nanoseconds(found.st_mtim);
  entry.ctime_ns = nanoseconds(found.st_ctim);
  entry.uid = found.st_uid;
  return entry;
}

}  // namespace

ListedDirectory list_directory(int descriptor) {
  ListedDirectory listed;
  // A description of its own: a duplicate would share the position with the caller's.
  const int own = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (own < 0) {
    listed.error = errno;
    return listed;
  }
  const OpenDirectory directory(fdopendir(own));
  if (directory == nullptr) {
    listed.error = errno;
    close(own);
    return listed;
  }
  for (;;) {
    errno = 0;
    const dirent* const found = readdir(directory.get());
    if (found == nullptr) {
      listed.error = errno;
      break;
    }
    const std::string_view name(found->d_name);
    if (name == "." || name == "..") continue;
    if (found->d_type == DT_DIR) {
      ListedEntry entry;
      entry.mode = S_IFDIR;
      append(listed.entries, entry, name);
      continue;
    }
    struct stat status{};
    if (fstatat(own, found->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
      append(listed.entries, entry_of(status), name);
      if (!S_ISDIR(status.st_mode)) ++listed.files;
    } else if (errno != ENOENT) {
      listed.error = errno;
      break;
    }
  }
  if (listed.error != 0) {
    listed.entries.clear();
    listed.files = 0;
  }
  return listed;
}

std::vector<ListedDirectory> list_directories(std::span<const int> descriptors, unsigned threads) {
  std::vector<ListedDirectory> listed(descriptors.size());
  parallel_for(descriptors.size(), threads,
               [&](std::size_t index) { listed[index] = list_directory(descriptors[index]); });
  return listed;
}

}  // namespace raftwright
