#include "registrars.hpp"

PYBIND11_MODULE(_core, module) {
  namespace rw = raftwright::python;
  module.doc() = "The compiled core of raftwright. Private: use the packages.";
  rw::register_errors(module);
  rw::register_info(module);
  rw::register_layout(module);
  rw::register_checksum(module);
  rw::register_directory(module);
  rw::register_rice(module);
  rw::register_readout(module);
  rw::register_rawfile(module);
  rw::register_fits(module);
  rw::register_mosaic(module);
  rw::register_simulate(module);
  rw::register_bench(module);
}
