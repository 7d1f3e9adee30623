"""What FITS itself says about keywords that come from outside: which are not theirs to set, which have a
type.

A header document cannot change the structure of a file: keywords that describe data or sums are left out.
The keywords that the standard reserves with a type (FITS 4.0, sections 4.4.2, 8 and 9) are written with a
value of that type or not at all, because a verifier rejects them when they are undefined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from raftwright.errors import FormatError
from raftwright.rawfile import times
from raftwright.rawfile.cards import Notes, Value
from raftwright.rawfile.keywords import KeywordType

__all__ = ["is_structural", "is_wcs", "must_be_defined", "reserved_problem", "typed", "usable_wcs"]

_STRUCTURAL = re.compile(
    r"(?:SIMPLE|XTENSION|BITPIX|NAXIS[0-9]*|EXTEND|PCOUNT|GCOUNT|GROUPS|BLOCKED|TFIELDS|THEAP|END|CONTINUE|COMMENT"
    r"|HISTORY|LONGSTRN|HIERARCH|EXTNAME|EXTVER|EXTLEVEL|INHERIT|BSCALE|BZERO|BLANK|DATAMAX|DATAMIN|EPOCH"
    r"|CHECKSUM|DATASUM|ZHECKSUM|ZDATASUM|ZIMAGE|ZSIMPLE|ZTENSION|ZEXTEND|ZCMPTYPE|ZBITPIX|ZNAXIS[0-9]*|ZTILE[0-9]+"
    r"|ZNAME[0-9]+|ZVAL[0-9]+|ZPCOUNT|ZGCOUNT|ZBLOCKED|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO|ZTABLE"
    r"|(?:TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDISP|TDIM|TBCOL|PTYPE|PSCAL|PZERO|TCTYP|TCUNI|TCRPX|TCRVL|TCDLT)"
    r"[0-9]+[A-Z]?|MISSPIX|FILLVAL|FILEVERS|REPLACES)\Z"
)
_WCS = re.compile(
    r"(?:WCSAXES[A-Z]?|(?:CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA|CRDER|CSYER)([1-9][0-9]?)[A-Z]?"
    r"|(?:CD|PC|PV|PS)([1-9][0-9]?)_([0-9]{1,2})[A-Z]?)\Z"
)
_RESERVED: Final[tuple[tuple[re.Pattern[str], KeywordType], ...]] = (
    (re.compile(r"DATE[A-Z0-9_-]{0,4}\Z"), "D"),
    (
        re.compile(
            r"(?:AUTHOR|BUNIT|CREATOR|INSTRUME|OBJECT|OBSERVER|ORIGIN|REFERENC|TELESCOP|TIMESYS|TIMEUNIT|"
            r"RADESYS[A-Z]?|WCSNAME[A-Z]?|CTYPE[0-9]+[A-Z]?|CUNIT[0-9]+[A-Z]?)\Z"
        ),
        "S",
    ),
    (
        re.compile(
            r"(?:EQUINOX[A-Z]?|MJD-OBS|MJD-AVG|MJDREF[IF]?|OBSGEO-[XYZ]|LONPOLE[A-Z]?|LATPOLE[A-Z]?|RESTFRQ|RESTWAV|"
            r"VELOSYS|ZSOURCE|(?:CRVAL|CRPIX|CDELT|CROTA|CRDER|CSYER)[0-9]+[A-Z]?|(?:CD|PC|PV)[0-9]+_[0-9]+[A-Z]?)\Z"
        ),
        "F",
    ),
    (re.compile(r"WCSAXES[A-Z]?\Z"), "I"),
)
_FRAMES: Final = frozenset({"ICRS", "FK5", "FK4", "FK4-NO-E", "GAPPT"})
_NOT_A_NUMBER = re.compile(r" *[-+]?\.?(?:nan|inf|infinity) *\Z", re.IGNORECASE)


def is_structural(keyword: str) -> bool:
    """Whether a keyword describes the structure, the scaling or the sums of an HDU, or is no value card."""
    return _STRUCTURAL.match(keyword) is not None


def is_wcs(keyword: str) -> bool:
    """Whether a keyword belongs to a world coordinate system of image axes."""
    return _WCS.match(keyword) is not None


def _reserved_type(keyword: str) -> KeywordType | None:
    return next((kind for pattern, kind in _RESERVED if pattern.match(keyword)), None)


def must_be_defined(keyword: str) -> bool:
    """Whether FITS reserves the keyword with a type, so that its card must not be undefined."""
    return _reserved_type(keyword) is not None


def reserved_problem(keyword: str, value: Value) -> str | None:
    """What is wrong with a defined value of a reserved keyword; None for every other keyword."""
    kind = _reserved_type(keyword)
    if kind == "S" and not isinstance(value, str):
        return "FITS wants text"
    if kind == "F" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return "FITS wants a number"
    if kind == "I" and (isinstance(value, bool) or not isinstance(value, int)):
        return "FITS wants an integer"
    if kind == "D" and not _is_date(value):
        return "FITS wants a date, YYYY-MM-DDThh:mm:ss.mmm"
    if keyword.startswith("RADESYS") and isinstance(value, str) and value.strip() not in _FRAMES:
        return f"FITS knows {', '.join(sorted(_FRAMES))}"
    return None


def _is_date(value: Value) -> bool:
    if not isinstance(value, str):
        return False
    try:
        times.parse_iso(value)
    except FormatError:
        return False
    return " " not in value.strip()


def usable_wcs(values: Mapping[str, Value], where: str, notes: Notes) -> bool:
    """Whether the WCS keywords of a header without image axes make a whole: WCSAXES and every axis of it.

    Without that a verifier refuses them; then none is written, which is noted.
    """
    given = [keyword for keyword in values if is_wcs(keyword)]
    if not given:
        return False
    axes = values.get("WCSAXES")
    whole = isinstance(axes, int) and not isinstance(axes, bool) and 1 <= axes <= 4
    if whole:
        assert isinstance(axes, int)
        wanted = [f"{stem}{n}" for n in range(1, axes + 1) for stem in ("CTYPE", "CRVAL", "CRPIX")]
        whole = all(values.get(keyword) is not None for keyword in wanted) and all(
            _indices_up_to(keyword, axes) for keyword in given
        )
    if not whole:
        notes.add(f"{where}: left out: {_listed(given)}, because WCSAXES and all of its axes are not there")
    return whole


def _indices_up_to(keyword: str, axes: int) -> bool:
    match = _WCS.match(keyword)
    return match is not None and all(int(index) <= axes for index in match.groups() if index)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def typed(keyword: str, value: Value, kind: KeywordType, where: str, notes: Notes) -> Value:
    """A value from outside brought to the type of its keyword, without changing what it says.

    Integers become floats where floats belong, whole floats become integers, numbers become text. Text
    where a number belongs stays text and is noted (telescope values follow their source), except NaN and
    the infinities, which are undefined. Dates are brought to milliseconds; what is no date is undefined and
    noted.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind != "S" and isinstance(value, str) and _NOT_A_NUMBER.match(value[:20]):
        return None
    if kind == "S":
        return str(value) if not isinstance(value, str) else value
    if kind == "D":
        return _date(keyword, value, where, notes)
    if kind in ("F", "M") and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else None
    if kind == "I" and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if kind == "I" and isinstance(value, bool):
        return int(value)
    if kind == "L" and isinstance(value, int):
        return bool(value)
    fits = {"F": float, "M": float, "I": int, "L": bool}.get(kind)
    if fits is not None and not isinstance(value, fits):
        notes.add(f"{where}: {keyword}: {_shown(value)} is not {_WORDS[kind]}; written as it is")
    return value


_WORDS: Final = {"F": "a number", "M": "a number", "I": "an integer", "L": "true or false"}


def _shown(value: Value) -> str:
    return ascii(value)[:40]


def _date(keyword: str, value: Value, where: str, notes: Notes) -> Value:
    if isinstance(value, str):
        try:
            return times.iso(times.parse_iso(value))
        except FormatError:
            pass
    notes.add(f"{where}: {keyword}: {_shown(value)} is not a date; left undefined")
    return None
