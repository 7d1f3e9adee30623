"""A bound on the bytes a second that go to a place, whoever sends them."""

from __future__ import annotations

import threading
import time
from typing import Final

from raftwright.transfer.outcome import OutageError

__all__ = ["Throttle"]

_AHEAD: Final = 0.25
"""Seconds of the rate that may go at once after a pause."""
_PIECES: Final = 8
"""A second, at least: so evenly a slow place is filled."""


class Throttle:
    """A token bucket. Thread-safe. `rate` in bytes a second; 0 for no bound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._balance = rate * _AHEAD
        self._at = time.monotonic()
        self._closed = threading.Event()

    def step(self, most: int) -> int:
        """Bytes that go at a time: most of them where there is no bound."""
        return min(most, max(4096, self._rate // _PIECES)) if self._rate else most

    def take(self, count: int) -> None:
        """Waits until so many bytes may go. Raises OutageError once it is closed."""
        if self._closed.is_set():
            raise OutageError("nothing more is sent: the service ends")
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._balance = min(self._balance + (now - self._at) * self._rate, self._rate * _AHEAD) - count
            self._at = now
            wait = -self._balance / self._rate
        if wait > 0 and self._closed.wait(wait):
            raise OutageError("nothing more is sent: the service ends")

    def close(self) -> None:
        """Ends every wait."""
        self._closed.set()
