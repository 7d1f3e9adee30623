"""How fast a receiver may ask: so many bytes a second, and nothing while it is to be quiet."""

from __future__ import annotations

import threading
import time
from typing import Final

from raftwright.errors import UsageError

__all__ = ["Meter"]

_BURST: Final = 0.25
"""Seconds of the rate that may be asked for at once after a rest."""


class Meter:
    """A bucket of bytes, for several receivers together. Thread-safe.

    Bytes are taken when they are asked for, so that they never come faster; the last slice may overdraw the
    bucket by less than itself, and is waited for afterwards.

    Parameters
    ----------
    rate
        Bytes a second; 0: as fast as they come.
    slice
        Bytes that are asked for at a time, so that a pause is kept soon.

    Raises UsageError for a rate below 0 or a slice below 1.
    """

    def __init__(self, rate: float = 0.0, *, slice: int = 8 << 20) -> None:
        if rate < 0 or slice < 1:
            raise UsageError("a rate is 0 or more bytes a second, a slice 1 or more bytes")
        self._lock = threading.Lock()
        self._rate = rate
        self._slice = slice
        self._left = rate * _BURST
        self._at = time.monotonic()
        self.quiet = False
        """Whether nothing is to be asked for now."""
        self.given = 0
        """Bytes, since the start."""

    @property
    def rate(self) -> float:
        """Bytes a second; 0: no limit. May be changed at any time."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        with self._lock:
            self._fill(time.monotonic())
            self._rate = max(0.0, rate)
            self._left = min(self._left, self._rate * _BURST)

    def take(self, wanted: int, grain: int) -> int:
        """How many of these bytes may be asked for now: whole grains, or all; 0: none."""
        with self._lock:
            if self.quiet or wanted <= 0:
                return 0
            some = min(wanted, max(grain, self._slice // grain * grain))
            if self._rate:
                self._fill(time.monotonic())
                if self._left <= 0:
                    return 0
                some = min(some, max(grain, int(self._left) // grain * grain))
                self._left -= some
            self.given += some
            return some

    def _fill(self, now: float) -> None:
        self._left = min(self._left + (now - self._at) * self._rate, self._rate * _BURST)
        self._at = now
