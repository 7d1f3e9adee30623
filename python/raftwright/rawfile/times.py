"""TAI times of a header: ISO 8601 text, Modified Julian Date, nanoseconds.

All times of a raw file are TAI, and TAI has no leap seconds: ISO text and MJD turn into one another by plain
arithmetic on days of 86400 s (MJD 40587 is 1970-01-01). Only two things need leap seconds: the clock of this
machine, which runs on UTC, and a header document that says `TIMESYS: UTC`.
"""

from __future__ import annotations

import datetime
import re
import time
from typing import Final

from raftwright.errors import FormatError
from raftwright.timescale import TAI_MINUS_UTC

__all__ = ["TAI_MINUS_UTC", "iso", "mjd", "now", "parse_iso", "utc_to_tai"]

_UNIX_EPOCH_MJD: Final = 40587
_DAY_NS: Final = 86_400_000_000_000
_END: Final = 2_932_897 * _DAY_NS  # 10000-01-01: what ISO 8601 text with four digits cannot say
_SINCE_2017: Final = 17_167 * _DAY_NS
_UTC_BEGINS: Final = -3653 * _DAY_NS  # 1960-01-01
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,18}))?)?\Z"
)


def now() -> int:
    """The present in TAI, in nanoseconds since 1970-01-01T00:00:00 TAI, by the clock of this machine."""
    return time.time_ns() + TAI_MINUS_UTC * 1_000_000_000


def parse_iso(text: str) -> int:
    """`YYYY-MM-DD[Thh:mm:ss[.fff…]]` to nanoseconds since 1970-01-01 in the same time scale.

    Raises `FormatError` for anything else; a zone (`Z`, `+00:00`) is refused, because the header says the
    scale.
    """
    match = _ISO.match(text.strip()) if len(text) < 64 else None
    if match is None:
        raise FormatError(f"{text[:40]!r} is not a time: write it as YYYY-MM-DDThh:mm:ss.mmm without a zone")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if hour > 23 or minute > 59 or second > 60:
        raise FormatError(f"{text[:40]!r} is not a time: hours, minutes or seconds are out of range")
    try:
        days = datetime.date(year, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError as error:
        raise FormatError(f"{text[:40]!r} is not a date: {error}") from None
    fraction = int(f"{match[7] or '':0<9}"[:9])
    moment = days * _DAY_NS + ((hour * 60 + minute) * 60 + second) * 1_000_000_000 + fraction
    if moment >= _END:
        raise FormatError(f"{text[:40]!r} is not a time: it is after the year 9999")
    return moment


def iso(nanoseconds: int) -> str:
    """`YYYY-MM-DDThh:mm:ss.mmm`, cut (not rounded) to milliseconds."""
    days, rest = divmod(nanoseconds, _DAY_NS)
    date = datetime.date.fromordinal(days + datetime.date(1970, 1, 1).toordinal())
    milliseconds = rest // 1_000_000
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{date.isoformat()}T{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"


def mjd(nanoseconds: int) -> float:
    """Modified Julian Date, good to the rounding of a double (1e-11 d, about 1 µs)."""
    days, rest = divmod(nanoseconds, _DAY_NS)
    return _UNIX_EPOCH_MJD + days + rest / _DAY_NS


def utc_to_tai(nanoseconds: int) -> int:
    """UTC to TAI. Since 2017 by the constant; before that by astropy's table of leap seconds.

    Raises `FormatError` before 1960, when there was no UTC, and at the end of the year 9999.
    """
    if nanoseconds >= _SINCE_2017:
        moment = nanoseconds + TAI_MINUS_UTC * 1_000_000_000
        if moment >= _END:
            raise FormatError(f"{iso(nanoseconds)} UTC is after the year 9999 in TAI")
        return moment
    if nanoseconds < _UTC_BEGINS:
        raise FormatError(f"{iso(nanoseconds)} is before 1960, when there was no UTC")
    from astropy.time import Time  # slow to import, and hardly ever needed

    return parse_iso(str(Time(iso(nanoseconds), format="isot", scale="utc", precision=6).tai.isot))
