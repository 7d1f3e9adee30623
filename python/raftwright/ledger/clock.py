"""The clock of the ledger: TAI, from the clock of this machine."""

from __future__ import annotations

import time
from typing import Final

from raftwright.timescale import TAI_MINUS_UTC

__all__ = ["steady", "tai", "waits"]

LONGEST_WAIT = 600.0
"""Seconds that anything may wait for its next try; longer ones are of a clock that was wrong."""


def tai() -> float:
    """Seconds since 1970-01-01T00:00:00 TAI."""
    return time.time() + TAI_MINUS_UTC


_BEGAN: Final = (time.time() + TAI_MINUS_UTC, time.clock_gettime(time.CLOCK_BOOTTIME))


def steady() -> float:
    """TAI of the clock as it went when this process began: who sets it changes no time that is waited."""
    return _BEGAN[0] + time.clock_gettime(time.CLOCK_BOOTTIME) - _BEGAN[1]


def waits(next_try: float, moment: float) -> bool:
    """Whether the time for the next try has not come."""
    return moment < next_try <= moment + LONGEST_WAIT
