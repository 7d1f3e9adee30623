#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/scramble.hpp"
#include "raftwright/stream_layout.hpp"
#include "raftwright/unpack.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

std::size_t whole_samples(const StreamLayout& layout, std::size_t bytes) {
  if (bytes % layout.sample_bytes() != 0) {
    throw FormatError("packed data of " + std::to_string(bytes) + " bytes is not whole samples of " +
                      std::to_string(layout.sample_bytes()) + ": the stream is cut or the layout is wrong");
  }
  return bytes / layout.sample_bytes();
}

/// Rows must be contiguous; the step between them is the caller's (padded planes are faster than dense ones).
using RowsArray = py::array_t<std::int32_t, 0>;

RowsArray planes_for(const StreamLayout& layout, std::size_t samples, const std::optional<RowsArray>& out) {
  if (!out) return RowsArray({layout.channels(), samples});
  const auto channels = static_cast<py::ssize_t>(layout.channels());
  constexpr py::ssize_t kPixel = sizeof(std::int32_t);
  if (out->ndim() != 2 || out->shape(0) != channels || out->shape(1) != static_cast<py::ssize_t>(samples) ||
      !out->writeable() || (samples > 1 && out->strides(1) != kPixel) || out->strides(0) % kPixel != 0) {
    throw UsageError("out must be a writable int32 array of shape (" + std::to_string(channels) + ", " +
                     std::to_string(samples) + ") with contiguous rows");
  }
  return *out;
}

std::vector<std::int32_t*> rows_of(RowsArray& planes) {
  std::vector<std::int32_t*> rows(static_cast<std::size_t>(planes.shape(0)));
  const py::ssize_t step = planes.strides(0) / static_cast<py::ssize_t>(sizeof(std::int32_t));
  std::int32_t* row = planes.mutable_data();
  for (std::int32_t*& pointer : rows) {
    pointer = row;
    row += step;
  }
  return rows;
}

RowsArray unpack_array(const StreamLayout& layout, const py::buffer& packed,
                       const std::optional<RowsArray>& out, const std::optional<std::string>& level_text) {
  const ByteView view(packed);
  const std::size_t samples = whole_samples(layout, view.bytes().size());
  RowsArray planes = planes_for(layout, samples, out);
  const std::vector<std::int32_t*> rows = rows_of(planes);
  const Level level = level_from(level_text);
  const py::gil_scoped_release release;
  unpack(layout, view.bytes(), rows, Stores::streaming, level);
  return planes;
}

}  // namespace

void register_layout(py::module_& module) {
  py::class_<StreamLayout>(module, "StreamLayout", py::is_final())
      .def(py::init<unsigned, std::uint32_t, std::vector<std::uint16_t>>(), py::arg("bits"),
           py::arg("xor_mask"), py::arg("plane_of"))
      .def_property_readonly("bits", &StreamLayout::bits)
      .def_property_readonly("xor_mask", &StreamLayout::xor_mask)
      .def_property_readonly("plane_of",
                             [](const StreamLayout& self) { return py::tuple(py::cast(self.plane_of())); })
      .def_property_readonly("channels", &StreamLayout::channels)
      .def_property_readonly("sample_bytes", &StreamLayout::sample_bytes)
      .def_property_readonly("max_value", &StreamLayout::max_value)
      .def("__eq__",
           [](const StreamLayout& self, const py::object& other) {
             return py::isinstance<StreamLayout>(other) && self == other.cast<const StreamLayout&>();
           })
      .def("__hash__",
           [](const StreamLayout& self) {
             return py::hash(
                 py::make_tuple(self.bits(), self.xor_mask(), py::tuple(py::cast(self.plane_of()))));
           })
      .def("__repr__", [](const StreamLayout& self) {
        return "StreamLayout(bits=" + std::to_string(self.bits()) +
               ", xor_mask=" + std::to_string(self.xor_mask()) +
               ", channels=" + std::to_string(self.channels()) + ")";
      });

  module.def("unpack", &unpack_array, py::arg("layout"), py::arg("packed"),
             py::arg("out").noconvert() = py::none(), py::arg("level") = py::none());
  module.def(
      "unpack_reference",
      [](const StreamLayout& layout, const py::buffer& packed) {
        const ByteView view(packed);
        const std::size_t samples = whole_samples(layout, view.bytes().size());
        RowsArray planes = planes_for(layout, samples, std::nullopt);
        const std::vector<std::int32_t*> rows = rows_of(planes);
        const py::gil_scoped_release release;
        unpack_reference(layout, view.bytes(), rows);
        return planes;
      },
      py::arg("layout"), py::arg("packed"));
  module.def(
      "scramble",
      [](const StreamLayout& layout, const Int32Array& planes) {
        if (planes.ndim() != 2 || planes.shape(0) != static_cast<py::ssize_t>(layout.channels())) {
          throw UsageError("planes must have the shape (" + std::to_string(layout.channels()) + ", samples)");
        }
        const auto samples = static_cast<std::size_t>(planes.shape(1));
        if (samples > static_cast<std::size_t>(PY_SSIZE_T_MAX) / layout.sample_bytes()) {
          throw UsageError("too many samples for one stream");
        }
        const std::size_t bytes = samples * layout.sample_bytes();
        const py::bytes packed(nullptr, bytes);
        std::vector<const std::int32_t*> rows(layout.channels());
        for (std::size_t plane = 0; plane < rows.size(); ++plane)
          rows[plane] = planes.data() + plane * samples;
        auto* out = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(packed.ptr()));
        std::size_t clipped = 0;
        {
          const py::gil_scoped_release release;
          clipped = scramble(layout, rows, {out, bytes});
        }
        return py::make_tuple(packed, clipped);
      },
      py::arg("layout"), py::arg("planes").noconvert());
}

}  // namespace raftwright::python
