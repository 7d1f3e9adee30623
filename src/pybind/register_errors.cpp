#include <exception>
#include <new>
#include <string_view>

#include "raftwright/error.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

py::object error_class(const char* name) { return py::module_::import("raftwright.errors").attr(name); }

/// Messages name files and quote data: bytes that are not UTF-8 are shown as \xff, not made another error.
py::object message(const std::exception& error) {
  const std::string_view text = error.what();
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "backslashreplace"));
}

void raise(const char* name, const std::exception& error) {
  PyErr_SetObject(error_class(name).ptr(), message(error).ptr());
}

}  // namespace

void register_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const FormatError& error) {
      raise("FormatError", error);
    } catch (const UsageError& error) {
      raise("UsageError", error);
    } catch (const IoError& error) {
      const py::object kind = error_class("StorageError");
      const py::object made = kind(error.error_number(), message(error), path_text(error.path()));
      PyErr_SetObject(kind.ptr(), made.ptr());
    } catch (const Error& error) {
      raise("RaftwrightError", error);
    }
  });
}

ByteView::ByteView(const py::buffer& buffer, bool writable) : info_(buffer.request(writable)), size_(0) {
  py::ssize_t expected = info_.itemsize;
  for (py::ssize_t axis = info_.ndim; axis-- > 0;) {
    const auto index = static_cast<std::size_t>(axis);
    if (info_.shape[index] > 1 && info_.strides[index] != expected) {
      throw UsageError("the buffer must be contiguous: pass a copy");
    }
    expected *= info_.shape[index];
  }
  size_ = static_cast<std::size_t>(info_.size * info_.itemsize);
}

std::string path_bytes(const py::object& path) {
  return py::module_::import("os").attr("fsencode")(path).cast<std::string>();
}

py::object path_text(const std::string& path) {
  return py::module_::import("os").attr("fsdecode")(py::bytes(path));
}

Level level_from(const std::optional<std::string>& name) {
  if (!name) return active_level();
  for (const Level level : available_levels()) {
    if (*name == level_name(level)) return level;
  }
  throw UsageError("kernel level '" + *name + "' is not available on this processor");
}

}  // namespace raftwright::python
