"""From a durable log to a publisher: nothing is left out, whatever dies in between.

Who changes something writes a row into the log, in the same transaction. The outbox reads rows behind its
cursor, tells them, and moves the cursor once they are delivered. What was told and not yet noted is told
again, and the listener knows it by log and number.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from raftwright.errors import RaftwrightError, UsageError
from raftwright.events.interface import EventLog, Publisher, Row

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters

__all__ = ["Outbox"]

_log = logging.getLogger("raftwright.events")

_BATCH: Final = 500
_SHORTEST: Final = 0.2
_LONGEST: Final = 5.0


class Outbox:
    """Relays a log to a publisher, in a thread of its own.

    Parameters
    ----------
    log
        What is told.
    publisher
        To whom.
    name
        Under which the cursor stands: one for each publisher.
    dead
        Where rows go that cannot be told at all.
    every
        Seconds between looks at the log; `wake` makes it look at once.
    timeout
        Seconds to wait for the delivery of a batch.
    """

    def __init__(
        self,
        log: EventLog,
        publisher: Publisher,
        name: str,
        *,
        dead: DeadLetters | None = None,
        every: float = 1.0,
        timeout: float = 10.0,
    ) -> None:
        self.name = name
        self.relayed = 0
        """Rows that were delivered."""
        self.skipped = 0
        """Rows that cannot be told at all."""
        self.troubles = 0
        """Times that log or publisher failed; it was tried again."""
        self._log = log
        self._publisher = publisher
        self._dead = dead
        self._every = every
        self._timeout = timeout
        self._reached: tuple[str, int] = ("", 0)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def start(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def wake(self) -> None:
        """There is something new in the log."""
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Ends, after what is under way; what is left in the log is told next time."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def step(self) -> bool:
        """Relays a batch; whether there may be more.

        Raises RaftwrightError where the log cannot be read, or nothing was delivered.
        """
        begun = self._log.cursor(self.name)
        log = self._log.id
        if log == self._reached[0] and begun < self._reached[1]:
            _log.warning("%s went back from %d to %d: it was restored", log, self._reached[1], begun)
            self._publisher.went_back(log, begun)
        self._reached = log, begun
        self._publisher.told(log, begun)
        rows = self._log.after(begun, _BATCH)
        if not rows:
            return False
        try:
            reached = self._publisher.relay(log, rows, self._timeout)
        except UsageError as error:
            self._skip(rows[0], str(error))
            reached = rows[0].number
        else:
            self.relayed += sum(row.number <= reached for row in rows)
        if reached > begun:
            if (self._log.cursor(self.name), self._log.id) == (begun, log):  # and not another in its place
                self._log.move_cursor(self.name, reached)
                self._reached = log, reached
            return True
        raise RaftwrightError(f"{len(rows)} events wait: {self._publisher.endpoint} took none")

    def _skip(self, row: Row, reason: str) -> None:
        self.skipped += 1
        _log.error("event %d of the log cannot be told: %s", row.number, reason)
        if self._dead is not None:
            self._dead.put(_body(row), reason, f"{self._log.id}/{row.number}")

    def _work(self) -> None:
        pause = _SHORTEST
        while not self._stopping.is_set():
            try:
                while self.step() and not self._stopping.is_set():
                    pass
                pause = _SHORTEST
                self._wake.wait(self._every)
                self._wake.clear()
            except Exception as error:  # the log is somebody else's code; the thread must live
                self.troubles += 1
                _log.warning("events are told later: %s", error, exc_info=not _expected(error))
                self._stopping.wait(pause)
                pause = min(2 * pause, _LONGEST)


def _expected(error: Exception) -> bool:
    return isinstance(error, (RaftwrightError, OSError))


def _body(row: Row) -> bytes:
    facts: dict[str, Any] = {"number": row.number, "kind": row.kind, "time": row.time, "fields": row.fields}
    return msgspec.json.encode(facts, enc_hook=repr)
