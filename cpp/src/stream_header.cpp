#include "raftwright/stream_header.hpp"

#include <algorithm>

#include "raftwright/checksum.hpp"

namespace raftwright {

namespace {

constexpr std::array<std::uint8_t, 4> kMagic = {'R', 'W', 'S', 'T'};
constexpr std::size_t kSummed = 60;  // the header's own CRC follows

template <typename T>
T load(const std::uint8_t* bytes) noexcept {
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) value = static_cast<T>(value << 8U | bytes[i]);
  return value;
}

template <typename T>
void store(std::uint8_t* bytes, T value) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

}  // namespace

HeaderFault read_stream_header(std::span<const std::uint8_t> frame, StreamHeader& header) noexcept {
  if (frame.size() != kStreamHeaderBytes) return HeaderFault::size;
  if (!std::equal(kMagic.begin(), kMagic.end(), frame.begin())) return HeaderFault::magic;
  const std::uint8_t* bytes = frame.data();
  if (crc32c(frame.first(kSummed)) != load<std::uint32_t>(bytes + kSummed)) return HeaderFault::checksum;
  if (bytes[4] != kStreamVersion) return HeaderFault::version;
  if (bytes[5] < static_cast<std::uint8_t>(StreamType::hello) ||
      bytes[5] > static_cast<std::uint8_t>(StreamType::notice)) {
    return HeaderFault::type;
  }
  header.type = static_cast<StreamType>(bytes[5]);
  header.flags = static_cast<std::uint16_t>(bytes[6] | bytes[7] << 8U);
  header.request = load<std::uint64_t>(bytes + 8);
  header.offset = load<std::uint64_t>(bytes + 16);
  header.length = load<std::uint64_t>(bytes + 24);
  std::copy_n(bytes + 32, header.image_key.size(), header.image_key.begin());
  std::copy_n(bytes + 40, header.source_key.size(), header.source_key.begin());
  header.body_crc = load<std::uint32_t>(bytes + 44);
  header.sequence = load<std::uint64_t>(bytes + 48);
  header.session = load<std::uint32_t>(bytes + 56);
  return HeaderFault::none;
}

std::array<std::uint8_t, kStreamHeaderBytes> write_stream_header(const StreamHeader& header) noexcept {
  std::array<std::uint8_t, kStreamHeaderBytes> frame{};
  std::uint8_t* bytes = frame.data();
  std::copy(kMagic.begin(), kMagic.end(), bytes);
  bytes[4] = kStreamVersion;
  bytes[5] = static_cast<std::uint8_t>(header.type);
  bytes[6] = static_cast<std::uint8_t>(header.flags);
  bytes[7] = static_cast<std::uint8_t>(header.flags >> 8U);
  store(bytes + 8, header.request);
  store(bytes + 16, header.offset);
  store(bytes + 24, header.length);
  std::copy(header.image_key.begin(), header.image_key.end(), bytes + 32);
  std::copy(header.source_key.begin(), header.source_key.end(), bytes + 40);
  store(bytes + 44, header.body_crc);
  store(bytes + 48, header.sequence);
  store(bytes + 56, header.session);
  store(bytes + kSummed, crc32c(std::span<const std::uint8_t>(frame).first(kSummed)));
  return frame;
}

const char* fault_text(HeaderFault fault) noexcept {
  switch (fault) {
    case HeaderFault::none:
      return "no fault";
    case HeaderFault::size:
      return "a message of another shape than header and body";
    case HeaderFault::magic:
      return "a header that does not begin with RWST";
    case HeaderFault::checksum:
      return "a header whose CRC-32C is another";
    case HeaderFault::version:
      return "a header of another version of the protocol";
    case HeaderFault::type:
      return "a message of an unknown type";
  }
  return "an unknown fault";
}

}  // namespace raftwright
