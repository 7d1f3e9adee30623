"""What is wrong with the values of a header: times, ranges, identity, the least that every image must say.

The checks look at values by keyword, so that they serve documents that are built and documents that are read.
All times are TAI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.errors import FormatError
from raftwright.header.collected import tai_seconds
from raftwright.header.spec import Spec
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.header.collected import Collected
    from raftwright.rawfile.cards import Value

__all__ = [
    "CLOCK",
    "SIMULATED",
    "Problem",
    "check_clocks",
    "check_identity",
    "check_minimum",
    "check_ranges",
    "check_times",
    "lacking",
    "sees_sky",
]

SIMULATED: Final = frozenset("HPQS")
"""Controllers of simulated images: their clock is made up."""
CLOCK: Final = 5.0
"""Seconds that two clocks of the observatory may differ."""
_SLIP: Final = float(times.TAI_MINUS_UTC)
_SLIP_TOLERANCE: Final = 1.5
_SKY: Final = frozenset({"OBJECT", "SKYEXP", "SCIENCE", "ACQ", "CWFS", "FOCUS", "ENGTEST", "STUTTERED"})
_STAMPS: Final = (
    ("startIntegration", "timestampAcquisitionStart"),
    ("startReadout", "timestampStartOfReadout"),
    ("endReadout", "timestampEndOfReadout"),
)


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it should be."""

    code: str
    """`time`, `slip`, `clock`, `range`, `identity`, `missing`, `nan`, `stale`, ... """
    keyword: str
    message: str

    def __str__(self) -> str:
        return f"{self.keyword}: {self.message}" if self.keyword else self.message


def sees_sky(values: Mapping[str, Value]) -> bool:
    """Whether an image sees the sky, by its IMGTYPE."""
    kind = values.get("IMGTYPE")
    return isinstance(kind, str) and kind.strip().upper() in _SKY


def lacking(spec: Spec, values: Mapping[str, Value]) -> list[str]:
    """Mandatory keywords of PRIMARY that have no value."""
    sky = sees_sky(values)
    return [
        card.keyword
        for card in spec.primary().cards()
        if values.get(card.keyword) is None
        and (card.mandatory == "always" or (card.mandatory == "sky" and sky))
    ]


def check_minimum(spec: Spec, values: Mapping[str, Value]) -> dict[str, list[str]]:
    """The groups of the least metadata that are not whole: their keywords without a value."""
    found = {
        group: [keyword for keyword in keywords if values.get(keyword) is None]
        for group, keywords in spec.minimum.items()
    }
    return {group: keywords for group, keywords in found.items() if keywords}


def check_ranges(spec: Spec, values: Mapping[str, Value]) -> Iterator[Problem]:
    """Values out of the range of their card. They stay: what was said is what is archived."""
    for card in spec.primary().cards():
        value = values.get(card.keyword)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if (card.low is not None and value < card.low) or (card.high is not None and value > card.high):
            low = "" if card.low is None else f"{card.low:g}"
            high = "" if card.high is None else f"{card.high:g}"
            yield Problem("range", card.keyword, f"{value!r} is not in {low}..{high}")


def _moments(values: Mapping[str, Value]) -> tuple[dict[str, float], list[Problem]]:
    moments, problems = {}, []
    for keyword in ("DATE", "DATE-BEG", "DATE-OBS", "DATE-END", "DATE-TRG"):
        value = values.get(keyword)
        if value is None:
            continue
        try:
            if not isinstance(value, str):
                raise FormatError("it is no text")
            moments[keyword] = times.parse_iso(value) * 1e-9
        except FormatError as error:
            problems.append(Problem("time", keyword, f"is no date: {error}"))
    return moments, problems


def check_times(values: Mapping[str, Value]) -> Iterator[Problem]:
    """One scale, TAI; DATE after DATE-END after DATE-BEG; the length of the exposure; MJDs as their dates;
    the observing day of the name. A difference of 37 s is told as what it is: TAI taken for UTC."""
    scale = values.get("TIMESYS")
    if scale is not None and scale != "TAI":
        yield Problem("time", "TIMESYS", f"is {scale!r}; all times are TAI here")
    moments, problems = _moments(values)
    yield from problems
    begin, end, made = (moments.get(name) for name in ("DATE-BEG", "DATE-END", "DATE"))
    simulated = values.get("CONTRLLR") in SIMULATED
    for date in ("DATE-OBS", "DATE-BEG", "DATE-END", "DATE-TRG", "DATE"):
        day = values.get(date.replace("DATE", "MJD"))
        if date in moments and isinstance(day, float):
            apart = (day - times.mjd(round(moments[date] * 1e9))) * 86400
            if abs(apart) > 0.01:
                keyword = date.replace("DATE", "MJD")
                yield Problem(_kind(apart), keyword, f"is {apart:.3f} s beside {date}{_slip(apart)}")
    if begin is not None and moments.get("DATE-OBS", begin) != begin:
        yield Problem("time", "DATE-OBS", "differs from DATE-BEG; both are the start of the integration")
    if begin is not None and end is not None:
        if end < begin:
            apart = end - begin
            yield Problem(_kind(apart), "DATE-END", f"is {-apart:.3f} s before DATE-BEG{_slip(apart)}")
        yield from _length(values, end - begin)
    trigger = moments.get("DATE-TRG")
    if trigger is not None and end is not None and _is_slip(trigger - end):
        yield Problem("slip", "DATE-TRG", f"is {trigger - end:.3f} s after DATE-END{_slip(trigger - end)}")
    if made is not None and end is not None and made < end - 0.002 and not simulated:
        apart = made - end
        yield Problem(_kind(apart), "DATE", f"is {-apart:.3f} s before DATE-END{_slip(apart)}")
    if begin is not None and not simulated:
        yield from _day(values, begin)


def _length(values: Mapping[str, Value], length: float) -> Iterator[Problem]:
    for keyword in ("DARKTIME", "EXPTIME"):
        asked = values.get(keyword)
        if isinstance(asked, int | float) and not isinstance(asked, bool) and asked >= 0:
            apart = length - asked
            # Shutters, clears and delays make an integration longer than what was asked for, hardly shorter.
            if apart < -1.0 or _is_slip(apart) or apart > max(60.0, asked):
                yield Problem(
                    _kind(apart),
                    "DATE-END",
                    f"is {length:.3f} s after DATE-BEG, but {keyword} is {asked:g} s{_slip(apart)}",
                )
            return


def _day(values: Mapping[str, Value], begin: float) -> Iterator[Problem]:
    name = values.get("OBSID")
    try:
        dayobs = ImageName.parse(name).dayobs if isinstance(name, str) else None
    except FormatError:
        return
    if dayobs is None:
        return
    noon = times.parse_iso(f"{dayobs[:4]}-{dayobs[4:6]}-{dayobs[6:]}T12:00:00") * 1e-9 + _SLIP
    if not -86400 <= begin - noon <= 2 * 86400:
        yield Problem("time", "DATE-BEG", f"is not of the observing day {dayobs} of its name, nor near it")


def check_clocks(image: Collected) -> Iterator[Problem]:
    """Stamps within events beside the time at which they were told: they are of the same moment."""
    if image.name.controller in SIMULATED:
        return
    for kind, name in _STAMPS:
        stamp, told = tai_seconds(image.get(kind, name)), image.published.get(kind)
        if stamp is None or told is None:
            continue
        apart = told - stamp
        if abs(apart) > CLOCK:
            yield Problem(
                _kind(apart), "", f"{name} of {kind} is {apart:.1f} s before it was told{_slip(apart)}"
            )


def _is_slip(apart: float) -> bool:
    return abs(abs(apart) - _SLIP) <= _SLIP_TOLERANCE


def _kind(apart: float) -> str:
    return "slip" if _is_slip(apart) else "time"


def _slip(apart: float) -> str:
    return ": 37 s is what lies between TAI and UTC" if _is_slip(apart) else ""


def check_identity(name: ImageName, image: Collected) -> Iterator[Problem]:
    """Whether the parts of the name in its events are those of the name."""
    wanted = {
        "imageSource": name.source,
        "imageController": name.controller,
        "imageDate": name.dayobs,
        "imageNumber": str(name.seqnum),
    }
    for kind, fields in image.events.items():
        for field, expected in wanted.items():
            found = fields.get(field)
            if found in (None, "", 0):
                continue
            text = str(found).lstrip("0") if field == "imageNumber" else str(found)
            if text != expected.lstrip("0" if field == "imageNumber" else ""):
                yield Problem(
                    "identity", "", f"{field} of {kind} is {str(found)[:40]!a}; the name says {expected}"
                )
