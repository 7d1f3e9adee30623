#include "fits_structure.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "raftwright/error.hpp"
#include "raftwright/fits_header.hpp"

namespace raftwright::structure {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMostAxes = 999;  // FITS 4.0, section 4.4.1.1
constexpr const char* kFetchAgain = "; the file is damaged or cut short: fetch it again";

std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result) || result > static_cast<std::uint64_t>(kMost)) {
    throw FormatError("the sizes of the data multiply beyond 2^63 bytes");
  }
  return result;
}

std::uint64_t sum(std::uint64_t a, std::uint64_t b) {
  if (a > static_cast<std::uint64_t>(kMost) - b) {
    throw FormatError("the sizes of the data add up beyond 2^63 bytes");
  }
  return a + b;
}

bool known_bitpix(std::int64_t bitpix) {
  constexpr std::int64_t known[] = {8, 16, 32, 64, -32, -64};
  return std::find(std::begin(known), std::end(known), bitpix) != std::end(known);
}

/// Bytes of the data unit (FITS 4.0, equations 1, 2 and 4).
std::uint64_t data_bytes(const CardTable& cards, bool primary, const Hdu& hdu) {
  const auto& shape = hdu.info.shape;
  if (shape.empty()) return 0;
  const auto element = static_cast<std::uint64_t>(std::abs(hdu.info.bitpix) / 8);
  const bool groups = primary && shape.back() == 0 && cards.is_true("GROUPS");
  std::uint64_t pixels = 1;
  for (std::size_t axis = 0; axis + (groups ? 1U : 0U) < shape.size(); ++axis) {
    pixels = product(pixels, shape[axis]);
  }
  if (primary && !groups) return product(pixels, element);
  const auto parameters =
      static_cast<std::uint64_t>(cards.integer("PCOUNT") ? cards.integer_within("PCOUNT", 0, kMost) : 0);
  const auto count =
      static_cast<std::uint64_t>(cards.integer("GCOUNT") ? cards.integer_within("GCOUNT", 0, kMost) : 1);
  return product(product(sum(pixels, parameters), count), element);
}

HduKind kind_of(const CardTable& cards, bool primary) {
  if (primary) return HduKind::primary;
  const std::string type = cards.text("XTENSION").value_or("");
  if (type == "IMAGE") return HduKind::image;
  if (type == "BINTABLE" || type == "A3DTABLE") {
    return cards.is_true("ZIMAGE") ? HduKind::compressed : HduKind::table;
  }
  return type == "TABLE" ? HduKind::table : HduKind::other;
}

/// fpack calls the table of a nameless image COMPRESSED_IMAGE, and some writers leave that beside the name.
std::string name_of(const CardTable& cards, HduKind kind) {
  const std::vector<std::string> names = cards.texts("EXTNAME");
  for (const std::string& name : names) {
    if (kind != HduKind::compressed || name != "COMPRESSED_IMAGE") return printable(name);
  }
  return names.empty() ? "" : names.front();
}

std::int64_t version_of(const CardTable& cards) {
  try {
    return cards.integer("EXTVER").value_or(1);
  } catch (const FormatError&) {
    return 1;  // says nothing about the structure
  }
}

void note_sums(const CardTable& cards, Hdu& hdu) {
  const auto stated = [&](std::string_view keyword) -> std::optional<std::string> {
    std::optional<std::string> text = cards.text(keyword);
    if (!text) {
      const std::optional<double> number = cards.real(keyword);  // as a number: not standard, but clear
      if (!number || !(*number >= 0)) return std::nullopt;
      return std::to_string(static_cast<std::uint64_t>(std::min(*number, 1e18)));
    }
    text->erase(0, text->find_first_not_of(' '));
    return text->empty() ? std::nullopt : text;
  };
  hdu.has_checksum = stated("CHECKSUM").has_value();
  const std::optional<std::string> datasum = stated("DATASUM");
  hdu.has_datasum = datasum.has_value();
  if (!datasum) return;
  std::uint32_t value = 0;
  const char* last = datasum->data() + datasum->size();
  const auto [end, error] = std::from_chars(datasum->data(), last, value);
  if (error == std::errc{} && end == last) hdu.datasum = value;
}

/// Offset of the END card from the start of the header.
std::size_t find_end(std::string_view text) {
  for (std::size_t at = 0; at + kFitsCard <= text.size(); at += kFitsCard) {
    if (text.substr(at, 8) == "END     ") return at;
  }
  throw FormatError("the header has no END card up to the end of the file");
}

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kFitsBlock - 1) / kFitsBlock * kFitsBlock; }

void describe(std::string_view text, bool primary, std::uint64_t limit, Hdu& hdu) {
  HduInfo& info = hdu.info;
  const std::size_t end = find_end(text);
  hdu.cards = end / kFitsCard;
  const CardTable cards(text.substr(0, end));
  info.kind = kind_of(cards, primary);
  info.name = name_of(cards, info.kind);
  info.version = version_of(cards);

  const std::int64_t bitpix = cards.integer_within("BITPIX", -64, 64);
  if (!known_bitpix(bitpix)) {
    throw FormatError("BITPIX = " + std::to_string(bitpix) + " must be 8, 16, 32, 64, -32 or -64");
  }
  info.bitpix = static_cast<int>(bitpix);
  info.shape = shape_of(cards, "NAXIS");
  info.data_offset = info.header_offset + padded(end + kFitsCard);
  info.data_bytes = data_bytes(cards, primary, hdu);
  const std::uint64_t available = text.size() + info.header_offset;
  if (info.data_offset > available) throw FormatError("the file ends inside the padding of the header");
  if (info.data_bytes > available - info.data_offset) {
    throw FormatError("its data would end at byte " + std::to_string(info.data_offset + info.data_bytes) +
                      ", the file ends at byte " + std::to_string(available));
  }
  hdu.end = info.data_offset + padded(info.data_bytes);
  if (hdu.end > available) {
    throw FormatError("the last " + std::to_string(hdu.end - available) +
                      " bytes of padding after its data are missing");
  }
  note_sums(cards, hdu);

  try {
    switch (info.kind) {
      case HduKind::compressed:
        describe_compressed(cards, limit, hdu);
        break;
      case HduKind::primary:
      case HduKind::image:
        describe_plain(cards, limit, hdu);
        break;
      default:
        info.reason = "it holds no image";
    }
  } catch (const FormatError& error) {
    info.decodable = true;
    hdu.fault = error.what();
  }
}

}  // namespace

std::string place(const std::string& name, std::size_t index, const Hdu& hdu) {
  std::string text = name + ": HDU " + std::to_string(index);
  if (!hdu.info.name.empty()) text += " '" + hdu.info.name + "'";
  return text + " (header at byte " + std::to_string(hdu.info.header_offset) + ")";
}

std::vector<std::size_t> shape_of(const CardTable& cards, const std::string& stem) {
  const std::int64_t axes = cards.integer_within(stem, 0, kMostAxes);
  std::vector<std::size_t> shape;
  for (std::int64_t axis = axes; axis > 0; --axis) {
    shape.push_back(static_cast<std::size_t>(cards.integer_within(stem + std::to_string(axis), 0, kMost)));
  }
  return shape;
}

void set_layout(const CardTable& cards, std::uint64_t limit, Hdu& hdu) {
  ImageLayout& image = hdu.image;
  const double scale = cards.real("BSCALE").value_or(1);
  const double zero = cards.real("BZERO").value_or(0);
  const int bitpix = hdu.info.bitpix;
  struct Match {
    int bitpix;
    double zero;
    PixelType type;
    bool flip;
  };
  constexpr Match matches[] = {
      {8, 0, PixelType::u8, false},    {8, -128, PixelType::i8, true},
      {16, 0, PixelType::i16, false},  {16, 32768, PixelType::u16, true},
      {32, 0, PixelType::i32, false},  {32, 2147483648.0, PixelType::u32, true},
      {64, 0, PixelType::i64, false},  {-32, 0, PixelType::f32, false},
      {-64, 0, PixelType::f64, false},
  };
  const auto* found = std::find_if(std::begin(matches), std::end(matches), [&](const Match& match) {
    return match.bitpix == bitpix && std::abs(match.zero - zero) <= 0;
  });
  if (found == std::end(matches) || !(std::abs(scale - 1) <= 0)) {
    hdu.info.reason = "its pixels are scaled by BSCALE or BZERO";
    return;
  }
  image.type = found->type;
  hdu.flip_sign = found->flip;
  image.shape = hdu.info.shape;
  std::uint64_t pixels = 1;
  for (const std::size_t axis : image.shape) pixels = product(pixels, axis);
  const std::uint64_t bytes = product(pixels, pixel_bytes(image.type));
  if (bytes > limit || bytes > std::numeric_limits<std::size_t>::max()) {
    throw FormatError("its image of " + std::to_string(bytes) + " bytes is above the limit of " +
                      std::to_string(limit));
  }
  image.pixels = static_cast<std::size_t>(pixels);
  image.bytes = static_cast<std::size_t>(bytes);
  hdu.info.decodable = true;
}

void describe_plain(const CardTable& cards, std::uint64_t limit, Hdu& hdu) {
  if (hdu.info.shape.empty()) {
    hdu.info.reason = "it holds no image";
    return;
  }
  set_layout(cards, limit, hdu);
  if (hdu.info.decodable && hdu.image.bytes != hdu.info.data_bytes) {
    hdu.info.decodable = false;
    hdu.info.reason = "its data are more than one image (PCOUNT, GCOUNT or GROUPS)";
  }
}

std::vector<Hdu> walk(std::span<const std::uint8_t> bytes, const std::string& name, std::uint64_t limit) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty()) throw FormatError(name + ": the file is empty" + kFetchAgain);
  if (!text.starts_with("SIMPLE  =")) {
    if (text.starts_with("\x1f\x8b")) {
      throw FormatError(name + ": byte 0 begins a gzip file, not FITS; gunzip it first");
    }
    throw FormatError(name + ": byte 0 begins no FITS file ('SIMPLE  =' is missing); name a FITS file");
  }
  std::vector<Hdu> hdus;
  std::uint64_t at = 0;
  do {
    Hdu hdu;
    hdu.info.header_offset = at;
    try {
      describe(text.substr(static_cast<std::size_t>(at)), hdus.empty(), limit, hdu);
    } catch (const FormatError& error) {
      throw FormatError(place(name, hdus.size(), hdu) + ": " + error.what() + kFetchAgain);
    }
    at = hdu.end;
    hdus.push_back(std::move(hdu));
  } while (text.substr(static_cast<std::size_t>(at)).starts_with("XTENSION="));
  return hdus;
}

}  // namespace raftwright::structure
