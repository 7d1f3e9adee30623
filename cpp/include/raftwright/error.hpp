// Errors of the core. Each carries one sentence that names the thing, the place and the remedy.
#pragma once

#include <stdexcept>
#include <string>

namespace raftwright {

/// Root of every error that the core raises on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Data that is not what its format says: a stream, a layout, a FITS file, a compressed tile.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// An argument that cannot be meant: an empty image, a pitch smaller than a row, an unknown kernel.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// The operating system refused: carries errno and the path.
class IoError : public Error {
 public:
  IoError(const std::string& what, int error_number, std::string path)
      : Error(what), error_number_(error_number), path_(std::move(path)) {}
  [[nodiscard]] int error_number() const noexcept { return error_number_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  int error_number_;
  std::string path_;
};

}  // namespace raftwright
