// Messages of a server that is honest, damaged or hostile, as the input says: what is used is always right.
#include <algorithm>
#include <memory>
#include <vector>

#include "fuzz_input.hpp"
#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "raftwright/intake.hpp"

using namespace raftwright;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr std::uint64_t kFetch = 1;
constexpr std::uint64_t kWindow = 256;

class Script {
 public:
  Script(Input& input, std::size_t width, std::size_t height)
      : input_(input),
        readout_(std::make_shared<Readout>(StreamLayout(16, 0, {0, 1}), width, height, Products{})),
        stream_(readout_->size()),
        came_(stream_.size(), false) {
    for (std::size_t i = 0; i < stream_.size(); ++i) stream_[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    intake_.open(kFetch, readout_, keys_, kWindow);
  }

  void step() {
    switch (input_.byte() % 12U) {
      case 0:
        ask();
        return;
      case 1:
        intake_.give_up(number());
        return;
      case 2:
        write_off();
        return;
      case 3:
        noise();
        return;
      case 4:
        damaged_header();
        return;
      case 5:
        require(intake_.uncovered(kFetch, input_.word(), input_.word()).size() <= stream_.size(),
                "gaps are within the stream");
        return;
      default:
        message();
    }
  }

  void check() {
    const auto count = static_cast<std::uint64_t>(std::count(came_.begin(), came_.end(), true));
    require(readout_->received() == count, "the readout has what was sent undamaged");
    require(intake_.progress(kFetch).received == count, "what is said to have come came");
    require(intake_.counters().bytes == count, "every byte is counted once");
    const bool whole = count == stream_.size();
    const auto crc = intake_.progress(kFetch).crc;
    require(crc.has_value() == whole, "the CRC is known when all came");
    require(!whole || *crc == crc32c(stream_), "the CRC is that of the stream");
    require(intake_.uncovered(kFetch, 0, stream_.size()).empty() == whole, "gaps are what did not come");
  }

 private:
  std::uint64_t number() { return input_.byte() % 8U; }

  void ask() {
    const std::uint64_t begin = input_.below(stream_.size() + 4);
    const std::uint64_t end = input_.below(stream_.size() + 4);
    const std::uint64_t request = number();
    try {
      const std::uint64_t credit = intake_.ask(kFetch, request, begin, end, 64, 0);
      require(credit <= std::max(kWindow, std::uint64_t{64}), "credit is bounded");
      require(credit <= end - begin, "no more credit than can be used");
      require(begin <= end && end <= stream_.size(), "a bad range is refused");
    } catch (const UsageError&) {
    }
  }

  void write_off() {
    const std::uint64_t request = number();
    const std::size_t missing = intake_.missing(request);
    require(intake_.write_off(request, input_.byte()) == missing, "what is missing is written off");
    require(intake_.missing(request) == 0, "and then no longer missing");
  }

  void noise() {
    std::vector<std::uint8_t> frame(input_.byte() % 70U);
    for (auto& byte : frame) byte = input_.byte();
    intake_.take(frame, frame, 0);
  }

  StreamHeader header() {
    StreamHeader header;
    header.type = static_cast<StreamType>(input_.byte() % 20U);
    if (input_.byte() % 4U != 0) header.type = StreamType::chunk;
    header.request = number();
    header.sequence = input_.byte() % 16U == 0 ? ~std::uint64_t{0} - input_.byte() : input_.byte() % 32U;
    header.offset = input_.below(stream_.size() + 4);
    header.length = input_.byte();
    if (input_.byte() % 16U == 0) header.length = ~header.length;
    if (input_.byte() % 16U == 0) header.image_key[0] = 1;
    return header;
  }

  void damaged_header() {
    auto frame = write_stream_header(header());
    frame[input_.byte() % frame.size()] ^= static_cast<std::uint8_t>(input_.byte() | 1U);
    const std::uint64_t before = intake_.counters().malformed;
    intake_.take(frame, {}, 0);
    require(intake_.counters().malformed == before + 1, "a damaged header is refused");
  }

  void message() {
    StreamHeader sent = header();
    std::size_t length = sent.length < 256 ? static_cast<std::size_t>(sent.length) : 0;
    std::vector<std::uint8_t> body(length);
    for (std::size_t i = 0; i < length && sent.offset + i < stream_.size(); ++i)
      body[i] = stream_[sent.offset + i];
    sent.body_crc = crc32c(body);
    const unsigned damage = input_.byte();
    if (damage % 8U == 0 && !body.empty()) body[damage % body.size()] ^= 0x10U;
    if (damage % 8U == 1) body.push_back(0);
    static_cast<void>(intake_.take_events());
    const std::uint64_t before = intake_.counters().bytes;
    const auto frame = write_stream_header(sent);
    intake_.take(frame, body, 0);
    const std::uint64_t fresh = intake_.counters().bytes - before;
    if (fresh > 0) {
      require(damage % 8U > 1, "nothing damaged is used");
      for (std::size_t i = 0; i < length; ++i) came_[sent.offset + i] = true;
    }
    require(intake_.take_events().size() <= 2, "a message tells little");
    for (const Intake::Grant& grant : intake_.take_grants()) {
      require(grant.bytes > 0 && grant.bytes <= kWindow, "grants are within the window");
    }
  }

  Input& input_;
  std::shared_ptr<Readout> readout_;
  std::vector<std::uint8_t> stream_;
  std::vector<bool> came_;
  Intake::Keys keys_;
  Intake intake_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const std::size_t width = 1 + input.byte() % 20U;
  const std::size_t height = 1 + input.byte() % 12U;
  Script script(input, width, height);
  for (unsigned steps = 0; steps < 200 && !input.empty(); ++steps) script.step();
  script.check();
  return 0;
}
