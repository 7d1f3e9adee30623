#include "raftwright/intake.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "raftwright/checksum.hpp"
#include "raftwright/error.hpp"

namespace raftwright {

namespace {

constexpr std::uint64_t kFurthestJump = 65536;  // of a sequence: more cannot be meant

}  // namespace

Intake::Fetch& Intake::fetch_of(std::uint64_t fetch) {
  const auto found = fetches_.find(fetch);
  if (found == fetches_.end()) throw UsageError("fetch " + std::to_string(fetch) + " is not open: open it");
  return found->second;
}

const Intake::Fetch& Intake::fetch_of(std::uint64_t fetch) const {
  const auto found = fetches_.find(fetch);
  if (found == fetches_.end()) throw UsageError("fetch " + std::to_string(fetch) + " is not open: open it");
  return found->second;
}

void Intake::open(std::uint64_t fetch, std::shared_ptr<Readout> readout, const Keys& keys,
                  std::uint64_t window) {
  if (readout == nullptr || window == 0) throw UsageError("a fetch needs a readout and a window: give both");
  Fetch opened;
  const std::uint64_t size = readout->size();
  std::uint64_t at = 0;
  for (const Interval& gap : readout->gaps()) {
    opened.coverage.add(at, gap.begin);
    at = gap.end;
  }
  opened.coverage.add(at, size);
  opened.readout = std::move(readout);
  opened.keys = keys;
  opened.window = window;
  if (!fetches_.emplace(fetch, std::move(opened)).second) {
    throw UsageError("fetch " + std::to_string(fetch) + " is open already: give each its own number");
  }
}

void Intake::close(std::uint64_t fetch) {
  const auto found = fetches_.find(fetch);
  if (found == fetches_.end()) return;
  for (const std::uint64_t request : found->second.requests) pulls_.erase(request);
  fetches_.erase(found);
}

void Intake::restart(std::uint64_t fetch) {
  Fetch& restarted = fetch_of(fetch);
  restarted.readout->restart();
  for (const std::uint64_t request : restarted.requests) pulls_.erase(request);
  restarted.requests.clear();
  restarted.coverage = Coverage();
  restarted.pieces.clear();
  restarted.received = 0;
}

std::uint64_t Intake::ask(std::uint64_t fetch, std::uint64_t request, std::uint64_t begin, std::uint64_t end,
                          std::uint64_t chunk, std::int64_t now) {
  Fetch& asking = fetch_of(fetch);
  if (begin > end || end > asking.readout->size()) {
    throw UsageError("bytes " + std::to_string(begin) + " to " + std::to_string(end) +
                     " are not within the stream: ask for a part of it");
  }
  if (request == 0 || pulls_.contains(request)) {
    throw UsageError("request " + std::to_string(request) + " is in use: give each its own number");
  }
  const std::uint64_t open = open_credit(asking);
  const std::uint64_t left = asking.window > open ? asking.window - open : 0;
  const std::uint64_t credit = std::min(end - begin, std::max(left, chunk));
  asking.requests.push_back(request);
  pulls_.emplace(request, Pull{fetch, begin, end, credit, 0, 0, {}, now});
  return credit;
}

void Intake::give_up(std::uint64_t request) {
  const auto found = pulls_.find(request);
  if (found == pulls_.end()) return;
  const auto owner = fetches_.find(found->second.fetch);
  pulls_.erase(found);
  std::erase(owner->second.requests, request);
  grant(owner->second);
}

void Intake::refuse(std::uint64_t& counter, std::uint64_t fault, const char* text) {
  if (counter++ == 0) events_.push_back({IntakeEvent::Kind::refused, 0, 0, 0, fault, text});
}

void Intake::refuse_shape() {
  refuse(counters_.malformed, static_cast<std::uint64_t>(HeaderFault::size), fault_text(HeaderFault::size));
}

/// Enters a message's number; false if it was there already, or cannot be meant.
bool Intake::number(Pull& pull, std::uint64_t request, std::uint64_t sequence) {
  if (sequence < pull.next_sequence) {
    if (pull.missing.erase(sequence) == 1) return true;  // late
    ++counters_.duplicate;
    return false;
  }
  if (sequence - pull.next_sequence > kFurthestJump || pull.missing.size() > kFurthestJump) {
    refuse(counters_.strange, 0, "a message whose number in the sequence cannot be meant");
    return false;
  }
  if (sequence > pull.next_sequence) {
    if (pull.missing.empty()) events_.push_back({IntakeEvent::Kind::gap, pull.fetch, request, 0, 0, {}});
    while (pull.next_sequence < sequence) pull.missing.insert(pull.next_sequence++);
  }
  ++pull.next_sequence;
  return true;
}

void Intake::take(std::span<const std::uint8_t> header_frame, std::span<const std::uint8_t> body,
                  std::int64_t now) {
  StreamHeader header;
  const HeaderFault fault = read_stream_header(header_frame, header);
  if (fault != HeaderFault::none) {
    if (fault == HeaderFault::version) {  // told each time: nothing more can be expected of this server
      ++counters_.malformed;
      events_.push_back({IntakeEvent::Kind::refused, 0, 0, 0, static_cast<std::uint64_t>(fault),
                         "version " + std::to_string(header_frame[4])});
    } else {
      refuse(counters_.malformed, static_cast<std::uint64_t>(fault), fault_text(fault));
    }
    return;
  }
  session_ = header.session;
  const auto found = pulls_.find(header.request);
  if (found == pulls_.end()) {
    ++counters_.stale;
    return;
  }
  Pull& pull = found->second;
  switch (header.type) {
    case StreamType::chunk:
      take_chunk(pull, header, body, now);
      return;
    case StreamType::wait:
      pull.heard = now;
      if (number(pull, header.request, header.sequence)) ++counters_.waits;
      return;
    case StreamType::end:
    case StreamType::error: {
      pull.heard = now;
      const bool is_end = header.type == StreamType::end;
      if (is_end && !number(pull, header.request, header.sequence)) return;
      IntakeEvent event{
          is_end ? IntakeEvent::Kind::end : IntakeEvent::Kind::error, pull.fetch, header.request, 0, 0, {}};
      if (crc32c(body) == header.body_crc) {
        event.text.assign(body.begin(), body.end());
      } else {
        ++counters_.corrupt;
      }
      events_.push_back(std::move(event));
      return;
    }
    default:
      refuse(counters_.strange, 0, "a message of a type that is not sent to a client's data socket");
  }
}

void Intake::take_chunk(Pull& pull, const StreamHeader& header, std::span<const std::uint8_t> body,
                        std::int64_t now) {
  Fetch& fetch = fetches_.at(pull.fetch);
  if (header.image_key != fetch.keys.image || header.source_key != fetch.keys.source) {
    refuse(counters_.strange, 0, "a chunk with the keys of another source than was asked for");
    return;
  }
  if (header.offset < pull.begin || header.offset > pull.end || header.length > pull.end - header.offset ||
      header.length == 0) {
    refuse(counters_.strange, 0, "a chunk of bytes that were not asked for");
    return;
  }
  pull.heard = now;
  if (!number(pull, header.request, header.sequence)) {
    counters_.duplicate_bytes += body.size();
    return;
  }
  pull.settled += header.length;
  if (header.length != body.size() || crc32c(body) != header.body_crc) {
    ++counters_.corrupt;
    events_.push_back(
        {IntakeEvent::Kind::corrupt, pull.fetch, header.request, header.offset, header.length, {}});
  } else {
    try {
      if (fetch.received == 0) fetch.first_byte = now;
      use(fetch, header.offset, body, header.body_crc);
      fetch.last_byte = now;
    } catch (const std::exception& error) {
      events_.push_back({IntakeEvent::Kind::failed, pull.fetch, header.request, header.offset, header.length,
                         error.what()});
      return;
    }
  }
  grant(fetch);
}

void Intake::use(Fetch& fetch, std::uint64_t offset, std::span<const std::uint8_t> body, std::uint32_t crc) {
  const std::uint64_t end = offset + body.size();
  const std::vector<Interval> fresh = fetch.coverage.gaps(offset, end);
  if (fresh.empty()) {
    ++counters_.duplicate;
    counters_.duplicate_bytes += body.size();
    return;
  }
  std::uint64_t added = 0;
  for (const Interval& part : fresh) {
    const auto bytes = body.subspan(part.begin - offset, part.end - part.begin);
    fetch.readout->add(part.begin, bytes);
    fetch.coverage.add(part.begin, part.end);
    std::uint64_t piece_begin = part.begin;
    Piece piece{part.end, bytes.size() == body.size() ? crc : crc32c(bytes)};
    const auto after = fetch.pieces.find(piece.end);
    if (after != fetch.pieces.end()) {
      const Piece& next = after->second;
      piece = {next.end, crc32c_combine(piece.crc, next.crc, next.end - piece.end)};
      fetch.pieces.erase(after);
    }
    auto before = fetch.pieces.lower_bound(piece_begin);
    if (before != fetch.pieces.begin() && std::prev(before)->second.end == piece_begin) {
      --before;
      piece.crc = crc32c_combine(before->second.crc, piece.crc, piece.end - piece_begin);
      piece_begin = before->first;
    }
    fetch.pieces.insert_or_assign(piece_begin, piece);
    added += bytes.size();
  }
  ++counters_.chunks;
  counters_.bytes += added;
  counters_.duplicate_bytes += body.size() - added;
  fetch.received += added;
}

std::uint64_t Intake::open_credit(const Pull& pull) noexcept {
  return pull.granted > pull.settled ? pull.granted - pull.settled : 0;
}

std::uint64_t Intake::open_credit(const Fetch& fetch) const {
  std::uint64_t open = 0;
  for (const std::uint64_t request : fetch.requests) open += open_credit(pulls_.at(request));
  return open;
}

/// Grants what the window leaves, in portions of at least a quarter of it, to the oldest pull that can use
/// it.
void Intake::grant(const Fetch& fetch) {
  const std::uint64_t open = open_credit(fetch);
  if (open > fetch.window || fetch.window - open < (fetch.window + 3) / 4) return;
  std::uint64_t left = fetch.window - open;
  for (const std::uint64_t request : fetch.requests) {
    Pull& pull = pulls_.at(request);
    const std::uint64_t portion =
        std::min(left, pull.end - pull.begin - std::min(pull.granted, pull.end - pull.begin));
    if (portion == 0) continue;
    pull.granted += portion;
    left -= portion;
    grants_.push_back({request, portion});
  }
}

std::vector<Intake::Grant> Intake::take_grants() { return std::exchange(grants_, {}); }

std::vector<IntakeEvent> Intake::take_events() { return std::exchange(events_, {}); }

std::size_t Intake::missing(std::uint64_t request) const {
  const auto found = pulls_.find(request);
  return found == pulls_.end() ? 0 : found->second.missing.size();
}

std::size_t Intake::write_off(std::uint64_t request, std::uint64_t bytes) {
  const auto found = pulls_.find(request);
  if (found == pulls_.end()) return 0;
  Pull& pull = found->second;
  const std::size_t count = pull.missing.size();
  pull.missing.clear();
  pull.settled += bytes;
  counters_.lost += count;
  return count;
}

Intake::Progress Intake::progress(std::uint64_t fetch) const {
  const Fetch& found = fetch_of(fetch);
  Progress progress{found.received, found.first_byte, found.last_byte, std::nullopt};
  if (found.pieces.size() == 1) {
    const auto& [begin, piece] = *found.pieces.begin();
    if (begin == 0 && piece.end == found.readout->size()) progress.crc = piece.crc;
  }
  return progress;
}

std::vector<Interval> Intake::uncovered(std::uint64_t fetch, std::uint64_t begin, std::uint64_t end) const {
  const Fetch& found = fetch_of(fetch);
  return found.coverage.gaps(std::min(begin, end), std::min(end, found.readout->size()));
}

std::vector<std::uint64_t> Intake::silent(std::int64_t since) const {
  std::vector<std::uint64_t> requests;
  for (const auto& [request, pull] : pulls_) {
    if (pull.heard < since) requests.push_back(request);
  }
  std::sort(requests.begin(), requests.end());
  return requests;
}

std::uint64_t Intake::outstanding() const {
  std::uint64_t open = 0;
  for (const auto& [request, pull] : pulls_) open += open_credit(pull);
  return open;
}

}  // namespace raftwright
