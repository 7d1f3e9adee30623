#include "raftwright/directory_listing.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "doctest.h"

namespace {

namespace fs = std::filesystem;

/// A directory that is gone afterwards.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "raftwright-listing-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

class Descriptor {
 public:
  explicit Descriptor(const fs::path& path) : value_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    REQUIRE(value_ >= 0);
  }
  ~Descriptor() { close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

std::map<std::string, raftwright::ListedEntry> parsed(const raftwright::ListedDirectory& listed) {
  std::map<std::string, raftwright::ListedEntry> entries;
  std::size_t at = 0;
  while (at < listed.entries.size()) {
    raftwright::ListedEntry entry;
    REQUIRE(at + sizeof entry <= listed.entries.size());
    std::memcpy(&entry, listed.entries.data() + at, sizeof entry);
    at += sizeof entry;
    REQUIRE(at + entry.name_length <= listed.entries.size());
    entries[listed.entries.substr(at, entry.name_length)] = entry;
    at += entry.name_length;
  }
  return entries;
}

void write(const fs::path& path, const std::string& content) { std::ofstream(path) << content; }

}  // namespace

TEST_CASE("a directory's names, with what lstat says of them") {
  const Scratch scratch;
  write(scratch.path() / "one.fits", "12345");
  write(scratch.path() / "two\nlines \xff", "");
  write(scratch.path() / std::string(255, 'x'), "6");
  fs::create_directory(scratch.path() / "below");
  fs::create_symlink("/etc", scratch.path() / "link");
  REQUIRE(mkfifo((scratch.path() / "pipe").c_str(), 0600) == 0);
  const Descriptor descriptor(scratch.path());
  for (int round = 0; round < 2; ++round) {  // from the beginning each time
    const raftwright::ListedDirectory listed = raftwright::list_directory(descriptor.get());
    CHECK(listed.error == 0);
    CHECK(listed.files == 5);
    const auto entries = parsed(listed);
    REQUIRE(entries.size() == 6);
    for (const auto& [name, entry] : entries) {
      CAPTURE(name);
      struct stat status{};
      REQUIRE(lstat((scratch.path() / name).c_str(), &status) == 0);
      if (S_ISDIR(status.st_mode)) {
        CHECK(entry.mode == S_IFDIR);
        CHECK(entry.inode == 0);
        continue;
      }
      CHECK(entry.mode == status.st_mode);
      CHECK(entry.inode == status.st_ino);
      CHECK(entry.bytes == static_cast<std::uint64_t>(status.st_size));
      CHECK(entry.uid == status.st_uid);
      CHECK(entry.mtime_ns == status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec);
      CHECK(entry.ctime_ns == status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec);
    }
  }
}

TEST_CASE("what changes in a file changes the listing, and what goes on below does not") {
  const Scratch scratch;
  write(scratch.path() / "one.fits", "12345");
  fs::create_directory(scratch.path() / "below");
  const Descriptor descriptor(scratch.path());
  const std::string before = raftwright::list_directory(descriptor.get()).entries;
  write(scratch.path() / "below" / "deep", "x");
  CHECK(raftwright::list_directory(descriptor.get()).entries == before);
  const timespec times[2] = {{5, 0}, {5, 1}};
  REQUIRE(utimensat(AT_FDCWD, (scratch.path() / "one.fits").c_str(), times, 0) == 0);
  CHECK(raftwright::list_directory(descriptor.get()).entries != before);
}

TEST_CASE("many directories at once, and one that is none") {
  const Scratch scratch;
  std::vector<std::unique_ptr<Descriptor>> open_ones;
  std::vector<int> descriptors;
  for (int number = 0; number < 40; ++number) {
    const fs::path path = scratch.path() / std::to_string(number);
    fs::create_directory(path);
    for (int file = 0; file < number; ++file) write(path / std::to_string(file), "x");
    open_ones.push_back(std::make_unique<Descriptor>(path));
    descriptors.push_back(open_ones.back()->get());
  }
  descriptors[7] = -1;
  for (const unsigned threads : {0U, 1U, 2U, 8U}) {
    const auto listed = raftwright::list_directories(descriptors, threads);
    REQUIRE(listed.size() == 40);
    for (std::size_t number = 0; number < 40; ++number) {
      CHECK(listed[number].error == (number == 7 ? EBADF : 0));
      CHECK(parsed(listed[number]).size() == (number == 7 ? 0 : number));
    }
  }
  CHECK(raftwright::list_directories({}, 2).empty());
}

TEST_CASE("names that come and go while they are listed") {
  const Scratch scratch;
  write(scratch.path() / "stays", "x");
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    while (!stop) {
      for (int number = 0; number < 50; ++number) write(scratch.path() / std::to_string(number), "y");
      for (int number = 0; number < 50; ++number) fs::remove(scratch.path() / std::to_string(number));
    }
  });
  const Descriptor descriptor(scratch.path());
  bool good = true;
  for (int round = 0; round < 300; ++round) {
    const raftwright::ListedDirectory listed = raftwright::list_directory(descriptor.get());
    good = good && listed.error == 0 && parsed(listed).contains("stays");
  }
  stop = true;
  churn.join();
  CHECK(good);
}
