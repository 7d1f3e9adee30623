"""What can go wrong with a service so that somebody has to know: numbers, and the list of what happened."""

from __future__ import annotations

import threading
import time
from collections import deque
from enum import IntEnum
from typing import Any, Final

import msgspec

__all__ = ["Fault", "FaultCode", "FaultLog"]

_MOST: Final = 1000
"""Faults that are kept; of older ones the number is known."""


class FaultCode(IntEnum):
    """Numbers of faults. They never change their meaning; docs/howto/run-the-archive.md explains each."""

    TASK_DIED = 101
    """A task of the service died again and again. It is started again all the same."""
    NO_PROGRESS = 102
    """There is work, and nothing was done for too long."""


class Fault(msgspec.Struct, kw_only=True):
    """Something that went wrong; `over` is None while it lasts. Times are Unix times."""

    number: int
    """Counts the faults of a run, from 1."""
    code: FaultCode
    key: str
    """Of what: the name of a task, a place."""
    reason: str
    since: float
    over: float | None = None
    ended: str = ""
    """How: `recovered` or `cleared`."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "number": self.number,
            "code": int(self.code),
            "name": self.code.name,
            "key": self.key,
            "reason": self.reason,
            "since": self.since,
            "over": self.over,
            "ended": self.ended,
        }


class FaultLog:
    """All faults of a run in order; one of a code and key is entered once while it lasts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: deque[Fault] = deque(maxlen=_MOST)
        self._open: dict[tuple[FaultCode, str], Fault] = {}
        self._count = 0

    def enter(self, code: FaultCode, key: str, reason: str) -> Fault | None:
        """A fault that is new, else None."""
        with self._lock:
            known = self._open.get((code, key))
            if known is not None:
                known.reason = reason
                return None
            self._count += 1
            fault = Fault(number=self._count, code=code, key=key, reason=reason, since=time.time())
            self._open[code, key] = fault
            self._all.append(fault)
            return fault

    def end(self, code: FaultCode, key: str) -> Fault | None:
        """It is over; None where there was none."""
        with self._lock:
            fault = self._open.pop((code, key), None)
            return None if fault is None else _ended(fault, "recovered")

    def clear(self) -> list[Fault]:
        """All that last are taken as over. What still fails will be entered again."""
        with self._lock:
            cleared = [_ended(fault, "cleared") for fault in self._open.values()]
            self._open.clear()
            return cleared

    def lasting(self) -> list[Fault]:
        """Those that are not over, the first one first."""
        with self._lock:
            return sorted(self._open.values(), key=lambda fault: fault.number)

    def all(self) -> list[dict[str, Any]]:
        """All as JSON, in order."""
        with self._lock:
            return [fault.to_dict() for fault in self._all]

    @property
    def count(self) -> int:
        """How many there were in this run."""
        return self._count


def _ended(fault: Fault, how: str) -> Fault:
    fault.over = time.time()
    fault.ended = how
    return fault
