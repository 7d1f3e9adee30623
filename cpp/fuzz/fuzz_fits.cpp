// FITS files: structure, sums and pixels of whatever the bytes claim to be.
#include <cstdint>
#include <vector>

#include "fuzz_input.hpp"
#include "raftwright/error.hpp"
#include "raftwright/raw_reader.hpp"

namespace {

// A small file may hold a large image of constant rows; one this large is for the limits, not for the clock.
constexpr std::uint64_t largest_file = std::uint64_t{1} << 24U;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace raftwright;
  using raftwright::fuzz::require;
  try {
    const FitsFile file({data, size}, nullptr, "input", largest_file);
    require(file.size() >= 1, "a file has an HDU");
    require(file.trailing() <= size, "what trails lies in the file");
    for (std::size_t hdu = 0; hdu < file.size(); ++hdu) {
      const HduInfo& info = file.info(hdu);
      require(info.data_offset <= size && info.data_bytes <= size - info.data_offset, "data lie in the file");
      require(file.cards(hdu).size() % 80 == 0, "cards are whole");
      static_cast<void>(file.sums(hdu));
      if (!info.decodable) continue;
      try {
        const ImageLayout& image = file.image(hdu);
        std::vector<std::uint64_t> out(image.bytes / 8 + 1);
        file.read_into(hdu, out.data(), image.bytes, 1);
        const ImageTarget target{hdu, out.data(), image.bytes};
        file.read_many({&target, 1}, 2);
      } catch (const FormatError&) {
        // This image is refused; the next may be good.
      }
    }
  } catch (const FormatError&) {
    // No FITS file.
  }
  return 0;
}
