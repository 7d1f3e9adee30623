"""Tonight's images go first: while others work on images, catching up begins nothing and asks for nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.ledger import Ledger
    from raftwright.stream.metering import Meter

__all__ = ["ROLE", "GivingWay", "others_at_work", "take_role"]

ROLE: Final = "catchup"
_MOST: Final = 64
_LOOK: Final = 0.1
_TURN: Final = 2.0
"""Seconds for which one goes on after it gave way for long enough."""


def take_role(ledger: Ledger) -> str:
    """Enters that we are a catch-up archiver, so that others of our kind do not give way to us. Raises
    StorageError."""
    for number in range(1, _MOST + 1):
        name = f"{ROLE}:{number}"
        if ledger.roles.take(name):
            return name
    return ""


def others_at_work(ledger: Ledger) -> bool:
    """Whether somebody who lives, and does not catch up, works on an image. Raises StorageError."""
    rows = ledger.read(
        "SELECT DISTINCT source.owner FROM source WHERE source.state = 'claimed' AND source.owner <> ?"
        " AND source.owner NOT IN (SELECT owner FROM role WHERE name LIKE ?)",
        (ledger.owner, f"{ROLE}:%"),
    )
    if not rows:
        return False
    with ledger.database.reading() as transaction:
        living = ledger.leases.living(transaction)
    return any(owner in living for (owner,) in rows)


class GivingWay:
    """Says whether it is our turn. `look` is called often, and asks not more often than ten times a second.
    Thread-safe.

    Who gave way for `longest` seconds has a turn of its own: images that are worked on for hours do not stop
    what was missed for good.
    """

    def __init__(self, meter: Meter, longest: float, busy: Callable[[], bool]) -> None:
        self._meter = meter
        self._longest = longest
        self._busy = busy
        self._since: float | None = None
        self._lock = threading.Lock()
        self._looked = -_LOOK

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be begun now."""
        return self._meter.quiet

    @property
    def alone(self) -> bool:
        """Whether nobody else is at work."""
        return self._since is None

    def look(self) -> None:
        """Raises what `busy` raises; then it is as it was."""
        with self._lock:
            if time.monotonic() - self._looked < _LOOK:
                return
            busy = self._busy()
            self._looked = now = time.monotonic()
            if not busy:
                self._since = None
                self._meter.quiet = False
                return
            if self._since is None or now - self._since >= self._longest + _TURN:
                self._since = now
            self._meter.quiet = now - self._since < self._longest
