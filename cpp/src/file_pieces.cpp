#include "raftwright/file_pieces.hpp"

#include <utility>

namespace raftwright {

std::span<const std::uint8_t> FilePieces::add(std::string bytes) {
  const std::string& kept = texts_.emplace_back(std::move(bytes));
  const std::span<const std::uint8_t> piece(reinterpret_cast<const std::uint8_t*>(kept.data()), kept.size());
  refer(piece, nullptr);
  return piece;
}

std::span<const std::uint8_t> FilePieces::add(std::vector<std::uint8_t> bytes) {
  const std::vector<std::uint8_t>& kept = buffers_.emplace_back(std::move(bytes));
  refer(kept, nullptr);
  return kept;
}

void FilePieces::refer(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner) {
  if (owner != nullptr && (owners_.empty() || owners_.back() != owner)) owners_.push_back(std::move(owner));
  if (bytes.empty()) return;
  pieces_.push_back(bytes);
  size_ += bytes.size();
}

}  // namespace raftwright
