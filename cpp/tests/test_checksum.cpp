#include "raftwright/checksum.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <random>
#include <string_view>
#include <vector>

#include "doctest.h"
#include "guarded.hpp"

using namespace raftwright;

namespace {

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::vector<std::uint8_t> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> bytes(count);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// The definitions, one bit or byte at a time.
std::uint32_t naive_crc32c(std::span<const std::uint8_t> data) {
  std::uint32_t state = 0xFFFFFFFFU;
  for (const std::uint8_t byte : data) {
    state ^= byte;
    for (int bit = 0; bit < 8; ++bit) state = (state & 1U) != 0 ? state >> 1 ^ 0x82F63B78U : state >> 1;
  }
  return ~state;
}

std::uint32_t naive_adler32(std::span<const std::uint8_t> data) {
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const std::uint8_t byte : data) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

std::uint32_t naive_fits_sum(std::span<const std::uint8_t> data) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < data.size(); ++i) {
    sum += std::uint64_t{data[i]} << (24 - 8 * (i % 4));
    if (sum > 0xFFFFFFFFU) sum = (sum & 0xFFFFFFFFU) + 1;
  }
  return static_cast<std::uint32_t>(sum);
}

// Lengths on both sides of every block that the kernels know.
const std::size_t kLengths[] = {0,    1,     2,     3,     4,     7,     8,     9,     15,   16,
                                17,   23,    31,    32,    33,    63,    64,    100,   255,  256,
                                257,  767,   768,   769,   1000,  1535,  1536,  1537,  4095, 4096,
                                4097, 24575, 24576, 24577, 25343, 25344, 25345, 65521, 99991};

}  // namespace

TEST_CASE("CRC-32C: known answers") {
  CHECK(crc32c({}) == 0);
  CHECK(crc32c(bytes_of("123456789")) == 0xE3069283U);
  CHECK(crc32c(bytes_of("a")) == 0xC1D04330U);
  CHECK(crc32c(bytes_of("The quick brown fox jumps over the lazy dog")) == 0x22620404U);
  // RFC 3720, appendix B.4
  std::vector<std::uint8_t> data(32, 0);
  CHECK(crc32c(data) == 0x8A9136AAU);
  std::fill(data.begin(), data.end(), std::uint8_t{0xFF});
  CHECK(crc32c(data) == 0x62A8AB43U);
  for (std::size_t i = 0; i < 32; ++i) data[i] = static_cast<std::uint8_t>(i);
  CHECK(crc32c(data) == 0x46DD794EU);
  std::reverse(data.begin(), data.end());
  CHECK(crc32c(data) == 0x113FDB5CU);
}

TEST_CASE("CRC-32C: every length, address and split; kernel and portable code agree") {
  const std::vector<std::uint8_t> data = random_bytes(100'100, 11);
  for (const std::size_t length : kLengths) {
    CAPTURE(length);
    const auto whole = std::span(data).subspan(length % 9, length);
    const std::uint32_t expected = naive_crc32c(whole);
    REQUIRE(crc32c(whole) == expected);
    REQUIRE(crc32c_reference(whole) == expected);
    for (const std::size_t cut : {std::size_t{0}, length / 3, length / 2, length - length / 5, length}) {
      const std::uint32_t first = crc32c(whole.first(cut));
      REQUIRE(crc32c(whole.subspan(cut), first) == expected);
      REQUIRE(crc32c_reference(whole.subspan(cut), first) == expected);
      REQUIRE(crc32c_combine(first, crc32c(whole.subspan(cut)), length - cut) == expected);
    }
  }
}

TEST_CASE("CRC-32C: combination holds for lengths beyond memory") {
  // Appending zeros in one step or in many is the same.
  const std::vector<std::uint8_t> zeros(4096, 0);
  const std::uint32_t a = crc32c(bytes_of("raft"));
  const std::uint32_t z = crc32c(zeros);
  std::uint32_t stepwise = a;
  std::uint32_t zeros_so_far = 0;
  std::uint64_t length = 0;
  for (int i = 0; i < 50; ++i) {
    stepwise = crc32c_combine(stepwise, z, zeros.size());
    zeros_so_far = crc32c_combine(zeros_so_far, z, zeros.size());
    length += zeros.size();
    REQUIRE(crc32c_combine(a, zeros_so_far, length) == stepwise);
  }
  // Doubling up to 2^63 bytes: (a b) c = a (b c).
  std::uint64_t size = 4096;
  std::uint32_t power = z;
  for (; size < (std::uint64_t{1} << 62); size *= 2) power = crc32c_combine(power, power, size);
  const std::uint32_t left = crc32c_combine(crc32c_combine(a, power, size), power, size);
  const std::uint32_t right = crc32c_combine(a, crc32c_combine(power, power, size), 2 * size);
  CHECK(left == right);
  CHECK(crc32c_combine(a, 0, 0) == a);
}

TEST_CASE("Adler-32: known answers and every length and split") {
  CHECK(adler32({}) == 1);
  CHECK(adler32(bytes_of("a")) == 0x00620062U);
  CHECK(adler32(bytes_of("Wikipedia")) == 0x11E60398U);
  CHECK(adler32(bytes_of("123456789")) == 0x091E01DEU);
  const std::vector<std::uint8_t> data = random_bytes(100'100, 12);
  const std::vector<std::uint8_t> ones(100'100, 0xFF);
  for (const auto& source : {std::span(data), std::span(ones)}) {
    for (const std::size_t length : kLengths) {
      CAPTURE(length);
      const auto whole = source.subspan(length % 7, length);
      const std::uint32_t expected = naive_adler32(whole);
      REQUIRE(adler32(whole) == expected);
      REQUIRE(adler32(whole.subspan(length / 3), adler32(whole.first(length / 3))) == expected);
    }
  }
  const std::vector<std::uint8_t> many(3'000'000, 0xFF);
  CHECK(adler32(many, 0xFFF0FFF0U) ==
        adler32(std::span(many).subspan(1'234'567), adler32(std::span(many).first(1'234'567), 0xFFF0FFF0U)));
  CHECK(adler32(many) == naive_adler32(many));
}

TEST_CASE("checksums read nothing outside their data") {
  for (const std::size_t length : kLengths) {
    for (const Guarded::At at : {Guarded::At::end, Guarded::At::begin}) {
      const Guarded memory(length, at);
      std::fill(memory.bytes().begin(), memory.bytes().end(), std::uint8_t{0xA5});
      const std::span<const std::uint8_t> data = memory.bytes();
      FitsSum sum;
      sum.add(data);
      CHECK(crc32c(data) == naive_crc32c(data));
      CHECK(adler32(data) == naive_adler32(data));
      CHECK(sum.value() == naive_fits_sum(data));
    }
  }
}

TEST_CASE("FITS sum: the definition, in parts of any length") {
  const std::vector<std::uint8_t> random = random_bytes(100'100, 13);
  const std::vector<std::uint8_t> ones(100'100, 0xFF);
  std::mt19937 cuts(14);
  for (const auto& source : {std::span(random), std::span(ones)}) {
    for (const std::size_t length : kLengths) {
      CAPTURE(length);
      const auto whole = source.subspan(length % 5, length);
      const std::uint32_t expected = naive_fits_sum(whole);
      FitsSum once;
      once.add(whole);
      REQUIRE(once.value() == expected);
      REQUIRE(once.size() == length);
      for (const std::size_t most : {1U, 3U, 10U, 1000U}) {
        FitsSum bits;
        FitsSum parts;
        for (std::size_t done = 0; done < length;) {
          const std::size_t count = std::min<std::size_t>(1 + cuts() % most, length - done);
          const auto part = whole.subspan(done, count);
          FitsSum own;
          own.add(part);
          bits.add(part);
          parts.add_part(own.value(), count);
          done += count;
        }
        REQUIRE(bits.value() == expected);
        REQUIRE(parts.value() == expected);
        REQUIRE(parts.size() == length);
        if (length > 5000 && most == 10) break;  // long enough
      }
    }
  }
}

TEST_CASE("FITS sum: nothing but zeros is zero, and only they are") {
  FitsSum sum;
  CHECK(sum.value() == 0);
  sum.add(std::vector<std::uint8_t>(2880, 0));
  CHECK(sum.value() == 0);
  CHECK(sum.size() == 2880);
  sum.add(std::vector<std::uint8_t>(8, 0xFF));
  CHECK(sum.value() == 0xFFFFFFFFU);
  sum.add(std::vector<std::uint8_t>{0, 0, 0, 1});
  CHECK(sum.value() == 1);
  CHECK(fits_sum_add(0, 0) == 0);
  CHECK(fits_sum_add(0xFFFFFFFFU, 0) == 0xFFFFFFFFU);
  CHECK(fits_sum_add(0xFFFFFFFFU, 1) == 1);
  CHECK(fits_sum_add(0xFFFFFFFFU, 0xFFFFFFFFU) == 0xFFFFFFFFU);
  CHECK(fits_sum_add(0x80000000U, 0x80000001U) == 2);
}

TEST_CASE("CHECKSUM text: the example of the standard") {
  // FITS 4.0, appendix J.5
  CHECK(fits_checksum_text(868229149U) == "hcHjjc9ghcEghc9g");
  CHECK(fits_checksum_text(3426738146U, false) == "hcHjjc9ghcEghc9g");
  CHECK(fits_checksum_text(0xFFFFFFFFU) == "0000000000000000");
}

TEST_CASE("CHECKSUM text: an HDU that carries it sums to minus zero") {
  std::mt19937 random(15);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::uint8_t> hdu = random_bytes(2880, static_cast<unsigned>(random()));
    const std::size_t at = 80 * (random() % 36) + 11;  // the first character of a string value
    std::fill_n(hdu.begin() + static_cast<std::ptrdiff_t>(at), 16, std::uint8_t{'0'});
    FitsSum before;
    before.add(hdu);
    const std::string text = fits_checksum_text(before.value());
    REQUIRE(text.size() == 16);
    for (const char character : text) REQUIRE(std::isalnum(static_cast<unsigned char>(character)) != 0);
    std::copy(text.begin(), text.end(), hdu.begin() + static_cast<std::ptrdiff_t>(at));
    FitsSum after;
    after.add(hdu);
    REQUIRE(after.value() == 0xFFFFFFFFU);
  }
}

TEST_CASE("CHECKSUM text: every byte value in every place is letters and digits") {
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    for (int place = 0; place < 32; place += 8) {
      for (const char character : fits_checksum_text(byte << place)) {
        REQUIRE(std::isalnum(static_cast<unsigned char>(character)) != 0);
      }
    }
  }
}
