"""The hand-off as a whole: what it is made of, what each part tells the others, its status, its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from raftwright.backbone.delivering import Lanes
from raftwright.backbone.packing import Packer
from raftwright.backbone.packing_work import PackingWork
from raftwright.backbone.places import NAME, Places
from raftwright.backbone.planning import Planner
from raftwright.backbone.scrubbing import Scrubber
from raftwright.backbone.settings import Settings
from raftwright.backbone.standing import dead_letters, oldest_check, unconfigured
from raftwright.backbone.telling import DEAD, Teller
from raftwright.errors import RaftwrightError, UsageError
from raftwright.ledger import open_ledger
from raftwright.ledger.replicas import ENDPOINT
from raftwright.service import Service
from raftwright.service.chronicle import Chronicle
from raftwright.service.role import Role

if TYPE_CHECKING:
    from raftwright.backbone.settings import Endpoint
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import EventRow, ReplicaRow
    from raftwright.service import Life, Task
    from raftwright.transfer.lane import Ended

__all__ = ["NAME", "HandOff"]

_log = logging.getLogger("raftwright.backbone")

_LOOK: Final = 2.0
"""Seconds between two looks at dead letters and the backlog."""
_HINTS: Final = ("fileWritten", "fileRepaired", "imageComplete", "headerReady", "missed")


class HandOff(Service):
    """Plans, brings, and reads again. Raises, from `start`, what ledger, endpoints and events raise.

    `by_hand`: it plans and reads nothing by itself, and brings what is queued: for `raftwright handoff scrub`
    beside a service that runs, or without one.
    """

    NAME: ClassVar[str] = NAME
    LIVE: ClassVar[frozenset[str]] = frozenset({"scrub", "sweep", "backlog"})
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = dict.fromkeys(("again", "scrub"), frozenset({"endpoint"}))

    settings: Settings

    def __init__(
        self,
        settings: Settings,
        places: Places,
        life: Life | None = None,
        *,
        by_hand: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(settings, life, **more)
        self.places = places
        self.role: Role | None = None
        self.ledger: Ledger | None = None
        self.lanes: Lanes | None = None
        self.scrubbers: dict[str, Scrubber] = {}
        """By the names of the endpoints."""
        self._by_hand = by_hand
        self._ends = False
        self._swept = threading.Event()
        self._sweep_due = 0.0
        self._dead: dict[str, int] = {}
        """Dead letters by endpoint."""
        self._nowhere: dict[str, int] = {}
        """Replicas, by endpoint, of which there is no good copy anywhere."""
        self._nowhere_due = 0.0
        self._others: list[str] = []
        """Endpoints with replicas that are not configured."""
        self._dead_news = threading.Event()
        self._closing: list[Callable[[], None]] = []

    # -- begin and end

    def open(self) -> None:
        """See `Service`."""
        settings, places = self.settings, self.places
        self.ledger = ledger = open_ledger(places.ledger)
        self._closing.append(ledger.close)
        ledger.renew()
        ledger.keep_alive()
        self._teller = Teller(
            self._publisher(), ledger.images.by_id, lambda facts: self.tell("replica", facts)
        )
        self._closing.append(self._teller.close)
        self.role = Role(ledger, f"{NAME}:{settings.instrument or '*'}", self._begins)
        self.planner = Planner(ledger, settings.endpoints, settings.instrument)
        packer = Packer(ledger, lambda: self.settings.containers, settings.endpoints)
        self.packing = PackingWork(
            packer,
            ledger,
            settings.instrument,
            active=lambda: self.active and not self._ends,
            packed=self._was_packed,
            metrics=self.metrics,
        )
        self.lanes = Lanes(
            settings.endpoints,
            ledger,
            told=self._brought,
            rotten=packer.tell_damaged,
            active=lambda: self.active or self._by_hand,
            metrics=self.metrics,
        )
        self._closing.append(self.lanes.close)
        self.chronicle = Chronicle(
            ledger,
            self.role.name,
            self._take,
            things=("image", "file", "header", "delivery", "replica"),
            active=lambda: self.active,
            settled=lambda: not self.planner.waiting,
        )
        if not self._by_hand:
            self.task("role", self.role.keep)
            self.task("chronicle", self.chronicle.read)
            self.task("plan", self._plan, waiting=self.planner.overdue)
            self.task("sweep", self._sweep, waiting=lambda: float(self.active), patience=600.0)
            self.task("backlog", self._look_after)
            for number in range(1, 1 + settings.containers.workers):
                self.task(f"pack {number}", self.packing.work, waiting=self.packing.overdue, patience=60.0)
            if places.listen:
                self.task("events", self._listen)
        for lane in self.lanes:
            self.task(f"deliver {lane.name}", lane.work, waiting=lane.waiting, patience=60.0)
        for endpoint in settings.endpoints:
            self._add_scrubber(endpoint)
        self.lanes.warm()
        if not self._by_hand:
            self._begin_at_the_end()
            self.role.take()
        gauge = self.metrics.gauge
        gauge("active", "1 where it is this hand-off that works", read=lambda: float(self.active))
        gauge("images_waiting", "Images to look at", read=lambda: float(self.planner.waiting))
        for endpoint in settings.endpoints:
            gauge(
                "dead_letters",
                "Files that are given up, or are in conflict",
                read=lambda name=endpoint.name: float(self._dead.get(name, 0)),  # type: ignore[misc]
                endpoint=endpoint.name,
            )

    def _publisher(self) -> Any:
        if not self.places.publish:
            return None
        from raftwright.events import open_publisher

        return open_publisher(self.places.publish, name=self.name)

    def _add_scrubber(self, endpoint: Endpoint) -> None:
        assert self.ledger is not None
        assert self.lanes is not None
        scrubber = Scrubber(
            endpoint,
            self.lanes.senders[endpoint.name],
            self.lanes.presences[endpoint.name],
            self.ledger,
            lambda: self.settings.scrub,
            active=lambda: self.active,
            found=self._found,
            metrics=self.metrics,
        )
        self.scrubbers[endpoint.name] = scrubber
        self.task(f"scrub {endpoint.name}", scrubber.work)

    def _begin_at_the_end(self) -> None:
        """A history that nobody has read is not read: the first sweep finds what it would say."""
        assert self.ledger is not None
        assert self.role is not None
        if not self.ledger.events.cursor(self.role.name):
            self.ledger.events.move_cursor(self.role.name, self.ledger.events.last())

    def quiet(self) -> None:
        """Takes on nothing more."""
        for lane in self.lanes or ():
            lane.quiet()
        self._ends = True
        if self.ledger is not None and self.lanes is not None:
            self.chronicle.end()
            self.planner.wake()
            self.packing.wake()

    def in_flight(self) -> Collection[Hashable]:
        """Files on their way."""
        named: list[Hashable] = [name for lane in self.lanes or () for name in lane.in_flight()]
        return named if self.lanes is None else [*named, *self.packing.busy()]

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
        """Whether this is the hand-off that works; of several for one instrument one does."""
        return self.role is not None and self.role.active

    def _begins(self) -> None:
        """It is us from now on, or the ledger is another: all of it is compared."""
        self.planner.forget()
        self.packing.forget()
        self.chronicle.forget()
        self._swept.clear()
        self._sweep_due = 0.0

    # -- news

    def _listen(self, task: Task) -> None:
        """Hints of the others."""
        from raftwright.events import open_subscriber

        with open_subscriber(*self.places.listen, kinds=_HINTS, group=self.name) as subscriber:
            while not task.stopping.is_set():
                for event in subscriber.events(timeout=0.5):
                    self.chronicle.wake()
                    subscriber.done(event)
                    if task.stopping.is_set():
                        return

    def _take(self, rows: list[EventRow]) -> None:
        """What changed in the ledger."""
        images: dict[int, None] = {}
        changed: dict[int, None] = {}
        for row in rows:
            if row.image_id is None:
                continue
            if row.thing != "delivery":
                changed[row.image_id] = None
            if row.thing == "replica":
                self._teller.replica(row)
            elif row.thing == "delivery":
                if row.subject.startswith(ENDPOINT):
                    self._teller.delivery(row)
                    if row.new == "queued" and self.lanes is not None:
                        self.lanes.poke(row.subject.partition(" ")[0].removeprefix(ENDPOINT))
            elif row.thing == "image" or row.new not in ("lost", "damaged"):
                images[row.image_id] = None
        if images:
            self.planner.look_at(images)
        if changed and self.packing.packer.wanted:
            self.packing.look_at(changed)

    def _plan(self, task: Task) -> None:
        """Looks at images that there is news of."""
        while not task.stopping.is_set():
            if self._ends or not self.active:
                task.wait(0.2)
                task.beat()
                continue
            some = self.planner.due(1.0)
            try:
                if some and self.planner.examine(some):
                    self._poke()
                    self.chronicle.wake()
            except RaftwrightError as error:
                _log.error("images cannot be looked at: %s", error)
                self.planner.look_at(image_id for image_id, _ in some)
                task.wait(0.5)
            task.beat()

    def _sweep(self, task: Task) -> None:
        """All files, from time to time."""
        while not task.wait(0.1):
            task.beat()
            if self._ends or not self.active or time.monotonic() < self._sweep_due:
                continue

            def going_on() -> bool:
                task.beat()
                return self.active and not self._ends and not task.stopping.is_set()

            try:
                if self.planner.sweep(going_on):
                    self._poke()
                self.packing.sweep(going_on)
                if going_on():
                    self._sweep_due = time.monotonic() + self.settings.sweep
                    self._swept.set()
            except RaftwrightError as error:
                _log.error("files cannot be compared with the endpoints: %s", error)
                task.wait(1.0)

    def _poke(self) -> None:
        if self.lanes is not None:
            self.lanes.poke()

    def _look_after(self, task: Task) -> None:
        """Counts dead letters, and lets new images go before a backlog."""
        assert self.ledger is not None
        while not task.stopping.is_set():
            if self.active:
                try:
                    self._dead = {
                        name: sum(counts.get(state, 0) for state in DEAD)
                        for name, counts in dead_letters(self.ledger).items()
                    }
                    self._count_nowhere()
                    if not self.settings.instrument:  # else another hand-off may have them
                        self._others = unconfigured(self.ledger, self.scrubbers)
                    for endpoint in self.settings.endpoints:
                        self.ledger.replicas.demote(endpoint.name, self.settings.backlog)
                except RaftwrightError as error:
                    _log.error("%s", error)
            task.beat()
            until = time.monotonic() + _LOOK
            while not (self._dead_news.wait(0.5) or task.stopping.is_set() or time.monotonic() > until):
                task.beat()
            self._dead_news.clear()

    def _count_nowhere(self) -> None:
        """Where many are lost that takes long: then seldom. Raises StorageError."""
        assert self.ledger is not None
        began = time.monotonic()
        if began >= self._nowhere_due:
            self._nowhere = self.ledger.replicas.nowhere()
            now = time.monotonic()
            self._nowhere_due = now + 50 * (now - began)

    # -- what comes of it

    def _brought(self, _endpoint: Endpoint, ended: Ended) -> None:
        """A try ended."""
        if ended.state != "queued":
            self.chronicle.wake()
        if ended.state in DEAD:
            self._dead_news.set()

    def _was_packed(self, image_id: int) -> None:
        """It goes where it is asked for."""
        self.planner.look_at([image_id])
        self.chronicle.wake()

    def _found(self, row: ReplicaRow, state: str, reason: str) -> None:
        """A replica is not what it should be: it is brought there anew."""
        self.tell("found", {"endpoint": row.endpoint, "name": row.target, "state": state, "reason": reason})
        if self._by_hand:
            self.packing.again([row.image_id])
        if self.planner.plan([row.image_id]) and self.lanes is not None:
            self.lanes.poke(row.endpoint)
        self.chronicle.wake()

    def mend(self, names: Collection[str]) -> None:
        """Queues what is known to be damaged or lost at endpoints, where it is not. Raises StorageError."""
        assert self.ledger is not None
        for name in names:
            after = 0
            while rows := self.ledger.replicas.at(name, after, states=("damaged", "lost")):
                self.packing.again({row.image_id for row in rows})
                self.planner.plan({row.image_id for row in rows})
                after = rows[-1].id
        self._poke()

    def unmended(self, names: Collection[str]) -> int:
        """Replicas at endpoints that are damaged or lost. Raises StorageError."""
        assert self.ledger is not None
        counts = self.ledger.replicas.counts(verified=False)
        return sum(counts.get(name, {}).get(state, 0) for name in names for state in ("damaged", "lost"))

    # -- telling

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`again`: queues dead letters once more. `scrub`: reads all replicas now. `endpoint`: only there."""
        assert self.ledger is not None
        name = None if arguments.get("endpoint") is None else str(arguments["endpoint"])
        if name is not None and name not in self.scrubbers:
            raise UsageError(f"there is no endpoint {name[:64]!a}; there are {', '.join(self.scrubbers)}")
        names = [name] if name is not None else list(self.scrubbers)
        if command == "again":
            count = sum(self.ledger.deliveries.again(ENDPOINT + one, states=tuple(DEAD)) for one in names)
            self._poke()
            self._dead_news.set()
            return {"queued": count}
        if command == "scrub":
            for one in names:
                self.scrubbers[one].now()
            return {"endpoints": names}
        return super().obey(command, arguments)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        if self.phase != "running" or self.lanes is None:
            return self.phase != "running"
        if any(not scrubber.idle for scrubber in self.scrubbers.values()):
            return False
        if self._by_hand:
            return self.lanes.idle()
        return not self.active or (
            self._swept.is_set() and not self.planner.waiting and self.packing.idle and self.lanes.idle()
        )

    def problems(self) -> list[str]:
        """See `Service`."""
        said = [
            f"{lane.name.removeprefix(ENDPOINT)}: {lane.trouble}" for lane in self.lanes or () if lane.trouble
        ]
        if self.role is not None and self.role.trouble:
            said.append(self.role.trouble)
        for name, count in self._dead.items():
            if count:
                said.append(
                    f"{name}: {count} dead letters; see `raftwright handoff status`, and "
                    "`handoff again` when it is mended"
                )
        for name, count in self._nowhere.items():
            said.append(
                f"{name}: {count} replica{'s are' if count > 1 else ' is'} damaged or lost, taken away from "
                "the archive, and no endpoint has a good copy; look for one elsewhere"
            )
        for name, scrubber in self.scrubbers.items():
            if scrubber.trouble:
                said.append(f"{name} cannot be scrubbed: {scrubber.trouble}")
            for why in list(scrubber.unreadable.values())[:1]:
                number = len(scrubber.unreadable)
                said.append(f"{name}: {number} replica{'s' * (number > 1)} cannot be read, {why}")
        said += [
            f"{name} is not configured and has replicas, which count and are not read again; where they are "
            f"gone: `raftwright handoff lost {name}`"
            for name in self._others
        ]
        if self.lanes is None:
            return said
        for name, how in self.lanes.weak.items():
            said.append(
                f"{name} is custodial, and its files are held {how}: whoever owns them can change them"
            )
        said += self.packing.problems()
        if self.planner.unverified:
            said.append(
                f"{len(self.planner.unverified)} images have files that nobody has found to hold in the "
                "archive; does an archiver run?"
            )
        if self.planner.refused:
            key, why = next(iter(self.planner.refused.items()))
            said.append(f"{len(self.planner.refused)} files cannot be handed over, {key}: {why}")
        return said

    def report(self) -> Mapping[str, Any]:
        """See `Service`."""
        endpoints: dict[str, Any] = {}
        problems: list[str] = []
        if self.lanes is not None and self.ledger is not None:
            try:
                endpoints = self.lanes.status()
                for name, told in endpoints.items():
                    told["scrub"] = {
                        **self.scrubbers[name].status(),
                        "oldest_check_s": oldest_check(self.ledger, name),
                    }
            except RaftwrightError as error:
                problems.append(str(error))
        return {
            "role": None if self.role is None else self.role.name,
            "active": self.active,
            "images_waiting": self.planner.waiting if self.lanes is not None else 0,
            "containers": self.packing.status() if self.lanes is not None else {},
            "endpoints": endpoints,
            "problems": problems,
        }
