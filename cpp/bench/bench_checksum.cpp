// Checksums of 128 MB, beside a memcpy of the same bytes.
#include "raftwright/checksum.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

#include "bench.hpp"

namespace {

std::uint32_t plain_adler32(const std::vector<std::uint8_t>& data) {
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const std::uint8_t byte : data) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

std::uint32_t plain_fits_sum(const std::vector<std::uint8_t>& data) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < data.size(); ++i) sum += std::uint64_t{data[i]} << (24 - 8 * (i % 4));
  while (sum >> 32 != 0) sum = (sum & 0xFFFFFFFFU) + (sum >> 32);
  return static_cast<std::uint32_t>(sum);
}

void bench_checksum() {
  std::vector<std::uint8_t> data(128'000'001);
  std::vector<std::uint8_t> copy(data.size());
  std::uint64_t state = 1;
  for (std::uint8_t& byte : data) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::uint8_t>(state >> 56);
  }
  const double gigabytes = 1e-9 * static_cast<double>(data.size());
  std::uint32_t crc = 0;
  std::uint32_t crc_portable = 0;
  std::uint32_t adler = 0;
  std::uint32_t fits = 0;
  const std::vector<bench::Candidate> candidates = {
      {"memcpy", [&] { std::memcpy(copy.data(), data.data(), data.size()); }},
      {"CRC-32C", [&] { crc = raftwright::crc32c(data); }},
      {"CRC-32C, portable", [&] { crc_portable = raftwright::crc32c_reference(data); }},
      {"Adler-32", [&] { adler = raftwright::adler32(data); }},
      {"FITS sum", [&] {
         raftwright::FitsSum sum;
         sum.add(data);
         fits = sum.value();
       }}};
  const std::vector<bench::Timing> timings = bench::measure(candidates);
  const std::span<const std::uint8_t> all = data;
  const std::uint32_t in_parts =
      raftwright::crc32c_combine(raftwright::crc32c_reference(all.first(77'777)),
                                 raftwright::crc32c_reference(all.subspan(77'777)), data.size() - 77'777);
  const bool equal[] = {true, crc == in_parts, crc_portable == in_parts, adler == plain_adler32(data),
                        fits == plain_fits_sum(data)};
  for (std::size_t k = 1; k < candidates.size(); ++k) {
    bench::report(candidates[k].name, timings[k], "memcpy", gigabytes, "GB", equal[k]);
  }
}

const bench::Benchmark kChecksum{"checksum", bench_checksum};

}  // namespace
