#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/simulate.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

Pattern pattern_from(const std::string& name) {
  if (name == "sky") return Pattern::sky;
  if (name == "coordinates") return Pattern::coordinates;
  throw UsageError("pattern must be 'sky' or 'coordinates', not '" + name + "'");
}

template <typename T>
void take(const py::dict& from, const char* name, T& value) {
  if (from.contains(name)) value = from[name].cast<T>();
}

/// A segment's description: keys are the fields of SimulatedSegment; stars (x, y, flux, sigma) and tracks
/// (x0, y0, x1, y1, counts) are float arrays of shape (n, 4) and (n, 5).
SimulatedSegment segment_from(const py::dict& from) {
  static constexpr std::array<const char*, 14> known{
      "detector",   "segment",   "bias",      "bias_slope", "read_noise", "sky",   "gain",
      "saturation", "active_x0", "active_x1", "active_y0",  "active_y1",  "stars", "tracks"};
  for (const auto& [key, value] : from) {
    const std::string name = py::str(key).cast<std::string>();
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw UsageError("unknown segment property " + name);
    }
  }
  SimulatedSegment segment;
  take(from, "detector", segment.detector);
  take(from, "segment", segment.segment);
  take(from, "bias", segment.bias);
  take(from, "bias_slope", segment.bias_slope);
  take(from, "read_noise", segment.read_noise);
  take(from, "sky", segment.sky);
  take(from, "gain", segment.gain);
  take(from, "saturation", segment.saturation);
  take(from, "active_x0", segment.active_x0);
  take(from, "active_x1", segment.active_x1);
  take(from, "active_y0", segment.active_y0);
  take(from, "active_y1", segment.active_y1);
  using Table = py::array_t<float, py::array::c_style | py::array::forcecast>;
  if (from.contains("stars")) {
    const auto table = from["stars"].cast<Table>();
    if (table.ndim() != 2 || table.shape(1) != 4) throw UsageError("stars must have the shape (n, 4)");
    const auto rows = table.unchecked<2>();
    for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
      segment.stars.push_back({rows(i, 0), rows(i, 1), rows(i, 2), rows(i, 3)});
    }
  }
  if (from.contains("tracks")) {
    const auto table = from["tracks"].cast<Table>();
    if (table.ndim() != 2 || table.shape(1) != 5) throw UsageError("tracks must have the shape (n, 5)");
    const auto rows = table.unchecked<2>();
    for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
      segment.tracks.push_back({rows(i, 0), rows(i, 1), rows(i, 2), rows(i, 3), rows(i, 4)});
    }
  }
  return segment;
}

}  // namespace

void register_simulate(py::module_& module) {
  py::class_<SimulatedReadout>(module, "SimulatedReadout", py::is_final())
      .def(
          py::init([](const StreamLayout& layout, std::size_t width, std::size_t height,
                      const std::string& pattern, std::uint64_t seed, const std::vector<py::dict>& segments) {
            std::vector<SimulatedSegment> list;
            list.reserve(segments.size());
            for (const py::dict& segment : segments) list.push_back(segment_from(segment));
            return std::make_unique<SimulatedReadout>(layout, width, height, pattern_from(pattern), seed,
                                                      std::move(list));
          }),
          py::arg("layout"), py::arg("width"), py::arg("height"), py::arg("pattern"), py::arg("seed"),
          py::arg("segments"))
      .def_property_readonly("size", &SimulatedReadout::size)
      .def(
          "row",
          [](const SimulatedReadout& self, std::size_t plane, std::size_t y) {
            py::array_t<std::int32_t> row(static_cast<py::ssize_t>(self.width()));
            self.row(plane, y, {row.mutable_data(), self.width()});
            return row;
          },
          py::arg("plane"), py::arg("y"))
      .def(
          "read",
          [](const SimulatedReadout& self, std::uint64_t offset, std::size_t length, unsigned threads) {
            if (offset > self.size() || length > self.size() - offset) {
              throw UsageError("bytes " + std::to_string(offset) + " to " + std::to_string(offset + length) +
                               " are outside the stream's " + std::to_string(self.size()));
            }
            const py::bytes data(nullptr, length);
            auto* out = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(data.ptr()));
            {
              const py::gil_scoped_release release;
              self.read(offset, {out, length}, threads);
            }
            return data;
          },
          py::arg("offset"), py::arg("length"), py::arg("threads") = 1)
      .def(
          "readinto",
          [](const SimulatedReadout& self, std::uint64_t offset, const py::buffer& out, unsigned threads) {
            const ByteView view(out, true);
            const std::uint64_t left = offset < self.size() ? self.size() - offset : 0;
            const std::size_t count = static_cast<std::size_t>(
                std::min<std::uint64_t>(left, static_cast<std::uint64_t>(view.writable().size())));
            const py::gil_scoped_release release;
            self.read(offset, view.writable().first(count), threads);
            return count;
          },
          py::arg("offset"), py::arg("out"), py::arg("threads") = 1);
  module.def("coordinate_value", &coordinate_value, py::arg("bits"), py::arg("detector"), py::arg("segment"),
             py::arg("y"), py::arg("x"));
  module.def(
      "coordinate_name",
      [](unsigned bits, const Int32Array& group) {
        const Coordinate name = coordinate_name(bits, {group.data(), static_cast<std::size_t>(group.size())});
        return py::make_tuple(name.detector, name.segment, name.y, name.x);
      },
      py::arg("bits"), py::arg("group"));
}

}  // namespace raftwright::python
