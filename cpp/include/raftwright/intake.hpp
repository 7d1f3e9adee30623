// The receiving side of the stream protocol without its sockets: chunks are checked and go into readouts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "raftwright/coverage.hpp"
#include "raftwright/readout.hpp"
#include "raftwright/stream_header.hpp"

namespace raftwright {

/// What happened that somebody has to decide about.
struct IntakeEvent {
  enum class Kind : std::uint8_t {
    end,      ///< END; text is its body, empty if that was damaged
    error,    ///< ERROR; text is its body, empty if that was damaged
    corrupt,  ///< the chunk [offset, offset + length) came damaged
    gap,      ///< numbers were left out in a pull's sequence; what is missing may still come
    refused,  ///< a message broke the protocol (told the first time); text says how, length is the fault
    failed,   ///< a readout did not take a chunk; text says why
  };
  Kind kind;
  std::uint64_t fetch = 0;
  std::uint64_t request = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::string text;
};

/// Counted since the start. Bytes are those of chunks' bodies.
struct IntakeCounters {
  std::uint64_t chunks = 0;     ///< used, at least in part
  std::uint64_t bytes = 0;      ///< that were new
  std::uint64_t duplicate = 0;  ///< chunks of which nothing was new
  std::uint64_t duplicate_bytes = 0;
  std::uint64_t corrupt = 0;    ///< messages whose body is not the one that the header was made for
  std::uint64_t stale = 0;      ///< messages of requests that are unknown or given up
  std::uint64_t malformed = 0;  ///< messages without a valid header
  std::uint64_t strange = 0;    ///< valid headers that do not fit: type, keys, range, sequence
  std::uint64_t lost = 0;       ///< messages that were waited for in vain
  std::uint64_t waits = 0;
};

/// The state of all fetches of one connection. A *fetch* is one source on its way into a readout; it has
/// one or more *pulls* (requests), each for a range of the stream. Nothing here waits, and times are those of
/// the caller (nanoseconds of a monotonic clock). Belongs to one thread.
class Intake {
 public:
  struct Keys {
    std::array<std::uint8_t, 8> image{};
    std::array<std::uint8_t, 4> source{};
  };
  struct Grant {
    std::uint64_t request;
    std::uint64_t bytes;
  };
  struct Progress {
    std::uint64_t received = 0;  ///< bytes, without those that the readout had before
    std::int64_t first_byte = 0;
    std::int64_t last_byte = 0;
    /// CRC-32C of the whole stream; none while something is missing or came by another way.
    std::optional<std::uint32_t> crc;
  };

  /// Begins a fetch. `window` is how many bytes may be granted and not yet received. Throws UsageError if
  /// there is one of that number, or no readout.
  void open(std::uint64_t fetch, std::shared_ptr<Readout> readout, const Keys& keys, std::uint64_t window);
  /// Forgets a fetch and its pulls.
  void close(std::uint64_t fetch);
  /// What came is forgotten, in the readout too; pulls are given up.
  void restart(std::uint64_t fetch);

  /// Enters a pull of [begin, end) and returns the credit to grant with it: what the window leaves, but not
  /// less than one chunk. Throws UsageError for a number that is in use, an unknown fetch or a bad range.
  std::uint64_t ask(std::uint64_t fetch, std::uint64_t request, std::uint64_t begin, std::uint64_t end,
                    std::uint64_t chunk, std::int64_t now);
  /// Forgets a pull; what comes of it is stale from now on.
  void give_up(std::uint64_t request);

  /// Takes a message. Never throws but for want of memory for an event.
  void take(std::span<const std::uint8_t> header, std::span<const std::uint8_t> body, std::int64_t now);
  /// Counts a message of which the frames were not two.
  void refuse_shape();

  /// Credit that is to be sent; asked for once.
  [[nodiscard]] std::vector<Grant> take_grants();
  /// Events since it was last asked.
  [[nodiscard]] std::vector<IntakeEvent> take_events();
  [[nodiscard]] bool has_events() const noexcept { return !events_.empty(); }
  [[nodiscard]] bool has_grants() const noexcept { return !grants_.empty(); }

  /// Numbers left out in a pull's sequence so far.
  [[nodiscard]] std::size_t missing(std::uint64_t request) const;
  /// Does not wait for them any longer: counts them as lost, gives `bytes` of credit back to the fetch, and
  /// returns how many they were.
  std::size_t write_off(std::uint64_t request, std::uint64_t bytes);

  [[nodiscard]] Progress progress(std::uint64_t fetch) const;
  /// Parts of [begin, end) that did not come, in order.
  [[nodiscard]] std::vector<Interval> uncovered(std::uint64_t fetch, std::uint64_t begin,
                                                std::uint64_t end) const;
  /// Pulls from which nothing was heard since a time, those asked since then left out.
  [[nodiscard]] std::vector<std::uint64_t> silent(std::int64_t since) const;
  /// Bytes granted and not received, of all fetches.
  [[nodiscard]] std::uint64_t outstanding() const;
  [[nodiscard]] const IntakeCounters& counters() const noexcept { return counters_; }
  /// The session in the last valid message; 0 before.
  [[nodiscard]] std::uint32_t session() const noexcept { return session_; }

 private:
  struct Piece {
    std::uint64_t end;
    std::uint32_t crc;
  };
  struct Fetch {
    std::shared_ptr<Readout> readout;
    Keys keys;
    std::uint64_t window = 0;
    Coverage coverage;
    std::map<std::uint64_t, Piece> pieces;  // by their begin; neighbours are joined
    std::uint64_t received = 0;
    std::int64_t first_byte = 0;
    std::int64_t last_byte = 0;
    std::vector<std::uint64_t> requests;  // in the order in which they were asked
  };
  struct Pull {
    std::uint64_t fetch;
    std::uint64_t begin;
    std::uint64_t end;
    std::uint64_t granted;
    std::uint64_t settled;  // received or written off
    std::uint64_t next_sequence;
    std::set<std::uint64_t> missing;
    std::int64_t heard;
  };

  void refuse(std::uint64_t& counter, std::uint64_t fault, const char* text);
  [[nodiscard]] bool number(Pull& pull, std::uint64_t request, std::uint64_t sequence);
  void take_chunk(Pull& pull, const StreamHeader& header, std::span<const std::uint8_t> body,
                  std::int64_t now);
  void use(Fetch& fetch, std::uint64_t offset, std::span<const std::uint8_t> body, std::uint32_t crc);
  void grant(const Fetch& fetch);
  [[nodiscard]] static std::uint64_t open_credit(const Pull& pull) noexcept;
  [[nodiscard]] std::uint64_t open_credit(const Fetch& fetch) const;
  [[nodiscard]] Fetch& fetch_of(std::uint64_t fetch);
  [[nodiscard]] const Fetch& fetch_of(std::uint64_t fetch) const;

  std::unordered_map<std::uint64_t, Fetch> fetches_;
  std::unordered_map<std::uint64_t, Pull> pulls_;
  std::vector<IntakeEvent> events_;
  std::vector<Grant> grants_;
  IntakeCounters counters_;
  std::uint32_t session_ = 0;
};

}  // namespace raftwright
