#include <tuple>
#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/mosaic.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

using PlacementTuple = std::tuple<Int32Array, std::size_t, std::size_t, std::size_t, std::size_t, bool, bool,
                                  std::ptrdiff_t, std::ptrdiff_t, unsigned>;

constexpr std::size_t kMostMosaicPixels = std::size_t{1} << 33U;

Int32Array paint(const std::vector<PlacementTuple>& placements, std::pair<std::size_t, std::size_t> shape,
                 unsigned bin, std::int32_t missing, std::int32_t fill, unsigned threads) {
  const auto [height, width] = shape;
  if (height == 0 || width == 0 || height > kMostMosaicPixels / width) {
    throw UsageError("a mosaic of " + std::to_string(height) + " x " + std::to_string(width) +
                     " pixels cannot be made: bin it more");
  }
  std::vector<Placement> list;
  list.reserve(placements.size());
  for (const auto& [plane, x0, y0, nx, ny, flip_x, flip_y, out_x, out_y, turns] : placements) {
    if (plane.ndim() != 2) throw UsageError("a plane must be a 2-D int32 array");
    list.push_back({plane.data(), static_cast<std::size_t>(plane.shape(1)),
                    static_cast<std::size_t>(plane.shape(0)), x0, y0, nx, ny, flip_x, flip_y, out_x, out_y,
                    turns});
  }
  Int32Array out({height, width});
  std::int32_t* pixels = out.mutable_data();
  {
    const py::gil_scoped_release release;
    paint_mosaic(list, bin, missing, fill, pixels, width, height, threads);
  }
  return out;
}

}  // namespace

void register_mosaic(py::module_& module) {
  module.def("paint_mosaic", &paint, py::arg("placements"), py::arg("shape"), py::arg("bin") = 1,
             py::arg("missing") = -1, py::arg("fill") = 0, py::arg("threads") = 1);
}

}  // namespace raftwright::python
