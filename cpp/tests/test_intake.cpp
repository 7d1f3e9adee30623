#include "raftwright/intake.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "doctest.h"
#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "raftwright/unpack.hpp"

using namespace raftwright;

namespace {

constexpr std::uint64_t kFetch = 5;

/// A server of one stream, as far as an intake can tell.
struct Server {
  Server() : layout(16, 0, {0, 1}), stream(kWidth * kHeight * 4) {
    std::mt19937 random(9);
    for (auto& byte : stream) byte = static_cast<std::uint8_t>(random());
    readout = std::make_shared<Readout>(layout, kWidth, kHeight, Products{});
    keys.image.fill(3);
    keys.source.fill(4);
  }

  [[nodiscard]] StreamHeader header(StreamType type, std::uint64_t request, std::uint64_t sequence) const {
    StreamHeader header;
    header.type = type;
    header.request = request;
    header.sequence = sequence;
    header.image_key = keys.image;
    header.source_key = keys.source;
    header.session = 77;
    return header;
  }
  void send(StreamHeader header, std::span<const std::uint8_t> body, std::int64_t now = 1) {
    header.body_crc = crc32c(body);
    intake.take(write_stream_header(header), body, now);
  }
  void chunk(std::uint64_t request, std::uint64_t sequence, std::uint64_t begin, std::uint64_t end,
             std::int64_t now = 1) {
    StreamHeader sent = header(StreamType::chunk, request, sequence);
    sent.offset = begin;
    sent.length = end - begin;
    send(sent, std::span(stream).subspan(begin, end - begin), now);
  }
  void open(std::uint64_t window = 1 << 20) { intake.open(kFetch, readout, keys, window); }
  void check_pixels() {
    REQUIRE(readout->complete());
    std::vector<std::vector<std::int32_t>> planes(2, std::vector<std::int32_t>(kWidth * kHeight));
    std::vector<std::int32_t*> rows = {planes[0].data(), planes[1].data()};
    unpack_reference(layout, stream, rows);
    for (std::size_t plane = 0; plane < 2; ++plane) {
      CHECK(std::equal(planes[plane].begin(), planes[plane].end(), readout->planes().plane(plane)));
    }
  }

  static constexpr std::size_t kWidth = 25;
  static constexpr std::size_t kHeight = 40;
  StreamLayout layout;
  std::vector<std::uint8_t> stream;
  std::shared_ptr<Readout> readout;
  Intake::Keys keys;
  Intake intake;
};

}  // namespace

TEST_CASE("stream header: written and read, every damage is seen") {
  StreamHeader header;
  header.type = StreamType::chunk;
  header.flags = 0x1234;
  header.request = 0x1122334455667788U;
  header.offset = 1;
  header.length = ~std::uint64_t{0};
  header.image_key = {1, 2, 3, 4, 5, 6, 7, 8};
  header.source_key = {9, 10, 11, 12};
  header.body_crc = 0xDEADBEEF;
  header.sequence = 42;
  header.session = 0x80000001;
  const auto frame = write_stream_header(header);
  CHECK(frame[0] == 'R');
  CHECK(frame[8] == 0x88);  // little-endian
  StreamHeader read;
  REQUIRE(read_stream_header(frame, read) == HeaderFault::none);
  CHECK(read == header);
  for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
    auto damaged = frame;
    damaged[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    const HeaderFault fault = read_stream_header(damaged, read);
    CHECK(fault == (bit < 32 ? HeaderFault::magic : HeaderFault::checksum));
  }
  CHECK(read == header);
  CHECK(read_stream_header(std::span(frame).first(63), read) == HeaderFault::size);
  CHECK(read_stream_header({}, read) == HeaderFault::size);
  const auto with = [&](std::size_t place, std::uint8_t value) {
    auto changed = frame;
    changed[place] = value;
    const std::uint32_t crc = crc32c(std::span(changed).first(60));
    for (std::size_t i = 0; i < 4; ++i) changed[60 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
    return read_stream_header(changed, read);
  };
  CHECK(with(4, 2) == HeaderFault::version);
  CHECK(with(5, 0) == HeaderFault::type);
  CHECK(with(5, 15) == HeaderFault::type);
  CHECK(with(5, 14) == HeaderFault::none);
  for (int fault = 0; fault < 8; ++fault) CHECK(fault_text(static_cast<HeaderFault>(fault)) != nullptr);
}

TEST_CASE("intake: chunks in any order become pixels, and their CRCs that of the stream") {
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    Server server;
    server.open();
    const std::uint64_t size = server.stream.size();
    CHECK(server.intake.ask(kFetch, 1, 0, size, 100, 0) == size);
    std::vector<std::uint64_t> borders = {0, size};
    for (int i = 0; i < 30; ++i) borders.push_back(random() % size);
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    std::vector<std::size_t> order(borders.size() - 1);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) {
      CHECK_FALSE(server.intake.progress(kFetch).crc.has_value());
      server.chunk(1, i, borders[i], borders[i + 1], static_cast<std::int64_t>(10 + i));
    }
    const Intake::Progress progress = server.intake.progress(kFetch);
    CHECK(progress.received == size);
    REQUIRE(progress.crc.has_value());
    CHECK(*progress.crc == crc32c(server.stream));
    CHECK(server.intake.counters().chunks == order.size());
    CHECK(server.intake.missing(1) == 0);
    CHECK(server.intake.session() == 77);
    server.check_pixels();
  }
}

TEST_CASE("intake: what came twice or in part is used once") {
  Server server;
  server.open();
  const std::uint64_t size = server.stream.size();
  server.intake.ask(kFetch, 1, 0, size, 100, 0);
  server.intake.ask(kFetch, 2, 0, size, 100, 0);
  server.chunk(1, 0, 0, 1000);
  server.chunk(1, 0, 0, 1000);     // the same message
  server.chunk(2, 0, 0, 1000);     // the same bytes
  server.chunk(2, 1, 500, 2500);   // half of them
  server.chunk(2, 2, 2000, size);  // some of them
  CHECK(server.intake.counters().duplicate == 2);
  CHECK(server.intake.counters().chunks == 3);
  CHECK(server.intake.counters().bytes == size);
  CHECK(server.readout->duplicate() == 0);
  CHECK(server.intake.progress(kFetch).crc == crc32c(server.stream));
  server.check_pixels();
}

TEST_CASE("intake: damaged and strange messages change nothing, and are told") {
  Server server;
  server.open();
  const std::uint64_t size = server.stream.size();
  server.intake.ask(kFetch, 1, 100, size, 100, 0);
  StreamHeader good = server.header(StreamType::chunk, 1, 0);
  good.offset = 100;
  good.length = 200;
  good.body_crc = crc32c(std::span(server.stream).subspan(100, 200));
  const auto body = std::span<const std::uint8_t>(server.stream).subspan(100, 200);

  server.intake.take(write_stream_header(good), std::span<const std::uint8_t>(server.stream).first(200), 1);
  auto events = server.intake.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == IntakeEvent::Kind::corrupt);
  CHECK(events[0].offset == 100);
  CHECK(events[0].length == 200);

  const auto strange = [&](auto change) {
    StreamHeader changed = good;
    changed.sequence = 1;
    change(changed);
    server.intake.take(write_stream_header(changed), body, 1);
  };
  strange([](StreamHeader& h) { h.image_key[0] ^= 1; });
  CHECK(server.intake.take_events().size() == 1);  // told once
  strange([](StreamHeader& h) { h.source_key[0] ^= 1; });
  strange([](StreamHeader& h) { h.offset = 99; });
  strange([&](StreamHeader& h) { h.offset = size; });
  strange([](StreamHeader& h) { h.offset = ~std::uint64_t{0}; });
  strange([](StreamHeader& h) { h.length = ~std::uint64_t{0}; });
  strange([](StreamHeader& h) { h.length = 0; });
  strange([](StreamHeader& h) { h.type = StreamType::pull; });
  strange([](StreamHeader& h) { h.sequence = ~std::uint64_t{0}; });
  strange([](StreamHeader& h) { h.sequence = 1 << 20; });
  CHECK(server.intake.counters().strange == 10);
  strange([](StreamHeader& h) { h.request = 2; });
  CHECK(server.intake.counters().stale == 1);
  server.intake.take({}, body, 1);
  server.intake.refuse_shape();
  CHECK(server.intake.counters().malformed == 2);
  events = server.intake.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == IntakeEvent::Kind::refused);
  CHECK(server.intake.counters().bytes == 0);
  CHECK(server.readout->received() == 0);

  strange([](StreamHeader& h) { h.length = 201; });  // the body is another: corrupt, not strange
  CHECK(server.intake.counters().corrupt == 2);
  server.readout->finish(-1);
  good.sequence = 2;
  static_cast<void>(server.intake.take_events());
  server.intake.take(write_stream_header(good), body, 1);
  events = server.intake.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == IntakeEvent::Kind::failed);
  CHECK(events[0].text.find("finished") != std::string::npos);
}

TEST_CASE("intake: another version is told every time") {
  Server server;
  auto frame = write_stream_header(server.header(StreamType::chunk, 1, 0));
  frame[4] = 9;
  const std::uint32_t crc = crc32c(std::span(frame).first(60));
  for (std::size_t i = 0; i < 4; ++i) frame[60 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
  for (int i = 0; i < 2; ++i) server.intake.take(frame, {}, 1);
  const auto events = server.intake.take_events();
  REQUIRE(events.size() == 2);
  CHECK(events[1].length == static_cast<std::uint64_t>(HeaderFault::version));
  CHECK(events[1].text == "version 9");
}

TEST_CASE("intake: credit is granted as chunks come, never more than the window") {
  Server server;
  server.open(1000);
  const std::uint64_t size = server.stream.size();
  CHECK(server.intake.ask(kFetch, 1, 0, size, 100, 0) == 1000);
  std::uint64_t granted = 1000;
  std::uint64_t sequence = 0;
  for (std::uint64_t at = 0; at < size; at += 100) {
    REQUIRE(granted >= 100);
    granted -= 100;
    server.chunk(1, sequence++, at, at + 100);
    for (const Intake::Grant& grant : server.intake.take_grants()) {
      CHECK(grant.request == 1);
      CHECK((grant.bytes >= 250 || at + 1000 >= size));
      granted += grant.bytes;
    }
    CHECK(granted <= 1000);
    CHECK(server.intake.outstanding() == granted);
  }
  CHECK(granted == 0);  // all was sent: none is left over
  server.check_pixels();
}

TEST_CASE("intake: numbers that are left out are told, waited for, and written off") {
  Server server;
  server.open(1000);
  server.intake.ask(kFetch, 1, 0, 2000, 100, 0);
  server.chunk(1, 0, 0, 100);
  server.chunk(1, 3, 300, 400);
  auto events = server.intake.take_events();
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == IntakeEvent::Kind::gap);
  CHECK(events[0].request == 1);
  CHECK(server.intake.missing(1) == 2);
  server.chunk(1, 2, 200, 300);  // late
  CHECK(server.intake.missing(1) == 1);
  CHECK(server.intake.take_events().empty());
  CHECK(server.intake.outstanding() == 1000);  // 300 came and were granted anew
  static_cast<void>(server.intake.take_grants());
  CHECK(server.intake.uncovered(kFetch, 0, 400) == std::vector<Interval>{{100, 200}});
  CHECK(server.intake.write_off(1, 100) == 1);
  CHECK(server.intake.missing(1) == 0);
  CHECK(server.intake.counters().lost == 1);
  CHECK(server.intake.ask(kFetch, 2, 100, 200, 100, 0) == 100);
  server.chunk(1, 1, 100, 200);  // so late that it counts as a duplicate of its number
  CHECK(server.intake.uncovered(kFetch, 100, 200).size() == 1);
  server.chunk(2, 0, 100, 200);
  CHECK(server.intake.uncovered(kFetch, 0, 400).empty());
}

TEST_CASE("intake: END, ERROR and WAIT; silence; giving up") {
  Server server;
  server.open();
  server.intake.ask(kFetch, 1, 0, 100, 100, 10);
  server.intake.ask(kFetch, 2, 100, 200, 100, 20);
  CHECK(server.intake.silent(15) == std::vector<std::uint64_t>{1});
  CHECK(server.intake.silent(30) == std::vector<std::uint64_t>{1, 2});
  server.send(server.header(StreamType::wait, 1, 0), {}, 40);
  CHECK(server.intake.counters().waits == 1);
  CHECK(server.intake.silent(30) == std::vector<std::uint64_t>{2});
  const std::vector<std::uint8_t> text = {'{', '}'};
  server.send(server.header(StreamType::end, 1, 1), text, 41);
  server.send(server.header(StreamType::end, 1, 1), text, 41);  // twice
  server.send(server.header(StreamType::error, 2, 0), text, 41);
  StreamHeader damaged = server.header(StreamType::error, 2, 0);
  damaged.body_crc = 1;
  server.intake.take(write_stream_header(damaged), text, 41);
  const auto events = server.intake.take_events();
  REQUIRE(events.size() == 3);
  CHECK(events[0].kind == IntakeEvent::Kind::end);
  CHECK(events[0].text == "{}");
  CHECK(events[1].kind == IntakeEvent::Kind::error);
  CHECK(events[1].fetch == kFetch);
  CHECK(events[2].text.empty());
  server.intake.give_up(1);
  server.intake.give_up(1);
  server.chunk(1, 2, 0, 100);
  CHECK(server.intake.counters().stale == 1);
  CHECK_THROWS_AS(server.intake.ask(kFetch, 2, 0, 1, 1, 0), UsageError);
  CHECK_THROWS_AS(server.intake.ask(kFetch, 0, 0, 1, 1, 0), UsageError);
  CHECK_THROWS_AS(server.intake.ask(6, 3, 0, 1, 1, 0), UsageError);
  CHECK_THROWS_AS(server.intake.ask(kFetch, 3, 2, 1, 1, 0), UsageError);
  CHECK_THROWS_AS(server.intake.ask(kFetch, 3, 0, server.stream.size() + 1, 1, 0), UsageError);
  CHECK_THROWS_AS(server.intake.open(kFetch, server.readout, server.keys, 1), UsageError);
  CHECK_THROWS_AS(server.intake.open(6, nullptr, server.keys, 1), UsageError);
  CHECK_THROWS_AS(static_cast<void>(server.intake.progress(6)), UsageError);
  server.intake.close(kFetch);
  server.intake.close(kFetch);
  CHECK(server.intake.outstanding() == 0);
  CHECK(server.readout.use_count() == 1);
}

TEST_CASE("intake: what the readout has is not asked for; restarting forgets it") {
  Server server;
  server.readout->add(0, std::span(server.stream).first(1000));
  server.open();
  const std::uint64_t size = server.stream.size();
  CHECK(server.intake.uncovered(kFetch, 0, size) == std::vector<Interval>{{1000, size}});
  server.intake.ask(kFetch, 1, 1000, size, 100, 0);
  server.chunk(1, 0, 1000, size);
  CHECK(server.intake.progress(kFetch).received == size - 1000);
  CHECK_FALSE(server.intake.progress(kFetch).crc.has_value());  // of the first bytes it is not known
  server.check_pixels();
  server.readout->finish(-1);
  server.intake.restart(kFetch);
  CHECK(server.readout->received() == 0);
  CHECK_FALSE(server.readout->finished());
  CHECK(server.intake.uncovered(kFetch, 0, size).size() == 1);
  for (std::size_t i = 0; i < server.stream.size(); ++i) server.stream[i] ^= 0x5AU;
  server.chunk(1, 1, 0, size);  // given up by the restart
  CHECK(server.readout->received() == 0);
  server.intake.ask(kFetch, 2, 0, size, 100, 0);
  server.chunk(2, 0, 0, size);
  CHECK(server.intake.progress(kFetch).crc == crc32c(server.stream));
  server.check_pixels();
}
