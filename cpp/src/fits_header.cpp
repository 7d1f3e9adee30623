#include "raftwright/fits_header.hpp"

#include <algorithm>
#include <charconv>

#include "fits_structure.hpp"
#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::size_t kMostCards = std::size_t{1} << 16U;
constexpr std::size_t kKeyword = 8;
constexpr std::size_t kValueColumn = 10;
constexpr std::size_t kFixedValue = 20;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::string padded_keyword(std::string_view keyword) {
  if (keyword.empty() || keyword.size() > kKeyword) {
    throw UsageError("keyword '" + std::string(keyword) + "' must have 1 to 8 characters");
  }
  std::string text(keyword);
  text.resize(kKeyword, ' ');
  return text;
}

std::string right_justified(std::string_view value) {
  std::string text(value.size() < kFixedValue ? kFixedValue - value.size() : 0, ' ');
  text += value;
  return text;
}

/// Where the comment of a string card begins (its '/'), or npos.
std::size_t comment_of_string_card(std::string_view card) {
  std::size_t at = kValueColumn;
  while (at < card.size() && card[at] == ' ') ++at;
  if (at < card.size() && card[at] == '\'') {
    for (++at; at < card.size(); ++at) {
      if (card[at] != '\'') continue;
      if (at + 1 < card.size() && card[at + 1] == '\'') {
        ++at;
        continue;
      }
      break;
    }
  }
  return card.find('/', at);
}

}  // namespace

std::string fits_string_value(std::string_view text) {
  std::string value = "'";
  for (const char c : text) {
    value += c;
    if (c == '\'') value += c;
  }
  while (value.size() < 1 + kKeyword) value += ' ';
  return value + "'";
}

std::string fits_card(std::string_view keyword, std::string_view value, std::string_view comment) {
  std::string card = padded_keyword(keyword) + "= ";
  card += value;
  if (card.size() > kFitsCard) {
    throw UsageError("the value of " + std::string(keyword) + " does not fit a card of 80 characters");
  }
  if (!comment.empty()) {
    while (card.size() < kValueColumn + kFixedValue) card += ' ';
    card += " / ";
    card += comment;
  }
  card.resize(kFitsCard, ' ');
  return card;
}

FitsHeader::FitsHeader(std::string_view cards) : text_(cards) {
  if (cards.size() % kFitsCard != 0) {
    throw FormatError("header text of " + std::to_string(cards.size()) +
                      " characters is not whole cards of 80: pad every card with blanks");
  }
  if (size() > kMostCards) throw FormatError("a header of more than 65536 cards is refused: leave some out");
  for (std::size_t index = 0; index < size(); ++index) {
    for (const char c : card(index)) {
      if (c < ' ' || c > '~') {
        throw FormatError("card " + std::to_string(index + 1) + " (" + structure::printable(keyword(index)) +
                          ") has a character that FITS does not allow: use printable ASCII");
      }
    }
    if (keyword(index) == "END") {
      throw FormatError("card " + std::to_string(index + 1) + " is END: leave it to the writer");
    }
  }
}

std::string_view FitsHeader::card(std::size_t index) const {
  return std::string_view(text_).substr(index * kFitsCard, kFitsCard);
}

std::string_view FitsHeader::keyword(std::size_t index) const {
  return trimmed(card(index).substr(0, kKeyword));
}

std::optional<std::size_t> FitsHeader::find(std::string_view keyword) const {
  const std::string padded = padded_keyword(keyword);
  for (std::size_t index = 0; index < size(); ++index) {
    if (card(index).substr(0, kKeyword) == padded) return index;
  }
  return std::nullopt;
}

std::optional<std::int64_t> FitsHeader::integer(std::string_view keyword) const {
  const std::optional<std::size_t> index = find(keyword);
  if (!index) return std::nullopt;
  std::string_view value = card(*index).substr(kValueColumn);
  value = value.substr(0, value.find('/'));
  value = trimmed(value);
  value.remove_prefix(std::min(value.find_first_not_of(" +"), value.size()));
  std::int64_t number = 0;
  const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (code != std::errc{} || end != value.data() + value.size()) return std::nullopt;
  return number;
}

void FitsHeader::append(std::string_view card) {
  if (card.size() != kFitsCard)
    throw UsageError("a card has 80 characters, not " + std::to_string(card.size()));
  text_ += card;
}

void FitsHeader::append_from(const FitsHeader& other, std::size_t first, std::size_t last) {
  for (std::size_t index = first; index < last; ++index) append(other.card(index));
}

void FitsHeader::append_integer(std::string_view keyword, std::int64_t value, std::string_view comment) {
  append(fits_card(keyword, right_justified(std::to_string(value)), comment));
}

void FitsHeader::append_logical(std::string_view keyword, bool value, std::string_view comment) {
  append(fits_card(keyword, right_justified(value ? "T" : "F"), comment));
}

void FitsHeader::append_string(std::string_view keyword, std::string_view value, std::string_view comment) {
  append(fits_card(keyword, fits_string_value(value), comment));
}

void FitsHeader::set_string(std::string_view keyword, std::string_view value,
                            std::string_view comment_if_new) {
  const std::optional<std::size_t> index = find(keyword);
  if (!index) {
    append_string(keyword, value, comment_if_new);
    return;
  }
  const std::string_view old = card(*index);
  const std::size_t slash = comment_of_string_card(old);
  std::string_view comment;
  if (slash != std::string_view::npos) {
    comment = trimmed(old.substr(slash + 1));
    comment.remove_prefix(std::min(comment.find_first_not_of(' '), comment.size()));
  }
  const std::string card = fits_card(keyword, fits_string_value(value), comment);
  text_.replace(*index * kFitsCard, kFitsCard, card);
}

void FitsHeader::rename(std::string_view keyword, std::string_view new_keyword) {
  const std::optional<std::size_t> index = find(keyword);
  if (index) text_.replace(*index * kFitsCard, kKeyword, padded_keyword(new_keyword));
}

std::string FitsHeader::block() const {
  std::string text = text_ + "END";
  text.resize((text.size() + kFitsBlock - 1) / kFitsBlock * kFitsBlock, ' ');
  return text;
}

}  // namespace raftwright
