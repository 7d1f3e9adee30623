// FITS files in: structure, RICE_1 and plain pixels, sums. Every size is checked before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace raftwright {

namespace structure {
struct Hdu;  // src/fits_structure.hpp
}

/// Element type of the pixels that the reader hands out, in native byte order. FITS stores i8, u16 and u32
/// as their opposites with a BZERO of half the range (FITS 4.0, table 11); those are resolved.
enum class PixelType { u8, i8, i16, u16, i32, u32, i64, f32, f64 };
[[nodiscard]] std::size_t pixel_bytes(PixelType type) noexcept;
/// "uint8", "int8", "int16" ..: NumPy's names.
[[nodiscard]] const char* pixel_type_name(PixelType type) noexcept;

/// `primary` is the first HDU, with or without pixels; `compressed` a tile-compressed image of any
/// algorithm, which may also be the image that was a primary one before it was compressed.
enum class HduKind { primary, image, compressed, table, other };
/// "primary", "image", "compressed", "table", "other".
[[nodiscard]] const char* hdu_kind_name(HduKind kind) noexcept;

struct HduInfo {
  HduKind kind = HduKind::other;
  std::string name;                ///< EXTNAME, bytes outside printable ASCII shown as '?'; may be empty
  std::int64_t version = 1;        ///< EXTVER
  int bitpix = 8;                  ///< of the image: ZBITPIX where the image is compressed
  std::vector<std::size_t> shape;  ///< NumPy order, slowest axis first; empty without axes
  std::string compression;         ///< ZCMPTYPE as it stands, e.g. "RICE_1"; empty when not compressed
  std::uint64_t header_offset = 0;
  std::uint64_t data_offset = 0;
  std::uint64_t data_bytes = 0;  ///< without padding
  /// False where another reader is needed (`reason` says why): no image, another algorithm, scaled pixels.
  /// An image that contradicts itself is ours to refuse: decodable, and image() throws what is wrong.
  bool decodable = false;
  std::string reason;
};

/// What read_into fills.
struct ImageLayout {
  PixelType type = PixelType::i32;
  std::vector<std::size_t> shape;  ///< NumPy order
  std::size_t pixels = 0;
  std::size_t bytes = 0;
};

/// One image of read_many.
struct ImageTarget {
  std::size_t hdu = 0;
  void* out = nullptr;    ///< aligned for the element type
  std::size_t bytes = 0;  ///< room in `out`: exactly image(hdu).bytes
};

/// Images in memory of their own. Every image begins on a cache line; all of them live as long as any
/// copy of `memory`.
struct ImageSlab {
  std::shared_ptr<void> memory;
  std::vector<void*> images;
};

/// nullopt where the card is absent or blank.
struct SumCheck {
  std::optional<bool> checksum;  ///< CHECKSUM: the whole HDU sums to minus zero
  std::optional<bool> datasum;   ///< DATASUM: the data unit sums to the stated value
};

/// A FITS file in memory. Immutable once made: every member function may be called from many threads.
/// Errors are FormatError and name the file, the HDU, the byte and the remedy; reading a file may
/// also throw IoError, wrong arguments UsageError.
class FitsFile {
 public:
  /// Files, and single images, above this many bytes are refused unless the caller says otherwise.
  static constexpr std::uint64_t kDefaultLimit = std::uint64_t{4} << 30U;

  /// Reads a file into memory (a copy, so that nothing breaks when others truncate or replace the file)
  /// and takes it apart.
  [[nodiscard]] static FitsFile open(const std::string& path, std::uint64_t limit = kDefaultLimit);

  /// Takes bytes apart that `owner` keeps alive (null: the caller does, longer than this object and its
  /// copies). `name` stands in errors for the file name.
  FitsFile(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner, std::string name,
           std::uint64_t limit = kDefaultLimit);
  ~FitsFile();
  FitsFile(const FitsFile&);
  FitsFile(FitsFile&&) noexcept;
  FitsFile& operator=(const FitsFile&);
  FitsFile& operator=(FitsFile&&) noexcept;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Number of HDUs, at least 1.
  [[nodiscard]] std::size_t size() const noexcept;
  /// Throws UsageError when there is no such HDU, as everything below.
  [[nodiscard]] const HduInfo& info(std::size_t hdu) const;
  /// Header text, 80 characters a card, without END and padding; whatever bytes stand in the file.
  [[nodiscard]] std::string_view cards(std::size_t hdu) const;

  /// Element type and shape of an image. Throws FormatError where there is none that can be read.
  [[nodiscard]] const ImageLayout& image(std::size_t hdu) const;
  /// Pixels of an image, as stored: BLANK is not interpreted. `bytes` must be image(hdu).bytes.
  /// threads 0 = every processor. On an error `out` is left partly written.
  void read_into(std::size_t hdu, void* out, std::size_t bytes, unsigned threads = 1) const;
  /// Many images; threads share runs of tiles of all of them.
  void read_many(std::span<const ImageTarget> targets, unsigned threads = 0) const;
  /// The same into fresh memory, in large pages where the system has them: the page faults of fresh small
  /// ones take longer than the decoding. Refuses with FormatError more than the limit in all.
  [[nodiscard]] ImageSlab read_slab(std::span<const std::size_t> hdus, unsigned threads = 0) const;

  [[nodiscard]] SumCheck sums(std::size_t hdu) const;
  /// Bytes after the last HDU.
  [[nodiscard]] std::uint64_t trailing() const noexcept { return trailing_; }

 private:
  [[nodiscard]] const structure::Hdu& hdu(std::size_t index) const;

  std::span<const std::uint8_t> bytes_;
  std::shared_ptr<const void> owner_;
  std::string name_;
  std::vector<structure::Hdu> hdus_;
  std::uint64_t trailing_ = 0;
  std::uint64_t limit_ = 0;
};

}  // namespace raftwright
