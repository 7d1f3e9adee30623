// Messages from a ZeroMQ socket of Python's into an intake, without Python.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "raftwright/intake.hpp"
#include "zmq_api.hpp"

namespace raftwright {

/// Why run() came back.
enum class LoopEnd : int {
  events = 0,       ///< the intake has some
  timeout = 1,      ///< the deadline passed
  woken = 2,        ///< the wake descriptor could be read
  interrupted = 3,  ///< a signal came: Python wants to see it
  terminated = 4,   ///< the context ends
  failed = 5,       ///< the socket or the memory: see error()
};

class ReceiveLoop {
 public:
  explicit ReceiveLoop(zmq::Api api) : api_(std::move(api)) {}

  /// Takes messages until there is an event, the deadline (nanoseconds of CLOCK_MONOTONIC) passes or the
  /// descriptor `wake`, which does not block, can be read. Credit is granted as it becomes due. Everything
  /// that lies ready is taken before the deadline counts, but for no longer than 50 ms.
  [[nodiscard]] LoopEnd run(void* socket, int wake, std::int64_t deadline) noexcept;

  /// Credit that could not be sent is forgotten with the connection.
  void forget_credit() { due_.clear(); }
  /// Credit that is to be sent by the caller, where the caller has the socket.
  [[nodiscard]] std::vector<Intake::Grant> take_grants();

  [[nodiscard]] const std::string& error() const noexcept { return error_; }
  [[nodiscard]] const zmq::Api& api() const noexcept { return api_; }
  [[nodiscard]] static std::int64_t now() noexcept;

  Intake intake;

 private:
  enum class Taken { one, none, stopped };
  [[nodiscard]] Taken take_one(void* socket, LoopEnd& end);
  [[nodiscard]] LoopEnd ended(const char* what) noexcept;
  void send_credit(void* socket);

  zmq::Api api_;
  std::vector<Intake::Grant> due_;
  std::string error_;
};

}  // namespace raftwright
