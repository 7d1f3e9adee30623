#include "raftwright/atomic_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "doctest.h"
#include "raftwright/error.hpp"

using namespace raftwright;
namespace fs = std::filesystem;

namespace {

class Directory {
 public:
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "raftwright-test-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Directory() { fs::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  [[nodiscard]] std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
  [[nodiscard]] std::string file(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

void fill(FilePieces& pieces, const std::string& text, std::size_t piece_bytes) {
  for (std::size_t at = 0; at < text.size(); at += piece_bytes) pieces.add(text.substr(at, piece_bytes));
}

std::string read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string long_text(char seed) {
  std::string text(100'003, ' ');
  for (std::size_t i = 0; i < text.size(); ++i)
    text[i] = static_cast<char>('a' + (i * 7 + static_cast<std::size_t>(seed)) % 26);
  return text;
}

}  // namespace

TEST_CASE("atomic file: written once, the same again is fine, another is kept beside") {
  const Directory directory;
  const std::string path = directory.file("a.fits");
  const std::string text = long_text('x');
  FilePieces pieces;
  fill(pieces, text, 17);  // more pieces than one system call takes
  const PublishResult first = publish(pieces, path);
  CHECK(first.status == Published::written);
  CHECK(first.bytes == text.size());
  CHECK(read(path) == text);
  CHECK(directory.entries() == 1);
  CHECK(publish(pieces, path).status == Published::unchanged);
  CHECK(directory.entries() == 1);

  FilePieces other;
  fill(other, long_text('y'), 5000);
  for (int again = 0; again < 2; ++again) {
    const PublishResult conflict = publish(other, path);
    CHECK(conflict.status == Published::conflict);
    CHECK(conflict.path.starts_with(path + ".conflict-"));
    CHECK(read(path) == text);
    CHECK(read(conflict.path) == long_text('y'));
    CHECK(directory.entries() == 2);
  }
}

TEST_CASE("atomic file: digests are those of the content") {
  const Directory directory;
  FilePieces pieces;
  fill(pieces, "123456789", 2);
  const PublishResult result = publish(pieces, directory.file("sum"), false);
  CHECK(result.crc32c == 0xE3069283U);
  CHECK(result.adler32 == 0x091E01DEU);
}

TEST_CASE("atomic file: links, directories and longer or shorter files under the name are conflicts") {
  const Directory directory;
  FilePieces pieces;
  fill(pieces, "content", 7);
  fs::create_symlink("/nonexistent", directory.path / "link");
  CHECK(publish(pieces, directory.file("link")).status == Published::conflict);
  CHECK(fs::is_symlink(directory.path / "link"));
  fs::create_directory(directory.path / "dir");
  CHECK(publish(pieces, directory.file("dir")).status == Published::conflict);
  for (const std::string text : {"conten", "content ", ""}) {
    const std::string path = directory.file("cut");
    std::ofstream(path, std::ios::trunc) << text;
    CHECK(publish(pieces, path).status == Published::conflict);
    CHECK(read(path) == text);
  }
}

TEST_CASE("atomic file: errors name the place and leave nothing behind") {
  const Directory directory;
  FilePieces pieces;
  fill(pieces, long_text('z'), 100'003);
  CHECK_THROWS_AS(publish(pieces, directory.file("no/such/file")), IoError);
  CHECK_THROWS_AS(publish(pieces, directory.path.string() + "/"), UsageError);
  CHECK_THROWS_AS(publish(pieces, ""), UsageError);
  CHECK_THROWS_AS(publish(pieces, directory.file(std::string(300, 'n'))), IoError);
  // A limit on file size stands in for a full disk: the write stops half-way.
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{50'000, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS_AS(publish(pieces, directory.file("big")), IoError);
  setrlimit(RLIMIT_FSIZE, &old);
  static_cast<void>(std::signal(SIGXFSZ, old_handler));
  CHECK(directory.entries() == 0);
}

TEST_CASE("atomic file: a name of the greatest length works") {
  const Directory directory;
  FilePieces pieces;
  fill(pieces, "x", 1);
  CHECK(publish(pieces, directory.file(std::string(255, 'n'))).status == Published::written);
}

TEST_CASE("atomic file: many writers of one name, one content each, agree on one winner") {
  const Directory directory;
  const std::string path = directory.file("race");
  std::vector<std::thread> threads;
  std::vector<PublishResult> results(8);
  for (std::size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      FilePieces pieces;
      fill(pieces, long_text(i % 2 == 0 ? 'a' : 'b'), 999);
      results[i] = publish(pieces, path, false);
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string winner = read(path);
  CHECK((winner == long_text('a') || winner == long_text('b')));
  std::size_t written = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    CHECK(read(results[i].path) == long_text(i % 2 == 0 ? 'a' : 'b'));
    if (results[i].status == Published::written) ++written;
  }
  CHECK(written == 1);
  CHECK(directory.entries() == 2);
}

TEST_CASE("atomic file: a staged file has no name until it is given one, and replaces nothing") {
  const Directory directory;
  const std::string path = directory.file("a.fits");
  FilePieces pieces;
  fill(pieces, "123456789", 2);
  FilePieces other;
  fill(other, "12345678X", 4);
  CHECK(compare(pieces, path) == Standing::free);
  {
    const StagedFile forgotten(pieces, path);
    CHECK(read(forgotten.readable_path()) == "123456789");
  }
  CHECK(directory.entries() == 0);
  StagedFile first(pieces, path);
  StagedFile second(other, path);
  CHECK(first.bytes() == 9);
  CHECK(first.crc32c() == 0xE3069283U);
  CHECK(first.adler32() == 0x091E01DEU);
  CHECK(first.commit());
  CHECK(first.readable_path().empty());
  CHECK_THROWS_AS(static_cast<void>(first.commit()), UsageError);
  CHECK_FALSE(second.commit());
  CHECK(read(path) == "123456789");
  CHECK(compare(pieces, path) == Standing::same);
  CHECK(compare(other, path) == Standing::other);
  fs::remove(path);
  CHECK(second.commit());
  CHECK(read(path) == "12345678X");
  CHECK(directory.entries() == 1);
  CHECK_THROWS_AS(StagedFile(pieces, directory.file("no/such/file")), IoError);
  CHECK_THROWS_AS(static_cast<void>(compare(pieces, directory.file("no/such/file"))), IoError);
}
