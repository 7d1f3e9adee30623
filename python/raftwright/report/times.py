"""Times as reports show them: TAI, as the ledger has it.

Nothing is imported for it: `status` answers before `raftwright.rawfile` would be loaded.
"""

from __future__ import annotations

import datetime
import math
import time
from typing import Final

from raftwright.timescale import TAI_MINUS_UTC

__all__ = ["clock", "day", "dayobs_of", "iso", "now_tai", "seconds_of", "span"]

_EPOCH: Final = datetime.datetime(1970, 1, 1)
_SANE: Final = 253_402_300_000.0  # the end of the year 9999


def now_tai() -> float:
    """The present by the clock of this machine, in seconds since 1970-01-01T00:00:00 TAI."""
    return time.time() + TAI_MINUS_UTC


def _moment(tai: float | None) -> datetime.datetime | None:
    if tai is None or not math.isfinite(tai) or not 0 <= tai < _SANE:
        return None
    return _EPOCH + datetime.timedelta(milliseconds=math.floor(tai * 1000))


def iso(tai: float | None) -> str:
    """`2026-11-23T03:12:44.120`; a dash where there is no time, or none that can be."""
    moment = _moment(tai)
    return "-" if moment is None else moment.isoformat(timespec="milliseconds")


def clock(tai: float | None) -> str:
    """`03:12:44.120`."""
    moment = _moment(tai)
    return "-" if moment is None else moment.time().isoformat(timespec="milliseconds")


def day(dayobs: int) -> str:
    """`2026-11-22` of 20261122."""
    text = str(dayobs)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 else text


def dayobs_of(tai: float) -> int:
    """The observing day of a moment: it changes at 12:00 UTC. Only for what has no name: names of images have
    their own."""
    moment = _EPOCH + datetime.timedelta(seconds=tai - TAI_MINUS_UTC - 12 * 3600)
    return moment.year * 10000 + moment.month * 100 + moment.day


def seconds_of(later: float | None, earlier: float | None) -> float | None:
    """Their difference, where both are known."""
    return None if later is None or earlier is None else later - earlier


def span(seconds: float | None) -> str:
    """`0.42 s`, `12.3 s`, `3 min 05 s`, `5 h 12 min`, `3 d 4 h`; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
