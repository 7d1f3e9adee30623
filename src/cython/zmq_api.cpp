#include "zmq_api.hpp"

#include <dlfcn.h>

namespace raftwright::zmq {

namespace {

template <typename Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

}  // namespace

std::string find_api(const std::string& module_file, Api& api) {
  void* const handle = dlopen(module_file.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return module_file + " is not loaded";
  // The handle is kept: the functions must not go before the process does.
  void (*version)(int*, int*, int*) = nullptr;
  if (!find(handle, "zmq_version", version) || !find(handle, "zmq_msg_init", api.msg_init) ||
      !find(handle, "zmq_msg_recv", api.msg_recv) || !find(handle, "zmq_msg_data", api.msg_data) ||
      !find(handle, "zmq_msg_size", api.msg_size) || !find(handle, "zmq_msg_more", api.msg_more) ||
      !find(handle, "zmq_msg_close", api.msg_close) || !find(handle, "zmq_send", api.send) ||
      !find(handle, "zmq_poll", api.poll) || !find(handle, "zmq_errno", api.error)) {
    return module_file + " brings no libzmq with all the functions that are needed";
  }
  int major = 0;
  int minor = 0;
  int patch = 0;
  version(&major, &minor, &patch);
  api.version = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  if (major != 4) return "libzmq is " + api.version + ", but its structures are known of 4.x only";
  Dl_info where{};
  if (dladdr(reinterpret_cast<void*>(version), &where) != 0 && where.dli_fname != nullptr) {
    api.file = where.dli_fname;
  }
  return {};
}

}  // namespace raftwright::zmq
