// What the tests of the FITS reader share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "doctest.h"
#include "fits_builder.hpp"
#include "raftwright/error.hpp"
#include "raftwright/raw_reader.hpp"

namespace reader_checks {

inline raftwright::FitsFile open_bytes(fits_builder::Bytes bytes,
                                       std::uint64_t limit = raftwright::FitsFile::kDefaultLimit) {
  const auto owner = std::make_shared<fits_builder::Bytes>(std::move(bytes));
  return {*owner, owner, "test.fits", limit};
}

/// The text of the error that `action` must throw.
template <class Error = raftwright::FormatError>
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE("'" << part << "' is not in '" << text << "'");
  return found;
}

template <class Pixel>
std::vector<Pixel> read(const raftwright::FitsFile& file, std::size_t hdu, unsigned threads = 1) {
  std::vector<Pixel> pixels(file.image(hdu).pixels);
  REQUIRE(file.image(hdu).bytes == pixels.size() * sizeof(Pixel));
  file.read_into(hdu, pixels.data(), pixels.size() * sizeof(Pixel), threads);
  return pixels;
}

template <class Number>
std::vector<Number> numbers(std::size_t count, std::mt19937& random, bool smooth) {
  std::vector<Number> made(count);
  std::int64_t level = 20;
  for (auto& number : made) {
    level += static_cast<std::int64_t>(random() % 5) - 2;
    const std::uint64_t any = (std::uint64_t{random()} << 32U) | random();
    number = static_cast<Number>(smooth ? static_cast<std::uint64_t>(level) : any);
  }
  return made;
}

}  // namespace reader_checks
