"""How far catching up is, how fast it goes, and when it will be done."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Final

__all__ = ["Progress"]

_WINDOW: Final = 60.0


class Progress:
    """Thread-safe. Bytes are those of streams."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()
        self.begun = time.monotonic()
        self.units_done = 0
        self.units_failed = 0
        self.bytes_done = 0
        self.units_left = 0
        self.bytes_left = 0
        self.files = 0

    def ended(self, ok: bool, bytes: int, files: int) -> None:
        """A unit ended."""
        with self._lock:
            if ok:
                self.units_done += 1
            else:
                self.units_failed += 1
            self.bytes_done += bytes
            self.files += files
            self._recent.append((time.monotonic(), bytes))
            self._forget()

    def left(self, units: int, bytes: int) -> None:
        """What is still to be fetched, as far as it is known."""
        with self._lock:
            self.units_left, self.bytes_left = units, bytes

    @property
    def rate(self) -> float:
        """Bytes a second, over the last minute."""
        with self._lock:
            self._forget()
            if not self._recent:
                return 0.0
            span = min(_WINDOW, time.monotonic() - self.begun)
            return sum(bytes for _, bytes in self._recent) / max(span, 0.1)

    def _forget(self) -> None:
        while self._recent and self._recent[0][0] < time.monotonic() - _WINDOW:
            self._recent.popleft()

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `eta_s` is None where nobody knows."""
        rate = self.rate
        with self._lock:
            eta = self.bytes_left / rate if rate > 0 else (0.0 if not self.units_left else None)
            return {
                "units_done": self.units_done,
                "units_failed": self.units_failed,
                "units_left": self.units_left,
                "files": self.files,
                "bytes_done": self.bytes_done,
                "bytes_left": self.bytes_left,
                "bytes_per_s": round(rate),
                "eta_s": None if eta is None else round(eta, 1),
            }
