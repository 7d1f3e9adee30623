"""The forwarder as a whole: its threads, its status, its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from raftwright.capture.engine import Engine
from raftwright.capture.troubles import Troubles
from raftwright.errors import RaftwrightError, StorageError
from raftwright.forwarder.looking import Lookout
from raftwright.forwarder.settings import Settings
from raftwright.forwarder.sqlite_journal import LEASE, SqliteJournal
from raftwright.metrics import Metrics
from raftwright.stream import NetworkStore, keep_message_memory

if TYPE_CHECKING:
    from raftwright.capture.work import Work
    from raftwright.forwarder.journal import Outcome, Unit
    from raftwright.metrics import StatusServer

__all__ = ["Forwarder"]

_log = logging.getLogger("raftwright.forwarder")

_MOST_LISTED: Final = 100


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
        self.publisher = self._open_publisher()
        self.pool = self._open_pool()
        self.engine = Engine(
            settings,
            self.store,
            self.journal,
            self.metrics,
            self.troubles,
            publisher=self.publisher,
            pool=self.pool,
            observer=observer,
            after=self._after,
        )
        self.schedule = self.engine.schedule
        self.account = self.engine.account
        self.receivers = self.engine.receivers
        self.lookout = Lookout(settings, self.store, self.journal, self.schedule, self.troubles)
        self._renewer = threading.Thread(target=self._renew_on, name="renew", daemon=True)

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
        from raftwright.events import open_publisher

        return open_publisher(self.settings.events, name=self.settings.name)

    def _open_pool(self) -> Any:
        if not self.settings.prompt:
            return None
        from raftwright.prompt import Pool

        return Pool(self.settings.prompt, self.settings.prompt_memory, metrics=self.metrics)

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
        self.engine.start()
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
            self.engine.stop()
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
        return self.lookout.swept > 0 and not self.lookout.behind and self.engine.idle

    def _after(self, work: Work, outcome: Outcome) -> None:
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
