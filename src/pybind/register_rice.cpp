#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

/// The pixels of a one-dimensional contiguous array of T.
template <typename T>
std::span<const T> pixels_of(const py::array& array) {
  return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

py::bytes encode(const py::array& pixels, unsigned block, const std::optional<std::string>& level_text) {
  if (pixels.ndim() != 1 || (pixels.flags() & py::array::c_style) == 0) {
    throw UsageError("a tile is a contiguous one-dimensional array: ravel it first");
  }
  if (block == 0) throw UsageError("the block size must be at least 1");
  const auto width = static_cast<unsigned>(pixels.itemsize());
  const Level level = level_from(level_text);
  std::vector<std::uint8_t> out(rice_bound(static_cast<std::size_t>(pixels.size()), width, block));
  std::size_t length = 0;
  const py::dtype type = pixels.dtype();
  if (type.equal(py::dtype::of<std::int32_t>())) {
    length = rice_encode(pixels_of<std::int32_t>(pixels), out, block, level);
  } else if (type.equal(py::dtype::of<std::int16_t>())) {
    length = rice_encode_reference(pixels_of<std::int16_t>(pixels), out, block);
  } else if (type.equal(py::dtype::of<std::int8_t>())) {
    length = rice_encode_reference(pixels_of<std::int8_t>(pixels), out, block);
  } else {
    throw UsageError("RICE_1 takes int32, int16 or int8 pixels in native byte order, not " +
                     py::str(py::object(type)).cast<std::string>());
  }
  return {reinterpret_cast<const char*>(out.data()), length};
}

template <typename T>
py::array decode_as(std::span<const std::uint8_t> code, std::size_t pixels, unsigned block) {
  py::array_t<T> array(static_cast<py::ssize_t>(pixels));
  const std::span<T> out(array.mutable_data(), pixels);
  RiceStatus status = RiceStatus::ok;
  {
    const py::gil_scoped_release release;
    status = rice_decode(code, out, block);
  }
  if (status != RiceStatus::ok) {
    throw FormatError(std::string("RICE_1 tile of ") + std::to_string(code.size()) + " bytes for " +
                      std::to_string(pixels) + " pixels: " + rice_status_text(status));
  }
  return array;
}

py::array decode(const py::buffer& code, std::size_t pixels, const std::string& dtype, unsigned block) {
  const ByteView view(code);
  if (block == 0) throw UsageError("the block size must be at least 1");
  // A block of 32 pixels costs at least 3 bits of code: more pixels than that cannot be meant.
  if (pixels / block > view.bytes().size() * 8 + 1) {
    throw FormatError("RICE_1 tile of " + std::to_string(view.bytes().size()) + " bytes cannot hold " +
                      std::to_string(pixels) + " pixels");
  }
  if (dtype == "int32") return decode_as<std::int32_t>(view.bytes(), pixels, block);
  if (dtype == "int16") return decode_as<std::int16_t>(view.bytes(), pixels, block);
  if (dtype == "int8") return decode_as<std::int8_t>(view.bytes(), pixels, block);
  throw UsageError("dtype must be 'int32', 'int16' or 'int8', not '" + dtype + "'");
}

}  // namespace

void register_rice(py::module_& module) {
  module.def("rice_encode", &encode, py::arg("pixels"), py::arg("block") = 32, py::arg("level") = py::none());
  module.def("rice_decode", &decode, py::arg("code"), py::arg("pixels"), py::arg("dtype") = "int32",
             py::arg("block") = 32);
}

}  // namespace raftwright::python
