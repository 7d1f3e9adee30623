#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <system_error>

#include "fits_structure.hpp"
#include "raftwright/error.hpp"
#include "raftwright/fits_header.hpp"

namespace raftwright::structure {

namespace {

constexpr std::size_t kKeyword = 8;
constexpr std::size_t kValue = 10;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// A value that is not a string: what stands before the comment.
std::string_view token(std::string_view value) { return trimmed(value.substr(0, value.find('/'))); }

std::uint64_t packed(std::string_view keyword) {
  char padded[kKeyword] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
  std::memcpy(padded, keyword.data(), std::min(keyword.size(), kKeyword));
  std::uint64_t number = 0;
  std::memcpy(&number, padded, kKeyword);
  return number;
}

/// nullopt when `value` is no string; a missing closing quote ends with the card.
std::optional<std::string> quoted(std::string_view value) {
  value = trimmed(value);
  if (value.empty() || value.front() != '\'') return std::nullopt;
  std::string text;
  for (std::size_t at = 1; at < value.size(); ++at) {
    if (value[at] == '\'') {
      if (at + 1 >= value.size() || value[at + 1] != '\'') break;
      ++at;
    }
    text += value[at];
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown(text.substr(0, kFitsCard));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return shown;
}

CardTable::CardTable(std::string_view cards) : cards_(cards) {
  entries_.reserve(cards.size() / kFitsCard);
  for (std::size_t at = 0; at + kFitsCard <= cards.size(); at += kFitsCard) {
    if (cards[at + kKeyword] != '=' || cards[at + kKeyword + 1] != ' ') continue;  // commentary
    entries_.emplace_back(packed(cards.substr(at, kKeyword)), static_cast<std::uint32_t>(at / kFitsCard));
  }
  std::sort(entries_.begin(), entries_.end());
}

std::span<const CardTable::Entry> CardTable::find(std::string_view keyword) const {
  const std::uint64_t wanted = packed(keyword);
  const auto first = std::lower_bound(entries_.begin(), entries_.end(), Entry{wanted, 0});
  auto last = first;
  while (last != entries_.end() && last->first == wanted) ++last;
  return {first, last};
}

std::string_view CardTable::value(const Entry& entry) const {
  return cards_.substr(entry.second * kFitsCard + kValue, kFitsCard - kValue);
}

std::optional<std::int64_t> CardTable::integer(std::string_view keyword) const {
  std::optional<std::int64_t> found;
  for (const Entry& entry : find(keyword)) {
    std::string_view text = token(value(entry));
    if (text.empty()) continue;
    if (text.front() == '+' && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) {
      throw FormatError("card " + std::string(keyword) + " reads '" + printable(text) +
                        "' where a 64-bit integer must stand");
    }
    if (found && *found != number) {
      throw FormatError("card " + std::string(keyword) + " stands twice, with " + std::to_string(*found) +
                        " and " + std::to_string(number));
    }
    found = number;
  }
  return found;
}

std::int64_t CardTable::integer_within(std::string_view keyword, std::int64_t lowest,
                                       std::int64_t highest) const {
  const std::optional<std::int64_t> number = integer(keyword);
  if (!number) throw FormatError("card " + std::string(keyword) + " is missing");
  if (*number < lowest || *number > highest) {
    const bool open = highest == std::numeric_limits<std::int64_t>::max();
    throw FormatError(std::string(keyword) + " = " + std::to_string(*number) + " must be " +
                      (open ? "at least " + std::to_string(lowest)
                            : "within " + std::to_string(lowest) + " .. " + std::to_string(highest)));
  }
  return *number;
}

std::optional<double> CardTable::real(std::string_view keyword) const {
  for (const Entry& entry : find(keyword)) {
    std::string text(token(value(entry)));
    if (text.empty()) continue;
    std::replace(text.begin(), text.end(), 'D', 'E');
    const bool plus = text.size() > 1 && text.front() == '+' && text[1] != '-';
    double number = 0;
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data() + (plus ? 1 : 0), last, number);
    if (error != std::errc{} || end != last) return std::nan("");
    return number;
  }
  return std::nullopt;
}

std::optional<std::string> CardTable::text(std::string_view keyword) const {
  for (const Entry& entry : find(keyword)) {
    if (auto found = quoted(value(entry))) return found;
  }
  return std::nullopt;
}

std::vector<std::string> CardTable::texts(std::string_view keyword) const {
  std::vector<std::string> found;
  for (const Entry& entry : find(keyword)) {
    if (auto text = quoted(value(entry))) found.push_back(std::move(*text));
  }
  return found;
}

bool CardTable::is_true(std::string_view keyword) const {
  const auto entries = find(keyword);
  return !entries.empty() && token(value(entries.front())) == "T";
}

}  // namespace raftwright::structure
