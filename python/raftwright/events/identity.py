"""How rafts, sensors and lists are spelt in messages: several ways in, one way out.

The first generation of services wrote `22` and `01`, later ones write `R22` and `S01`. Both are understood,
and the second is told. Lists in the observatory's events are one text, with colons between items (CAP-572).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from raftwright.errors import FormatError

__all__ = ["NO_RAFT", "NO_SENSOR", "colon_items", "colon_list", "raft_name", "sensor_name", "split_detector"]

NO_RAFT: Final = "NR"
"""Stands for the raft where a message is about a file of no single raft."""
NO_SENSOR: Final = "NS"
"""Stands for the sensor where a message is about a file of no single sensor."""

_DIGITS = re.compile(r"[0-9]{2}\Z")
_CORNER = re.compile(r"[GW][0-9]\Z")
_PART = re.compile(r"[A-Za-z0-9?]{1,16}\Z")
_ESCAPED = re.compile(r"\\(.)|(:)", re.DOTALL)


def raft_name(text: str) -> str:
    """`R22` of `22` or `R22`. Raises FormatError where it is no raft."""
    return _spelt(text, "R", "a raft is written R22")


def sensor_name(text: str) -> str:
    """`S01` of `01` or `S01`, `SG0` of `G0`. Raises FormatError where it is no sensor."""
    return _spelt("S" + text if _CORNER.match(text) else text, "S", "a sensor is written S01")


def _spelt(text: str, letter: str, remedy: str) -> str:
    if _DIGITS.match(text):
        return letter + text
    if not _PART.match(text):
        raise FormatError(f"{text[:40]!a} is none; {remedy}")
    return text


def split_detector(name: str) -> tuple[str, str]:
    """Raft and sensor of `R22_S11`, `22_11` or `2211`. Raises FormatError."""
    raft, mark, sensor = name.partition("_")
    if not mark and len(name) == 4 and name.isdigit():
        raft, sensor = name[:2], name[2:]
    return raft_name(raft), sensor_name(sensor)


def colon_list(items: Iterable[str]) -> str:
    r"""One text of many: `a:b`, with `\:` for a colon and `\\` for a backslash within an item.

    A list of one empty item gives the same text as a list of none.
    """
    return ":".join(item.replace("\\", "\\\\").replace(":", "\\:") for item in items)


def colon_items(text: str) -> list[str]:
    """The items of a colon list; an empty text has none. Before all else a backslash stands for itself."""
    if not text:
        return []
    items = [""]
    end = 0
    for found in _ESCAPED.finditer(text):
        items[-1] += text[end : found.start()]
        end = found.end()
        if found[2]:
            items.append("")
        else:
            items[-1] += found[1] if found[1] in ":\\" else found[0]
    items[-1] += text[end:]
    return items
