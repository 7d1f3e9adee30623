"""Keeping account of images: what is told when a unit ends, and when an image does."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.capture.schedule import Schedule
    from raftwright.capture.work import Work
    from raftwright.events import Publisher
    from raftwright.ledger.claims import Claim, Claims, Outcome
    from raftwright.metrics import Metrics
    from raftwright.rawfile.report import SourceReport

__all__ = ["Account"]

_log = logging.getLogger("raftwright.capture")

_REMEMBERED: Final = 10_000
_BUSY: Final = frozenset({"claimed", "open"})


@dataclass
class _Image:
    """What this forwarder did for an image since it was told of last."""

    files: int = 0
    bytes: int = 0
    missing: int = 0
    sources: int = 0
    received: int = 0
    first: float = 0.0
    last_byte: float = 0.0
    news: bool = False
    """There are files that were not told of."""
    states: dict[str, str] = field(default_factory=dict)


class Account:
    """Thread-safe. `observer` gets one mapping for each image of which nothing is under way any more."""

    def __init__(
        self,
        claims: Claims,
        schedule: Schedule,
        metrics: Metrics,
        publisher: Publisher | None,
        observer: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self._claims = claims
        self._schedule = schedule
        self._metrics = metrics
        self._publisher = publisher
        self._observer = observer
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[str, str], _Image] = OrderedDict()
        self.ended_units = 0
        """Units that ended, whatever became of them."""
        self.written = metrics.counter("files", "Raw files written")
        self.written_bytes = metrics.counter("file_bytes", "Bytes of raw files written")
        self.packed_bytes = metrics.counter("received_bytes", "Bytes of streams received")
        self.units = {
            state: metrics.counter("units", "Units that ended", state=state)
            for state in ("done", "incomplete", "conflict", "failed", "gone", "open")
        }

    def claimed(self, work: Work, claim: Claim) -> None:
        """A unit is ours now."""
        self._metrics.counter("claims", "Units claimed").add()
        if claim.taken_over:
            self._metrics.counter("taken_over", "Units of forwarders that died").add()
            _log.warning("%s %s: taken over", work.image.name, work.source.location)
            self._tell(
                "unitTakenOver",
                work,
                location=work.source.location,
                previous=claim.previous,
                owner=self._claims.owner,
            )

    def ended(self, work: Work, outcome: Outcome, report: SourceReport | None) -> None:
        """A unit ended, and the ledger knows. Called before it leaves the hand."""
        self.units[outcome.state if outcome.state in self.units else "open"].add()
        self.ended_units += 1
        self.packed_bytes.add(outcome.received)
        if outcome.state not in ("done", "open"):
            lost = work.source.bytes - outcome.received
            _log.warning(
                "%s %s: %s: %s", work.image.name, work.source.location, outcome.state, outcome.reason
            )
            if outcome.state in ("incomplete", "gone") and lost and _is_news(work, report):
                self._metrics.drops(outcome.state, kind="pixels", bytes=lost)
                self._tell(
                    "imageIncomplete",
                    work,
                    raft=work.board.raft,
                    location=work.source.location,
                    missing_bytes=lost,
                    reason=outcome.reason,
                )
        if report is not None and _is_news(work, report):
            self._tell_files(work, report)
        with self._lock:
            key = (work.image.name, work.image.id)
            image = self._images.setdefault(key, _Image(first=work.found))
            image.states[work.source.location] = outcome.state
            image.received += outcome.received
            if work.fetch is not None:
                image.last_byte = max(image.last_byte, work.fetch.last_byte)
            for file in () if report is None else report.files:
                image.files += 1
                image.bytes += file.bytes
                image.missing += file.missing_pixels
            image.news |= report is not None and _is_news(work, report)
            while len(self._images) > _REMEMBERED:
                self._images.popitem(last=False)

    def look_at(self, work: Work) -> None:
        """After a unit left the hand: was it the last of its image?"""
        name = work.image.name
        if self._schedule.in_hand(name) or self._schedule.waiting(name):
            return
        try:
            units = [
                unit
                for unit in self._claims.units([name])
                if unit.daq_id == work.key.daq_id and unit.state != "expected"  # of others
            ]
        except RaftwrightError:
            return
        if any(unit.state in _BUSY for unit in units):
            return  # somebody else is at it, and will tell
        with self._lock:
            image = self._images.pop((name, work.image.id), None)
        if image is None:
            return
        states = {unit.location: unit.state for unit in units}
        if image.news and "failed" not in states.values():
            self._tell("imageWritten", work, files=image.files, states=states, missing_pixels=image.missing)
        if self._observer is not None:
            latency = time.monotonic() - image.last_byte if image.last_byte else None
            self._observer(
                {
                    "image": name,
                    "camera": work.image.camera,
                    "files": image.files,
                    "bytes": image.bytes,
                    "packed_bytes": image.received,
                    "missing_pixels": image.missing,
                    "states": states,
                    "latency_s": None if latency is None else round(latency, 4),
                    "seconds": round(time.monotonic() - image.first, 4),
                    "time": time.time(),
                }
            )

    def _tell_files(self, work: Work, report: SourceReport) -> None:
        for file in report.files:
            if file.status == "written":
                self.written.add()
                self.written_bytes.add(file.bytes)
            raft, _, sensor = file.detector.partition("_")
            facts: dict[str, Any] = {
                "raft": raft,
                "sensor": sensor,
                "location": work.source.location,
                "path": str(file.path),
                "bytes": file.bytes,
                "crc32c": file.crc32c,
                "adler32": file.adler32,
                "version": file.version,
                "missing_pixels": file.missing_pixels,
                "status": file.status,
            }
            if file.header:
                facts["header"] = file.header
            if file.replaces is not None and file.status == "written":
                self._tell("fileRepaired", work, replaces=file.replaces.file, **facts)
            self._tell("fileWritten", work, **facts)

    def _tell(self, kind: str, work: Work, **fields: Any) -> None:
        if self._publisher is None:
            return
        try:
            self._publisher.publish(kind, instrument=work.image.camera, obsid=work.image.name, **fields)
        except Exception as error:  # a bug there keeps no file here
            _log.error(
                "%s cannot be told: %s",
                *(kind, error),
                exc_info=None if isinstance(error, RaftwrightError) else error,
            )


def _is_news(work: Work, report: SourceReport | None) -> bool:
    """Whether something is to be told: not when another try gave nothing new."""
    if report is None:
        return False
    claim = work.claim
    first = claim is None or claim.attempt == 1 or claim.taken_over
    return first or any(file.status in ("written", "conflict") for file in report.files)
