// The cards of one FITS header, and the few that the core itself has to set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace raftwright {

inline constexpr std::size_t kFitsBlock = 2880;
inline constexpr std::size_t kFitsCard = 80;

/// Cards of 80 characters, without END and without padding. The text is taken as it is: how values
/// look is the business of whoever made the cards.
class FitsHeader {
 public:
  FitsHeader() = default;
  /// Throws FormatError unless `cards` is whole cards of printable ASCII, at most 2^16 of them, none of
  /// them END.
  explicit FitsHeader(std::string_view cards);

  [[nodiscard]] std::size_t size() const noexcept { return text_.size() / kFitsCard; }
  [[nodiscard]] std::string_view card(std::size_t index) const;
  [[nodiscard]] std::string_view keyword(std::size_t index) const;
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

  /// Index of the first card with a keyword of at most 8 characters.
  [[nodiscard]] std::optional<std::size_t> find(std::string_view keyword) const;
  [[nodiscard]] std::optional<std::int64_t> integer(std::string_view keyword) const;

  void append(std::string_view card);
  /// Copies another header's cards from `first` on.
  void append_from(const FitsHeader& other, std::size_t first, std::size_t last);
  void append_integer(std::string_view keyword, std::int64_t value, std::string_view comment);
  void append_logical(std::string_view keyword, bool value, std::string_view comment);
  void append_string(std::string_view keyword, std::string_view value, std::string_view comment);

  /// Sets the value of a string card where it stands, keeping its comment; appends it when it is absent.
  void set_string(std::string_view keyword, std::string_view value, std::string_view comment_if_new);
  /// Renames a card where it stands; nothing happens when it is absent.
  void rename(std::string_view keyword, std::string_view new_keyword);

  /// With END, padded with blanks to whole blocks: as in the file.
  [[nodiscard]] std::string block() const;

 private:
  std::string text_;
};

/// One card: keyword, value already in FITS form (fixed format), comment cut at column 80.
[[nodiscard]] std::string fits_card(std::string_view keyword, std::string_view value,
                                    std::string_view comment);
/// A string value in quotes, padded to at least eight characters, quotes doubled.
[[nodiscard]] std::string fits_string_value(std::string_view text);

}  // namespace raftwright
