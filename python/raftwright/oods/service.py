"""The OODS as a whole: what it is made of, what each part tells the others, its status, its end."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from raftwright.errors import NotFoundError, RaftwrightError
from raftwright.ledger import open_ledger
from raftwright.oods.aside import again
from raftwright.oods.following import Following
from raftwright.oods.ingesting import Ingesting
from raftwright.oods.places import NAME, Places
from raftwright.oods.settings import Settings
from raftwright.oods.telling import Teller
from raftwright.oods.visits import Visits
from raftwright.service import Service
from raftwright.service.chronicle import Chronicle
from raftwright.service.role import Role

if TYPE_CHECKING:
    from raftwright.butler import Ingester, Repository
    from raftwright.camera import Camera
    from raftwright.ledger import IngestRow, Ledger
    from raftwright.oods.leaving import Leaving
    from raftwright.oods.taking import Inputs
    from raftwright.oods.web.serving import WebServer
    from raftwright.service import Life, Task

__all__ = ["NAME", "Oods"]

_log = logging.getLogger("raftwright.oods")

_MOST_LEAVING: Final = 10_000
"""Files that are chosen to leave at a time."""


class Oods(Service):
    """Ingests, announces, cleans. Raises, from `start`, what ledger, repository and events raise."""

    NAME: ClassVar[str] = NAME
    LIVE: ClassVar[frozenset[str]] = frozenset(
        {"sweep", "batch", "guider_wait", "retries", "backoff", "longest", "order", "retention"}
    )
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {"again": frozenset()}

    settings: Settings

    def __init__(self, settings: Settings, places: Places, life: Life | None = None, **more: Any) -> None:
        super().__init__(settings, life, **more)
        self.places = places
        self.ledger: Ledger | None = None
        self.role: Role | None = None
        self.following: Following | None = None
        self.ingesting: Ingesting | None = None
        self.chronicle: Chronicle | None = None
        self.web: WebServer | None = None
        self.inputs: Inputs | None = None
        self.visits: Visits | None = None
        self.retention_trouble = self.room_trouble = ""
        self._removed = self.metrics.counter("removed", "Files that left the repository")
        self._closing: list[Callable[[], None]] = []

    # -- begin and end

    def open(self) -> None:
        """See `Service`."""
        settings, places = self.settings, self.places
        with self._make_sure() as repository:
            cameras = repository.cameras
        self.ledger = ledger = open_ledger(places.ledger)
        self._closing.append(ledger.close)
        ledger.renew()
        ledger.keep_alive()
        teller = Teller(self._publisher(), {camera.code: camera.name for camera in cameras})
        self.publisher = teller.publisher
        self._closing.append(teller.close)
        self.role = Role(ledger, f"{NAME}:{settings.name}", self._begins)
        self.ingesting = Ingesting(
            ledger,
            lambda: self.settings,
            self._open_ingester,
            teller,
            active=lambda: self.active,
            ingested=lambda exposures: None if self.visits is None else self.visits.want(exposures),
            settled=lambda facts: self.tell("file", facts),
            metrics=self.metrics,
        )
        self.task("role", self.role.keep)
        self.visits = Visits(ledger, settings.name, self._open_ingester, define=settings.visits)
        self.task("ingest", self.ingesting.work, patience=300.0)
        if settings.archive:
            self._follow(ledger)
        self._take_in(ledger, cameras, teller)
        self.task("visits", functools.partial(self.visits.keep, active=lambda: self.active))
        self.task("retention", self._retain, patience=600.0)
        if settings.web is not None:
            from raftwright.oods.web.serving import WebServer

            self.web = WebServer(ledger, settings.name, settings.web, self._webhook())
            self._closing.append(self.web.close)
        self.role.take()
        self.metrics.gauge("active", "1 where it is this one that works", read=lambda: float(self.active))

    def _follow(self, ledger: Ledger) -> None:
        assert self.role is not None
        assert self.ingesting is not None
        assert self.visits is not None
        visits = self.visits
        self.following = following = Following(
            ledger, self.settings, self.ingesting.wake, corrected=visits.correct
        )
        self.chronicle = Chronicle(
            ledger,
            self.role.name,
            following.take,
            things=("file",),
            active=lambda: self.active,
            settled=lambda: not visits.correcting,
        )
        self.task("chronicle", self.chronicle.read)
        self.task("sweep", lambda task: following.keep(task, lambda: self.active), patience=120.0)
        if self.places.listen:
            self.task("events", self._listen)

    def _take_in(self, ledger: Ledger, cameras: Sequence[Camera], teller: Teller) -> None:
        """The inputs besides the archive."""
        from raftwright.oods.taking import Inputs

        assert self.ingesting is not None
        self.inputs = inputs = Inputs(
            ledger,
            self.settings,
            cameras,
            teller,
            planned=self.ingesting.wake,
            name=self.name,
            metrics=self.metrics,
        )
        self._closing.append(inputs.close)
        inputs.begin(self.task, lambda: self.active)

    def _webhook(self) -> Callable[[Any], Any] | None:
        told = self.settings.notifications
        if told is None or not told.webhook or self.inputs is None or self.inputs.intake is None:
            return None
        from raftwright.oods.web.webhook import with_webhook

        intake = self.inputs.intake
        return with_webhook(lambda body, source: intake.take([(body, source)]), told.secret)

    def _make_sure(self) -> Repository:
        """The repository, made where there is none. Raises NotFoundError, StorageError."""
        from raftwright.butler import make_repository, open_repository

        wanted = self.settings
        if not wanted.create:
            return open_repository(wanted.repository)
        try:
            return open_repository(wanted.repository)
        except NotFoundError:
            cameras = wanted.cameras or ([self.places.camera] if self.places.camera else [])
            return make_repository(wanted.repository, db_url=wanted.registry or None, cameras=cameras)

    def _open_ingester(self) -> Ingester:
        from raftwright.butler import Ingester, open_repository

        return Ingester(open_repository(self.settings.repository, writeable=True))

    def _publisher(self) -> Any:
        if not self.places.publish:
            return None
        from raftwright.events import open_publisher

        return open_publisher(self.places.publish, name=self.name)

    def quiet(self) -> None:
        """Takes on nothing more."""
        if self.ingesting is not None:
            self.ingesting.quiet()
        if self.chronicle is not None:
            self.chronicle.end()
        if self.visits is not None:
            self.visits.wake()

    def threads(self) -> Iterable[threading.Thread]:
        """That of the web server."""
        return () if self.web is None else (self.web.thread,)

    def in_flight(self) -> Collection[Hashable]:
        """Files that are being ingested."""
        return () if self.ingesting is None else self.ingesting.under_way

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
        """Whether this is the OODS that works; of several for one repository one does."""
        return self.role is not None and self.role.active

    def _begins(self) -> None:
        """It is us from now on, or the ledger is another."""
        if self.chronicle is not None:
            self.chronicle.forget()
        if self.following is not None:
            self.following.forget()
        if self.visits is not None:
            self.visits.compare()
        if self.ingesting is not None:
            self.ingesting.compare()

    def _listen(self, task: Task) -> None:
        """Hints of forwarders."""
        from raftwright.events import open_subscriber

        assert self.chronicle is not None
        kinds = ("fileWritten", "fileRepaired", "imageWritten", "missed")
        with open_subscriber(*self.places.listen, kinds=kinds, group=self.name) as subscriber:
            while not task.stopping.is_set():
                for event in subscriber.events(timeout=self.settings.events_wait):
                    self.chronicle.wake()
                    subscriber.done(event)
                    if task.stopping.is_set():
                        return

    # -- retention

    def _retain(self, task: Task) -> None:
        """Lets go of what is old, from time to time."""
        while not task.stopping.is_set():
            rules = self.settings.retention
            if rules is not None and self.active:
                try:
                    self.clean(task)
                    self.retention_trouble = ""
                except RaftwrightError as error:
                    if not self.retention_trouble:
                        _log.error("nothing can be removed: %s", error)
                    self.retention_trouble = str(error)
            task.beat()
            until = time.monotonic() + (60.0 if rules is None else rules.every)
            if self.retention_trouble:
                until = min(until, time.monotonic() + 60.0)
            while time.monotonic() < until and not task.wait(1.0):
                task.beat()

    def clean(self, task: Task) -> int:
        """Removes what the rules say; how many files. Raises StorageError, NotFoundError; RaftwrightError
        for what cannot be deleted, when all else is done."""
        from raftwright.butler import open_repository
        from raftwright.oods.leaving import Leaving
        from raftwright.oods.retention import Chooser

        assert self.ledger is not None
        assert self.settings.retention is not None
        gone = 0
        with open_repository(self.settings.repository, writeable=True) as repository:
            chooser = Chooser(self.ledger, self.settings, repository)
            leaving = Leaving(
                self.ledger,
                self.settings.name,
                repository,
                chooser,
                empty_directories=self.settings.retention.empty_directories,
            )
            with leaving.alone():
                leaving.resume()
                while True:
                    choice = chooser.choose(most=_MOST_LEAVING)
                    left = self._let_go(leaving, choice.going, task)
                    gone += left
                    ended = task.stopping.is_set() or not self.active
                    if ended or not left or len(choice.going) < _MOST_LEAVING:
                        break
        self.room_trouble = (
            f"{choice.why}, and {choice.lacking:,} bytes of what should go cannot: {choice.staying[0][1]}"
            if choice.lacking and choice.staying
            else f"{choice.why}, and nothing is left that could go"
            if choice.lacking
            else ""
        )
        if gone:
            _log.info("%d files left the repository", gone)
        if leaving.trouble:
            raise RaftwrightError(leaving.trouble)
        return gone

    def _let_go(self, leaving: Leaving, going: Sequence[tuple[IngestRow, str]], task: Task) -> int:
        """Removes what was chosen, until it is to stop; how many went."""
        gone = 0
        for left in leaving.remove_all(going):
            gone += len(left)
            self._removed.add(len(left))
            task.beat()
            if task.stopping.is_set() or not self.active:
                break
        return gone

    # -- what it tells

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`again`: queues dead letters once more, and has what was set aside tried again."""
        assert self.ledger is not None
        if command == "again":
            count = self.ledger.ingests.again(
                self.settings.name, states=("failed", "conflict", "unsupported")
            )
            if self.ingesting is not None:
                self.ingesting.wake()
            return {"queued": count, "set_aside": again(self.ledger, self.settings)}
        return super().obey(command, arguments)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        if self.phase != "running" or self.ledger is None:
            return self.phase != "running"
        if not self.active:
            return True
        waiting = self.ledger.ingests.counts(self.settings.name, done=False).get(self.settings.name, {})
        if self.visits is not None and self.visits.waiting:
            return False
        settled = self.inputs is None or self.inputs.settled
        return settled and not (waiting.get("queued") or waiting.get("ingesting"))

    def illness(self) -> list[str]:
        """See `Service`; and inputs of which nothing is heard, though there is something."""
        return [*super().illness(), *([] if self.inputs is None else self.inputs.alarms())]

    def problems(self) -> list[str]:
        """See `Service`."""
        parts = (
            "" if self.ingesting is None else self.ingesting.trouble,
            "" if self.role is None else self.role.trouble,
            "" if self.following is None else self.following.trouble,
            "" if self.visits is None else self.visits.trouble,
            *(() if self.inputs is None else self.inputs.problems()),
            self.retention_trouble,
            self.room_trouble,
        )
        return [part for part in parts if part]

    def report(self) -> Mapping[str, Any]:
        """See `Service`."""
        states: dict[str, int] = {}
        problems: list[str] = []
        if self.ledger is not None:
            try:
                name = self.settings.name
                states = self.ledger.ingests.counts(name, done=False).get(name, {})
            except RaftwrightError as error:
                problems.append(str(error))
        return {
            "role": None if self.role is None else self.role.name,
            "active": self.active,
            "repository": self.settings.repository,
            "web": "" if self.web is None else self.web.url,
            "ingests": states,
            "growing": 0 if self.inputs is None else self.inputs.growing,
            "problems": problems,
        }
