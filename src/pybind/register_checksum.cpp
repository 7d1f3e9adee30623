#include "raftwright/checksum.hpp"

#include "registrars.hpp"

namespace raftwright::python {

void register_checksum(py::module_& module) {
  module.def(
      "crc32c",
      [](const py::buffer& data, std::uint32_t crc) {
        const ByteView view(data);
        const py::gil_scoped_release release;
        return crc32c(view.bytes(), crc);
      },
      py::arg("data"), py::arg("crc") = 0);
  module.def("crc32c_combine", &crc32c_combine, py::arg("crc_a"), py::arg("crc_b"), py::arg("length_b"));
  module.def(
      "adler32",
      [](const py::buffer& data, std::uint32_t adler) {
        const ByteView view(data);
        const py::gil_scoped_release release;
        return adler32(view.bytes(), adler);
      },
      py::arg("data"), py::arg("adler") = 1);
  module.def(
      "fits_sum",
      [](const py::buffer& data, std::uint32_t start) {
        const ByteView view(data);
        const py::gil_scoped_release release;
        FitsSum sum;
        sum.add(view.bytes());
        return fits_sum_add(start, sum.value());
      },
      py::arg("data"), py::arg("start") = 0);
  module.def("fits_checksum_text", &fits_checksum_text, py::arg("total"), py::arg("complement") = true);
}

}  // namespace raftwright::python
