// What the Cython module needs of C++ and cannot say itself.
#pragma once

#include <Python.h>
// Python.h comes first, as it asks.
#include <cstring>
#include <exception>

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

/// Keys from the 8 and 4 bytes of the wire.
inline Intake::Keys intake_keys(const char* image, const char* source) {
  Intake::Keys keys;
  std::memcpy(keys.image.data(), image, keys.image.size());
  std::memcpy(keys.source.data(), source, keys.source.size());
  return keys;
}

}  // namespace raftwright::python
