#include <memory>
#include <utility>

#include "raftwright/error.hpp"
#include "raftwright/readout.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

using SharedReadout = std::shared_ptr<Readout>;

Int32Array plane_view(const SharedReadout& self, std::size_t index) {
  const Planes& planes = self->planes();
  if (index >= planes.count()) {
    throw UsageError("plane " + std::to_string(index) + " does not exist: give 0 to " +
                     std::to_string(planes.count() - 1));
  }
  // The array's base keeps the readout, and with it the slab, alive.
  const py::capsule owner(new SharedReadout(self),
                          [](void* held) { delete static_cast<SharedReadout*>(held); });
  return Int32Array({planes.height(), planes.width()}, planes.plane(index), owner);
}

/// A writable buffer of Python's as memory for planes; it is exported until the last holder of the readout
/// is gone, which may be in a thread without the GIL.
PlaneMemory plane_memory(const std::optional<py::buffer>& buffer) {
  if (!buffer) return {};
  auto* const view = new ByteView(*buffer, true);
  const std::shared_ptr<void> owner(view, [](void* held) {
    const py::gil_scoped_acquire acquire;
    delete static_cast<ByteView*>(held);
  });
  if (view->writable().empty()) throw UsageError("the memory for the planes is empty: see planes_bytes()");
  return {view->writable(), owner};
}

}  // namespace

void register_readout(py::module_& module) {
  module.def("planes_bytes", &Planes::needed, py::arg("count"), py::arg("width"), py::arg("height"));
  py::class_<Readout, SharedReadout>(module, "Readout", py::is_final())
      .def(py::init([](const StreamLayout& layout, std::size_t width, std::size_t height, bool pixels,
                       bool compressed, const std::optional<py::buffer>& memory) {
             return std::make_shared<Readout>(layout, width, height, Products{pixels, compressed},
                                              plane_memory(memory));
           }),
           py::arg("layout"), py::arg("width"), py::arg("height"), py::kw_only(), py::arg("pixels") = true,
           py::arg("compressed") = false, py::arg("memory") = py::none())
      .def("_capsule",
           [](const SharedReadout& self) {
             return py::capsule(new SharedReadout(self), "raftwright.Readout", [](PyObject* capsule) {
               delete static_cast<SharedReadout*>(PyCapsule_GetPointer(capsule, "raftwright.Readout"));
             });
           })
      .def_property_readonly("layout", &Readout::layout, py::return_value_policy::copy)
      .def_property_readonly("width", &Readout::width)
      .def_property_readonly("height", &Readout::height)
      .def_property_readonly("size", &Readout::size)
      .def(
          "add",
          [](Readout& self, std::uint64_t offset, const py::buffer& data, unsigned threads) {
            const ByteView view(data);
            const py::gil_scoped_release release;
            return self.add(offset, view.bytes(), threads);
          },
          py::arg("offset"), py::arg("data"), py::arg("threads") = 1)
      .def_property_readonly("received", &Readout::received)
      .def_property_readonly("duplicate", &Readout::duplicate)
      .def_property_readonly("copied", &Readout::copied)
      .def("restart", &Readout::restart, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("complete", &Readout::complete)
      .def("gaps",
           [](const Readout& self) {
             std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps;
             for (const Interval& gap : self.gaps()) gaps.emplace_back(gap.begin, gap.end);
             return gaps;
           })
      .def(
          "missing",
          [](const Readout& self, std::size_t plane) {
            std::vector<std::pair<std::uint64_t, std::uint64_t>> runs;
            for (const PixelRun& run : self.missing(plane)) runs.emplace_back(run.first, run.count);
            return runs;
          },
          py::arg("plane"))
      .def("finish", &Readout::finish, py::arg("fill") = -1, py::arg("threads") = 1,
           py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("finished", &Readout::finished)
      .def("plane", &plane_view, py::arg("index"))
      .def(
          "compressed_bytes",
          [](const Readout& self, std::size_t plane) {
            const CompressedPlanes& tiles = self.compressed();
            if (plane >= tiles.planes()) {
              throw UsageError("plane " + std::to_string(plane) + " does not exist: give 0 to " +
                               std::to_string(tiles.planes() - 1));
            }
            return tiles.code_bytes(plane);
          },
          py::arg("index"))
      .def_property_readonly("memory", &Readout::memory);
}

}  // namespace raftwright::python
