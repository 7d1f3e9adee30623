// The content of a file as pieces that lie where they were made: nothing is copied to be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace raftwright {

class FilePieces {
 public:
  FilePieces() = default;
  FilePieces(const FilePieces&) = delete;  // a copy's pieces would lie in the original
  FilePieces& operator=(const FilePieces&) = delete;
  FilePieces(FilePieces&&) = default;
  FilePieces& operator=(FilePieces&&) = default;
  ~FilePieces() = default;

  /// Takes the bytes over.
  std::span<const std::uint8_t> add(std::string bytes);
  std::span<const std::uint8_t> add(std::vector<std::uint8_t> bytes);
  /// Refers to bytes that `owner` (may be null for static storage) keeps alive.
  void refer(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner);

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] const std::vector<std::span<const std::uint8_t>>& pieces() const noexcept { return pieces_; }

 private:
  std::vector<std::span<const std::uint8_t>> pieces_;
  std::deque<std::string> texts_;
  std::deque<std::vector<std::uint8_t>> buffers_;
  std::vector<std::shared_ptr<const void>> owners_;
  std::uint64_t size_ = 0;
};

}  // namespace raftwright
