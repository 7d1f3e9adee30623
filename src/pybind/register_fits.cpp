#include <memory>
#include <utility>
#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/raw_reader.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

py::dict as_dict(const HduInfo& info) {
  py::dict dict;
  dict["kind"] = hdu_kind_name(info.kind);
  dict["name"] = info.name;
  dict["version"] = info.version;
  dict["bitpix"] = info.bitpix;
  dict["shape"] = py::tuple(py::cast(info.shape));
  dict["compression"] = info.compression;
  dict["header_offset"] = info.header_offset;
  dict["data_offset"] = info.data_offset;
  dict["data_bytes"] = info.data_bytes;
  dict["decodable"] = info.decodable;
  dict["reason"] = info.reason;
  return dict;
}

py::array new_array(const ImageLayout& layout) {
  return {py::dtype(pixel_type_name(layout.type)), layout.shape};
}

/// `out` must be what new_array would make.
void check_out(const ImageLayout& layout, const py::array& out) {
  bool fits = out.ndim() == static_cast<py::ssize_t>(layout.shape.size()) && out.writeable() &&
              (out.flags() & py::array::c_style) != 0 &&
              out.dtype().equal(py::dtype(pixel_type_name(layout.type)));
  for (std::size_t axis = 0; fits && axis < layout.shape.size(); ++axis) {
    fits = out.shape(static_cast<py::ssize_t>(axis)) == static_cast<py::ssize_t>(layout.shape[axis]);
  }
  if (!fits) {
    throw UsageError(std::string("out must be a writable C-ordered ") + pixel_type_name(layout.type) +
                     " array of the image's shape");
  }
}

py::array read(const FitsFile& self, std::size_t hdu, const std::optional<py::array>& out, unsigned threads) {
  const ImageLayout& layout = self.image(hdu);
  if (out) check_out(layout, *out);
  py::array array = out ? *out : new_array(layout);
  void* pixels = array.mutable_data();
  const py::gil_scoped_release release;
  self.read_into(hdu, pixels, layout.bytes, threads);
  return array;
}

std::vector<py::array> read_many(const FitsFile& self, const std::vector<std::size_t>& hdus,
                                 unsigned threads) {
  std::vector<py::array> arrays;
  std::vector<ImageTarget> targets;
  for (const std::size_t hdu : hdus) {
    const ImageLayout& layout = self.image(hdu);
    arrays.push_back(new_array(layout));
    targets.push_back({hdu, arrays.back().mutable_data(), layout.bytes});
  }
  {
    const py::gil_scoped_release release;
    self.read_many(targets, threads);
  }
  return arrays;
}

/// Lets go of a Python buffer from any thread.
struct BufferOwner {
  explicit BufferOwner(const py::buffer& buffer) : view(std::make_unique<ByteView>(buffer)) {}
  BufferOwner(const BufferOwner&) = delete;
  BufferOwner& operator=(const BufferOwner&) = delete;
  ~BufferOwner() {
    const py::gil_scoped_acquire acquire;
    view.reset();
  }
  std::unique_ptr<ByteView> view;
};

}  // namespace

void register_fits(py::module_& module) {
  py::class_<FitsFile>(module, "FitsFile", py::is_final())
      .def_static(
          "open",
          [](const py::object& path) {
            const std::string name = path_bytes(path);
            const py::gil_scoped_release release;
            return std::make_unique<FitsFile>(FitsFile::open(name));
          },
          py::arg("path"))
      .def_static(
          "from_buffer",
          [](const py::buffer& data, const py::object& name) {
            const auto owner = std::make_shared<const BufferOwner>(data);
            return std::make_unique<FitsFile>(owner->view->bytes(), owner, path_bytes(name));
          },
          py::arg("data"), py::arg("name") = "buffer")
      .def("__len__", &FitsFile::size)
      .def_property_readonly("name", [](const FitsFile& self) { return path_text(self.name()); })
      .def(
          "cards", [](const FitsFile& self, std::size_t hdu) { return py::bytes(self.cards(hdu)); },
          py::arg("hdu"))
      .def(
          "info", [](const FitsFile& self, std::size_t hdu) { return as_dict(self.info(hdu)); },
          py::arg("hdu"))
      .def("read", &read, py::arg("hdu"), py::arg("out") = py::none(), py::arg("threads") = 1)
      .def("read_many", &read_many, py::arg("hdus"), py::arg("threads") = 0)
      .def(
          "sums",
          [](const FitsFile& self, std::size_t hdu) {
            const SumCheck sums = [&] {
              const py::gil_scoped_release release;
              return self.sums(hdu);
            }();
            return std::make_pair(sums.checksum, sums.datasum);
          },
          py::arg("hdu"))
      .def_property_readonly("trailing", &FitsFile::trailing);
}

}  // namespace raftwright::python
