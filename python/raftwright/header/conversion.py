"""Values from outside brought to the type of their card; what cannot be is null, with a word why."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal, TypeAlias

from raftwright.errors import FormatError
from raftwright.header.spec import CardType, Source
from raftwright.rawfile import times
from raftwright.rawfile.cards import MAX_STRING, Value

__all__ = ["Complaint", "convert", "read_text"]

Complaint: TypeAlias = Literal["", "nan", "wrong_type", "illegal_characters", "too_long"]
"""Why a value could not be taken as it came."""

_LARGEST: Final = 2**63
_ILLEGAL = re.compile(r"[^\x20-\x7e]")
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}\Z")
_REAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_TRUTH: Final = {"true": True, "t": True, "yes": True, "false": False, "f": False, "no": False}
_NO_NUMBER = re.compile(r"[-+]?(?:nan|inf|infinity)\Z", re.IGNORECASE)


def convert(value: Any, kind: CardType, source: Source | None = None) -> tuple[Value, Complaint]:
    """A value in the type of its card. None where there is none, with the reason.

    Text stays text in a string card, whatever it looks like. In the others, text that is a number is that
    number. Dates are TAI: ISO text, or seconds since 1970-01-01T00:00:00 TAI.
    """
    if value is None:
        return None, ""
    if source is not None and source.words is not None:
        value = _word(value, source.words)
        if value is None:
            return None, "wrong_type"
    if isinstance(value, float) and not math.isfinite(value):
        return None, "nan"
    if isinstance(value, str) and kind != "string" and _NO_NUMBER.match(value.strip()[:12]):
        return None, "nan"
    if not isinstance(value, str | bool | int | float):
        return None, "wrong_type"
    if source is not None and (source.scale != 1.0 or source.offset != 0.0):
        number = _number(value)
        if number is None:
            return None, "wrong_type"
        value = number * source.scale + source.offset
        if not math.isfinite(value):
            return None, "nan"
    return _typed(value, kind)


def _word(value: Any, words: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        value = str(value).lower()
    found = words.get(str(value))
    return value if found is None and value in words.values() else found


def _typed(value: str | bool | float, kind: CardType) -> tuple[Value, Complaint]:
    if kind == "string":
        return _string(value)
    if kind in ("date", "mjd"):
        return _date(value, kind)
    if kind == "boolean":
        if isinstance(value, bool):
            return value, ""
        if isinstance(value, int) and value in (0, 1):
            return bool(value), ""
        truth = _TRUTH.get(value.strip().lower()) if isinstance(value, str) else None
        return truth, "" if truth is not None else "wrong_type"
    number = _number(value)
    if number is None:
        return None, "wrong_type"
    if kind == "float":
        return float(number), ""
    if isinstance(number, float):
        if not number.is_integer():
            return None, "wrong_type"
        number = int(number)
    return (number, "") if -_LARGEST <= number < _LARGEST else (None, "wrong_type")


def _string(value: str | bool | float) -> tuple[Value, Complaint]:
    if isinstance(value, bool):
        return ("true" if value else "false"), ""
    text = value if isinstance(value, str) else str(value)
    clean, count = _ILLEGAL.subn("?", text[: MAX_STRING + 1])
    if len(clean) > MAX_STRING:
        return clean[:MAX_STRING], "too_long"
    return clean, "illegal_characters" if count else ""


def _number(value: str | bool | float) -> int | float | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if abs(value) < 2 * _LARGEST else None
    if isinstance(value, float):
        return value
    text = value.strip()
    if len(text) > 40:
        return None
    if _INTEGER.match(text):
        return int(text)
    if _REAL.match(text):
        number = float(text)
        return number if math.isfinite(number) else None
    return None


def _date(value: str | bool | float, kind: CardType) -> tuple[Value, Complaint]:
    """ISO text or seconds; for `mjd` also the day itself."""
    try:
        if isinstance(value, str) and _number(value) is None:
            moment = times.parse_iso(value)
        else:
            number = _number(value)
            if number is None or isinstance(value, bool):
                return None, "wrong_type"
            if kind == "mjd" and 0 <= number < 1_000_000:
                return float(number), ""
            if not 1.0 < number < 2.5e11:
                return None, "wrong_type"  # 0 is SAL's way to say that there is none
            moment = round(number * 1e6) * 1000
        return (times.mjd(moment) if kind == "mjd" else times.iso(moment)), ""
    except (FormatError, ValueError, OverflowError):
        return None, "wrong_type"


def read_text(text: str, kind: CardType) -> Value:
    """The value that a specification writes as text; None where it is none of that type."""
    value, complaint = convert(text, kind)
    return None if complaint else value
