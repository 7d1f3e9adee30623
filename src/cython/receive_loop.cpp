#include "receive_loop.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <exception>
#include <span>
#include <utility>

namespace raftwright {

namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kLongest = 50 * kMillisecond;  // beyond the deadline, while messages lie ready
constexpr int kMessagesBetweenLooks = 16;             // at the wake descriptor

/// A zmq_msg_t that is closed when it goes.
class Message {
 public:
  explicit Message(const zmq::Api& api) : api_(api) { api_.msg_init(bytes_.data()); }
  ~Message() { api_.msg_close(bytes_.data()); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  [[nodiscard]] bool receive(void* socket, int flags) {
    return api_.msg_recv(bytes_.data(), socket, flags) >= 0;
  }
  [[nodiscard]] bool more() const { return api_.msg_more(bytes_.data()) != 0; }
  [[nodiscard]] std::span<const std::uint8_t> content() {
    return {static_cast<const std::uint8_t*>(api_.msg_data(bytes_.data())), api_.msg_size(bytes_.data())};
  }

 private:
  const zmq::Api& api_;
  alignas(void*) std::array<unsigned char, zmq::kMessageBytes> bytes_{};
};

bool was_woken(int wake) {
  std::uint64_t count = 0;
  return read(wake, &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count));
}

}  // namespace

std::int64_t ReceiveLoop::now() noexcept {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1000 * kMillisecond + time.tv_nsec;
}

LoopEnd ReceiveLoop::ended(const char* what) noexcept {
  const int error = api_.error();
  if (error == EINTR) return LoopEnd::interrupted;
  if (error == zmq::kTerminated) return LoopEnd::terminated;
  try {
    error_ = std::string(what) + " failed with error " + std::to_string(error);
  } catch (const std::exception&) {
    error_.clear();
  }
  return LoopEnd::failed;
}

ReceiveLoop::Taken ReceiveLoop::take_one(void* socket, LoopEnd& end) {
  Message header(api_);
  if (!header.receive(socket, zmq::kDontWait)) {
    if (api_.error() == EAGAIN) return Taken::none;
    end = ended("receiving");
    return Taken::stopped;
  }
  Message body(api_);
  bool shaped = header.more();
  if (shaped) {
    // The parts of a message arrive together: none of them is waited for.
    if (!body.receive(socket, 0)) {
      end = ended("receiving");
      return Taken::stopped;
    }
    bool more = body.more();
    shaped = !more;
    while (more) {
      Message rest(api_);
      if (!rest.receive(socket, 0)) {
        end = ended("receiving");
        return Taken::stopped;
      }
      more = rest.more();
    }
  }
  if (shaped) {
    intake.take(header.content(), body.content(), now());
  } else {
    intake.refuse_shape();
  }
  return Taken::one;
}

std::vector<Intake::Grant> ReceiveLoop::take_grants() {
  std::vector<Intake::Grant> grants = std::exchange(due_, {});
  for (const Intake::Grant& grant : intake.take_grants()) grants.push_back(grant);
  return grants;
}

void ReceiveLoop::send_credit(void* socket) {
  due_ = take_grants();
  std::size_t sent = 0;
  for (const Intake::Grant& grant : due_) {
    StreamHeader header;
    header.type = StreamType::credit;
    header.request = grant.request;
    header.length = grant.bytes;
    const auto frame = write_stream_header(header);
    if (api_.send(socket, frame.data(), frame.size(), zmq::kDontWait | zmq::kSendMore) < 0) break;
    if (api_.send(socket, "", 0, zmq::kDontWait) < 0) break;
    ++sent;
  }
  due_.erase(due_.begin(), due_.begin() + static_cast<std::ptrdiff_t>(sent));
}

LoopEnd ReceiveLoop::run(void* socket, int wake, std::int64_t deadline) noexcept {
  try {
    int looks = 0;
    while (true) {
      LoopEnd end = LoopEnd::timeout;
      const Taken taken = intake.has_events() ? Taken::none : take_one(socket, end);
      if (taken == Taken::stopped) return end;
      if (intake.has_grants() || !due_.empty()) send_credit(socket);
      if (intake.has_events()) return LoopEnd::events;
      const std::int64_t left = deadline - now();
      if (taken == Taken::one) {
        if (left <= -kLongest) return LoopEnd::timeout;
        if (++looks % kMessagesBetweenLooks == 0 && was_woken(wake)) return LoopEnd::woken;
        continue;
      }
      if (left <= 0) return LoopEnd::timeout;
      std::array<zmq::PollItem, 2> items{{{socket, 0, zmq::kPollIn, 0}, {nullptr, wake, zmq::kPollIn, 0}}};
      std::int64_t wait = left / kMillisecond + 1;
      if (!due_.empty()) wait = std::min<std::int64_t>(wait, 10);
      if (api_.poll(items.data(), static_cast<int>(items.size()), static_cast<long>(wait)) < 0) {
        return ended("waiting");
      }
      if (items[1].revents != 0 && was_woken(wake)) return LoopEnd::woken;
    }
  } catch (const std::exception& error) {
    error_ = error.what();
    return LoopEnd::failed;
  }
}

}  // namespace raftwright
