// One registrar a topic; module.cpp calls them. This header is the only door to pybind11.
#pragma once

#include <pybind11/pybind11.h>
// pybind11.h comes first, as Python.h asks.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "raftwright/cpu.hpp"

namespace raftwright::python {

namespace py = pybind11;

void register_errors(py::module_& module);
void register_info(py::module_& module);
void register_layout(py::module_& module);
void register_checksum(py::module_& module);
void register_directory(py::module_& module);
void register_rice(py::module_& module);
void register_readout(py::module_& module);
void register_rawfile(py::module_& module);
void register_fits(py::module_& module);
void register_mosaic(py::module_& module);
void register_simulate(py::module_& module);
void register_bench(py::module_& module);

/// The bytes of any contiguous buffer, held for the life of the view (exporters cannot resize meanwhile).
class ByteView {
 public:
  explicit ByteView(const py::buffer& buffer, bool writable = false);
  [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept {
    return {static_cast<const std::uint8_t*>(info_.ptr), size_};
  }
  [[nodiscard]] std::span<std::uint8_t> writable() const noexcept {
    return {static_cast<std::uint8_t*>(info_.ptr), size_};
  }

 private:
  py::buffer_info info_;
  std::size_t size_;
};

/// The bytes of a path in the file system's encoding: str, bytes or os.PathLike, any name that a file can
/// have.
[[nodiscard]] std::string path_bytes(const py::object& path);
/// The str of such bytes, as os.fsdecode makes it.
[[nodiscard]] py::object path_text(const std::string& path);

using Int32Array = py::array_t<std::int32_t, py::array::c_style>;

/// The level a caller names, or the active one. Throws UsageError for a level that is not available.
[[nodiscard]] Level level_from(const std::optional<std::string>& name);

}  // namespace raftwright::python
