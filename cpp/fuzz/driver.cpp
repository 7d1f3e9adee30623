// A fuzz driver for compilers without libFuzzer: mutates corpus files from a seed, keeps inputs that reach
// new code, and on a crash writes down the input that did it.
//
//   fuzz_NAME [--seconds S] [--iterations N] [--seed N] [--max-bytes N] [--artifacts DIR] FILE|DIRECTORY...
//
// The corpus runs first, unchanged; with --iterations 0 nothing else does, which replays a crash. A run with
// --iterations is the same every time; one with --seconds ends by the clock.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "edges.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Present when a sanitizer is linked in.
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());

// Options that the environment may override: an allocation of absurd size is a finding, not a wait.
extern "C" [[gnu::visibility("default")]] const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "max_allocation_size_mb=1024:detect_stack_use_after_return=1:strict_string_checks=1";
}
extern "C" [[gnu::visibility("default")]] const char* __ubsan_default_options();
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr unsigned seconds_an_input = 10;

struct Options {
  double seconds = 0;
  std::uint64_t iterations = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t seed = 1;
  std::size_t max_bytes = 1U << 16U;
  std::string artifacts = ".";
  std::vector<std::filesystem::path> corpus;
};

// What the crash handlers need; they may not allocate.
const std::uint8_t* running_data = nullptr;
std::size_t running_size = 0;
std::array<char, 4096> artifact_path{};

void keep_running_input() noexcept {
  if (running_data == nullptr) return;
  const std::uint8_t* data = running_data;
  running_data = nullptr;
  const int fd = ::open(artifact_path.data(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  std::size_t done = 0;
  while (done < running_size) {
    const auto wrote = ::write(fd, data + done, running_size - done);
    if (wrote <= 0) break;
    done += static_cast<std::size_t>(wrote);
  }
  ::close(fd);
  std::fprintf(stderr, "\nfuzz: input of %zu bytes kept as %s; replay it with --iterations 0\n", running_size,
               artifact_path.data());
}

extern "C" void on_death() { keep_running_input(); }

extern "C" void on_alarm(int) {
  constexpr std::string_view text = "\nfuzz: one input took longer than ten seconds\n";
  [[maybe_unused]] const auto wrote = ::write(STDERR_FILENO, text.data(), text.size());
  keep_running_input();
  std::_Exit(70);
}

extern "C" void on_abort(int) {
  keep_running_input();
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

void run(const Bytes& input) {
  // A copy of the exact size, so that one byte too far is seen.
  const Bytes exact(input.begin(), input.end());
  running_size = exact.size();
  running_data = exact.empty() ? reinterpret_cast<const std::uint8_t*>("") : exact.data();
  ::alarm(seconds_an_input);
  LLVMFuzzerTestOneInput(running_data, running_size);
  ::alarm(0);
  running_data = nullptr;
}

// --- coverage ----------------------------------------------------------------------------------------

// Counts in classes (1, 2, 3, 4-7, 8-15, ...): twice as often is news, once more is not.
std::uint8_t count_class(std::uint8_t count) noexcept {
  if (count < 4) return static_cast<std::uint8_t>(count == 0 ? 0U : 1U << (count - 1U));
  if (count < 8) return 8;
  if (count < 16) return 16;
  if (count < 32) return 32;
  return count < 128 ? 64 : 128;
}

class SeenEdges {
 public:
  static void reset() {
    for (auto& hit : raftwright::fuzz::edges().hits) hit.store(0, std::memory_order_relaxed);
  }
  /// Whether the run since reset() took an edge, or a number of times, not seen before.
  bool learn() {
    bool fresh = false;
    const auto& hits = raftwright::fuzz::edges().hits;
    for (std::size_t i = 0; i < hits.size(); ++i) {
      const std::uint8_t bits = count_class(hits[i].load(std::memory_order_relaxed));
      if ((bits & ~seen_[i]) == 0) continue;
      if (seen_[i] == 0) ++edges_;
      seen_[i] = static_cast<std::uint8_t>(seen_[i] | bits);
      fresh = true;
    }
    return fresh;
  }
  [[nodiscard]] std::size_t edges() const noexcept { return edges_; }

 private:
  std::vector<std::uint8_t> seen_ = std::vector<std::uint8_t>(raftwright::fuzz::edge_slots, 0);
  std::size_t edges_ = 0;
};

// --- mutation ----------------------------------------------------------------------------------------

class Mutator {
 public:
  Mutator(std::uint64_t seed, std::size_t max_bytes) : random_(seed), max_bytes_(max_bytes) {}

  std::size_t below(std::size_t limit) {
    return limit == 0 ? 0 : static_cast<std::size_t>(random_() % limit);
  }

  void mutate(Bytes& input, const std::vector<Bytes>& corpus) {
    const std::size_t rounds = std::size_t{1} << below(5);
    for (std::size_t i = 0; i < rounds; ++i) once(input, corpus);
    if (input.size() > max_bytes_) input.resize(max_bytes_);
  }

 private:
  void once(Bytes& input, const std::vector<Bytes>& corpus) {
    switch (below(10)) {
      case 0:
        if (!input.empty()) input[below(input.size())] ^= static_cast<std::uint8_t>(1U << below(8));
        return;
      case 1:
        if (!input.empty()) input[below(input.size())] = static_cast<std::uint8_t>(random_());
        return;
      case 2:
        return erase(input);
      case 3:
        return insert(input, random_bytes(1 + below(16)));
      case 4:
        return duplicate(input);
      case 5:
        return overwrite(input, integer(interesting_[below(interesting_.size())]));
      case 6:
        return overwrite(input, integer(compared()));
      case 7:
        return insert(input, integer(compared()));
      case 8:
        return splice(input, corpus);
      default:
        return digit(input);
    }
  }

  Bytes random_bytes(std::size_t count) {
    Bytes bytes(count);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random_());
    return bytes;
  }

  std::uint64_t compared() {
    const auto& from = raftwright::fuzz::edges();
    const std::uint32_t known = std::min<std::uint32_t>(from.comparisons.load(std::memory_order_relaxed),
                                                        raftwright::fuzz::constant_slots);
    if (known == 0) return random_();
    return from.compared[below(known)].load(std::memory_order_relaxed) + below(3) - 1;
  }

  // As 1, 2, 4 or 8 bytes in either order.
  Bytes integer(std::uint64_t value) {
    Bytes bytes(std::size_t{1} << below(4));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(value >> (8 * i));
    if (below(2) == 0) std::reverse(bytes.begin(), bytes.end());
    return bytes;
  }

  void overwrite(Bytes& input, const Bytes& bytes) {
    if (input.size() < bytes.size()) return insert(input, bytes);
    std::copy(bytes.begin(), bytes.end(),
              input.begin() + static_cast<std::ptrdiff_t>(below(input.size() - bytes.size() + 1)));
  }

  void insert(Bytes& input, const Bytes& bytes) {
    input.insert(input.begin() + static_cast<std::ptrdiff_t>(below(input.size() + 1)), bytes.begin(),
                 bytes.end());
  }

  void erase(Bytes& input) {
    if (input.empty()) return;
    const std::size_t first = below(input.size());
    const std::size_t most =
        below(4) == 0 ? input.size() - first : std::min<std::size_t>(16, input.size() - first);
    const auto begin = input.begin() + static_cast<std::ptrdiff_t>(first);
    input.erase(begin, begin + static_cast<std::ptrdiff_t>(1 + below(most)));
  }

  void duplicate(Bytes& input) {
    if (input.empty()) return;
    const std::size_t first = below(input.size());
    const std::size_t count = 1 + below(std::min<std::size_t>(256, input.size() - first));
    const auto begin = input.begin() + static_cast<std::ptrdiff_t>(first);
    const Bytes piece(begin, begin + static_cast<std::ptrdiff_t>(count));
    insert(input, piece);
  }

  void splice(Bytes& input, const std::vector<Bytes>& corpus) {
    const Bytes& other = corpus[below(corpus.size())];
    if (other.empty()) return;
    input.resize(below(input.size() + 1));
    const auto from = other.begin() + static_cast<std::ptrdiff_t>(below(other.size()));
    input.insert(input.end(), from, other.end());
  }

  // Text formats: another number where one stands.
  void digit(Bytes& input) {
    if (input.empty()) return;
    const std::size_t start = below(input.size());
    for (std::size_t i = 0; i < std::min<std::size_t>(input.size(), 4096); ++i) {
      auto& byte = input[(start + i) % input.size()];
      if (byte < '0' || byte > '9') continue;
      byte = static_cast<std::uint8_t>("0123456789-.E "[below(14)]);
      return;
    }
  }

  static constexpr std::array<std::uint64_t, 20> interesting_{0,
                                                              1,
                                                              2,
                                                              0x7F,
                                                              0x80,
                                                              0xFF,
                                                              0x100,
                                                              0x7FFF,
                                                              0x8000,
                                                              0xFFFF,
                                                              0x10000,
                                                              0x7FFFFFFF,
                                                              0x80000000,
                                                              0xFFFFFFFF,
                                                              0x100000000,
                                                              0x7FFFFFFFFFFFFFFF,
                                                              0x8000000000000000,
                                                              0xFFFFFFFFFFFFFFFF,
                                                              2880,
                                                              80};

  std::mt19937_64 random_;
  std::size_t max_bytes_;
};

// --- command line ------------------------------------------------------------------------------------

template <class Number>
Number number(std::string_view option, std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    std::fprintf(stderr, "fuzz: %.*s wants a number, not '%.*s'\n", static_cast<int>(option.size()),
                 option.data(), static_cast<int>(text.size()), text.data());
    std::exit(64);
  }
  return value;
}

Options parse(const std::vector<std::string_view>& arguments) {
  Options options;
  bool bounded = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view name = arguments[i];
    if (!name.starts_with("--")) {
      options.corpus.emplace_back(name);
      continue;
    }
    if (i + 1 == arguments.size()) {
      std::fprintf(stderr, "fuzz: %.*s wants a value\n", static_cast<int>(name.size()), name.data());
      std::exit(64);
    }
    const std::string_view value = arguments[++i];
    if (name == "--seconds") {
      options.seconds = number<double>(name, value);
      bounded = true;
    } else if (name == "--iterations") {
      options.iterations = number<std::uint64_t>(name, value);
      bounded = true;
    } else if (name == "--seed") {
      options.seed = number<std::uint64_t>(name, value);
    } else if (name == "--max-bytes") {
      options.max_bytes = number<std::size_t>(name, value);
    } else if (name == "--artifacts") {
      options.artifacts = value;
    } else {
      std::fprintf(stderr, "fuzz: there is no option %.*s\n", static_cast<int>(name.size()), name.data());
      std::exit(64);
    }
  }
  if (!bounded) options.seconds = 10;
  return options;
}

std::vector<Bytes> read_corpus(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (std::filesystem::is_directory(path)) {
      for (const auto& entry : std::filesystem::directory_iterator(path)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
      }
    } else {
      files.push_back(path);
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> corpus;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "fuzz: cannot read %s\n", file.c_str());
      std::exit(66);
    }
    corpus.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return corpus;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse({argv + 1, argv + argc});
  const std::string path = options.artifacts + "/crash-" +
                           std::filesystem::path(argv[0]).filename().string() + "-" +
                           std::to_string(options.seed);
  if (path.size() >= artifact_path.size()) {
    std::fprintf(stderr, "fuzz: the name of --artifacts is too long\n");
    return 64;
  }
  std::copy(path.begin(), path.end(), artifact_path.begin());
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(on_death);
  std::signal(SIGALRM, on_alarm);
  std::signal(SIGABRT, on_abort);

  std::vector<Bytes> corpus = read_corpus(options.corpus);
  const std::size_t given = corpus.size();
  SeenEdges seen;
  for (const auto& input : corpus) {
    SeenEdges::reset();
    run(input);
    seen.learn();
  }
  if (corpus.empty()) corpus.emplace_back();

  Mutator mutator(options.seed, options.max_bytes);
  const auto start = Clock::now();
  std::uint64_t iteration = 0;
  constexpr std::size_t most_kept = 4096;
  for (; iteration < options.iterations; ++iteration) {
    if (options.seconds > 0 && std::chrono::duration<double>(Clock::now() - start).count() > options.seconds)
      break;
    Bytes input = corpus[mutator.below(corpus.size())];
    mutator.mutate(input, corpus);
    SeenEdges::reset();
    run(input);
    if (seen.learn() && corpus.size() < most_kept) corpus.push_back(std::move(input));
  }
  std::printf(
      "fuzz: seed %llu, %zu corpus files, %llu mutated inputs, %zu edges, %zu inputs kept, no crash\n",
      static_cast<unsigned long long>(options.seed), given, static_cast<unsigned long long>(iteration),
      seen.edges(), corpus.size());
  return 0;
}
