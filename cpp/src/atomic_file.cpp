#include "raftwright/atomic_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <utility>
#include <vector>

#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kMostPiecesAWrite = 1024;
constexpr std::size_t kCompareBytes = std::size_t{1} << 20U;
constexpr int kMostRaces = 16;

const char* remedy_for(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return "free space there or choose another directory";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a directory that this user may write to";
    case ENOENT:
    case ENOTDIR:
      return "make the directory first";
    case ENAMETOOLONG:
      return "choose a shorter name";
    case EMFILE:
    case ENFILE:
      return "raise the limit of open files";
    default:
      return "look after the file system, then do it again";
  }
}

[[noreturn]] void fail(const char* what, const std::string& path, int error_number) {
  throw IoError(std::string("cannot ") + what + " " + path + ": " + std::strerror(error_number) + "; " +
                    remedy_for(error_number),
                error_number, path);
}

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int close() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd);
  }

 private:
  int fd_;
};

struct Place {
  std::string directory;
  std::string name;
};

Place split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  Place place;
  place.directory = slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  place.name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (place.name.empty() || place.name == "." || place.name == ".." || path.find('\0') != std::string::npos) {
    throw UsageError("'" + path + "' names no file: give a path that ends in a file name");
  }
  return place;
}

/// Whether the open file holds exactly the pieces.
bool same_content(int fd, const FilePieces& pieces, const std::string& path) {
  struct stat status{};
  if (fstat(fd, &status) != 0) fail("look at", path, errno);
  if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) != pieces.size()) return false;
  std::vector<std::uint8_t> buffer(kCompareBytes);
  off_t at = 0;
  for (std::span<const std::uint8_t> piece : pieces.pieces()) {
    while (!piece.empty()) {
      const ssize_t count = pread(fd, buffer.data(), std::min(buffer.size(), piece.size()), at);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("read", path, errno);
      if (count == 0) return false;
      const auto bytes = static_cast<std::size_t>(count);
      if (std::memcmp(buffer.data(), piece.data(), bytes) != 0) return false;
      piece = piece.subspan(bytes);
      at += count;
    }
  }
  return true;
}

/// Opens what stands under the name, if anything does. A dangling link or a directory counts as other
/// content.
std::optional<Published> compare_existing(int directory, const Place& place, const FilePieces& pieces,
                                          const std::string& path, bool durable) {
  struct stat status{};
  if (fstatat(directory, place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::nullopt;
    fail("look at", path, errno);
  }
  if (!S_ISREG(status.st_mode)) return Published::conflict;
  const Descriptor file(
      openat(directory, place.name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    if (errno == ENOENT) return std::nullopt;
    fail("read", path, errno);
  }
  if (!same_content(file.get(), pieces, path)) return Published::conflict;
  // Whoever wrote it may not have asked for that, or died before.
  if (durable && fsync(file.get()) != 0) fail("make durable", path, errno);
  return Published::unchanged;
}

void write_all(int fd, const FilePieces& pieces, const std::string& path) {
  std::vector<iovec> vectors;
  vectors.reserve(std::min(pieces.pieces().size(), kMostPiecesAWrite));
  std::size_t next = 0;
  while (next < pieces.pieces().size()) {
    vectors.clear();
    for (; next < pieces.pieces().size() && vectors.size() < kMostPiecesAWrite; ++next) {
      const std::span<const std::uint8_t> piece = pieces.pieces()[next];
      vectors.push_back({const_cast<std::uint8_t*>(piece.data()), piece.size()});
    }
    std::size_t first = 0;
    while (first < vectors.size()) {
      const ssize_t written = writev(fd, vectors.data() + first, static_cast<int>(vectors.size() - first));
      if (written < 0) {
        if (errno == EINTR) continue;
        fail("write", path, errno);
      }
      auto left = static_cast<std::size_t>(written);
      while (first < vectors.size() && left >= vectors[first].iov_len) left -= vectors[first++].iov_len;
      if (left > 0) {
        vectors[first].iov_base = static_cast<std::uint8_t*>(vectors[first].iov_base) + left;
        vectors[first].iov_len -= left;
      }
    }
  }
}

std::string temporary_name(const std::string& name) {
  static std::atomic<unsigned> counter{0};
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::array<char, 64> suffix{};
  std::snprintf(suffix.data(), suffix.size(), ".%ld-%lx-%x.tmp", static_cast<long>(getpid()),
                static_cast<unsigned long>(now.tv_nsec) ^ static_cast<unsigned long>(now.tv_sec) << 30U,
                counter.fetch_add(1));
  constexpr std::size_t kLongestName = 255;
  const std::size_t room = kLongestName - 1 - std::strlen(suffix.data());
  return "." + name.substr(0, room) + suffix.data();
}

std::string hexadecimal(std::uint32_t value) {
  std::array<char, 9> text{};
  std::snprintf(text.data(), text.size(), "%08x", value);
  return text.data();
}

/// A file in `directory` that has no name in it, or a hidden one where the file system knows no other way.
class Unnamed {
 public:
  Unnamed(int directory, const Place& place, const std::string& path) : directory_(directory) {
    file_ = Descriptor(openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644));
    if (file_.get() >= 0 && access(link().c_str(), F_OK) == 0) return;  // /proc is needed to name it
    if (file_.get() < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
      fail("create a file for", path, errno);
    std::string name = temporary_name(place.name);
    file_ =
        Descriptor(openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (file_.get() < 0) fail("create a file for", path, errno);
    hidden_ = std::move(name);
  }
  Unnamed(const Unnamed&) = delete;
  Unnamed& operator=(const Unnamed&) = delete;
  ~Unnamed() {
    if (!hidden_.empty()) unlinkat(directory_, hidden_.c_str(), 0);
  }

  [[nodiscard]] int get() const noexcept { return file_.get(); }
  [[nodiscard]] std::string link() const { return "/proc/self/fd/" + std::to_string(file_.get()); }

  /// Gives it a name, replacing nothing. False when the name is taken.
  bool name_it(const Place& place, const std::string& path) {
    if (hidden_.empty()) {
      if (linkat(AT_FDCWD, link().c_str(), directory_, place.name.c_str(), AT_SYMLINK_FOLLOW) == 0)
        return true;
      if (errno == EEXIST) return false;
      fail("name", path, errno);
    }
    if (file_.get() >= 0) close(path);
    if (syscall(SYS_renameat2, directory_, hidden_.c_str(), directory_, place.name.c_str(),
                RENAME_NOREPLACE) == 0) {
      hidden_.clear();
      return true;
    }
    if (errno == EINVAL || errno == ENOSYS) {
      // A file system without RENAME_NOREPLACE: a hard link never replaces either.
      if (linkat(directory_, hidden_.c_str(), directory_, place.name.c_str(), 0) == 0) return true;
    }
    if (errno == EEXIST) return false;
    fail("name", path, errno);
  }

  /// Writing errors may come only now.
  void close(const std::string& path) {
    if (file_.get() >= 0 && file_.close() != 0) fail("close", path, errno);
  }

 private:
  int directory_;
  Descriptor file_;
  std::string hidden_;
};

/// One try under one name. Nothing when another process took the name meanwhile.
std::optional<Published> try_publish(int directory, const Place& place, const FilePieces& pieces,
                                     const std::string& path, bool durable) {
  if (const std::optional<Published> found = compare_existing(directory, place, pieces, path, durable))
    return found;
  Unnamed file(directory, place, path);
  write_all(file.get(), pieces, path);
  if (durable && fsync(file.get()) != 0) fail("make durable", path, errno);
  if (!file.name_it(place, path)) return std::nullopt;
  file.close(path);
  return Published::written;
}

Descriptor open_directory(const Place& place) {
  Descriptor directory(open(place.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) fail("open the directory", place.directory, errno);
  return directory;
}

Published publish_under(int directory, const Place& place, const FilePieces& pieces, const std::string& path,
                        bool durable) {
  for (int race = 0; race < kMostRaces; ++race) {
    if (const std::optional<Published> status = try_publish(directory, place, pieces, path, durable))
      return *status;
  }
  fail("name", path, EBUSY);
}

}  // namespace

const char* published_name(Published status) noexcept {
  switch (status) {
    case Published::written:
      return "written";
    case Published::unchanged:
      return "unchanged";
    case Published::conflict:
      return "conflict";
  }
  return "unknown";
}

PublishResult publish(const FilePieces& pieces, const std::string& path, bool durable) {
  const Place place = split(path);
  const Descriptor directory = open_directory(place);

  PublishResult result;
  result.path = path;
  result.bytes = pieces.size();
  for (const std::span<const std::uint8_t> piece : pieces.pieces()) {
    result.crc32c = crc32c(piece, result.crc32c);
    result.adler32 = adler32(piece, result.adler32);
  }
  result.status = publish_under(directory.get(), place, pieces, path, durable);
  if (result.status == Published::conflict) {
    const std::string suffix = ".conflict-" + hexadecimal(result.crc32c);
    const Place beside{place.directory, place.name + suffix};
    result.path = path + suffix;
    if (publish_under(directory.get(), beside, pieces, result.path, durable) == Published::conflict) {
      throw IoError("cannot keep the other content of " + path + " as " + result.path +
                        ": that name is taken by yet another; move it away",
                    EEXIST, result.path);
    }
  }
  if (durable && fsync(directory.get()) != 0) fail("make durable the directory", place.directory, errno);
  return result;
}

Standing compare(const FilePieces& pieces, const std::string& path, bool durable) {
  const Place place = split(path);
  const Descriptor directory = open_directory(place);
  const std::optional<Published> found = compare_existing(directory.get(), place, pieces, path, durable);
  if (!found) return Standing::free;
  return *found == Published::unchanged ? Standing::same : Standing::other;
}

struct StagedFile::Stage {
  Stage(const std::string& name, const FilePieces& pieces)
      : path(name), place(split(name)), directory(open_directory(place)), file(directory.get(), place, path) {
    write_all(file.get(), pieces, path);
  }
  std::string path;
  Place place;
  Descriptor directory;
  Unnamed file;
};

StagedFile::StagedFile(const FilePieces& pieces, const std::string& path, bool durable)
    : stage_(std::make_unique<Stage>(path, pieces)), bytes_(pieces.size()) {
  for (const std::span<const std::uint8_t> piece : pieces.pieces()) {
    crc32c_ = raftwright::crc32c(piece, crc32c_);
    adler32_ = raftwright::adler32(piece, adler32_);
  }
  // Begins to write it out without waiting: files that are staged one after another then go to the disk
  // together, and the first sync finds most of it done. Where that is not possible sync() does it all.
  if (durable) (void)sync_file_range(stage_->file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  unsynced_ = durable;
}

StagedFile::~StagedFile() = default;

void StagedFile::sync() {
  if (stage_ == nullptr || !unsynced_) return;
  if (fsync(stage_->file.get()) != 0) fail("make durable", stage_->path, errno);
  unsynced_ = false;
}

bool StagedFile::commit() {
  if (stage_ == nullptr) throw UsageError("this file has its name already: it can be named once");
  sync();
  if (!stage_->file.name_it(stage_->place, stage_->path)) return false;
  const std::unique_ptr<Stage> named = std::move(stage_);
  named->file.close(named->path);
  return true;
}

std::string StagedFile::readable_path() const { return stage_ == nullptr ? "" : stage_->file.link(); }

}  // namespace raftwright
