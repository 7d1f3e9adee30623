"""The catch-up archiver as a whole: what it is made of, its status, its end."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from raftwright.capture.engine import Engine
from raftwright.capture.troubles import Troubles
from raftwright.catchup.findings import totals
from raftwright.catchup.giving_way import GivingWay, others_at_work, take_role
from raftwright.catchup.progress import Progress
from raftwright.catchup.selection import Selection
from raftwright.catchup.settings import Settings
from raftwright.catchup.survey import Survey
from raftwright.errors import NotFoundError, RaftwrightError, StorageError
from raftwright.ledger import LEASE, open_ledger
from raftwright.service.base import Life, Service
from raftwright.stream import NetworkStore, keep_message_memory
from raftwright.stream.metering import Meter

if TYPE_CHECKING:
    from raftwright.capture.work import Work
    from raftwright.ledger import Ledger, Outcome
    from raftwright.service import Task
    from raftwright.service.common import Common

__all__ = ["NAME", "CatchUp", "build"]

_log = logging.getLogger("raftwright.catchup")

NAME: Final = "catchup"

_LISTED: Final = 100
_LOOK: Final = 0.1
"""Seconds between two looks whether others are at work."""
_SOON: Final = 0.2
_AGAIN: Final = 5.0
"""Seconds until a DAQ or ledger that did not answer is asked again, at most."""
_PATIENCE: Final = 120.0


class CatchUp(Service):
    """Compares the DAQ, the ledger, the disk and the deliveries, and fetches what is missing.

    Parameters
    ----------
    selection
        Images and detectors that are asked for by name; by default all since `settings.since`.
    once
        Each unit is tried once, whatever pause was to be kept, and then it is at its end: see `over`.
    dry
        Nothing is fetched, nothing written: `survey.findings` says what would be.

    Raises
    ------
    UsageError, FormatError, StorageError
        Settings that cannot be; from `start`, a ledger that cannot be opened.
    """

    NAME = NAME
    LIVE: ClassVar[frozenset[str]] = frozenset(
        {"bandwidth", "every", "policy", "tries", "young", "whole", "redeliver", "units"}
    )
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {"look": frozenset({"image"})}

    settings: Settings

    def __init__(
        self,
        settings: Settings,
        *,
        life: Life | None = None,
        selection: Selection | None = None,
        once: bool = False,
        dry: bool = False,
    ) -> None:
        own = {"page": settings.metrics, "control": settings.control, "drain": settings.drain}
        super().__init__(settings, msgspec.structs.replace(life or Life(), **own))
        self.selection = selection or Selection.of(settings.since)
        self.troubles = Troubles()
        self.progress = Progress()
        self.meter = Meter(settings.bandwidth)
        self.over = threading.Event()
        """With `once`: nothing more can be done."""
        self.once = once or dry
        self.dry = dry
        self.store: NetworkStore | None = None
        self.ledger: Ledger | None = None
        self.engine: Engine | None = None
        self.survey: Survey | None = None
        self.giving_way: GivingWay | None = None
        self.publisher: Any = None
        self._own_ledger: Path | None = None
        self._wanted = threading.Event()
        self._working = False
        self._redelivered: dict[str, float] = {}

    # -- begin and end

    def open(self) -> None:
        """Begins; whether the DAQ is there or not."""
        settings = self.settings
        self.ledger = self._open_ledger()
        self.store = self._open_store() if settings.endpoint else None
        if settings.events and not self.dry:
            from raftwright.events import open_publisher

            self.publisher = open_publisher(settings.events, name=settings.name)
        ledger = self.ledger
        self.giving_way = GivingWay(
            self.meter,
            settings.give_way,
            lambda: ledger is not None and self._own_ledger is None and others_at_work(ledger),
        )
        if self.store is not None and ledger is not None and not self.dry:
            take_role(ledger)
            self.engine = self._make_engine(self.store, ledger)
        engine = self.engine
        self.survey = Survey(
            settings,
            self.store,
            None if self._own_ledger is not None else ledger,
            self.selection,
            self.troubles,
            offer=lambda works: None if engine is None else engine.schedule.offer(works),
            waiting=lambda: 0 if engine is None else engine.schedule.waiting(),
            again=self.once,
            dry=self.dry,
        )
        self.task("survey", self._survey_on)
        if not self.dry:
            self.task("renew", self._renew_on)
        if engine is not None:
            self.task("give way", self._give_way_on)
            self.pulse("fetching", self._stuck, patience=_PATIENCE, count=lambda: self._moved(engine))
            self._working = True
            engine.start()

    def _open_ledger(self) -> Ledger | None:
        """One of our own where there is none: somewhere has to stand what is being fetched."""
        if self.settings.ledger_url:
            if not self.dry:
                return open_ledger(self.settings.ledger_url)
            try:
                return open_ledger(self.settings.ledger_url, read_only=True)
            except NotFoundError:
                return None
            except RaftwrightError as error:
                self.troubles.failed("ledger", error)
                return None
        if self.dry:
            return None
        self._own_ledger = Path(tempfile.mkdtemp(prefix="raftwright-catchup-"))
        return open_ledger(self._own_ledger / "ledger.db")

    def _open_store(self) -> NetworkStore:
        settings = self.settings
        keep_message_memory()
        pair = None
        if settings.keys:
            from raftwright.stream import KeyStore

            pair = KeyStore(settings.key_store or None).secret(settings.keys)
        return NetworkStore(
            settings.endpoint,
            keys=pair,
            server_key=settings.server_key or None,
            name=settings.name or (NAME if self.ledger is None else self.ledger.owner),
            io_threads=max(1, settings.receivers),
        )

    def _make_engine(self, store: NetworkStore, ledger: Ledger) -> Engine:
        return Engine(
            self.settings,
            store,
            ledger.claims,
            self.metrics,
            self.troubles,
            publisher=self.publisher,
            observer=lambda facts: self.tell("image", facts),
            after=self._after,
            header_missed=self._header_missed,
            meter=self.meter,
            admit=self._admit,
            backlog_share=1.0,
            again=self.once,
        )

    def finish(self, seconds: float) -> None:  # noqa: ARG002 - the engine has it from the settings
        """Finishes what is under way and gives the rest back."""
        if self._working:
            self._working = False
            self.meter.quiet = False
            assert self.engine is not None
            self.engine.stop()

    def quiet(self) -> None:
        """Looks no more."""
        self._wanted.set()

    def close(self) -> None:
        """Everything that is open; doing it again changes nothing."""
        self.finish(0.0)
        for part in (self.store, self.publisher, self.ledger):
            if part is not None:
                try:
                    part.close()
                except RaftwrightError as error:
                    _log.error("%s", error)
        if self._own_ledger is not None:
            shutil.rmtree(self._own_ledger, ignore_errors=True)

    def in_flight(self) -> Collection[Hashable]:
        """Units that are being received or written."""
        return () if self.engine is None else self.engine.schedule.hands()

    def threads(self) -> Iterable[threading.Thread]:
        """Of the engine."""
        return self.engine.threads if self._working and self.engine is not None else ()

    @property
    def idle(self) -> bool:
        """Whether all was compared and nothing is left to do now."""
        survey = self.survey
        if survey is None or not survey.rounds or survey.behind:
            return False
        return self.engine is None or self.engine.idle

    # -- comparing

    def look_again(self, image: str | None = None) -> None:
        """Compares soon; with an image, that one whatever is known of it."""
        if self.survey is not None:
            if image is not None:
                self.survey.forget(image)
            self._wanted.set()

    def _survey_on(self, task: Task) -> None:
        survey = self.survey
        assert survey is not None
        well = True
        while not task.stopping.is_set():
            pause = self.settings.every
            try:
                ended = survey.round(task.stopping.is_set)
                self._count()
                if not well and survey.daq:
                    _log.info("the outage is over; all is compared")
                well = survey.daq or self.store is None
                if not ended:
                    pause = _SOON
                elif not well or not survey.disk:
                    pause = min(pause, _AGAIN)
                else:
                    self._redeliver()
                if self.once and ended and self._is_over():
                    self.over.set()
            except RaftwrightError as error:
                self.troubles.failed("survey", error)
                well = False
                pause = min(pause, _AGAIN)
                if self.once:
                    self.over.set()
            else:
                self.troubles.over("survey")
            task.beat()
            if self.over.is_set():
                task.stopping.wait()
            self._rest(task, _SOON if self.once else pause)

    def _rest(self, task: Task, seconds: float) -> None:
        """Waits, until it is to look again or to end."""
        until = time.monotonic() + seconds
        while not task.stopping.is_set():
            left = min(0.5, until - time.monotonic())
            if left <= 0 or self._wanted.wait(left):
                break
        self._wanted.clear()

    def _is_over(self) -> bool:
        assert self.survey is not None
        if self.dry or self.engine is None:
            return True
        return self.engine.idle and all(finding.action != "fetch" for finding in self.survey.findings)

    def _count(self) -> None:
        assert self.survey is not None
        left = [finding for finding in self.survey.findings if finding.action == "fetch"]
        self.progress.left(len(left), sum(finding.bytes for finding in left))

    def _after(self, work: Work, outcome: Outcome) -> None:
        assert self.survey is not None
        ok = outcome.state == "done"
        written = sum(1 for file in outcome.files if file.status == "written")
        self.progress.ended(ok, outcome.received, written)
        self.survey.ended(work, outcome)
        self.tell(
            "unit",
            {
                "image": work.image.name,
                "location": work.source.location,
                "state": outcome.state,
                "reason": outcome.reason,
                "files": written,
                "bytes": outcome.received,
            },
        )
        if self.engine is not None and not self.engine.schedule.waiting(work.image.name):
            self._wanted.set()

    def _header_missed(self, work: Work) -> None:
        assert self.ledger is not None
        try:
            self.ledger.headers.missed(work.image.name, work.image.id)
        except RaftwrightError as error:
            self.troubles.failed("ledger", error)

    def _redeliver(self) -> None:
        """Deliveries that were given up on are asked for again, from time to time."""
        every, ledger = self.settings.redeliver, self.ledger
        if not every or ledger is None or self.dry or self._own_ledger is not None or self.once:
            return
        for destination, counts in ledger.deliveries.counts(delivered=False).items():
            last = self._redelivered.get(destination)
            if counts.get("failed") and (last is None or time.monotonic() - last >= every):
                self._redelivered[destination] = time.monotonic()
                again = ledger.deliveries.again(destination, states=("failed",))
                _log.info("%s: %d deliveries that were given up on are tried again", destination, again)

    # -- how much

    def _admit(self) -> int:
        """How many units may be begun now."""
        assert self.engine is not None
        assert self.giving_way is not None
        if not self.engine.schedule.waiting() or self.phase == "stopping":
            return 0
        try:
            self.giving_way.look()
        except RaftwrightError as error:
            self.troubles.failed("giving way", error)
            return 0
        if self.giving_way.quiet:
            return 0
        most = self.settings.units if self.giving_way.alone else 1
        return max(0, most - self.engine.schedule.in_hand())

    def _give_way_on(self, task: Task) -> None:
        assert self.giving_way is not None
        assert self.engine is not None
        while not task.wait(_LOOK):
            if self.engine.idle:
                self.meter.quiet = False
                continue
            try:
                before = self.giving_way.quiet
                self.giving_way.look()
                if before and not self.giving_way.quiet:
                    self.engine.schedule.nudge()
                self.troubles.over("giving way")
            except RaftwrightError as error:
                self.troubles.failed("giving way", error)
            task.beat()

    def _renew_on(self, task: Task) -> None:
        assert self.ledger is not None
        while not task.wait(LEASE / 4):
            try:
                self.ledger.renew()
                self.troubles.over("ledger", "the ledger can be written again")
            except StorageError as error:
                self.troubles.failed("ledger", error)

    def _stuck(self) -> float:
        """Units that should move: not while we give way, nor while the DAQ is away."""
        assert self.engine is not None
        quiet = self.giving_way is not None and self.giving_way.quiet
        return 0.0 if quiet or "daq" in self.troubles else float(self.engine.schedule.in_hand())

    @staticmethod
    def _moved(engine: Engine) -> tuple[int, int]:
        return engine.receivers.stats.get("bytes", 0), engine.account.ended_units

    # -- for the site

    def apply(self, settings: Settings) -> None:
        """Another rate, order or time between comparisons."""
        self.settings = settings  # before it looks again
        self.meter.rate = settings.bandwidth
        if self.survey is not None:
            self.survey.settings = settings
            self.survey.forget()
        self._wanted.set()

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`look`: at an image, `{"image": NAME}`, or at all again, at once."""
        if command != "look":
            return super().obey(command, arguments)
        image = arguments.get("image")
        if image is None and self.survey is not None:
            self.survey.forget()
        self.look_again(None if image is None else str(image))
        return {}

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        return self.troubles.list()

    def report(self) -> Mapping[str, Any]:
        """For the page of figures."""
        survey, engine = self.survey, self.engine
        if survey is None:
            return {}
        findings = list(survey.findings)
        return {
            "endpoint": self.settings.endpoint,
            "archive": self.settings.out,
            "ledger": None if self._own_ledger is not None or self.ledger is None else self.ledger.where,
            "daq": survey.daq,
            "disk": survey.disk,
            "rounds": survey.rounds,
            "images_looked_at": survey.looked,
            "behind": survey.behind,
            "detectors": totals(findings),
            "progress": self.progress.to_dict(),
            "gives_way": self.meter.quiet,
            "bandwidth": self.settings.bandwidth,
            "policy": self.settings.policy,
            "in_hand": 0 if engine is None else engine.schedule.in_hand(),
            "waiting": 0 if engine is None else engine.schedule.waiting(),
            "stream": {} if engine is None else engine.receivers.stats,
            "lacking": [finding.to_dict() for finding in findings[:_LISTED]],
        }


def build(settings: Settings, common: Common) -> CatchUp:
    """The catch-up archiver of a site."""
    return CatchUp(settings, life=common.life(NAME))
