"""The forwarder as a whole: its threads, its status, its end."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from raftwright.errors import RaftwrightError, StorageError
from raftwright.forwarder.account import Account
from raftwright.forwarder.dispatch import Dispatcher
from raftwright.forwarder.journal import Outcome
from raftwright.forwarder.looking import Lookout
from raftwright.forwarder.receiving import Receivers
from raftwright.forwarder.schedule import Schedule
from raftwright.forwarder.settings import Settings
from raftwright.forwarder.sqlite_journal import LEASE, SqliteJournal
from raftwright.forwarder.troubles import Troubles
from raftwright.forwarder.work import Work
from raftwright.forwarder.writing import Writers
from raftwright.metrics import Metrics
from raftwright.stream import NetworkStore, keep_message_memory

if TYPE_CHECKING:
    from raftwright.forwarder.journal import Unit
    from raftwright.metrics import StatusServer
    from raftwright.rawfile.report import SourceReport

__all__ = ["Forwarder"]

_log = logging.getLogger("raftwright.forwarder")

_MOST_LISTED: Final = 100
_COUNTS: Final = {
    "chunks": "Chunks received",
    "bytes": "Bytes of chunks received",
    "corrupt": "Chunks that came damaged and were asked for again",
    "lost": "Chunks that did not come and were asked for again",
    "duplicate": "Chunks that came more than once",
    "asked_again": "Ranges that were asked for again",
    "reconnects": "Connections that were made anew",
    "stalls": "Pulls from which nothing came for too long",
    "malformed": "Messages that are not of the protocol",
}


class Forwarder:
    """Takes the images of a server off and writes their raw files, from `start` to `stop`.

    `observer` is called, in one of its threads, with what became of each image that is finished.

    Raises
    ------
    UsageError, NotFoundError, FormatError, StorageError
        Settings that cannot be, a journal or directory that cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        observer: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics("raftwright_forwarder")
        self.troubles = Troubles()
        self._begun = time.monotonic()
        self._state = "new"
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.page: StatusServer | None = None
        self._open_archive()
        self.journal = SqliteJournal(settings.journal_path)
        try:
            self._assemble(observer)
        except BaseException:
            self._close()
            raise

    def _assemble(self, observer: Callable[[Mapping[str, Any]], None] | None) -> None:
        settings = self.settings
        self.store = self._open_store()
        self.schedule = Schedule(settings.memory, settings.credit)
        self.publisher = self._open_publisher()
        self.pool = self._open_pool()
        self.account = Account(self.journal, self.schedule, self.metrics, self.publisher, observer)
        self.writers = Writers(settings, self.journal, self.metrics, self.troubles, self._told)
        self.receivers = Receivers(settings, self.store, self.metrics, self._received)
        self.dispatcher = Dispatcher(
            settings,
            self.schedule,
            self.journal,
            self.pool,
            self.metrics,
            self.troubles,
            receive=self.receivers.give,
            standing=self.writers.found,
            end=self.writers.enter,
            claimed=self.account.claimed,
        )
        self.lookout = Lookout(settings, self.store, self.journal, self.schedule, self.troubles)
        self._renewer = threading.Thread(target=self._renew_on, name="renew", daemon=True)
        self._measure()

    # -- its parts

    def _open_archive(self) -> None:
        out = Path(self.settings.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            self.settings.journal_path.parent.mkdir(parents=True, exist_ok=True)
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
            name=settings.name or self.journal.owner,
            io_threads=max(2, settings.receivers),
        )

    def _open_publisher(self) -> Any:
        if not self.settings.events:
            return None
        from raftwright.events import Publisher

        return Publisher(self.settings.events, name=self.settings.name)

    def _open_pool(self) -> Any:
        if not self.settings.prompt:
            return None
        from raftwright.prompt import Pool

        return Pool(self.settings.prompt, self.settings.prompt_memory, metrics=self.metrics)

    def _measure(self) -> None:
        gauge = self.metrics.gauge
        gauge("buffers_used_bytes", "Memory reserved for readouts", read=lambda: self.schedule.used)
        gauge("buffers_limit_bytes", "Memory for readouts", read=lambda: self.schedule.memory)
        gauge("credit_bytes", "Bytes asked for and not received", read=lambda: self.receivers.outstanding)
        gauge("units_waiting", "Units that wait", read=self.schedule.waiting)
        gauge("units_in_hand", "Units that are worked on", read=self.schedule.in_hand)
        for name, help in _COUNTS.items():
            gauge(f"stream_{name}", help, read=functools.partial(self._stream_count, name))

    def _stream_count(self, name: str) -> float:
        return self.receivers.stats.get(name, 0)

    # -- begin and end

    def start(self) -> Self:
        """Begins; returns at once, whether the server is there or not."""
        if self.settings.metrics:
            from raftwright.metrics import StatusServer

            self.page = StatusServer(
                self.metrics,
                self.settings.metrics,
                status=self.status,
                ready=lambda: self._state == "running",
            )
        self.journal.renew()
        self._renewer.start()
        self.writers.start()
        self.receivers.start()
        self.dispatcher.start()
        self.lookout.start()
        self._state = "running"
        return self

    def stop(self) -> None:
        """Finishes what is under way, `drain` seconds at most, gives the rest back, closes everything."""
        with self._lock:
            if self._state == "stopped":
                return
            if self._state == "new":
                self._close()
                self._state = "stopped"
                return
            self._state = "stopping"
            self.lookout.stop()
            self.dispatcher.stop(5.0)
            end = time.monotonic() + self.settings.drain
            while self.schedule.in_hand() and time.monotonic() < end:
                self.schedule.wait(0.1)
            self.receivers.stop(10.0)
            self.writers.stop(max(5.0, min(self.settings.drain, 30.0)))
            self._stopping.set()
            self._renewer.join(5.0)
            self.store.close()
            self.lookout.join(2.0)
            self._close()
            self._state = "stopped"

    def _close(self) -> None:
        """Everything that is open; doing it again changes nothing."""
        for name in ("store", "publisher", "pool", "journal", "page"):
            part = getattr(self, name, None)
            if part is not None:
                try:
                    part.close()
                except RaftwrightError as error:
                    _log.error("%s", error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def idle(self) -> bool:
        """Whether catalogue and journal were compared and nothing is left to do now."""
        return (
            self.lookout.swept > 0
            and not self.lookout.behind
            and not self.schedule.waiting()
            and not self.schedule.in_hand()
        )

    # -- from hand to hand

    def _received(self, work: Work) -> None:
        self.schedule.shrink(work)
        self.writers.write(work)

    def _told(self, work: Work, outcome: Outcome, report: SourceReport | None) -> None:
        try:
            self.account.ended(work, outcome, report)
        finally:
            self.schedule.release(work)
        self.account.look_at(work)
        if outcome.state in ("incomplete", "failed", "open"):
            self.lookout.look_again(work.image.name)

    def _renew_on(self) -> None:
        while not self._stopping.wait(LEASE / 4):
            try:
                self.journal.renew()
                self.troubles.over("journal", "the journal can be written again")
            except RaftwrightError as error:
                self.troubles.failed("journal", error)

    # -- its status

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        said = self.troubles.list()
        strange = self.lookout.strange
        if strange:
            first = next(iter(strange))
            said.append(f"{len(strange)} images or sources cannot be taken, {first}: {strange[first]}")
        return said

    def status(self) -> dict[str, Any]:
        """As JSON, for the page of figures."""
        now = time.time()
        problems = self.problems()
        counts: dict[str, int] = {}
        unfinished: list[Unit] = []
        try:
            counts, unfinished = self.journal.counts(), self.journal.unfinished(_MOST_LISTED)
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
            "service": "forwarder",
            "name": self.settings.name,
            "state": self._state,
            "endpoint": self.settings.endpoint,
            "archive": self.settings.out,
            "journal": str(self.journal.path),
            "owner": self.journal.owner,
            "uptime_s": round(time.monotonic() - self._begun, 1),
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
