"""A header document that came after the file: the sidecar as it would have been, beside the one that is
there.

Raw files are never changed. What the DAQ and the camera know stands in the file and stays; the rest comes
from the document, as it would have when the file was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftwright import _core
from raftwright.errors import FormatError, StorageError
from raftwright.rawfile.cards import Card, Notes, Value, encode, parse_header
from raftwright.rawfile.keywords import OWN
from raftwright.rawfile.newest import later_path, newest_sidecar
from raftwright.rawfile.primary import cards_of
from raftwright.rawfile.read import open_raw
from raftwright.rawfile.sidecar import (
    CONTENT,
    LATER,
    MISSING,
    REPLACES,
    VERSION,
    Replaced,
    as_runs,
    read_json,
    sidecar,
)
from raftwright.rawfile.standing import digest

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.rawfile.document import HeaderDocument
    from raftwright.rawfile.read import RawFile

__all__ = ["Later", "later_sidecar", "write_later_sidecar"]

_SUMS: Final = frozenset({"CHECKSUM", "DATASUM"})
_FROM_DOCUMENT: Final = frozenset({"HDRSTATE"})
"""Own values that a document overrules: they tell of the document itself."""


class Later(NamedTuple):
    """A later sidecar."""

    path: Path
    version: int
    text: bytes


def later_sidecar(
    path: Path,
    document: HeaderDocument,
    source: Path,
    *,
    camera: Camera | None = None,
    notes: Notes | None = None,
) -> Later | None:
    """The sidecar that a raw file should have now, with a document that was read from `source`; None where
    the newest one says all of it.

    Raises FormatError and StorageError for a file or a sidecar that cannot be read.
    """
    raw = open_raw(path, 1, camera=camera)
    version, newest = newest_sidecar(path)
    before, first = read_json(newest), read_json(later_path(path, 1))
    cards = _cards(raw, document, notes if notes is not None else Notes())
    runs = as_runs(first.get(MISSING, {}))
    if runs is None:
        raise FormatError(f"{later_path(path, 1)}: {MISSING} is no list of [first, count] for each segment")
    stands, made = digest(newest), digest(source)
    later = {
        "version": version + 1,
        "replaces": {"file": newest.name, "crc32c": stands.crc32c},
        "header": {"file": source.name, "crc32c": made.crc32c},
    }
    text = sidecar(cards, runs, _replaced(first), later)
    if _facts(before) == _facts(_decoded(text)):
        return None
    return Later(later_path(path, version + 1), version + 1, text)


def write_later_sidecar(
    path: Path, document: HeaderDocument, source: Path, *, camera: Camera | None = None, durable: bool = True
) -> Path | None:
    """Writes it; where it is, or None where there is nothing new. Two who do it at once write one file.

    Raises FormatError, StorageError.
    """
    for _ in range(8):
        made = later_sidecar(path, document, source, camera=camera)
        if made is None:
            return None
        staged = _core.stage_bytes(str(made.path), made.text, durable)
        if staged.commit():
            return made.path
    raise StorageError(16, "others write sidecars of it again and again; do it later", str(path))


def _cards(raw: RawFile, document: HeaderDocument, notes: Notes) -> list[Card]:
    """Cards of the primary header as they would have been written."""
    standing: dict[str, Value] = dict(raw.file_header)
    own = {name: value for name, value in standing.items() if name in OWN and name not in _FROM_DOCUMENT}
    made = cards_of(raw.camera, raw.detector, own, document, emulated=standing.get("EMUIMAGE"), notes=notes)
    # As they would be read back from the file, whose sums these are.
    return [
        Card(card.keyword, standing.get(card.keyword), card.comment) if card.keyword in _SUMS else card
        for card in parse_header(encode(made, notes))
    ]


def _replaced(content: dict[str, Any]) -> Replaced | None:
    """The version of the raw file before, as the first sidecar says it."""
    before, version = content.get(REPLACES), content.get(VERSION)
    if not isinstance(before, dict) or not isinstance(version, int):
        return None
    try:
        return Replaced(version - 1, str(before["file"]), str(before["crc32c"]), int(before["missing"]))
    except (KeyError, ValueError, TypeError):
        raise FormatError(f"{REPLACES}: is no file, crc32c and missing") from None


def _decoded(text: bytes) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads(text)
    return content


def _facts(content: dict[str, Any]) -> dict[str, Any]:
    """What a sidecar says of the image."""
    return {key: value for key, value in content.items() if key not in (LATER, CONTENT)}
