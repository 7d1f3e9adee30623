// Timed loops for `raftwright bench`: ours and, where the user's machine has it, cfitsio's Rice coder, given
// by the address of its function. Both run the same rows in the same loop, so that only the coder differs.
#include <cstdint>
#include <ctime>
#include <vector>

#include "raftwright/error.hpp"
#include "raftwright/rice.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

/// Processor time of this thread: other work on the machine does not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// int fits_rcomp(int pixels[], int count, unsigned char* code, int room, int block)
using ForeignEncode = int (*)(int*, int, unsigned char*, int, int);
// int fits_rdecomp(unsigned char* code, int length, unsigned int pixels[], int count, int block)
using ForeignDecode = int (*)(unsigned char*, int, unsigned int*, int, int);

constexpr int kBlock = 32;

struct Rows {
  const std::int32_t* first;
  std::size_t count;
  std::size_t width;
};

Rows rows_of(const Int32Array& pixels) {
  if (pixels.ndim() != 2 || pixels.size() == 0 || pixels.shape(1) > 65536) {
    throw UsageError("pixels must be a non-empty 2-D int32 array of at most 65536 columns");
  }
  return {pixels.data(), static_cast<std::size_t>(pixels.shape(0)),
          static_cast<std::size_t>(pixels.shape(1))};
}

/// Encodes every row; returns (seconds, code of all rows, length of each row's code).
py::tuple time_encode(const Int32Array& pixels, std::uintptr_t foreign) {
  const Rows rows = rows_of(pixels);
  const std::size_t bound = rice_bound(rows.width) + rows.width;
  std::vector<std::uint8_t> code(rows.count * bound);
  std::vector<std::size_t> lengths(rows.count);
  const auto encode = reinterpret_cast<ForeignEncode>(foreign);
  double seconds = 0;
  {
    const py::gil_scoped_release release;
    for (int warm = 0; warm < 2; ++warm) {  // the first pass touches the pages
      std::size_t at = 0;
      const double start = thread_seconds();
      for (std::size_t row = 0; row < rows.count; ++row) {
        const std::int32_t* line = rows.first + row * rows.width;
        if (encode == nullptr) {
          lengths[row] = rice_encode({line, rows.width}, {code.data() + at, bound});
        } else {
          const int length = encode(const_cast<std::int32_t*>(line), static_cast<int>(rows.width),
                                    code.data() + at, static_cast<int>(bound), kBlock);
          if (length < 0) throw Error("the foreign encoder failed");
          lengths[row] = static_cast<std::size_t>(length);
        }
        at += lengths[row];
      }
      seconds = thread_seconds() - start;
    }
  }
  std::size_t total = 0;
  for (const std::size_t length : lengths) total += length;
  return py::make_tuple(seconds, py::bytes(reinterpret_cast<const char*>(code.data()), total), lengths);
}

/// Decodes every row; returns (seconds, pixels).
py::tuple time_decode(const py::buffer& code, const std::vector<std::size_t>& lengths, std::size_t width,
                      std::uintptr_t foreign) {
  const ByteView view(code);
  if (width == 0 || width > 65536) throw UsageError("width must be 1 to 65536");
  Int32Array pixels({lengths.size(), width});
  std::int32_t* first = pixels.mutable_data();
  const auto decode = reinterpret_cast<ForeignDecode>(foreign);
  double seconds = 0;
  {
    const py::gil_scoped_release release;
    for (int warm = 0; warm < 2; ++warm) {
      std::size_t at = 0;
      const double start = thread_seconds();
      for (std::size_t row = 0; row < lengths.size(); ++row) {
        if (lengths[row] > view.bytes().size() - at) throw UsageError("lengths reach past the code");
        const std::span<const std::uint8_t> tile = view.bytes().subspan(at, lengths[row]);
        std::int32_t* line = first + row * width;
        const bool good =
            decode == nullptr
                ? rice_decode(tile, std::span<std::int32_t>(line, width)) == RiceStatus::ok
                : decode(const_cast<std::uint8_t*>(tile.data()), static_cast<int>(tile.size()),
                         reinterpret_cast<unsigned int*>(line), static_cast<int>(width), kBlock) == 0;
        if (!good) throw FormatError("row " + std::to_string(row) + " does not decode");
        at += lengths[row];
      }
      seconds = thread_seconds() - start;
    }
  }
  return py::make_tuple(seconds, pixels);
}

}  // namespace

void register_bench(py::module_& module) {
  module.def("time_rice_encode", &time_encode, py::arg("pixels").noconvert(), py::arg("foreign") = 0);
  module.def("time_rice_decode", &time_decode, py::arg("code"), py::arg("lengths"), py::arg("width"),
             py::arg("foreign") = 0);
}

}  // namespace raftwright::python
