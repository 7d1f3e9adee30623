"""How far a listener is in each log of the publishers that it hears."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final

from raftwright.errors import RaftwrightError, UsageError
from raftwright.events.interface import Cursors
from raftwright.events.message import Event
from raftwright.events.progress import MOST_OPEN, Progress

__all__ = ["Log", "Positions"]

_log = logging.getLogger("raftwright.events")

_MOST_SEEN: Final = 1 << 16
_MOST_LOGS: Final = 256
_STORE_EVERY: Final = 0.5


class Log:
    """How far we are in one log."""

    def __init__(self, position: int | None, *, durable: bool) -> None:
        self.position = position
        """Up to here everything came, or is known not to come; None where nobody knows."""
        self.durable = durable
        self.owed = False
        """There is something to be fetched behind the position."""
        self.progress = Progress(position or 0)
        self.stored = position or 0
        self._seen: dict[int, None] = {}

    @property
    def base(self) -> int | None:
        """Behind which to ask for what was missed."""
        if self.position is not None:
            return self.position
        return min(self._seen) - 1 if self._seen else None

    def has(self, number: int) -> bool:
        """Whether the event of this number came."""
        return number in self._seen or (self.position is not None and number <= self.position)

    def take(self, number: int) -> bool:
        """Whether the event of this number is new; from here on it came."""
        if self.has(number):
            return False
        if self.position is None and self.durable:
            self.verified(number - 1)  # we begin here
        self._seen[number] = None
        if len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def verified(self, number: int) -> None:
        """Everything up to here came."""
        if self.position is None or number > self.position:
            self.position = number
            self._seen = {seen: None for seen in self._seen if seen > number}
            self.progress.reached(number)

    def begin_again(self, number: int) -> None:
        """The log went back to this number: it was restored from a copy."""
        self.position = number
        self._seen.clear()
        self.progress = Progress(number)
        self.stored = -1


class Positions:
    """All of them. With cursors, those in durable logs outlast the listener.

    Parameters
    ----------
    group
        Before the log's id in the name of a cursor.
    cursors
        Where they stand; None remembers nothing.
    """

    def __init__(self, group: str = "", cursors: Cursors | None = None) -> None:
        self._group = group
        self._cursors = cursors if group else None
        self._logs: dict[str, Log] = {}
        self._due = 0.0

    def of(self, log: str, session: str) -> Log:
        """How far we are in a log. One that is the session's own ends with it."""
        found = self._logs.get(log)
        if found is None:
            if len(self._logs) >= _MOST_LOGS:
                del self._logs[next(iter(self._logs))]
            durable = log != session
            found = self._logs[log] = Log(self._known(log) if durable else None, durable=durable)
        return found

    def forget(self, logs: Iterable[str]) -> None:
        """Those of a session that is over."""
        for log in logs:
            self._logs.pop(log, None)

    def given(self, event: Event) -> None:
        """It is in the caller's hands."""
        found = self._logs.get(event.log)
        if self._cursors is not None and found is not None and found.durable:
            if len(found.progress) >= MOST_OPEN:
                raise UsageError(f"{MOST_OPEN} events are not done; call done() for each that is dealt with")
            found.progress.given(event.number)

    def done(self, event: Event) -> None:
        """It is dealt with."""
        found = self._logs.get(event.log)
        if found is not None and found.progress.done(event.number):
            self.store()

    def store(self, *, now: bool = False) -> None:
        """Moves the cursors, twice a second at most."""
        if self._cursors is None or (not now and time.monotonic() < self._due):
            return
        self._due = time.monotonic() + _STORE_EVERY
        for name, log in self._logs.items():
            reached = min(log.progress.low, log.position or 0)
            if log.durable and reached > log.stored:
                try:
                    self._cursors.move_cursor(f"{self._group}/{name}", reached)
                    log.stored = reached
                except (RaftwrightError, OSError) as error:
                    _log.warning("the cursor of %s is moved later: %s", self._group, error)

    def _known(self, log: str) -> int | None:
        if self._cursors is None:
            return None
        return self._cursors.cursor(f"{self._group}/{log}") or None
