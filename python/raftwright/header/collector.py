"""What happens to images: one state machine each, from the start of integration to the end of telemetry.

    open ──end of telemetry──▶ complete ──something else comes──▶ to be built again (a new version)
      └────deadline──────────▶ partial ───the rest comes────────▶ complete

An image that the DAQ reads out has a document even where no event of it comes. Events may come in any order,
twice, late or never; any number of images overlap. Nothing here waits or reads a clock: moments are given.
Memory is bounded: images, samples and what is said of them.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from raftwright.errors import FormatError
from raftwright.header.collected import Collected
from raftwright.header.samples import MOST, Sample, Samples
from raftwright.header.spec import EVENTS, Spec
from raftwright.rawfile.names import ImageName

__all__ = ["Collector", "Limits", "Tracked"]

_OPENERS: Final = frozenset({"startIntegration", "startReadout", "endReadout"})
"""Any of these begins an image: where one is lost another does. The end of telemetry alone does not."""
_END: Final = "endOfImageTelemetry"
_MOST_NOTES: Final = 20
_LONGEST: Final = 86_400.0
_SETTLE_AGAIN: Final = 0.5
_GRACE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things are waited for, and how much is kept."""

    deadline: float = 30.0
    """Seconds beyond the camera's own timeout, or after the end of the readout, for the end of telemetry."""
    settle: float = 0.1
    """Seconds after the end of telemetry for what was overtaken by it."""
    remember: float = 600.0
    """Seconds for which a finished image is known, so that what comes late can be added."""
    images: int = 256
    samples: int = MOST
    """Of one topic."""


@dataclass(slots=True, eq=False)
class Tracked:
    """An image that is known."""

    image: Collected
    opened: float
    """Monotonic moment of its first event."""
    heard: float = 0.0
    """When its last event came, in seconds TAI by the clock of this machine."""
    state: Literal["waiting", "open", "partial", "complete"] = "waiting"
    """`waiting`: only an event came that does not begin an image. The others are as it was built last."""
    deadline: float = 0.0
    build_at: float | None = None
    building: bool = False
    changed: bool = False
    """Something came since it was built last."""
    told: bool = False
    """Its document, as it was built last, is announced."""
    read_out: bool = False
    """The DAQ has it: there is such an image, whatever is told of it."""
    finished: float = 0.0


class Collector:
    """All images of one camera that are under way. Thread-safe."""

    def __init__(self, spec: Spec, limits: Limits | None = None) -> None:
        self.spec = spec
        self.limits = limits or Limits()
        self.samples = Samples(spec.fields, self.limits.samples)
        self.counts: Counter[str] = Counter()
        """`events`, `doubled`, `contradicting`, `end_without_start`, `strange_name`, `other_camera`,
        `unknown_kind`, `forced`, `dropped`, `missed`."""
        self._images: OrderedDict[str, Tracked] = OrderedDict()
        self._daq: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.RLock()
        used = {s.name for card in spec.cards() for s in card.sources if s.kind == "event"}
        self._wanted = (used & _OPENERS) | {"startIntegration", "endReadout", _END}

    # -- what comes in

    def event(
        self,
        kind: str,
        fields: Mapping[str, Any],
        now: float,
        published: float | None = None,
        heard: float = 0.0,
    ) -> str | None:
        """Takes an event of an image; returns why it was refused, else None.

        `now` is monotonic; `published` is the moment at which it was told, `heard` that at which it came,
        both in seconds TAI.
        """
        if kind not in EVENTS:
            self.counts["unknown_kind"] += 1
            return f"{kind[:40]!a} is no event of an image"
        try:
            name = ImageName.parse(str(fields.get("imageName") or fields.get("obsid") or ""))
        except FormatError as error:
            self.counts["strange_name"] += 1
            return str(error)
        if name.source != self.spec.camera.code:
            self.counts["other_camera"] += 1
            return f"{name} is of another camera; this is the service of {self.spec.camera.code}"
        with self._lock:
            self.counts["events"] += 1
            tracked = self._tracked(name, now)
            tracked.heard = heard
            if not self._merge(tracked, kind, dict(fields), published):
                return None
            self._advance(tracked, kind, now)
        return None

    def telemetry(
        self, topic: str, time: float, values: Mapping[str, Any], expires: float | None = None
    ) -> bool:
        """Takes a sample; False where nobody asks for it."""
        with self._lock:
            return self.samples.add(topic, time, values, expires)

    def daq(self, obsid: str, facts: Mapping[str, Any], now: float | None = None) -> None:
        """What the DAQ says of an image, whether anything came of it yet or not. `now`: it is read out at
        this moment (monotonic) or was not long ago, so it is one, and has a document at the deadline."""
        with self._lock:
            self._daq[obsid] = dict(facts)
            while len(self._daq) > 2 * self.limits.images:
                self._daq.popitem(last=False)
            if now is None:
                return
            try:
                name = ImageName.parse(obsid)
            except FormatError:
                self.counts["strange_name"] += 1
                return
            if name.source != self.spec.camera.code:
                self.counts["other_camera"] += 1
                return
            tracked = self._tracked(name, now)
            tracked.read_out = True
            if tracked.state == "waiting" and tracked.image.events:
                self._advance(tracked, _END, now)

    def knows(self, obsid: str) -> bool:
        """Whether an image is under way, or was a while ago."""
        with self._lock:
            return obsid in self._images

    def missed(self, count: int) -> None:
        """Events are known to be lost: said in the documents of all images under way."""
        with self._lock:
            self.counts["missed"] += count
            for tracked in self._images.values():
                if tracked.state in ("waiting", "open"):
                    self._note(tracked, "events were lost while it was collected")

    # -- its inner life

    def _tracked(self, name: ImageName, now: float) -> Tracked:
        tracked = self._images.get(str(name))
        if tracked is None:
            self._make_room(now)
            tracked = Tracked(Collected(name), now, deadline=now + self.limits.deadline)
            self._images[str(name)] = tracked
        return tracked

    def _make_room(self, now: float) -> None:
        """Where there are too many images, forgets the oldest finished ones, then those of which only the end
        came. If that is not enough, the oldest are to be written now, as far as they are known; dropped they
        are only where there are twice too many."""
        for spare in (self._is_finished, self._is_waiting):
            for obsid in [obsid for obsid, tracked in self._images.items() if spare(tracked)]:
                if len(self._images) < self.limits.images:
                    return
                self.counts["dropped"] += self._images[obsid].state == "waiting"
                del self._images[obsid]
        excess = len(self._images) + 1 - self.limits.images
        for tracked in list(self._images.values())[: max(0, excess)]:
            if tracked.build_at is None and not tracked.building:
                tracked.build_at = now
                self.counts["forced"] += 1
        if len(self._images) >= 2 * self.limits.images:
            oldest = next((obsid for obsid, tracked in self._images.items() if not tracked.building), None)
            if oldest is not None:
                del self._images[oldest]
                self.counts["dropped"] += 1

    @staticmethod
    def _is_waiting(tracked: Tracked) -> bool:
        return tracked.state == "waiting" and not tracked.read_out

    @staticmethod
    def _is_finished(tracked: Tracked) -> bool:
        return tracked.build_at is None and not tracked.building and tracked.state in ("complete", "partial")

    def _merge(self, tracked: Tracked, kind: str, fields: dict[str, Any], published: float | None) -> bool:
        """Enters an event; False where it says nothing new."""
        before = tracked.image.events.get(kind)
        if before == fields:
            self.counts["doubled"] += 1
            return False
        if before is not None:
            self.counts["contradicting"] += 1
            differing = sorted(
                key for key in before.keys() | fields.keys() if before.get(key) != fields.get(key)
            )
            self._note(
                tracked, f"{kind} came twice and differs in {', '.join(differing)[:100]}; the later counts"
            )
        tracked.image.events[kind] = fields
        if published is not None:
            tracked.image.published[kind] = published
        tracked.image.complete = _END in tracked.image.events
        tracked.changed = True
        return True

    @staticmethod
    def _note(tracked: Tracked, note: str) -> None:
        if note not in tracked.image.notes and len(tracked.image.notes) < _MOST_NOTES:
            tracked.image.notes.append(ascii(note)[1:-1])

    def _advance(self, tracked: Tracked, kind: str, now: float) -> None:
        if tracked.state == "waiting":
            if not (_OPENERS & tracked.image.events.keys() or tracked.read_out):
                return
            tracked.state = "open"
            if kind != "startIntegration" and "startIntegration" not in tracked.image.events:
                self._note(tracked, f"it began with {kind}; startIntegration came later or not at all")
        if tracked.image.complete:
            whole = self._wanted <= tracked.image.events.keys()
            wait = self.limits.settle if not whole else 0.0
            if tracked.state == "complete":
                wait = max(wait, _SETTLE_AGAIN)
            tracked.build_at = now + wait
        elif tracked.state == "partial":
            tracked.build_at = now + self.limits.deadline
        else:
            tracked.deadline = self._deadline(tracked, kind, now)

    def _deadline(self, tracked: Tracked, kind: str, now: float) -> float:
        """Until when the end of telemetry is waited for."""
        if kind == "endReadout":
            return now + self.limits.deadline
        if kind == "startIntegration" and "endReadout" not in tracked.image.events:
            length = tracked.image.exposure_time or 0.0
            own = tracked.image.get(kind, "timeout")
            if not isinstance(own, int | float) or not 0 <= own < _LONGEST:
                own = 0.0
            return now + max(float(own), length) + self.limits.deadline
        return tracked.deadline

    # -- what is to be done

    def due(self, now: float) -> list[str]:
        """Images to be built now; each is the caller's until `built` or `failed`."""
        found = []
        with self._lock:
            for obsid, tracked in list(self._images.items()):
                if tracked.building:
                    continue
                if self._is_waiting(tracked):
                    if now >= tracked.deadline:
                        del self._images[obsid]
                        self.counts["end_without_start"] += 1
                    continue
                at = self._due_at(tracked)
                if at is not None and now >= at:
                    tracked.building = True
                    tracked.build_at = None
                    found.append(obsid)
                elif self._is_finished(tracked) and now - tracked.finished > self.limits.remember:
                    del self._images[obsid]
        return found

    def next_due(self, now: float) -> float:
        """Seconds until something is to be done, if nothing comes; a second at most."""
        wait = 1.0
        with self._lock:
            for tracked in self._images.values():
                if tracked.building:
                    continue
                at = self._due_at(tracked)
                if at is not None:
                    wait = min(wait, at - now)
        return max(0.0, wait)

    @staticmethod
    def _due_at(tracked: Tracked) -> float | None:
        """When it is to be built: at the deadline, if nothing says sooner, or later since it failed."""
        if tracked.build_at is None and tracked.state in ("waiting", "open"):
            return tracked.deadline
        return tracked.build_at

    def snapshot(self, obsid: str) -> Collected:
        """A copy of what is known of an image that is being built. Raises KeyError."""
        with self._lock:
            tracked = self._images[obsid]
            tracked.changed = tracked.told = False
            image = tracked.image
            nothing = [] if image.events else ["nothing was told of it; it is known from the DAQ alone"]
            return Collected(
                name=image.name,
                events=dict(image.events),
                published=dict(image.published),
                daq=self._daq.get(obsid, {}),
                samples=self.samples.cut(image.begin, image.end),
                notes=[*image.notes, *nothing],
                complete=image.complete,
            )

    def built(self, obsid: str, complete: bool, now: float) -> None:
        """Its document is stored."""
        with self._lock:
            tracked = self._images.get(obsid)
            if tracked is None:
                return
            tracked.building = False
            tracked.state = "complete" if complete else "partial"
            tracked.finished = now
            if tracked.changed and tracked.build_at is None:
                self._advance(tracked, _END, now)

    def announced(self, obsid: str) -> None:
        """Whoever listens knows of its document."""
        with self._lock:
            tracked = self._images.get(obsid)
            if tracked is not None:
                tracked.told = True

    def failed(self, obsid: str, now: float, pause: float) -> None:
        """It could not be stored: it is tried again after a pause."""
        with self._lock:
            tracked = self._images.get(obsid)
            if tracked is not None:
                tracked.building = False
                tracked.changed = True  # what came since the last document is in none yet
                tracked.build_at = now + pause

    # -- what is kept

    def recall(self, obsid: str, now: float, elapsed: float) -> None:
        """After a restart: its last event came `elapsed` seconds ago."""
        with self._lock:
            tracked = self._images.get(obsid)
            if tracked is not None:
                least = now + min(_GRACE, self.limits.deadline)  # what was told meanwhile is still to come
                tracked.deadline = max(least, tracked.deadline - max(0.0, elapsed))

    def recall_built(self, obsid: str, complete: bool, now: float) -> None:
        """After a restart: with what came up to here it was written already."""
        with self._lock:
            tracked = self._images.get(obsid)
            if tracked is not None:
                tracked.state = "complete" if complete else "partial"
                tracked.build_at, tracked.changed, tracked.finished = None, False, now
                tracked.told = True

    def under_way(self) -> Iterator[Tracked]:
        """All images that are known, in the order of their first events."""
        with self._lock:
            return iter(list(self._images.values()))

    def kept_samples(self) -> list[tuple[str, Sample]]:
        """Telemetry that still counts: since the first integration whose document is not written, and the
        last of each topic."""
        with self._lock:
            begins = [
                tracked.image.begin
                for tracked in self._images.values()
                if tracked.state in ("waiting", "open") or tracked.build_at is not None or tracked.building
            ]
            known = [begin for begin in begins if begin is not None]
            return self.samples.since(min(known, default=None))

    def __len__(self) -> int:
        return len(self._images)
