// Headers of the stream protocol (docs/protocol.md): 64 bytes before the body of every message.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace raftwright {

inline constexpr std::size_t kStreamHeaderBytes = 64;
inline constexpr std::uint8_t kStreamVersion = 1;

enum class StreamType : std::uint8_t {
  hello = 1,
  welcome,
  error,
  query,
  reply,
  pull,
  chunk,
  credit,
  cancel,
  wait,
  end,
  ping,
  pong,
  notice,
};

/// The fields of a header; those without meaning for a type are 0.
struct StreamHeader {
  StreamType type = StreamType::hello;
  std::uint16_t flags = 0;
  std::uint64_t request = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::array<std::uint8_t, 8> image_key{};
  std::array<std::uint8_t, 4> source_key{};
  std::uint32_t body_crc = 0;
  std::uint64_t sequence = 0;
  std::uint32_t session = 0;
  friend bool operator==(const StreamHeader&, const StreamHeader&) = default;
};

/// What is wrong with a header, in the order in which the protocol has it checked.
enum class HeaderFault : std::uint8_t { none, size, magic, checksum, version, type };

/// Reads a header. `header` is only changed when there is no fault.
[[nodiscard]] HeaderFault read_stream_header(std::span<const std::uint8_t> frame,
                                             StreamHeader& header) noexcept;
[[nodiscard]] std::array<std::uint8_t, kStreamHeaderBytes> write_stream_header(
    const StreamHeader& header) noexcept;
/// A few words for people.
[[nodiscard]] const char* fault_text(HeaderFault fault) noexcept;

}  // namespace raftwright
