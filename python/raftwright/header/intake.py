"""What comes in is journalled, then collected: after that it survives this process."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from raftwright.errors import FormatError, StorageError
from raftwright.header.collected import tai_seconds
from raftwright.header.collector import Collector
from raftwright.header.journal import Journal
from raftwright.header.spec import EVENTS
from raftwright.rawfile import times

__all__ = ["TELEMETRY", "Intake"]

_log = logging.getLogger("raftwright.header")

TELEMETRY: Final = "telemetry"
"""Kind of the events that carry a sample: `topic`, `timestamp` (TAI), `values`, perhaps `expiresAt` (TAI)."""


class Intake:
    """The one way into a collector. Thread-safe. `woken` is set when something came."""

    def __init__(self, collector: Collector, journal: Journal) -> None:
        self.collector = collector
        self.counts: Counter[str] = Counter()
        """`image_events`, `telemetry`, `refused`, `other`, `damaged`, `not_journalled`."""
        self.trouble = ""
        """Why the journal cannot be written."""
        self.woken = threading.Event()
        self.heard = time.monotonic()
        """When something came last."""
        self._journal = journal
        self._lock = threading.Lock()
        self.offsets: dict[str, tuple[int, int]] = {}
        """Of files that grow: (inode, bytes read)."""

    # -- from outside

    def take(self, kind: str, fields: Mapping[str, Any], told: str = "") -> str | None:
        """Takes an event; returns why it cannot be used, else None.

        `told` is the UTC time at which it was told, as it stands in events. Where the journal fails it is
        taken all the same, and `trouble` says so.
        """
        self.heard = time.monotonic()
        if kind == TELEMETRY:
            return self._sample(fields)
        if kind not in EVENTS:
            self.counts["other"] += 1
            return None
        published = _published(told)
        heard = times.now() * 1e-9
        with self._lock:
            self._append({"e": kind, "f": fields, "p": published, "w": heard})
            refused = self.collector.event(kind, fields, time.monotonic(), published, heard)
        self.counts["image_events" if refused is None else "refused"] += 1
        self.woken.set()
        return refused

    def _sample(self, fields: Mapping[str, Any]) -> str | None:
        topic, values = fields.get("topic"), fields.get("values")
        moment = tai_seconds(fields.get("timestamp"))
        if not isinstance(topic, str) or not isinstance(values, Mapping) or moment is None:
            self.counts["refused"] += 1
            return "telemetry needs topic, timestamp (seconds TAI) and values"
        wanted = self.collector.spec.fields.get(topic)
        if wanted is None:
            self.collector.samples.counts["unknown_topic"] += 1
            return None
        kept = {name: values[name] for name in wanted if name in values}
        expires = tai_seconds(fields.get("expiresAt"))
        with self._lock:
            self._append({"t": topic, "s": moment, "v": _writable(kept), "x": expires})
            self.collector.telemetry(topic, moment, kept, expires)
        self.counts["telemetry"] += 1
        return None

    def offset(self, path: str, inode: int, offset: int) -> None:
        """How far a file that grows was read."""
        with self._lock:
            self._append({"o": path, "i": inode, "n": offset})
            self.offsets[path] = (inode, offset)

    def built(self, obsid: str, complete: bool) -> None:
        """The document of an image is stored and announced."""
        with self._lock:
            self._append({"b": obsid, "c": complete})
            self.collector.announced(obsid)

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            self._journal.append(entry)
            self.trouble = ""
        except StorageError as error:
            self.counts["not_journalled"] += 1
            self.trouble = str(error)

    # -- the journal

    def recover(self) -> int:
        """Collects again what the journal has; how many images are under way. Raises StorageError."""
        now = time.monotonic()
        for entry in self._journal.entries():
            try:
                self._again(entry, now)
            except (KeyError, TypeError, ValueError, AttributeError):
                self.counts["damaged"] += 1
        self.counts["damaged"] += self._journal.damaged
        wall = times.now() * 1e-9
        count = 0
        for tracked in self.collector.under_way():
            self.collector.recall(str(tracked.image.name), now, wall - tracked.heard)
            count += tracked.state in ("open", "waiting")
        self.renew()
        return count

    def _again(self, entry: Mapping[str, Any], now: float) -> None:
        if "e" in entry:
            self.collector.event(entry["e"], entry["f"], now, entry["p"], float(entry["w"]))
        elif "t" in entry:
            self.collector.telemetry(entry["t"], float(entry["s"]), entry["v"], entry["x"])
        elif "b" in entry:
            self.collector.recall_built(entry["b"], bool(entry["c"]), now)
        elif "o" in entry:
            self.offsets[entry["o"]] = (int(entry["i"]), int(entry["n"]))

    def renew_if_full(self) -> None:
        """Begins the journal anew where it has grown. Raises StorageError."""
        if self._journal.full:
            self.renew()

    def renew(self) -> None:
        """Begins the journal anew with what still counts. Raises StorageError."""
        self._journal.renew(self._entries, self._lock)

    def _entries(self) -> Iterator[dict[str, Any]]:
        collector = self.collector
        for path, (inode, offset) in list(self.offsets.items()):
            if not os.path.exists(path):
                del self.offsets[path]
                continue
            yield {"o": path, "i": inode, "n": offset}
        for topic, sample in collector.kept_samples():
            yield {"t": topic, "s": sample.time, "v": _writable(sample.values), "x": sample.expires}
        for tracked in collector.under_way():
            image = tracked.image
            for kind, fields in list(image.events.items()):
                yield {"e": kind, "f": fields, "p": image.published.get(kind), "w": tracked.heard}
            finished = tracked.state in ("complete", "partial")
            if finished and tracked.told and not tracked.building and not tracked.changed:
                yield {"b": str(image.name), "c": tracked.state == "complete"}


def _writable(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: it is kept as the word."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _published(told: str) -> float | None:
    """Seconds TAI of a UTC time such as 2026-11-22T04:05:06.789Z."""
    if not told:
        return None
    try:
        return times.utc_to_tai(times.parse_iso(told.removesuffix("Z").removesuffix("+00:00"))) * 1e-9
    except FormatError:
        return None
