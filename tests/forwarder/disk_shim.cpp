// A disk that fails when it is told to: preloaded, it stands between a program and its system calls.
//
// Files below DISK_ROOT are concerned. The file DISK_CONTROL says what happens: an errno, and letters for
// what fails with it: w writes, s syncs, l names, o new files and directories. `0 s`: syncs wait until it
// says something else. No such file: all is well.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>

namespace {

template <class F>
F real(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

/// The errno that an operation fails with; 0 for none; -1: it waits.
int orders(char operation) {
  const char* path = getenv("DISK_CONTROL");
  if (path == nullptr) return 0;
  static const auto open_file = real<int (*)(const char*, int, ...)>("open");
  const int fd = open_file(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[64] = {};
  const ssize_t size = read(fd, text, sizeof text - 1);
  static const auto close_file = real<int (*)(int)>("close");
  close_file(fd);
  const char* letters = size > 0 ? strchr(text, ' ') : nullptr;
  if (letters == nullptr || strchr(letters, operation) == nullptr) return 0;
  const int number = atoi(text);
  return number == 0 ? -1 : number;
}

bool below_root(const char* path) {
  const char* root = getenv("DISK_ROOT");
  return root != nullptr && strncmp(path, root, strlen(root)) == 0;
}

bool concerned(int fd) {
  char link[64], path[4096] = {};
  char* at = link;
  memcpy(at, "/proc/self/fd/", 14);
  at += 14;
  char digits[16];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + fd % 10);
    fd /= 10;
  } while (fd > 0);
  while (count > 0) *at++ = digits[--count];
  *at = 0;
  return readlink(link, path, sizeof path - 1) > 0 && below_root(path);
}

bool fails(char operation, bool ours) {
  if (!ours) return false;
  const int number = orders(operation);
  if (number > 0) errno = number;
  return number > 0;
}

void wait_for_sync(int fd) {
  if (!concerned(fd)) return;
  while (orders('s') < 0) usleep(10000);
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  return fails('w', concerned(fd)) ? -1 : next(fd, data, size);
}

ssize_t writev(int fd, const iovec* parts, int count) {
  static const auto next = real<ssize_t (*)(int, const iovec*, int)>("writev");
  return fails('w', concerned(fd)) ? -1 : next(fd, parts, count);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  return fails('w', concerned(fd)) ? -1 : next(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off_t offset) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite64");
  return fails('w', concerned(fd)) ? -1 : next(fd, data, size, offset);
}

int fsync(int fd) {
  static const auto next = real<int (*)(int)>("fsync");
  wait_for_sync(fd);
  return fails('s', concerned(fd)) ? -1 : next(fd);
}

int fdatasync(int fd) {
  static const auto next = real<int (*)(int)>("fdatasync");
  wait_for_sync(fd);
  return fails('s', concerned(fd)) ? -1 : next(fd);
}

int linkat(int from, const char* old_name, int to, const char* new_name, int flags) {
  static const auto next = real<int (*)(int, const char*, int, const char*, int)>("linkat");
  return fails('l', concerned(to)) ? -1 : next(from, old_name, to, new_name, flags);
}

int mkdir(const char* path, mode_t mode) {
  static const auto next = real<int (*)(const char*, mode_t)>("mkdir");
  return fails('o', below_root(path)) ? -1 : next(path, mode);
}

int openat(int directory, const char* path, int flags, ...) {
  static const auto next = real<int (*)(int, const char*, int, ...)>("openat");
  va_list rest;
  va_start(rest, flags);
  const auto mode = va_arg(rest, unsigned);
  va_end(rest);
  const bool makes = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  if (makes && fails('o', directory >= 0 && concerned(directory))) return -1;
  return next(directory, path, flags, mode);
}

}  // extern "C"
