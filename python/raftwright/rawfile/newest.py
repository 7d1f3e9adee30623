"""The newest sidecar of a raw file, and the header that it makes.

<stem>.json             the first, written with the file
<stem>.sidecar2.json    a later one, made when its header document came; and so on
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, StorageError
from raftwright.rawfile.cards import Card, canonical_keyword, encode
from raftwright.rawfile.header import Header
from raftwright.rawfile.names import MAX_VERSION, sidecar_path
from raftwright.rawfile.sidecar import CONTENT, LATER, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["later_path", "newest_header", "newest_sidecar", "sidecar_version"]

_LATER: Final = re.compile(r"\.sidecar([2-9]|[1-9][0-9]{1,3})\.json\Z")


def later_path(raw: Path, version: int) -> Path:
    """Where a sidecar of this version stands; version 1 is the first."""
    first = sidecar_path(raw)
    return (
        first
        if version == 1
        else first.with_name(f"{first.name.removesuffix('.json')}.sidecar{version}.json")
    )


def sidecar_version(path: Path) -> int:
    """The version that a name says: 1 for a first sidecar."""
    match = _LATER.search(path.name)
    return int(match[1]) if match else 1


def newest_sidecar(raw: Path) -> tuple[int, Path]:
    """The last of the sidecars that stand beside a raw file, and its version. The first need not be there."""
    version = 1
    while version < MAX_VERSION and os.path.lexists(later_path(raw, version + 1)):
        version += 1
    return version, later_path(raw, version)


def newest_header(raw: Path, header: Header) -> Header:
    """The header of a file, with the values of the newest of its later sidecars; what cannot be read, or is
    of another file, changes nothing."""
    version, path = newest_sidecar(raw)
    if version == 1:
        return header
    try:
        content = read_json(path)
    except (FormatError, StorageError):
        return header
    if content.get(CONTENT) != "metadata" or not isinstance(content.get(LATER), dict):
        return header
    if content.get("OBSID") != header.get("OBSID") or content.get("FILENAME") != header.get("FILENAME"):
        return header
    return Header(encode(_merged(header, content)))


def _merged(header: Header, content: Mapping[str, Any]) -> list[Card]:
    """Cards of the sidecar in its order, with the comments of the file; other records of the file before."""
    known = {card.keyword: card for card in header.cards if card.has_value}
    values: dict[str, Card] = {}
    for key, value in content.items():
        keyword = canonical_keyword(key)
        if key.startswith("__") or keyword is None or not isinstance(value, str | bool | int | float | None):
            continue
        comment = known[keyword].comment if keyword in known else ""
        values[keyword] = Card(keyword, value, comment)
    kept = [card for card in header.cards if card.has_value and card.keyword not in values]
    return [*values.values(), *kept]
