// The functions of the libzmq that pyzmq has loaded. Its wheel carries neither a header nor a library to link
// with, so they are looked up by name in what is mapped already; the declarations here are those of 4.x.
#pragma once

#include <cstddef>
#include <string>

namespace raftwright::zmq {

/// `zmq_pollitem_t` of POSIX systems.
struct PollItem {
  void* socket;
  int fd;
  short events;
  short revents;
};

inline constexpr int kDontWait = 1;
inline constexpr int kSendMore = 2;
inline constexpr short kPollIn = 1;
inline constexpr int kTerminated = 156384765;     // ETERM
inline constexpr std::size_t kMessageBytes = 64;  // of zmq_msg_t

struct Api {
  int (*msg_init)(void*) = nullptr;
  int (*msg_recv)(void*, void*, int) = nullptr;
  void* (*msg_data)(void*) = nullptr;
  std::size_t (*msg_size)(const void*) = nullptr;
  int (*msg_more)(const void*) = nullptr;
  int (*msg_close)(void*) = nullptr;
  int (*send)(void*, const void*, std::size_t, int) = nullptr;
  int (*poll)(PollItem*, int, long) = nullptr;
  int (*error)() = nullptr;
  std::string version;  ///< "4.3.5"
  std::string file;     ///< which library serves
};

/// Looks the functions up in an extension module that is loaded already (and the libraries it brought with
/// it). Returns what is wrong; nothing if all is well.
[[nodiscard]] std::string find_api(const std::string& module_file, Api& api);

}  // namespace raftwright::zmq
