#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "raftwright/atomic_file.hpp"
#include "raftwright/error.hpp"
#include "raftwright/image_hdu.hpp"
#include "raftwright/parallel.hpp"
#include "raftwright/readout.hpp"
#include "registrars.hpp"

namespace raftwright::python {

namespace {

py::dict as_dict(const PublishResult& result) {
  const auto hexadecimal = [](std::uint32_t value) { return py::str("{:08x}").format(value); };
  py::dict dict;
  dict["status"] = published_name(result.status);
  dict["path"] = path_text(result.path);
  dict["bytes"] = result.bytes;
  dict["adler32"] = hexadecimal(result.adler32);
  dict["crc32c"] = hexadecimal(result.crc32c);
  return dict;
}

const char* standing_name(Standing standing) {
  switch (standing) {
    case Standing::free:
      return "free";
    case Standing::same:
      return "same";
    case Standing::other:
      return "other";
  }
  return "unknown";
}

std::string hexadecimal(std::uint32_t value) { return py::str("{:08x}").format(value).cast<std::string>(); }

FitsHeader header_from(const py::bytes& cards) { return FitsHeader(std::string_view(cards)); }

/// BITPIX of a NumPy type in native byte order.
int bitpix_of(const py::array& array) {
  const py::dtype type = array.dtype();
  if (type.equal(py::dtype::of<std::uint8_t>())) return 8;
  if (type.equal(py::dtype::of<std::int16_t>())) return 16;
  if (type.equal(py::dtype::of<std::int32_t>())) return 32;
  if (type.equal(py::dtype::of<std::int64_t>())) return 64;
  if (type.equal(py::dtype::of<float>())) return -32;
  if (type.equal(py::dtype::of<double>())) return -64;
  throw UsageError("FITS has no pixel type for " + py::str(py::object(type)).cast<std::string>() +
                   " in native byte order");
}

/// Gathers the HDUs of one file. Readouts whose rows it refers to are kept alive. Thread-safe.
class Writer {
 public:
  void add_header_only(const py::bytes& cards) {
    FitsHeader header = header_from(cards);
    append([&] {
      const FitsHeader written = append_header_only(pieces_, std::move(header));
      if (primary_.empty()) primary_ = written.text();
    });
  }

  void add_compressed(const py::bytes& cards, const std::shared_ptr<Readout>& readout, std::size_t plane) {
    const FitsHeader header = header_from(cards);
    const std::shared_ptr<const CompressedPlanes> tiles(readout, &readout->compressed());
    append([&] { append_compressed_image(pieces_, header, tiles, plane); });
  }

  void add_plain(const py::bytes& cards, const std::shared_ptr<Readout>& readout, std::size_t plane) {
    const Planes& planes = readout->planes();
    if (plane >= planes.count()) {
      throw UsageError("plane " + std::to_string(plane) + " does not exist: give 0 to " +
                       std::to_string(planes.count() - 1));
    }
    if (!readout->finished() && !readout->complete()) {
      throw UsageError("rows of the readout have not come: finish it before its pixels are written");
    }
    const FitsHeader header = header_from(cards);
    append([&] {
      append_plain_image(pieces_, header, 32, planes.plane(plane), planes.width() * planes.height());
    });
  }

  void add_compressed_array(const py::bytes& cards, const Int32Array& pixels, unsigned threads) {
    if (pixels.ndim() != 2 || pixels.size() == 0)
      throw UsageError("pixels must be a non-empty 2-D int32 array");
    const FitsHeader header = header_from(cards);
    const auto height = static_cast<std::size_t>(pixels.shape(0));
    const auto width = static_cast<std::size_t>(pixels.shape(1));
    const std::int32_t* first = pixels.data();
    append([&] {
      const auto tiles = std::make_shared<CompressedPlanes>(1, width, height);
      constexpr std::size_t rows = CompressedPlanes::kRunRows;
      parallel_for((height + rows - 1) / rows, threads, [&](std::size_t run) {
        const std::size_t row = run * rows;
        tiles->encode(row, std::min(rows, height - row),
                      [&](std::size_t r, std::span<const std::int32_t*> pointers) {
                        pointers[0] = first + (row + r) * width;
                      });
      });
      append_compressed_image(pieces_, header, tiles, 0);
    });
  }

  void add_plain_array(const py::bytes& cards, const py::array& pixels) {
    if ((pixels.flags() & py::array::c_style) == 0) throw UsageError("pixels must be C-ordered: pass a copy");
    const int bitpix = bitpix_of(pixels);
    const FitsHeader header = header_from(cards);
    const auto count = static_cast<std::size_t>(pixels.size());
    const void* first = pixels.data();
    append([&] { append_plain_image(pieces_, header, bitpix, first, count); });
  }

  [[nodiscard]] std::uint64_t size() const {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return pieces_.size();
  }

  [[nodiscard]] py::bytes primary_cards() const {
    std::string cards;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      cards = primary_;
    }
    return {cards};
  }

  [[nodiscard]] py::dict publish_as(const py::object& path, bool durable) const {
    const std::string name = path_bytes(path);
    PublishResult result;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      check_whole();
      if (pieces_.size() == 0) {
        throw UsageError("a file of no HDU cannot be published: add a primary header first");
      }
      result = publish(pieces_, name, durable);
    }
    return as_dict(result);
  }

  [[nodiscard]] const char* compare_with(const py::object& path, bool durable) const {
    const std::string name = path_bytes(path);
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    check_whole();
    return standing_name(compare(pieces_, name, durable));
  }

  [[nodiscard]] std::unique_ptr<StagedFile> stage(const py::object& path, bool durable) const {
    const std::string name = path_bytes(path);
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    check_whole();
    if (pieces_.size() == 0)
      throw UsageError("a file of no HDU cannot be staged: add a primary header first");
    return std::make_unique<StagedFile>(pieces_, name, durable);
  }

 private:
  void check_whole() const {
    if (broken_) throw UsageError("an earlier HDU was added only in part: start the file again");
  }

  /// Adds an HDU without the GIL, one at a time. One that failed half-way spoils the file for good.
  template <typename Work>
  void append(Work&& work) {
    const py::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    check_whole();
    const std::uint64_t before = pieces_.size();
    try {
      work();
    } catch (...) {
      broken_ = pieces_.size() != before;
      throw;
    }
  }

  mutable std::mutex mutex_;
  FilePieces pieces_;
  std::string primary_;
  bool broken_ = false;
};

}  // namespace

void register_rawfile(py::module_& module) {
  py::class_<StagedFile>(module, "StagedFile", py::is_final())
      .def("sync", &StagedFile::sync, py::call_guard<py::gil_scoped_release>())
      .def("commit", &StagedFile::commit, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("readable_path", &StagedFile::readable_path)
      .def_property_readonly("bytes", &StagedFile::bytes)
      .def_property_readonly("crc32c", [](const StagedFile& self) { return hexadecimal(self.crc32c()); })
      .def_property_readonly("adler32", [](const StagedFile& self) { return hexadecimal(self.adler32()); });

  py::class_<Writer>(module, "RawFileWriter", py::is_final())
      .def(py::init<>())
      .def("add_header_only", &Writer::add_header_only, py::arg("cards"))
      .def("add_compressed", &Writer::add_compressed, py::arg("cards"), py::arg("readout"), py::arg("plane"))
      .def("add_plain", &Writer::add_plain, py::arg("cards"), py::arg("readout"), py::arg("plane"))
      .def("add_compressed_array", &Writer::add_compressed_array, py::arg("cards"),
           py::arg("pixels").noconvert(), py::arg("threads") = 1)
      .def("add_plain_array", &Writer::add_plain_array, py::arg("cards"), py::arg("pixels").noconvert())
      .def_property_readonly("size", &Writer::size)
      .def("primary_cards", &Writer::primary_cards)
      .def("publish", &Writer::publish_as, py::arg("path"), py::arg("durable") = true)
      .def("compare", &Writer::compare_with, py::arg("path"), py::arg("durable") = true)
      .def("stage", &Writer::stage, py::arg("path"), py::arg("durable") = true);

  module.def(
      "publish_bytes",
      [](const py::object& path, const py::buffer& data, bool durable) {
        const std::string name = path_bytes(path);
        const ByteView view(data);
        PublishResult result;
        {
          const py::gil_scoped_release release;
          FilePieces pieces;
          pieces.refer(view.bytes(), nullptr);
          result = publish(pieces, name, durable);
        }
        return as_dict(result);
      },
      py::arg("path"), py::arg("data"), py::arg("durable") = true);

  module.def(
      "stage_bytes",
      [](const py::object& path, const py::buffer& data, bool durable) {
        const std::string name = path_bytes(path);
        const ByteView view(data);
        const py::gil_scoped_release release;
        FilePieces pieces;
        pieces.refer(view.bytes(), nullptr);
        return std::make_unique<StagedFile>(pieces, name, durable);
      },
      py::arg("path"), py::arg("data"), py::arg("durable") = true);
}

}  // namespace raftwright::python
