#include "raftwright/raw_reader.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include "fits_structure.hpp"
#include "image_decode.hpp"
#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"
#include "raftwright/parallel.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20U;
constexpr std::size_t kMostRead = std::size_t{1} << 30U;  // one pread moves less than 2 GiB

[[noreturn]] void refuse(const char* action, const std::string& path) {
  const int number = errno;
  throw IoError(path + ": cannot " + action + ": " + std::generic_category().message(number), number, path);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

/// Anonymous pages, large ones where the system has them.
std::shared_ptr<std::uint8_t> allocate_pages(std::size_t bytes) {
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  if (bytes >= kHugePage) ::madvise(address, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
  return {static_cast<std::uint8_t*>(address), [bytes](std::uint8_t* pages) { ::munmap(pages, bytes); }};
}

/// A run of tiles of one image, or of pixels when it is not compressed.
struct Run {
  std::size_t target;
  std::size_t first;
  std::size_t count;
};

}  // namespace

std::size_t pixel_bytes(PixelType type) noexcept {
  switch (type) {
    case PixelType::u8:
    case PixelType::i8:
      return 1;
    case PixelType::i16:
    case PixelType::u16:
      return 2;
    case PixelType::i32:
    case PixelType::u32:
    case PixelType::f32:
      return 4;
    case PixelType::i64:
    case PixelType::f64:
      break;
  }
  return 8;
}

const char* pixel_type_name(PixelType type) noexcept {
  constexpr const char* names[] = {"uint8",  "int8",  "int16",   "uint16", "int32",
                                   "uint32", "int64", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}

const char* hdu_kind_name(HduKind kind) noexcept {
  constexpr const char* names[] = {"primary", "image", "compressed", "table", "other"};
  return names[static_cast<std::size_t>(kind)];
}

FitsFile::FitsFile(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner, std::string name,
                   std::uint64_t limit)
    : bytes_(bytes), owner_(std::move(owner)), name_(std::move(name)), limit_(limit) {
  if (bytes.size() > limit) {
    throw FormatError(name_ + ": " + std::to_string(bytes.size()) + " bytes are above the limit of " +
                      std::to_string(limit) + "; raise the limit to read it");
  }
  hdus_ = structure::walk(bytes_, name_, limit);
  trailing_ = bytes_.size() - hdus_.back().end;
}

FitsFile::~FitsFile() = default;
FitsFile::FitsFile(const FitsFile&) = default;
FitsFile::FitsFile(FitsFile&&) noexcept = default;
FitsFile& FitsFile::operator=(const FitsFile&) = default;
FitsFile& FitsFile::operator=(FitsFile&&) noexcept = default;

FitsFile FitsFile::open(const std::string& path, std::uint64_t limit) {
  // O_NONBLOCK: a named pipe must not hold us before we can see what it is.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) refuse("open it", path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) refuse("examine it", path);
  if (S_ISDIR(status.st_mode)) {
    errno = EISDIR;
    refuse("read it", path);
  }
  if (!S_ISREG(status.st_mode)) throw FormatError(path + ": is no regular file; name a FITS file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > limit || size > SIZE_MAX) {
    throw FormatError(path + ": " + std::to_string(size) + " bytes are above the limit of " +
                      std::to_string(limit) + "; raise the limit to read it");
  }
  if (size == 0) throw FormatError(path + ": the file is empty; fetch it again");
  const auto wanted = static_cast<std::size_t>(size);
  std::shared_ptr<std::uint8_t> pages = allocate_pages(wanted);
  for (std::size_t done = 0; done < wanted;) {
    const ::ssize_t got = ::pread(file.get(), pages.get() + done, std::min(wanted - done, kMostRead),
                                  static_cast<::off_t>(done));
    if (got < 0) {
      if (errno == EINTR) continue;
      refuse("read it", path);
    }
    if (got == 0) {
      throw FormatError(path + ": the file shrank from " + std::to_string(wanted) + " to " +
                        std::to_string(done) + " bytes while it was read; try again when it is complete");
    }
    done += static_cast<std::size_t>(got);
  }
  const std::span<const std::uint8_t> bytes(pages.get(), wanted);
  return {bytes, std::move(pages), path, limit};
}

std::size_t FitsFile::size() const noexcept { return hdus_.size(); }

const structure::Hdu& FitsFile::hdu(std::size_t index) const {
  if (index >= hdus_.size()) {
    throw UsageError(name_ + ": there is no HDU " + std::to_string(index) + "; the file has HDUs 0 .. " +
                     std::to_string(hdus_.size() - 1));
  }
  return hdus_[index];
}

const HduInfo& FitsFile::info(std::size_t index) const { return hdu(index).info; }

std::string_view FitsFile::cards(std::size_t index) const {
  const structure::Hdu& found = hdu(index);
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
  return text.substr(static_cast<std::size_t>(found.info.header_offset), found.cards * 80);
}

const ImageLayout& FitsFile::image(std::size_t index) const {
  const structure::Hdu& found = hdu(index);
  if (!found.fault.empty()) {
    throw FormatError(structure::place(name_, index, found) + ": " + found.fault +
                      "; the file is damaged or was written wrongly: fetch it again");
  }
  if (!found.info.decodable) {
    throw FormatError(structure::place(name_, index, found) + ": " + found.info.reason +
                      (found.info.kind == HduKind::compressed || !found.info.shape.empty()
                           ? "; read it with astropy or cfitsio"
                           : "; name an HDU with pixels"));
  }
  return found.image;
}

void FitsFile::read_into(std::size_t index, void* out, std::size_t bytes, unsigned threads) const {
  const ImageTarget target{index, out, bytes};
  read_many({&target, 1}, threads);
}

void FitsFile::read_many(std::span<const ImageTarget> targets, unsigned threads) const {
  constexpr std::size_t run_bytes = std::size_t{256} << 10U;
  std::vector<Run> runs;
  for (std::size_t index = 0; index < targets.size(); ++index) {
    const ImageTarget& target = targets[index];
    const ImageLayout& layout = image(target.hdu);
    const std::size_t element = pixel_bytes(layout.type);
    if (target.bytes != layout.bytes) {
      throw UsageError("an output of " + std::to_string(target.bytes) + " bytes was given for HDU " +
                       std::to_string(target.hdu) + " of " + name_ + ", whose image takes " +
                       std::to_string(layout.bytes));
    }
    if (layout.bytes == 0) continue;
    if (target.out == nullptr || reinterpret_cast<std::uintptr_t>(target.out) % element != 0) {
      throw UsageError("the output for HDU " + std::to_string(target.hdu) + " of " + name_ +
                       " must be aligned to its " + std::to_string(element) + "-byte pixels");
    }
    const structure::Hdu& found = hdu(target.hdu);
    const std::size_t count = found.tiles ? found.tiles->count : layout.pixels;
    const std::size_t item_bytes = found.tiles ? std::max<std::size_t>(1, layout.bytes / count) : element;
    const std::size_t step = std::max<std::size_t>(1, run_bytes / item_bytes);
    for (std::size_t first = 0; first < count; first += step) {
      runs.push_back({index, first, std::min(step, count - first)});
    }
  }
  parallel_for(runs.size(), threads, [&](std::size_t index) {
    const Run& run = runs[index];
    const ImageTarget& target = targets[run.target];
    const structure::Hdu& found = hdu(target.hdu);
    try {
      if (found.tiles) {
        structure::decode_tiles(bytes_, found, run.first, run.count, target.out);
      } else {
        structure::copy_pixels(bytes_, found, run.first, run.count, target.out);
      }
    } catch (const FormatError& error) {
      throw FormatError(structure::place(name_, target.hdu, found) + ": " + error.what() +
                        "; the file is damaged: fetch it again");
    }
  });
}

ImageSlab FitsFile::read_slab(std::span<const std::size_t> hdus, unsigned threads) const {
  constexpr std::size_t line = 64;
  std::vector<std::size_t> offsets;
  std::size_t total = 0;
  for (const std::size_t index : hdus) {
    offsets.push_back(total);
    const std::size_t bytes = image(index).bytes;
    if (bytes > limit_ - std::min<std::uint64_t>(total, limit_)) {
      throw FormatError(name_ + ": its images together are above the limit of " + std::to_string(limit_) +
                        " bytes; read fewer at once");
    }
    total += (bytes + line - 1) / line * line;
  }
  ImageSlab slab;
  const std::shared_ptr<std::uint8_t> pages = allocate_pages(std::max(total, line));
  std::vector<ImageTarget> targets;
  for (std::size_t index = 0; index < hdus.size(); ++index) {
    void* out = pages.get() + offsets[index];
    slab.images.push_back(out);
    targets.push_back({hdus[index], out, image(hdus[index]).bytes});
  }
  read_many(targets, threads);
  slab.memory = pages;
  return slab;
}

SumCheck FitsFile::sums(std::size_t index) const {
  const structure::Hdu& found = hdu(index);
  SumCheck check;
  if (!found.has_checksum && !found.has_datasum) return check;
  const auto header = static_cast<std::size_t>(found.info.header_offset);
  const auto data = static_cast<std::size_t>(found.info.data_offset);
  FitsSum data_sum;
  data_sum.add(bytes_.subspan(data, static_cast<std::size_t>(found.end) - data));
  constexpr std::uint32_t minus_zero = 0xFFFFFFFFU;
  if (found.has_datasum) {
    const auto normal = [](std::uint32_t sum) { return sum == minus_zero ? 0U : sum; };
    check.datasum = found.datasum && normal(*found.datasum) == normal(data_sum.value());
  }
  if (found.has_checksum) {
    FitsSum all;
    all.add(bytes_.subspan(header, data - header));
    all.add_part(data_sum.value(), data_sum.size());
    check.checksum = all.value() == minus_zero;
  }
  return check;
}

}  // namespace raftwright
