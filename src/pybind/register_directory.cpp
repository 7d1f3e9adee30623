#include <vector>

#include "raftwright/directory_listing.hpp"
#include "registrars.hpp"

namespace raftwright::python {

void register_directory(py::module_& module) {
  module.def(
      "list_directories",
      [](const std::vector<int>& descriptors, unsigned threads) {
        std::vector<ListedDirectory> listed;
        {
          const py::gil_scoped_release release;
          listed = list_directories(descriptors, threads);
        }
        py::list results(listed.size());
        for (std::size_t index = 0; index < listed.size(); ++index) {
          const ListedDirectory& one = listed[index];
          if (one.error != 0) {
            results[index] = one.error;
          } else {
            results[index] = py::make_tuple(py::bytes(one.entries), one.files);
          }
        }
        return results;
      },
      py::arg("descriptors"), py::arg("threads") = 1);
}

}  // namespace raftwright::python
