#include <bit>
#include <cstring>

#include "load_store.hpp"
#include "raftwright/checksum.hpp"

namespace raftwright {
namespace {

std::uint32_t fold(std::uint64_t sum) noexcept {
  sum = (sum & 0xFFFFFFFFU) + (sum >> 32);
  sum = (sum & 0xFFFFFFFFU) + (sum >> 32);
  return static_cast<std::uint32_t>(sum);
}

std::uint64_t load_be64(const std::uint8_t* at) noexcept { return __builtin_bswap64(load_le64(at)); }

// The sum as if `data` started at a word border. 2^64 - 1 is a multiple of 2^32 - 1, so words of 64 bits
// may be added with end-around carry as well; the carries are counted apart.
std::uint32_t sum_at_border(const std::uint8_t* data, std::size_t count) noexcept {
  std::uint64_t low[2] = {};
  std::uint64_t carries = 0;
  for (; count >= 16; data += 16, count -= 16) {
    const std::uint64_t first = load_be64(data);
    const std::uint64_t second = load_be64(data + 8);
    low[0] += first;
    carries += low[0] < first ? 1U : 0U;
    low[1] += second;
    carries += low[1] < second ? 1U : 0U;
  }
  std::uint8_t tail[16] = {};
  if (count > 0) std::memcpy(tail, data, count);
  std::uint64_t sum = std::uint64_t{fold(low[0])} + fold(low[1]) + fold(carries);
  sum += std::uint64_t{fold(load_be64(tail))} + fold(load_be64(tail + 8));
  return fold(sum);
}

// Characters that may not stand in a keyword's text: those between 9 and A and between Z and a.
bool is_punctuation(int character) noexcept {
  return (character > '9' && character < 'A') || (character > 'Z' && character < 'a');
}

}  // namespace

void FitsSum::add(std::span<const std::uint8_t> data) noexcept {
  add_part(sum_at_border(data.data(), data.size()), data.size());
}

void FitsSum::add_part(std::uint32_t sum, std::uint64_t count) noexcept {
  // Each byte further into a word weighs 2^8 less, and division by 2^8 modulo 2^32 - 1 is a rotation.
  sum_ = std::uint64_t{fold(sum_)} + std::rotr(sum, static_cast<int>(8 * (size_ % 4)));
  size_ += count;
}

std::uint32_t FitsSum::value() const noexcept { return fold(sum_); }

std::uint32_t fits_sum_add(std::uint32_t a, std::uint32_t b) noexcept { return fold(std::uint64_t{a} + b); }

std::string fits_checksum_text(std::uint32_t sum, bool complement) {
  const std::uint32_t value = complement ? ~sum : sum;
  std::string text(16, '0');
  for (std::size_t byte = 0; byte < 4; ++byte) {
    // Four characters whose distances from '0' add up to the byte: a quarter each, the rest to the first.
    const int number = static_cast<int>(value >> (24 - 8 * byte) & 0xFFU);
    int part[4] = {'0' + number / 4 + number % 4, '0' + number / 4, '0' + number / 4, '0' + number / 4};
    for (int* pair : {part, part + 2}) {
      while (is_punctuation(pair[0]) || is_punctuation(pair[1])) {
        ++pair[0];
        --pair[1];
      }
    }
    // Character 4k + byte of the sum, one place to the right: the value begins a byte before a word border.
    for (std::size_t k = 0; k < 4; ++k) text[(4 * k + byte + 1) % 16] = static_cast<char>(part[k]);
  }
  return text;
}

}  // namespace raftwright
