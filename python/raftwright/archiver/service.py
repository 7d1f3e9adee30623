"""The archiver as a whole: what it is made of, what each part tells the others, its status, its end."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from raftwright.archiver.delivering import Lanes
from raftwright.archiver.fullness import Fullness
from raftwright.archiver.gathering import Gatherer
from raftwright.archiver.late_headers import LateHeaders
from raftwright.archiver.places import NAME, Places
from raftwright.archiver.planning import Planner
from raftwright.archiver.reporting import Reporter
from raftwright.archiver.settings import Settings
from raftwright.archiver.telling import Teller
from raftwright.archiver.watching import Watch
from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.ledger import open_ledger, tai
from raftwright.service import Service, bound
from raftwright.service.chronicle import Chronicle
from raftwright.service.role import Role
from raftwright.transfer.digests import Digests

if TYPE_CHECKING:
    from raftwright.daq import Store
    from raftwright.events import Publisher
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import EventRow, ImageRow
    from raftwright.service import Life, Task

__all__ = ["NAME", "Archiver"]

_log = logging.getLogger("raftwright.archiver")

_SOON: Final = 0.01
"""Seconds in which several hints about an image become one look."""
_SWITCH: Final = 0.0005
"""Seconds for which a thread may keep the interpreter to itself."""
_IMAGES: Final = 256
_READOUTS: Final = 10_000
_AT_A_TIME: Final = 500


class Archiver(Service):
    """Gathers, judges and delivers. Raises, from `start`, what ledger, store and events raise."""

    NAME: ClassVar[str] = NAME
    LIVE: ClassVar[frozenset[str]] = frozenset({"sweep", "late", "readout"})
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {
        "nightlySummary": frozenset({"dayobs"}),
        "again": frozenset({"destination"}),
    }

    settings: Settings

    def __init__(self, settings: Settings, places: Places, life: Life | None = None, **more: Any) -> None:
        super().__init__(settings, life, **more)
        self.places = places
        self.fullness = Fullness(places.root)
        self.role: Role | None = None
        self.lanes: Lanes | None = None
        self.ledger: Ledger | None = None
        self.watch: Watch | None = None
        self._ends = False
        self._waiting: OrderedDict[int, tuple[float, bool]] = OrderedDict()
        """Images to look at: from when on, and whether they are late."""
        self._looking = False
        """Whether one is being looked at, which is none of those."""
        self._news = threading.Condition()
        self._readouts: dict[int, float] = {}
        """Images whose readout has ended, and when we saw it."""
        self._images: OrderedDict[int, ImageRow] = OrderedDict()
        self._images_lock = threading.Lock()
        self._store: Store | None = None
        self._teller = Teller(None)
        self._closing: list[Callable[[], None]] = []

    # -- begin and end

    def open(self) -> None:
        """See `Service`."""
        settings, places = self.settings, self.places
        # A commit gives the interpreter away a dozen times. Beside a thread that computes (a library that is
        # imported, a request that is signed) each time would cost 5 ms, which is Python's default.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH))
        self.ledger = ledger = open_ledger(places.ledger)
        self._closing.append(ledger.close)
        ledger.renew()
        ledger.keep_alive()
        self.publisher = self._open_publisher(ledger)
        self._teller = Teller(self.publisher)
        self._closing.append(self._teller.close)
        self.role = Role(ledger, f"{NAME}:{settings.instrument or '*'}", self._begins)
        self.digests = Digests()
        self.planner = Planner(settings.destinations, settings.commands)
        self.gatherer = Gatherer(ledger, places.root, self.planner, self.digests, self.metrics)
        self.reporter = Reporter(
            ledger,
            places.root,
            settings,
            self._teller,
            self.image_of,
            settled=lambda facts: self.tell("image", facts),
        )
        self.late_headers = LateHeaders(
            ledger, self.digests, self.metrics, active=lambda: self.active, written=self.look_at
        )
        self.chronicle = Chronicle(
            ledger,
            self.role.name,
            self._take,
            things=("image", "file", "header", "delivery"),
            active=lambda: self.active,
            settled=lambda: not self.waiting and not self.late_headers.waiting,
        )
        self.metrics.gauge("disk_used_percent", "Of the archive's disk", read=lambda: self.fullness.percent)
        self.task("role", self.role.keep)
        self.task("gather", self._gather, waiting=self._overdue)
        self.task("chronicle", self.chronicle.read)
        self.task("report", self._report)
        if settings.headers:
            self.task("headers", self.late_headers.work)
        self.lanes = Lanes(
            settings,
            ledger,
            self.digests,
            self.image_of,
            told=self.reporter.ended,
            active=lambda: self.active,
            metrics=self.metrics,
        )
        self._closing.append(self.lanes.close)
        for lane in self.lanes:
            self.task(f"deliver {lane.name}", lane.work, waiting=lane.waiting, patience=60.0)
        self.lanes.warm(places.root)
        if places.store is not None:
            self._open_watch(places.store)
        if places.listen:
            self.task("events", self._listen)
        if self.publisher is not None and settings.relay:
            from raftwright.archiver.relaying import Relay

            relay = Relay(ledger, self.name, self.publisher, lambda: self.active)
            self.task("relay", relay.work)
        self.role.take()
        self.metrics.gauge(
            "active", "1 where it is this archiver that works", read=lambda: float(self.active)
        )
        self.metrics.gauge("images_waiting", "Images to look at", read=lambda: float(self.waiting))

    def _open_publisher(self, ledger: Ledger) -> Publisher | None:
        if not self.places.publish:
            return None
        from raftwright.events import LedgerLog, open_publisher

        log = LedgerLog(ledger) if self.settings.relay else None
        return open_publisher(self.places.publish, name=self.name, log=log)

    def _open_watch(self, store: Callable[[], Store]) -> None:
        assert self.ledger is not None
        self._store = store()
        self._closing.append(self._leave_daq)
        self.watch = Watch(
            self._store,
            self.ledger,
            folder=self.places.folder,
            instrument=self.settings.instrument,
            every=lambda: self.settings.sweep,
            late=lambda: self.settings.late,
            active=lambda: self.active,
            announced=self._announced,
            dead=self._dead,
        )
        self.task("notices", self.watch.listen)
        self.task("sweep", self.watch.sweep, waiting=lambda: float(self.active), patience=120.0)

    def quiet(self) -> None:
        """Takes on nothing more."""
        for lane in self.lanes or ():
            lane.quiet()
        self._leave_daq()
        self._ends = True
        self.chronicle.end()
        self.late_headers.wake()
        with self._news:
            self._news.notify_all()

    def _leave_daq(self) -> None:
        """Ends what waits for the DAQ's answers."""
        if self.watch is not None:
            self.watch.end()
        close = getattr(self._store, "close", None)
        self._store = None
        if close is not None:
            close()

    def in_flight(self) -> Collection[Hashable]:
        """Files on their way."""
        return [name for lane in self.lanes or () for name in lane.in_flight()]

    def close(self) -> None:
        """Everything that was opened, the last thing first."""
        while self._closing:
            try:
                self._closing.pop()()
            except RaftwrightError as error:
                _log.error("%s", error)

    def apply(self, settings: Settings) -> None:
        """Tasks read what may change each time."""

    @property
    def active(self) -> bool:
        """Whether this is the archiver that works; of several for one instrument one does."""
        return self.role is not None and self.role.active

    def _begins(self) -> None:
        """It is us from now on, or the ledger is another: what was remembered of it is old."""
        with self._news:
            self._readouts.clear()
        with self._images_lock:
            self._images.clear()
        self.gatherer.forget()
        self.chronicle.forget()
        if self.watch is not None:
            self.watch.forget()

    # -- news

    def look_at(self, image_id: int, *, late: bool = False, soon: float = _SOON) -> None:
        """Wants an image to be looked at."""
        with self._news:
            due, was_late = self._waiting.get(image_id, (time.monotonic() + soon, False))
            self._waiting[image_id] = due, was_late or late
            self._news.notify()

    def _announced(self, image_id: int, ended: bool, live: bool) -> None:
        """The DAQ has news of an image."""
        with self._news:
            now = time.monotonic()
            end = now if ended else now + self.settings.readout
            known = self._readouts.get(image_id)
            self._readouts[image_id] = end if known is None else min(known, end)
            while len(self._readouts) > _READOUTS:
                del self._readouts[next(iter(self._readouts))]
            first = ended and live and (known is None or known > now)
        if first:
            self._end_of_readout(image_id)
        self.look_at(image_id)

    def _end_of_readout(self, image_id: int) -> None:
        """As we saw it; the camera's own word for it, in the header, counts more."""
        assert self.ledger is not None
        image = self.ledger.images.by_id(image_id)
        if image.end_readout_tai is None and image.settled_tai is None:
            self.ledger.images.times(image.obsid, end_readout_tai=tai())

    def _dead(self, image_id: int, location: str, reason: str) -> None:
        """A source comes no more."""
        image = self.image_of(image_id)
        _log.error("%s %s: %s", image.obsid, location, reason)
        self.reporter.dead(image, location, reason)
        self.look_at(image_id, late=True)

    def _listen(self, task: Task) -> None:
        """Hints of forwarders and of the header service."""
        from raftwright.events import open_subscriber

        kinds = ("fileWritten", "fileRepaired", "imageWritten", "headerReady", "missed")
        with open_subscriber(*self.places.listen, kinds=kinds, group=self.name) as subscriber:
            while not task.stopping.is_set():
                for event in subscriber.events(timeout=0.5):
                    self.chronicle.wake()
                    subscriber.done(event)
                    if task.stopping.is_set():
                        return

    def _take(self, rows: list[EventRow]) -> None:
        """What changed in the ledger."""
        pokes: set[str] = set()
        for row in rows:
            if row.image_id is None:
                continue
            if row.thing in ("file", "header"):
                self.look_at(row.image_id)
                if self.settings.headers and (row.thing == "header" or row.detail.get("kind") == "raw"):
                    self.late_headers.look_at(row.image_id)
            elif row.thing == "delivery":
                if row.new == "queued":
                    pokes.add(row.detail.get("destination", row.subject.split(" ")[0]))
                self.reporter.delivery(row)
            elif row.thing == "image":
                if row.new == "capturing":
                    self.look_at(row.image_id)
                self.reporter.image(row)
        for name in pokes:
            self._poke(name)

    def _poke(self, name: str | None = None) -> None:
        if self.lanes is not None:
            self.lanes.poke(name)

    # -- gathering

    def _overdue(self) -> float:
        with self._news:
            return float(any(time.monotonic() - due > 5.0 for due, _ in self._waiting.values()))

    def _gather(self, task: Task) -> None:
        """Looks at images that there is news of, and at all that are not settled from time to time."""
        swept = -1e9
        while not task.stopping.is_set():
            if self._ends:
                task.wait(60.0)
                continue
            if not self.active:
                swept = -1e9
                task.wait(0.2)
                task.beat()
                continue
            try:
                if time.monotonic() - swept >= self.settings.sweep:
                    self._sweep()
                    swept = time.monotonic()
                for image_id in self._due(min(1.0, self.settings.sweep)):
                    self._examine(image_id)
                    task.beat()
                    if task.stopping.is_set():
                        return
            except RaftwrightError as error:
                _log.error("images cannot be looked at: %s", error)
                task.wait(0.5)
            task.beat()

    def _due(self, patience: float) -> list[int]:
        """Images whose time has come; waits for one. They stay among those that wait."""
        with self._news:
            if not self._waiting:
                self._news.wait(patience)
            now = time.monotonic()
            due = [image_id for image_id, (when, _) in self._waiting.items() if when <= now]
            if not due and self._waiting:
                first = min(when for when, _ in self._waiting.values())
                self._news.wait(max(0.001, min(first - now, patience)))
                return []
            return due

    @property
    def waiting(self) -> int:
        """Images to look at, with the one that is looked at now."""
        with self._news:
            return len(self._waiting) + self._looking

    def _examine(self, image_id: int) -> None:
        with self._news:
            _, late = self._waiting.pop(image_id, (0.0, False))
            self._looking = True
        try:
            self._gather_one(image_id, late)
        finally:
            with self._news:
                self._looking = False
            self.chronicle.wake()

    def _gather_one(self, image_id: int, late: bool) -> None:
        try:
            image, new, again = self.gatherer.examine(image_id, late=late or self._is_late(image_id))
        except NotFoundError:
            return
        except RaftwrightError:
            self.look_at(image_id, late=late, soon=1.0)
            raise
        except Exception as error:  # one image must not stop the others
            _log.error("image %d: %s: %s", image_id, type(error).__name__, error, exc_info=error)
            return
        self._remember(image)
        if again:
            self.look_at(image_id, late=late, soon=again)
        if new:
            self._poke()
        if image.state in ("complete", "lost"):
            with self._news:
                self._readouts.pop(image_id, None)

    def _is_late(self, image_id: int) -> bool:
        with self._news:
            ended = self._readouts.get(image_id)
        return ended is not None and time.monotonic() - ended > self.settings.late

    def _sweep(self) -> None:
        """All images that are not settled, and those that lack something."""
        assert self.ledger is not None
        after = 0
        while True:
            rows = self.ledger.images.select(
                states=("announced", "capturing"),
                instrument=self.settings.instrument or None,
                after_id=after,
                limit=_AT_A_TIME,
            )
            for row in rows:
                with self._news:
                    self._readouts.setdefault(row.id, time.monotonic() + self.settings.readout)
                self.look_at(row.id)
            if len(rows) < _AT_A_TIME:
                return
            after = rows[-1].id

    def image_of(self, image_id: int) -> ImageRow:
        """An image of the ledger; what does not change of it may be remembered. Raises NotFoundError."""
        with self._images_lock:
            known = self._images.get(image_id)
        if known is not None:
            return known
        assert self.ledger is not None
        image = self.ledger.images.by_id(image_id)
        self._remember(image)
        return image

    def _remember(self, image: ImageRow) -> None:
        with self._images_lock:
            self._images[image.id] = image
            self._images.move_to_end(image.id)
            while len(self._images) > _IMAGES:
                self._images.popitem(last=False)

    # -- telling

    def _report(self, task: Task) -> None:
        while not task.wait(1.0):
            self.fullness.look()
            if self.active:
                with bound(service=self.name):
                    self.reporter.work()
            task.beat()

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`nightlySummary` of a `dayobs`: counts its files and tells. `again`: queues dead letters once
        more."""
        assert self.ledger is not None
        if command == "nightlySummary":
            return self.reporter.night(str(arguments.get("dayobs", "")))
        if command == "again":
            destination = None if arguments.get("destination") is None else str(arguments["destination"])
            names = [one.name for one in self.settings.destinations]
            names += [one.name for one in self.settings.commands]
            if destination is not None and destination not in names:
                raise UsageError(
                    f"there is no destination {destination[:64]!a}; there are {', '.join(names)}"
                )
            count = self.ledger.deliveries.again(destination, states=("failed", "conflict"))
            self._poke()
            return {"queued": count}
        return super().obey(command, arguments)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        if self.phase != "running" or self.waiting or self.lanes is None:
            return self.phase != "running"
        if self.watch is not None and not self.watch.swept:
            return not self.active
        return not self.active or self.lanes.idle()

    def problems(self) -> list[str]:
        """See `Service`."""
        said = [f"{lane.name}: {lane.trouble}" for lane in self.lanes or () if lane.trouble]
        if self.role is not None:
            said += [one for one in (self.role.trouble, self.fullness.trouble()) if one]
        watch = self.watch
        if watch is not None:
            if watch.trouble:
                said.append(f"the DAQ cannot be asked: {watch.trouble}")
            if watch.strange:
                first = next(iter(watch.strange))
                said.append(f"{len(watch.strange)} images cannot be entered, {first}: {watch.strange[first]}")
        return said

    def report(self) -> Mapping[str, Any]:
        """See `Service`."""
        destinations: dict[str, Any] = {}
        problems: list[str] = []
        if self.lanes is not None:
            try:
                destinations = self.lanes.status()
            except RaftwrightError as error:
                problems.append(str(error))
        return {
            "role": None if self.role is None else self.role.name,
            "active": self.active,
            "archive": str(self.places.root),
            "images_waiting": self.waiting,
            "files_read": self.digests.taken,
            "destinations": destinations,
            "problems": problems,
        }
