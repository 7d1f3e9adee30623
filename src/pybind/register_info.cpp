#include "raftwright/build_info.hpp"
#include "raftwright/parallel.hpp"
#include "registrars.hpp"

namespace raftwright::python {

void register_info(py::module_& module) {
  module.def("build_info", [] {
    py::dict info;
    for (const auto& [name, value] : build_info()) info[py::str(name)] = value;
    py::list levels;
    for (const Level level : available_levels()) levels.append(level_name(level));
    info["kernels available"] = levels;
    info["kernels in use"] = level_name(active_level());
    info["processor features"] = py::cast(cpu_features());
    return info;
  });
  module.def("usable_processors", &usable_processors);
  module.def("available_levels", [] {
    std::vector<std::string> names;
    for (const Level level : available_levels()) names.emplace_back(level_name(level));
    return names;
  });
  module.def("active_level", [] { return level_name(active_level()); });
}

}  // namespace raftwright::python
