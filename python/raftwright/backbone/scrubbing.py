"""Replicas that are read again where they are: what changed or went is found, said, and brought there anew.

What is found is written into the ledger first; the delivery that mends it is queued like any other, and the
lane of the endpoint sets aside what is damaged. So a scrub may be killed at any moment, and two may run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import NotFoundError, RaftwrightError
from raftwright.ledger.clock import tai
from raftwright.transfer.outcome import OutageError, UnreadableError

if TYPE_CHECKING:
    from raftwright.backbone.presence import Presence
    from raftwright.backbone.settings import Endpoint, Scrub
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import ReplicaRow
    from raftwright.metrics import Metrics
    from raftwright.service import Task
    from raftwright.transfer.sender import Sender

__all__ = ["Scrubber"]

_log = logging.getLogger("raftwright.backbone")

_LOOK: Final = 30.0
"""Seconds between two looks for what is due."""
_BATCH: Final = 64
_AGAIN: Final = 2.0
"""Seconds until a place is tried again that could not be read."""
_REMEMBERED: Final = 1000
_RETRY: Final = 60.0
"""Seconds until a file that could not be read is read again."""


class Scrubber:
    """Reads the replicas of one endpoint. `work` is a task.

    Parameters
    ----------
    active
        Whether to read by schedule. What is asked for with `now` is read in any case.
    found
        Told each replica that is not what it should be, with its new state and the reason.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        presence: Presence,
        ledger: Ledger,
        settings: Callable[[], Scrub],
        *,
        active: Callable[[], bool],
        found: Callable[[ReplicaRow, str, str], None],
        metrics: Metrics,
    ) -> None:
        self.endpoint = endpoint
        self._sender = sender
        self._presence = presence
        self._ledger = ledger
        self._settings = settings
        self._active = active
        self._found = found
        self._wanted = threading.Event()
        self._before = 0.0
        """All that was read before this moment (TAI) is asked for."""
        self._unread: dict[int, float] = {}
        """Replicas that could not be read, and when they are tried again."""
        self.unreadable: dict[int, str] = {}
        """Replicas that could not be read when that was tried last, and why."""
        self.running = False
        self.trouble = ""
        """Why nothing can be read there now."""
        self.counts = {"files": 0, "bytes": 0, "damaged": 0, "lost": 0, "unreadable": 0}
        """Since the start."""
        name = endpoint.name
        self._files = {
            what: metrics.counter("scrubbed", "Replicas that were read again", endpoint=name, found=what)
            for what in ("good", "damaged", "lost", "unreadable")
        }
        self._bytes = metrics.counter("scrubbed_bytes", "Bytes that were read again", endpoint=name)

    def now(self, older: float | None = None) -> None:
        """Reads all replicas there, from now on; or those alone that were not read for so many seconds."""
        self._before = tai() - (older or 0.0)
        self._wanted.set()

    @property
    def idle(self) -> bool:
        """Whether nothing that was asked for is left to read."""
        return not (self._before or self.running)

    def status(self) -> Mapping[str, Any]:
        """As JSON. Raises StorageError."""
        return {**self.counts, "running": not self.idle, "trouble": self.trouble}

    # -- its task

    def work(self, task: Task) -> None:
        """Until the task is to stop."""
        while not task.stopping.is_set():
            try:
                self._pass(task)
                self.trouble = ""
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("%s: replicas cannot be read: %s", self.endpoint.name, error)
                self.trouble = str(error)
                task.wait(_AGAIN)
            finally:
                self.running = False
            task.beat()
            self._pause(task)

    def _pause(self, task: Task) -> None:
        """Until something may be due, or is asked for."""
        look = time.monotonic() + min(_LOOK, max(0.5, self._settings().every / 20))
        while not (self._before or task.stopping.is_set() or time.monotonic() > look):
            self._wanted.wait(0.5)
            self._wanted.clear()
            task.beat()

    def _pass(self, task: Task) -> None:
        """Reads what is due now. Raises OutageError, StorageError."""
        while not task.stopping.is_set():
            asked, every = self._before, self._settings().every
            if asked > tai():  # a clock that went back would have us read for ever
                asked = self._before = tai()
            before = max(asked, tai() - every if every and self._active() else 0.0)
            rows = self._due(before) if before else []
            if not rows:
                if asked == self._before:
                    self._before = 0.0
                return
            self.running = True
            good: list[ReplicaRow] = []
            try:
                for row in rows:
                    if task.stopping.is_set():
                        return
                    if self._read(row, task):
                        good.append(row)
                    task.beat()
            finally:
                self._ledger.replicas.checked(good)

    def _due(self, before: float) -> list[ReplicaRow]:
        now = time.monotonic()
        self._unread = {number: when for number, when in self._unread.items() if when > now}
        rows = self._ledger.replicas.due(self.endpoint.name, before, _BATCH + len(self._unread))
        return [row for row in rows if row.id not in self._unread][:_BATCH]

    def _read(self, row: ReplicaRow, task: Task) -> bool:
        """Whether a replica is what it should be. Raises OutageError where nothing can be read there."""
        began = time.monotonic()
        try:
            found = self._sender.crc32c(row.target)
            if found != row.crc32c:  # it may be the reading that failed: memory, a line
                _log.warning("%s: %s was read as %s; once more", self.endpoint.name, row.target, found)
                found = self._sender.crc32c(row.target)
            if found == row.crc32c and self.endpoint.custodial:
                self._sender.protect(row.target)
            self.unreadable.pop(row.id, None)
        except NotFoundError:
            self._presence.probe()  # a place that is not mounted has lost nothing
            self._bad(row, "lost", "it is not there any more")
            return False
        except OutageError:
            raise
        except UnreadableError as error:
            self._bad(row, "damaged", str(error))
            return False
        except (RaftwrightError, OSError) as error:
            self._count("unreadable")
            self._unread[row.id] = time.monotonic() + _RETRY
            if len(self.unreadable) < _REMEMBERED:
                self.unreadable[row.id] = f"{row.target}: {error}"
            _log.error("%s: %s cannot be read: %s", self.endpoint.name, row.target, error)
            return False
        self.counts["bytes"] += row.bytes
        self._bytes.add(row.bytes)
        rate = self._settings().rate
        if rate:
            task.wait(max(0.0, row.bytes / rate - (time.monotonic() - began)))
        if found == row.crc32c:
            self._count("good")
            return True
        self._bad(row, "damaged", f"it has the CRC-32C {found} there, and had {row.crc32c}")
        return False

    def _bad(self, row: ReplicaRow, state: str, reason: str) -> None:
        self.unreadable.pop(row.id, None)
        _log.error("%s: %s: %s: %s", self.endpoint.name, row.target, state, reason)
        replicas = self._ledger.replicas
        say = replicas.damaged if state == "damaged" else replicas.lost
        if say(row, reason):
            self._found(row, state, reason)
        self._count(state)

    def _count(self, what: str) -> None:
        self._files[what].add()
        self.counts["files"] += 1
        if what in self.counts:
            self.counts[what] += 1
