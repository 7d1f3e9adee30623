"""The header service: collects, builds, stores and announces header documents."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import RaftwrightError, StorageError
from raftwright.header.announcing import Announcer
from raftwright.header.building import BuiltHeader, build_header
from raftwright.header.collector import Collector, Limits
from raftwright.header.inputs import DaqInput, follow_directory, follow_events
from raftwright.header.intake import Intake
from raftwright.header.journal import Journal
from raftwright.header.settings import SHARED, Settings
from raftwright.header.spec_file import header_spec
from raftwright.header.store import HeaderLog, HeaderStore, Stored
from raftwright.rawfile.makers import SIGN_EVERY, give_sign, take_sign_away
from raftwright.service.base import Life, Service
from raftwright.service.context import bound

if TYPE_CHECKING:
    from raftwright.events import DeadLetters, Publisher
    from raftwright.header.door import HeaderDoor
    from raftwright.service.common import Common
    from raftwright.service.states import State
    from raftwright.service.tasks import Task
    from raftwright.stream import NetworkStore

__all__ = ["NAME", "SHARED", "HeaderService", "Settings", "build"]

_log = logging.getLogger("raftwright.header")

NAME: Final = "header"
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_MOST_RECENT: Final = 50


class HeaderService(Service):
    """A header service, from `start` to `stop`. `log` is where stored headers are entered.

    Raises, from `start`: UsageError, NotFoundError, FormatError, StorageError for settings that cannot be, a
    specification that is wrong, a place that cannot be had.
    """

    NAME = NAME
    LIVE = frozenset({"deadline", "settle", "remember"})

    def __init__(self, settings: Settings, life: Life | None = None, *, log: HeaderLog | None = None) -> None:
        super().__init__(settings, life)
        self._log = log
        self.journal: Journal | None = None
        self.publisher: Publisher | None = None
        self.door: HeaderDoor | None = None
        self._daq: NetworkStore | None = None
        self._jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._building: set[str] = set()
        self._pauses: dict[str, float] = {}
        self._troubles: OrderedDict[str, str] = OrderedDict()
        self._recent: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._told: OrderedDict[str, int] = OrderedDict()
        self._books = threading.Lock()
        self._quiet = False
        self._signed = False
        self.recovered_images = 0
        self.longest_lag = 0.0
        """Seconds that the loop was late at most."""

    # -- begin and end

    def open(self) -> None:
        """Recovers what was collected before, opens inputs and outputs."""
        settings: Settings = self.settings
        self.spec = header_spec(settings.spec)
        self.collector = Collector(self.spec, _limits(settings))
        self.store = HeaderStore(settings.archive, durable=settings.durable)
        _make(Path(settings.archive))
        self._sign()
        self.journal = Journal(settings.journal_path)
        self.intake = Intake(self.collector, self.journal)
        self.recovered_images = self.intake.recover()
        if settings.events:
            from raftwright.events import open_publisher

            self.publisher = open_publisher(settings.events, name=self.name)
        if settings.door:
            from raftwright.header.door import HeaderDoor

            self.door = HeaderDoor(self.store, settings.door, self.metrics)
        if self._log is None:
            self._log = self._open_ledger()
        self.announcer = Announcer(
            self.spec.camera.name,
            self._url_of,
            lambda: self.enabled,
            self._announced,
            self.publisher,
            self._log,
        )
        self._counters()
        self._open_inputs()
        for number in range(settings.builders):
            self.task(f"build {number + 1}", self._build_on, waiting=self._waits, patience=60.0)
        self.task("journal", self._renew_on)
        self.task("sign", self._sign_on)
        self.task("collect", self._collect_on, waiting=lambda: 1.0, patience=15.0)

    def _open_inputs(self) -> None:
        settings: Settings = self.settings
        from raftwright.events import DeadLetters

        dead = DeadLetters(settings.journal_path.parent / "dead")
        brokers = [url for url in settings.listen if url.startswith("kafka://")]
        sockets = [url for url in settings.listen if url not in brokers]
        for number, urls in enumerate([*([sockets] if sockets else []), *([url] for url in brokers)]):
            self.task(f"events {number + 1}", functools.partial(self._listen, urls, dead))
        if settings.directory:
            directory = Path(settings.directory)
            _make(directory)
            self.task("directory", lambda task: follow_directory(task, self.intake, directory, dead))
        if settings.daq:
            self._daq = self._open_daq()
            self.task("daq", DaqInput(self.collector, self._daq, self.store.has).follow)
        if not (settings.listen or settings.directory):
            _log.warning("there is no input: give `listen` or `directory`, or nothing will be collected")

    def _listen(self, urls: list[str], dead: DeadLetters, task: Task) -> None:
        follow_events(task, self.intake, urls, dead, self.name)

    def _open_daq(self) -> NetworkStore:
        from raftwright.stream import NetworkStore

        settings: Settings = self.settings
        pair = None
        if settings.keys:
            from raftwright.stream import KeyStore

            pair = KeyStore(settings.key_store or None).secret(settings.keys)
        return NetworkStore(settings.daq, keys=pair, server_key=settings.server_key or None, name=self.name)

    def _open_ledger(self) -> HeaderLog | None:
        if not self.settings.ledger:
            return None
        from raftwright.header.entering import LedgerLog

        log = LedgerLog(self.settings.ledger)
        try:
            log.open()
        except StorageError as error:  # it may be there when there is something to enter
            _log.warning("the ledger cannot be opened yet: %s", error)
        return log

    def _counters(self) -> None:
        gauge = self.metrics.gauge
        gauge("images_known", "Images that are known", read=lambda: len(self.collector))
        gauge("samples_kept", "Samples of telemetry that are kept", read=lambda: len(self.collector.samples))
        gauge("announcements_waiting", "Headers not announced yet", read=lambda: self.announcer.waiting)
        gauge("longest_lag_seconds", "How late the loop was at most", read=lambda: self.longest_lag)

    def quiet(self) -> None:
        """No new input; what is being written is finished."""
        self._quiet = True
        if self._daq is not None:
            self._daq.close()  # who listens to it waits for nothing more

    def in_flight(self) -> Collection[Hashable]:
        """Documents that are being written."""
        with self._books:
            return tuple(self._building)

    @property
    def idle(self) -> bool:
        """Whether no image is under way."""
        return not self._building and all(
            tracked.state in ("complete", "partial") and tracked.build_at is None
            for tracked in self.collector.under_way()
        )

    def close(self) -> None:
        """Lets go of everything."""
        if self._signed:
            self._signed = False
            take_sign_away(self.settings.archive, self.spec.camera.code)
        with contextlib.ExitStack() as parts:  # each, whatever becomes of the others
            for part in (self.journal, self._log, self._daq, self.publisher, self.door):
                if part is not None:
                    parts.callback(part.close)

    def apply(self, settings: Settings) -> None:
        """Times of waiting, for images from now on."""
        self.collector.limits = _limits(settings)

    def changed(self, before: State, now: State) -> None:
        """Announcements that waited are made."""
        del before, now
        self.intake.woken.set()

    # -- the loop

    def _collect_on(self, task: Task) -> None:
        while not task.stopping.is_set():
            now = time.monotonic()
            wait = min(0.2, self.collector.next_due(now))
            self.intake.woken.wait(wait)
            self.intake.woken.clear()
            self.longest_lag = max(self.longest_lag, time.monotonic() - now - wait)
            if self._quiet:
                task.wait(0.05)
                continue
            for obsid in self.collector.due(time.monotonic()):
                with self._books:
                    self._building.add(obsid)
                self._jobs.put(obsid)
            self.announcer.flush()
            if self.intake.trouble:
                self._trouble("journal", self.intake.trouble)
            else:
                self._over("journal")
            task.beat()

    def _renew_on(self, task: Task) -> None:
        while not task.wait(0.5):
            try:
                self.intake.renew_if_full()
                self._over("renewal")
            except StorageError as error:
                self._trouble("renewal", str(error))
                task.wait(10.0)

    def _sign_on(self, task: Task) -> None:
        while not task.wait(SIGN_EVERY):
            self._sign()

    def _sign(self) -> None:
        """Who writes raw files waits for headers while somebody says that they are made."""
        try:
            give_sign(self.settings.archive, self.spec.camera.code)
            self._signed = True
            self._over("sign")
        except StorageError as error:
            self._trouble("sign", str(error))

    def _waits(self) -> float:
        return float(self._jobs.qsize())

    def _build_on(self, task: Task) -> None:
        while not task.stopping.is_set():
            try:
                obsid = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            if obsid is None:
                continue
            with bound(obsid=obsid):
                try:
                    self._build(obsid)
                finally:
                    with self._books:
                        self._building.discard(obsid)
                    self.intake.woken.set()
            task.beat()

    def _build(self, obsid: str) -> None:
        image = self.collector.snapshot(obsid)

        def make(created: int, version: int) -> BuiltHeader:
            with self.metrics.stage("build"):
                return build_header(self.spec, image, created=created, version=version)

        try:
            with self.metrics.stage("store"):
                stored = self.store.put(image.name, make)
            if stored.outcome != "kept":
                with self.metrics.stage("ledger"):
                    self.announcer.enter(stored)
            self._account(stored)
            if stored.outcome == "written" or (stored.outcome == "unchanged" and not self._was_told(stored)):
                self.announcer.announce(stored)
            else:
                self._announced(stored)
        except RaftwrightError as error:
            pause = min(_LONGEST_PAUSE, 2 * self._pauses.get(obsid, _FIRST_PAUSE / 2))
            self._pauses[obsid] = pause
            self._trouble(obsid, f"{obsid}: its header is not stored yet: {error}")
            self.collector.failed(obsid, time.monotonic(), pause)
            return
        except Exception:  # else it would be taken for being built, for ever
            self.collector.failed(obsid, time.monotonic(), _LONGEST_PAUSE)
            raise
        self._pauses.pop(obsid, None)
        self._over(obsid)
        self.collector.built(obsid, image.complete, time.monotonic())

    def _announced(self, stored: Stored) -> None:
        obsid = str(stored.header.name)
        with self._books:
            self._told[obsid] = stored.version
            while len(self._told) > 2 * self.settings.images:
                self._told.popitem(last=False)
        self.intake.built(obsid, stored.header.state == "complete")

    def _was_told(self, stored: Stored) -> bool:
        with self._books:
            return self._told.get(str(stored.header.name)) == stored.version

    def _url_of(self, stored: Stored) -> str:
        base = self.settings.door_url.rstrip("/") or (self.door.url if self.door is not None else "")
        if not base:
            return stored.path.absolute().as_uri()
        return f"{base}/{stored.header.name}.v{stored.version}.yaml"  # the digest is of one version

    # -- what it tells

    def _account(self, stored: Stored) -> None:
        header = stored.header
        self.metrics.counter("headers", "Header documents", outcome=stored.outcome, state=header.state).add(1)
        for reason, count in header.counts.items():
            self.metrics.counter("values_null", "Values that were not as they should be", reason=reason).add(
                count
            )
        if header.lacking:
            self.metrics.counter("headers_lacking", "Headers that lack mandatory keywords").add(1)
        facts = {
            "obsid": str(header.name),
            "version": stored.version,
            "outcome": stored.outcome,
            "state": header.state,
            "path": str(stored.path),
            "bytes": len(header.data),
            "crc32c": header.crc32c,
            "lacking": list(header.lacking),
            "groups": dict(header.groups),
            "nulls": header.nulls,
            "problems": stored.sentences()[:_MOST_RECENT],
        }
        with self._books:
            self._recent[str(header.name)] = facts
            while len(self._recent) > _MOST_RECENT:
                self._recent.popitem(last=False)
        if stored.outcome == "written":
            level = logging.WARNING if header.state == "partial" or header.lacking else logging.INFO
            _log.log(
                level,
                "%s: %s header, version %d%s",
                header.name,
                header.state,
                stored.version,
                f", lacks {', '.join(header.lacking)}" if header.lacking else "",
            )
        self.tell("header", facts)

    def _trouble(self, key: str, said: str) -> None:
        with self._books:
            new = key not in self._troubles
            self._troubles[key] = said
            while len(self._troubles) > _MOST_RECENT:
                self._troubles.popitem(last=False)
        if new:
            _log.error("%s", said)

    def _over(self, key: str) -> None:
        with self._books:
            self._troubles.pop(key, None)

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        with self._books:
            return list(self._troubles.values())

    def report(self) -> Mapping[str, Any]:
        """Its own part of the status."""
        if self.journal is None:
            return {}
        with self._books:
            recent = list(self._recent.values())[-10:]
        states: dict[str, int] = {}
        for tracked in self.collector.under_way():
            states[tracked.state] = states.get(tracked.state, 0) + 1
        return {
            "archive": self.settings.archive,
            "spec": self.spec.name,
            "images": states,
            "events": {**self.intake.counts, **self.collector.counts},
            "telemetry": dict(self.collector.samples.counts),
            "recovered": self.recovered_images,
            "announced": self.announcer.announced,
            "announcements_waiting": self.announcer.waiting,
            "door": None if self.door is None else self.door.url,
            "recent": recent,
        }


def _limits(settings: Settings) -> Limits:
    return Limits(
        deadline=settings.deadline,
        settle=settings.settle,
        remember=settings.remember,
        images=settings.images,
        samples=settings.samples,
    )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be made: {error.strerror}", str(directory)) from error


def build(settings: Settings, common: Common) -> HeaderService:
    """The service of a site."""
    common.make_run()
    filled = msgspec.structs.replace(
        settings,
        listen=settings.listen or common.events_from([s for s in ("telemetry",) if s in common.services]),
        events=settings.events or common.events_of(NAME),
        ledger=settings.ledger or common.ledger,
    )
    return HeaderService(filled, common.life(NAME))
