// What the Cython module needs of C++ and cannot say itself.
#pragma once

#include <Python.h>
// Python.h comes first, as it asks.
#include <cstdlib>
#include <cstring>
#include <exception>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "raftwright/error.hpp"
#include "raftwright/intake.hpp"

namespace raftwright::python {

/// For Cython's `except +`: an error of the core becomes that of raftwright.errors.
inline void raise_core_error() {
  const auto raise = [](const char* name, const char* message) {
    PyObject* const module = PyImport_ImportModule("raftwright.errors");
    PyObject* const type = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
    if (type != nullptr) PyErr_SetString(type, message);
    Py_XDECREF(type);
    Py_XDECREF(module);
  };
  try {
    throw;
  } catch (const FormatError& error) {
    raise("FormatError", error.what());
  } catch (const UsageError& error) {
    raise("UsageError", error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

/// Makes malloc keep the memory of large messages for the next ones, where it is glibc's: by default blocks
/// of some MiB go back to the system at once, and every message is paid for with fresh pages.
inline bool keep_message_memory() {
#if defined(__GLIBC__)
  constexpr int kLargestKept = 32 << 20;  // what glibc allows
  constexpr int kFreeKept = 128 << 20;
  return mallopt(M_MMAP_THRESHOLD, kLargestKept) == 1 && mallopt(M_TRIM_THRESHOLD, kFreeKept) == 1;
#else
  return false;
#endif
}

/// Keys from the 8 and 4 bytes of the wire.
inline Intake::Keys intake_keys(const char* image, const char* source) {
  Intake::Keys keys;
  std::memcpy(keys.image.data(), image, keys.image.size());
  std::memcpy(keys.source.data(), source, keys.source.size());
  return keys;
}

}  // namespace raftwright::python
