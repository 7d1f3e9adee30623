"""The files beside the raws: the JSON sidecar of a raw file and the manifest of an image.

A sidecar has the cards of the primary header that have a value field, in their order, types kept, undefined
as null; `"KEY" : value`, indented by two spaces, no final newline, as the LSST camera's control system
writes it. When pixels are missing, one more key follows: `__MISSING__`, for each segment that misses any a
list of `[first, count]` in readout positions `y * NAXIS1 + x`, counted from 0. A version above 1 says so in
two more: `__VERSION__`, and `__REPLACES__` with name, CRC-32C and number of missing pixels of the version
before.

A header that comes after the file makes a later sidecar beside it, `<stem>.sidecar2.json` and so on: all that
the first would have been with it, and `__SIDECAR__` with its version, name and CRC-32C of the sidecar and of
the header document. The newest one is the header of the file; see `raftwright.rawfile.later`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, StorageError
from raftwright.rawfile.cards import Card, Value
from raftwright.rawfile.names import ImageName, manifest_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera import Detector

__all__ = [
    "CONTENT",
    "LATER",
    "MAX_BYTES",
    "MISSING",
    "REPLACES",
    "VERSION",
    "Replaced",
    "Runs",
    "as_runs",
    "manifest",
    "read_json",
    "run_mask",
    "sidecar",
    "sidecar_key",
]

CONTENT: Final = "__CONTENT__"
MISSING: Final = "__MISSING__"
VERSION: Final = "__VERSION__"
REPLACES: Final = "__REPLACES__"
LATER: Final = "__SIDECAR__"
MAX_BYTES: Final = 64 << 20
"""Largest sidecar or manifest read."""

Runs = dict[str, list[tuple[int, int]]]
"""Missing pixels of each segment that has any: (first, count) in readout positions."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """The file that a later version stands for; it stays where it is."""

    version: int
    """Of the replaced file."""
    file: str
    crc32c: str
    missing: int
    """Pixels that it lacks."""


def sidecar_key(card: Card) -> str:
    """Key of a card: `HIERARCH STUTTER ROWS` is `HIERARCH.STUTTER.ROWS`."""
    return f"HIERARCH.{card.keyword.replace(' ', '.')}" if card.is_hierarch else card.keyword


def _line(card: Card) -> str:
    return f"  {json.dumps(sidecar_key(card))} : {json.dumps(card.value, allow_nan=False)}"


@functools.lru_cache(maxsize=8192, typed=True)
def _known_line(keyword: str, value: Value) -> str:
    return _line(Card(keyword, value))


def sidecar(
    cards: Iterable[Card],
    missing: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    replaced: Replaced | None = None,
    later: Mapping[str, Any] | None = None,
) -> bytes:
    """Text of the sidecar of a raw file, from the cards of its primary header as written. A `later` one says
    which it stands for."""
    lines = [f'  "{CONTENT}" : "metadata"']
    lines += [
        _line(card) if isinstance(card.value, float) else _known_line(card.keyword, card.value)
        for card in cards
        if card.has_value
    ]
    if missing:
        # One line, however many gaps: whoever wants the list reads JSON, whoever looks wants the keywords.
        runs = {name: [list(run) for run in gaps] for name, gaps in missing.items() if gaps}
        lines.append(f'  "{MISSING}" : {json.dumps(runs)}')
    if replaced is not None:
        before = {"file": replaced.file, "crc32c": replaced.crc32c, "missing": replaced.missing}
        lines += [f'  "{VERSION}" : {replaced.version + 1}', f'  "{REPLACES}" : {json.dumps(before)}']
    if later is not None:
        lines.append(f'  "{LATER}" : {json.dumps(dict(later))}')
    return ("{\n" + ",\n".join(lines) + "\n}").encode("ascii")


def manifest(image: ImageName, detectors: Iterable[Detector]) -> bytes:
    """Text of `<image>_expectedSensors.json`: every file `<image>_<raft>_<slot>.fits` that the image must
    have.

    Full-frame files are `SCIENCE` whatever the CCD is for; `GUIDER` would stand for a file of guider stamps.
    """
    sensors = {detector.file_stem: "SCIENCE" for detector in detectors}
    content = {
        "fileName": manifest_name(image),
        "fileType": "expectedSensors",
        "obsId": str(image),
        "version": 1.0,
        "expectedSensors": dict(sorted(sensors.items())),
    }
    return json.dumps(content, indent=2, separators=(",", " : ")).encode("ascii")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most `MAX_BYTES`. Raises `FormatError`, `StorageError`."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise StorageError(error.errno, f"cannot read it: {error.strerror}", str(path)) from error
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: larger than {MAX_BYTES >> 20} MiB; this is no sidecar")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no valid JSON: {str(error)[:200]}") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return content


def as_runs(listed: object) -> Runs | None:
    """The value of `__MISSING__` taken apart; None where it is no list of `[first, count]` for each
    segment."""
    if not isinstance(listed, dict):
        return None
    runs: Runs = {}
    for name, entries in listed.items():
        if not isinstance(entries, list):
            return None
        for entry in entries:
            if not isinstance(entry, list) or len(entry) != 2 or not all(type(part) is int for part in entry):
                return None
        runs[name] = [(first, count) for first, count in entries]
    return runs


def run_mask(runs: Iterable[tuple[int, int]], size: int) -> NDArray[np.bool_] | None:
    """Boolean array of `size` pixels, true within the runs; None where one is empty or reaches beyond."""
    import numpy as np

    mask = np.zeros(size, dtype=np.bool_)
    for first, count in runs:
        if first < 0 or count < 1 or first + count > size:
            return None
        mask[first : first + count] = True
    return mask
