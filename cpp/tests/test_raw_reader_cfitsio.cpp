// The reader against files that cfitsio compressed.
#if defined(RAFTWRIGHT_HAVE_CFITSIO) && __has_include(<fitsio.h>)

#include <fitsio.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "doctest.h"
#include "raftwright/raw_reader.hpp"

namespace {

using raftwright::FitsFile;

template <class Number>
constexpr int image_type() {
  if constexpr (std::is_same_v<Number, std::uint8_t>) return BYTE_IMG;
  if constexpr (std::is_same_v<Number, std::int8_t>) return SBYTE_IMG;
  if constexpr (std::is_same_v<Number, std::int16_t>) return SHORT_IMG;
  if constexpr (std::is_same_v<Number, std::uint16_t>) return USHORT_IMG;
  if constexpr (std::is_same_v<Number, std::int32_t>) return LONG_IMG;
  return ULONG_IMG;
}

template <class Number>
constexpr int memory_type() {
  if constexpr (std::is_same_v<Number, std::uint8_t>) return TBYTE;
  if constexpr (std::is_same_v<Number, std::int8_t>) return TSBYTE;
  if constexpr (std::is_same_v<Number, std::int16_t>) return TSHORT;
  if constexpr (std::is_same_v<Number, std::uint16_t>) return TUSHORT;
  if constexpr (std::is_same_v<Number, std::int32_t>) return TINT;
  return TUINT;
}

/// Writes `images` as RICE_1 images with sums and returns the file's name.
template <class Number>
void write(const std::string& path, std::vector<long> axes, std::vector<long> tile,
           std::vector<std::vector<Number>> images) {
  std::filesystem::remove(path);
  fitsfile* file = nullptr;
  int status = 0;
  fits_create_file(&file, path.c_str(), &status);
  fits_create_img(file, BYTE_IMG, 0, nullptr, &status);
  fits_write_chksum(file, &status);
  fits_set_compression_type(file, RICE_1, &status);
  if (!tile.empty()) fits_set_tile_dim(file, static_cast<int>(tile.size()), tile.data(), &status);
  for (auto& image : images) {
    fits_create_img(file, image_type<Number>(), static_cast<int>(axes.size()), axes.data(), &status);
    fits_write_img(file, memory_type<Number>(), 1, static_cast<LONGLONG>(image.size()), image.data(),
                   &status);
    fits_write_chksum(file, &status);
  }
  fits_close_file(file, &status);
  REQUIRE(status == 0);
}

}  // namespace

TEST_CASE_TEMPLATE("fits file: what cfitsio compresses", Number, std::uint8_t, std::int8_t, std::int16_t,
                   std::uint16_t, std::int32_t, std::uint32_t) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("raftwright-cfitsio-" + std::to_string(getpid()) + ".fits"))
          .string();
  std::mt19937 random(1);
  const std::vector<std::pair<std::vector<long>, std::vector<long>>> shapes = {
      {{1000}, {}}, {{576, 40}, {}}, {{61, 37}, {17, 9}}, {{61, 37}, {61, 37}}, {{20, 9, 5}, {7, 4, 2}}};
  for (const auto& [axes, tile] : shapes) {
    long count = 1;
    for (const long axis : axes) count *= axis;
    std::vector<std::vector<Number>> images(3, std::vector<Number>(static_cast<std::size_t>(count)));
    for (auto& pixel : images[0]) pixel = static_cast<Number>(random());
    for (auto& pixel : images[1]) pixel = static_cast<Number>(100 + random() % 8);
    for (auto& pixel : images[2]) pixel = 42;
    write(path, axes, tile, images);
    const FitsFile file = FitsFile::open(path);
    REQUIRE(file.size() == 4);
    CHECK(file.trailing() == 0);
    CHECK(file.sums(0).checksum == true);
    for (std::size_t hdu = 1; hdu < 4; ++hdu) {
      CAPTURE(axes.size());
      CAPTURE(hdu);
      CHECK(file.info(hdu).compression == "RICE_1");
      CHECK(file.sums(hdu).checksum == true);
      CHECK(file.sums(hdu).datasum == true);
      REQUIRE(file.image(hdu).bytes == images[0].size() * sizeof(Number));
      std::vector<Number> pixels(images[0].size());
      file.read_into(hdu, pixels.data(), pixels.size() * sizeof(Number), 2);
      CHECK(pixels == images[hdu - 1]);
    }
  }
  std::filesystem::remove(path);
}

#endif
