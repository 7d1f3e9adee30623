"""The forwarder as a whole: its threads, its status, its end."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from raftwright.capture.engine import Engine
from raftwright.capture.troubles import Troubles
from raftwright.errors import RaftwrightError, StorageError
from raftwright.forwarder.looking import Lookout
from raftwright.forwarder.settings import Settings
from raftwright.ledger import LEASE, open_ledger, tai
from raftwright.service.base import Life, Service
from raftwright.service.context import carried
from raftwright.stream import NetworkStore, keep_message_memory

if TYPE_CHECKING:
    from raftwright.capture.work import Work
    from raftwright.ledger import Outcome, Unit
    from raftwright.service import Task
    from raftwright.service.common import Common

__all__ = ["NAME", "Forwarder", "build"]

_log = logging.getLogger("raftwright.forwarder")

NAME: Final = "forwarder"

_MOST_LISTED: Final = 100
_PATIENCE: Final = 45.0
"""Seconds for which units may wait while nothing comes and none ends."""


class Forwarder(Service):
    """Takes the images of a server off and writes their raw files, from `start` to `stop`.

    `observer` is called, in one of its threads, with what became of each image that is finished.

    Raises
    ------
    UsageError, NotFoundError, FormatError, StorageError
        Settings that cannot be, a ledger or directory that cannot be had.
    """

    NAME = NAME
    LIVE: ClassVar[frozenset[str]] = frozenset({"rafts", "locations", "folder", "sweep"})
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {"look": frozenset({"image"})}

    def __init__(
        self,
        settings: Settings,
        *,
        life: Life | None = None,
        observer: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        own = {"page": settings.metrics, "control": settings.control, "drain": settings.drain}
        super().__init__(settings, msgspec.structs.replace(life or Life(), **own))
        self.troubles = Troubles()
        self._told = observer
        self._working = False
        self._open_archive()
        self.ledger = open_ledger(settings.ledger_url)
        try:
            self._assemble()
        except BaseException:
            self.close()
            raise

    def _assemble(self) -> None:
        settings = self.settings
        self.store = self._open_store()
        self.publisher = self._open_publisher()
        self.pool = self._open_pool()
        announcer: Any = None if self.publisher is None else _Announcer(self.publisher, self)
        self.engine = Engine(
            settings,
            self.store,
            self.ledger.claims,
            self.metrics,
            self.troubles,
            publisher=announcer,
            pool=self.pool,
            observer=self._image_done,
            after=self._after,
            header_missed=self._header_missed,
        )
        self.schedule = self.engine.schedule
        self.account = self.engine.account
        self.receivers = self.engine.receivers
        self.lookout = Lookout(
            settings, self.store, self.ledger, self.schedule, self.troubles, seen=self._prepare_pool
        )

    # -- its parts

    def _open_archive(self) -> None:
        out = Path(self.settings.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot make the archive: {error.strerror}; choose another --out", str(out)
            ) from error

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
            name=settings.name or self.ledger.owner,
            io_threads=max(2, settings.receivers),
        )

    def _open_publisher(self) -> Any:
        if not self.settings.events:
            return None
        from raftwright.events import open_publisher

        return open_publisher(self.settings.events, name=self.settings.name)

    def _open_pool(self) -> Any:
        if not self.settings.prompt:
            return None
        from raftwright.prompt import Pool

        return Pool(self.settings.prompt, self.settings.prompt_memory, metrics=self.metrics)

    def _prepare_pool(self, works: list[Work]) -> None:
        """Memory for what will be shown, as soon as it is known how much a board needs: two images of it."""
        if self.pool is None:
            return
        need, count = max(work.planes_bytes for work in works), 2 * len(works)
        target = functools.partial(self.pool.prepare, need, count)
        threading.Thread(target=carried(target), name="prepare", daemon=True).start()

    # -- begin and end

    def open(self) -> None:
        """Begins; whether the server is there or not."""
        self.ledger.renew()
        self.task("renew", self._renew_on)
        self.pulse(
            "receiving",
            self._stuck,
            patience=_PATIENCE,
            count=lambda: (self.receivers.stats.get("bytes", 0), self.account.ended_units),
        )
        self._working = True
        self.engine.start()
        self.lookout.start()

    def finish(self, seconds: float) -> None:  # noqa: ARG002 - the engine has it from the settings
        """Finishes what is under way and gives the rest back."""
        self.lookout.stop()
        if self._working:
            self._working = False
            self.engine.stop()

    def in_flight(self) -> Collection[Hashable]:
        """Units that are being received or written."""
        return self.schedule.hands()

    def threads(self) -> Iterable[threading.Thread]:
        """Of the engine and the lookout."""
        return [*self.engine.threads, *self.lookout.threads] if self._working else ()

    def close(self) -> None:
        """Everything that is open; doing it again changes nothing."""
        if hasattr(self, "lookout"):
            self.finish(0.0)
        for name in ("store", "publisher", "pool", "ledger"):
            part = getattr(self, name, None)
            if part is not None:
                try:
                    part.close()
                except RaftwrightError as error:
                    _log.error("%s", error)
            if name == "store" and hasattr(self, "lookout"):
                self.lookout.join(2.0)

    @property
    def idle(self) -> bool:
        """Whether catalogue and ledger were compared and nothing is left to do now."""
        return self.lookout.swept > 0 and not self.lookout.behind and self.engine.idle

    def apply(self, settings: Settings) -> None:
        """Other boards, folder or time between sweeps."""
        self.lookout.change(settings)

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`look`: at an image, `{"image": NAME}`, or at all again, at once."""
        if command != "look":
            return super().obey(command, arguments)
        image = arguments.get("image")
        self.lookout.look_again(None if image is None else str(image))
        return {}

    def _stuck(self) -> int:
        """Units that should move: not while the DAQ is away, which is a problem and no fault of ours."""
        return 0 if "daq" in self.troubles else self.schedule.waiting() + self.schedule.in_hand()

    def _after(self, work: Work, outcome: Outcome) -> None:
        if outcome.state in ("incomplete", "failed", "open"):
            self.lookout.look_again(work.image.name)

    def _header_missed(self, work: Work) -> None:
        try:
            self.ledger.headers.missed(work.image.name, work.image.id)
        except RaftwrightError as error:
            self.troubles.failed("ledger", error)

    def _renew_on(self, task: Task) -> None:
        while not task.wait(LEASE / 4):
            try:
                self.ledger.renew()
                self.troubles.over("ledger", "the ledger can be written again")
            except RaftwrightError as error:
                self.troubles.failed("ledger", error)

    def _image_done(self, facts: Mapping[str, Any]) -> None:
        if self._told is not None:
            self._told(facts)
        self.tell("image", facts)

    # -- its status

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        said = self.troubles.list()
        strange = self.lookout.strange
        if strange:
            first = next(iter(strange))
            said.append(f"{len(strange)} images or sources cannot be taken, {first}: {strange[first]}")
        return said

    def report(self) -> Mapping[str, Any]:
        """For the page of figures."""
        now = tai()
        problems: list[str] = []
        counts: dict[str, int] = {}
        unfinished: list[Unit] = []
        try:
            counts, unfinished = self.ledger.claims.counts(), self.ledger.claims.unfinished(_MOST_LISTED)
        except RaftwrightError as error:
            problems.append(str(error))
        waiting = [
            {
                "image": unit.image,
                "location": unit.location,
                "state": unit.state,
                "missing_bytes": unit.expected - unit.received,
                "reason": unit.reason,
                "next_try_s": max(0.0, round(unit.next_try - now, 1)),
            }
            for unit in unfinished
        ]
        return {
            "name": self.settings.name,
            "endpoint": self.settings.endpoint,
            "archive": self.settings.out,
            "ledger": self.ledger.where,
            "owner": self.ledger.owner,
            "buffers": {"used": self.schedule.used, "limit": self.schedule.memory},
            "credit": {"used": self.receivers.outstanding},
            "units": counts,
            "waiting": self.schedule.waiting(),
            "in_hand": self.schedule.in_hand(),
            "behind": self.lookout.behind,
            "stream": self.receivers.stats,
            "incomplete": waiting,
            "problems": problems,
            **({"prompt": self.pool.status()} if self.pool is not None else {}),
        }


class _Announcer:
    """Tells events only where the state of the service says so. Who sweeps finds the files all the same."""

    def __init__(self, publisher: Any, service: Service) -> None:
        self._publisher = publisher
        self._service = service

    def publish(self, kind: str, **fields: Any) -> None:
        """As `Publisher.publish`, or nothing."""
        if self._service.announcing or self._service.phase != "running":
            self._publisher.publish(kind, **fields)


def build(settings: Settings, common: Common) -> Forwarder:
    """The forwarder of a site."""
    return Forwarder(settings, life=common.life(NAME))
