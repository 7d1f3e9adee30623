"""Which images and detectors are asked for, however they are spelled."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from raftwright.errors import FormatError, UsageError
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName
from raftwright.service.units import read_seconds

__all__ = ["Selection", "detector_name", "since_of"]

_DETECTOR: Final = re.compile(r"\s*[Rr]?([0-9]{2})[\s_/.:-]?[Ss]?([0-9]{2}|[GgWw][0-9])\s*\Z")
_DAYOBS: Final = re.compile(r"[0-9]{8}\Z")
_NIGHT: Final = 36 * 3600.0
"""A day of observation begins at most so long before a time in it."""


def detector_name(text: str) -> str:
    """`R22_S11` for every spelling of it: 22/11, R22S11, r22_s11. Others stay what they are."""
    match = _DETECTOR.match(text)
    return text.strip() if match is None else f"R{match[1]}_S{match[2].upper()}"


def since_of(text: str, now: float | None = None) -> tuple[str, float | None]:
    """A day of observation (`20261122`), a time (`2026-11-22T03:00:00`, TAI), or how long ago (`3 d`, `12h`):
    the first day of observation that can be meant, and a time in seconds TAI. Raises UsageError."""
    text = text.strip()
    if not text:
        return "", None
    if _DAYOBS.match(text):
        try:
            datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
        except ValueError:
            raise UsageError(f"{text!r} is no day of the calendar; give one as 20261122") from None
        return text, None
    try:
        moment = times.parse_iso(text) / 1e9
    except FormatError:
        try:
            ago = read_seconds(text)
        except UsageError:
            raise UsageError(
                f"{text[:40]!r} is no time; give a day of observation as 20261122, a time (TAI) as "
                "2026-11-22T03:00:00, or how long ago as 3d or 12h"
            ) from None
        moment = (time.time() + times.TAI_MINUS_UTC if now is None else now) - ago
    day = datetime.datetime.fromtimestamp(max(0.0, moment - _NIGHT), datetime.UTC)
    return f"{day:%Y%m%d}", moment


@dataclass(frozen=True)
class Selection:
    """What is asked for; all by default."""

    first_day: str = ""
    since_tai: float | None = None
    images: frozenset[str] = frozenset()
    detectors: frozenset[str] = frozenset()
    """As `detector_name` spells them."""

    @classmethod
    def of(cls, since: str = "", images: Iterable[str] = (), detectors: Iterable[str] = ()) -> Selection:
        """Raises UsageError for a time that is none and a name that is none."""
        day, moment = since_of(since)
        names = frozenset(images)
        for name in names:
            try:
                ImageName.parse(name)
            except FormatError as error:
                raise UsageError(str(error)) from None
        return cls(day, moment, names, frozenset(detector_name(each) for each in detectors))

    def may_want(self, name: ImageName) -> bool:
        """Whether an image can be among them, from its name alone."""
        if self.images:
            return str(name) in self.images
        return name.dayobs >= self.first_day

    def wants(self, name: ImageName, trigger_tai: float | None) -> bool:
        """Whether an image is. One of which nobody knows the time counts with its night."""
        if not self.may_want(name):
            return False
        return (
            bool(self.images)
            or self.since_tai is None
            or trigger_tai is None
            or trigger_tai >= self.since_tai
        )
