"""Which images are packed, and when: a queue of images of which there is news, and those who take from it.

The queue is of this process alone. What it forgets the sweep finds, by comparing the ledger with itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import ConflictError, RaftwrightError

if TYPE_CHECKING:
    from raftwright.backbone.packing import Packer
    from raftwright.ledger import Ledger
    from raftwright.metrics import Metrics
    from raftwright.service import Task

__all__ = ["PackingWork"]

_log = logging.getLogger("raftwright.backbone")

_PAGE: Final = 200
"""Images that one query of the sweep compares."""
_FIRST: Final = 1.0
_LONGEST: Final = 600.0
"""Seconds until an image is tried again that could not be packed, at first and at last."""
_REMEMBERED: Final = 256
_MOST: Final = 100_000
"""Images that wait; of more the sweep reminds us."""


class PackingWork:
    """Thread-safe. `work` is a task, of which there may be several."""

    def __init__(
        self,
        packer: Packer,
        ledger: Ledger,
        instrument: str,
        *,
        active: Callable[[], bool],
        packed: Callable[[int], None],
        metrics: Metrics,
    ) -> None:
        self.packer = packer
        self._ledger = ledger
        self._instrument = instrument
        self._active = active
        self._packed = packed
        self._news = threading.Condition()
        self._waiting: dict[int, float] = {}
        """Images to look at, and when."""
        self._busy: set[int] = set()
        self._tries: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        """Images that cannot be packed, and why."""
        self.counts = {"packed": 0, "adopted": 0, "set_aside": 0, "removed": 0, "bytes": 0}
        """Since the start."""
        self._figures = {
            what: metrics.counter("containers", "Containers of images, by what was done", did=what)
            for what in ("packed", "adopted", "set_aside", "removed")
        }
        self._bytes = metrics.counter("packed_bytes", "Bytes of containers that were made")
        metrics.gauge("containers_waiting", "Images to pack, or to look at", read=lambda: float(self.waiting))

    @property
    def waiting(self) -> int:
        """Images to look at, soon or later."""
        return len(self._waiting) + len(self._busy)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be packed now or soon."""
        soon = time.monotonic() + self.packer.settle + _FIRST
        with self._news:
            return not self._busy and all(
                when > soon or image_id in self._tries for image_id, when in self._waiting.items()
            )

    def overdue(self) -> float:
        """Whether something should have been looked at long ago, and nobody works."""
        now = time.monotonic()
        with self._news:
            return float(not self._busy and any(now - when > 10.0 for when in self._waiting.values()))

    def look_at(self, image_ids: Iterable[int], after: float = 0.05) -> None:
        """There is news of images."""
        when = time.monotonic() + after
        with self._news:
            for image_id in image_ids:
                if len(self._waiting) < _MOST or image_id in self._waiting:
                    self._waiting[image_id] = min(when, self._waiting.get(image_id, when))
            self._news.notify()

    def forget(self) -> None:
        """The ledger is another."""
        with self._news:
            self._waiting.clear()
            self._tries.clear()
            self.refused.clear()
            self._news.notify_all()

    def wake(self) -> None:
        """Ends the wait of all who work."""
        with self._news:
            self._news.notify_all()

    def sweep(self, going_on: Callable[[], bool]) -> int:
        """Puts all images into the queue whose container is not as it should be; how many."""
        if not self.packer.wanted:
            return 0
        after, found = 0, 0
        instruments = [self._instrument] if self._instrument else []
        while going_on():
            ids = self._ledger.containers.ids(after, _PAGE, instruments=instruments)
            units = self._ledger.containers.units(ids, bare=True)
            due = [
                unit.image_id
                for unit in units
                if (unit.raws and unit.standing(self.packer.endpoints_of(unit)) != "whole")
                or self.packer.may_go(unit)
            ]
            self.look_at(image_id for image_id in due if image_id not in self._waiting)
            found += len(due)
            if len(ids) < _PAGE:
                return found
            after = ids[-1]
        return found

    def again(self, image_ids: Iterable[int]) -> None:
        """Makes containers anew that were removed here and are damaged or lost at an endpoint: for whoever
        mends by hand. What cannot be made is told. Raises StorageError."""
        if not self.packer.wanted:
            return
        for unit in self._ledger.containers.units(image_ids):
            box = unit.newest
            if box is None or box.status != "removed":
                continue
            if unit.standing(self.packer.endpoints_of(unit)) in ("damaged", "lost"):
                try:
                    self.packer.pack(unit)
                except (RaftwrightError, OSError) as error:
                    self._failed(unit.image_id, error)

    # -- a task

    def work(self, task: Task) -> None:
        """Until the task is to stop."""
        while not task.stopping.is_set():
            task.beat()
            if not self._active() or not self.packer.wanted:
                task.wait(0.2)
                continue
            image_id = self._next(0.5)
            if image_id is None:
                continue

            def going_on() -> bool:
                task.beat()
                return not task.stopping.is_set() and self._active()

            later: float | None = 0.0
            try:
                later = self._one(image_id, going_on)
                with self._news:
                    self._tries.pop(image_id, None)
                    self.refused.pop(image_id, None)
            except (RaftwrightError, OSError) as error:
                later = self._failed(image_id, error) if going_on() else None
            finally:
                with self._news:
                    self._busy.discard(image_id)
            if later:
                self.look_at([image_id], later)

    def _next(self, patience: float) -> int | None:
        with self._news:
            now = time.monotonic()
            when, image_id = min(
                ((when, each) for each, when in self._waiting.items() if each not in self._busy),
                default=(now + patience, 0),
            )
            if when > now:
                self._news.wait(min(when - now, patience))
                return None
            del self._waiting[image_id]
            self._busy.add(image_id)
            return image_id

    def _one(self, image_id: int, going_on: Callable[[], bool]) -> float:
        """Looks at an image; seconds until it is to be looked at again, or 0."""
        units = self._ledger.containers.units([image_id], bare=True)
        if not units or (self._instrument and units[0].instrument != self._instrument):
            return 0.0
        (unit,) = units
        packer = self.packer
        if not packer.takes(unit):
            return 0.0
        if unit.standing(packer.endpoints_of(unit)) == "whole":
            gone = packer.tidy(unit)
            self._count("removed", len(gone))
            return 0.0
        if not unit.raws:
            return 0.0  # retention took them, and nothing is to be made
        standing = packer.standing(unit)
        if standing.wait:
            return standing.wait
        made = packer.pack(unit, going_on)
        self._count("set_aside", len(made.aside))
        if made.how in ("packed", "adopted"):
            self._count(made.how, 1)
            self.counts["bytes"] += made.bytes
            self._bytes.add(made.bytes if made.how == "packed" else 0)
            self._packed(image_id)
        return _FIRST  # what came meanwhile is seen then

    def _failed(self, image_id: int, error: Exception) -> float:
        with self._news:
            number = self._tries[image_id] = self._tries.get(image_id, 0) + 1
            new = self.refused.get(image_id) != str(error)
            if image_id in self.refused or len(self.refused) < _REMEMBERED:
                self.refused[image_id] = str(error)
        if new:
            _log.error("an image cannot be packed: %s", error)
        return min(_LONGEST, _FIRST * 2.0 ** min(number - isinstance(error, ConflictError), 12))

    def _count(self, what: str, number: int) -> None:
        self.counts[what] += number
        if number:
            self._figures[what].add(number)

    # -- telling

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        with self._news:
            if not self.refused:
                return []
            first = next(iter(self.refused.values()))
            return [f"{len(self.refused)} images cannot be packed, the first: {first}"]

    def status(self) -> Mapping[str, Any]:
        """As JSON."""
        return {**self.counts, "waiting": self.waiting, "refused": len(self.refused)}

    def busy(self) -> Collection[str]:
        """What is being packed."""
        with self._news:
            return [f"container of image {image_id}" for image_id in self._busy]
