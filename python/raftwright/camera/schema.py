"""The camera file, format `raftwright-camera/1`: what may stand where, and of which type.

Rows of numbers and of names are written as text separated by blanks (`gain: 1.74 1.75 ...`), which keeps one
detector a line and a large camera quick to read.
"""

from __future__ import annotations

import difflib
import types
import typing
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.camera.document import Findings, Place, shown
from raftwright.camera.model import ChipConstants, Geometry, Kind

__all__ = [
    "FORMAT",
    "AmplifierEntry",
    "BoardEntry",
    "BoardTypeEntry",
    "CameraEntry",
    "DetectorEntry",
    "DetectorTypeEntry",
    "ExtensionEntry",
    "RaftEntry",
    "RaftLayoutEntry",
    "SegmentEntry",
    "SlotEntry",
    "StreamEntry",
    "SystemEntry",
    "find_misfits",
    "like",
    "read_entries",
]

FORMAT = "raftwright-camera/1"

_WORDS: dict[str, str] = {}


def like(pattern: str, words: str) -> Meta:
    """A constraint on text, and how an error message says it."""
    _WORDS[pattern] = words
    return Meta(pattern=pattern)


# Names that become parts of file names hold letters and digits only: no separator, no dot, no blank.
_Part: TypeAlias = Annotated[str, like(r"^[A-Za-z0-9]{1,16}\Z", "letters and digits only, 16 at most")]
_Name: TypeAlias = Annotated[
    str,
    like(
        r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}\Z",
        "letters, digits and _ . + -, a letter or digit first, 32 at most",
    ),
]
# FITS string values: printable ASCII that fits a card.
_Text: TypeAlias = Annotated[str, like(r"^[ -~]{1,68}\Z", "printable ASCII, 68 characters at most")]
_Comment: TypeAlias = Annotated[str, like(r"^[ -~]{0,68}\Z", "printable ASCII, 68 characters or fewer")]
_Keyword: TypeAlias = Annotated[
    str, like(r"^[A-Z][A-Z0-9_-]{0,7}\Z", "a FITS keyword in capitals, 8 at most")
]
_Letter: TypeAlias = Annotated[str, like(r"^[A-Z]\Z", "one capital letter")]
_Code: TypeAlias = Annotated[str, like(r"^[A-Z]{2}\Z", "two capital letters")]
_Row: TypeAlias = Annotated[str, like(r"^[ -~]{1,65536}\Z", "words or numbers separated by blanks")]
_Mask: TypeAlias = Annotated[
    str, like(r"^(0x[0-9A-Fa-f]{1,8}|[0-9]{1,10})\Z", "a mask such as 0x1FFFF, or 0 for none")
]
_Tiles: TypeAlias = tuple[Annotated[int, Meta(ge=1, le=256)], Annotated[int, Meta(ge=1, le=256)]]
_Tile: TypeAlias = tuple[Annotated[int, Meta(ge=0, le=255)], Annotated[int, Meta(ge=0, le=255)]]
_Cell: TypeAlias = tuple[Annotated[int, Meta(ge=0, le=999)], Annotated[int, Meta(ge=0, le=999)]]
_Millimetres: TypeAlias = Annotated[float, Meta(ge=-1e4, le=1e4)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SystemEntry(_Entry, frozen=True):
    name: _Text
    axes: tuple[_Text, _Text]
    frame: Literal["segment", "ccd", "raft", "focal_plane"]
    first: Literal["parallel", "serial"]
    comment: _Comment = ""


class ExtensionEntry(_Entry, frozen=True):
    detsec_rows: Literal["up", "down"] = "up"
    raft_pitch: Annotated[float, Meta(ge=0, le=1e7)] = 0.0
    systems: dict[_Letter, SystemEntry] = {}


class SegmentEntry(_Entry, frozen=True):
    amp: _Name
    tile: _Tile
    flip: Literal["none", "x", "y", "xy"] = "none"
    detsec: _Tile | None = None


class DetectorTypeEntry(_Entry, frozen=True):
    vendor: _Text
    ccd_manu: _Text
    ccd_type: _Text
    pixel_um: Annotated[float, Meta(gt=0, le=1000)]
    geometry: Geometry
    tiles: _Tiles
    segments: dict[_Name, SegmentEntry]
    op_flags: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 0
    detsec_tiles: _Tiles | None = None
    chip: ChipConstants | None = None


class StreamEntry(_Entry, frozen=True):
    ccd: Annotated[int, Meta(ge=0, le=255)]
    amps: _Row


class BoardTypeEntry(_Entry, frozen=True):
    source: Kind
    bits: Annotated[int, Meta(ge=1, le=32)]
    xor: _Mask
    stream: list[StreamEntry]


class SlotEntry(_Entry, frozen=True):
    kind: Kind = "science"
    type: _Name | None = None
    cell: _Cell | None = None
    header: _Part | None = None


class BoardEntry(_Entry, frozen=True):
    number: Annotated[int, Meta(ge=0, le=99)]
    type: _Name
    slots: _Row


class RaftLayoutEntry(_Entry, frozen=True):
    slots: dict[_Part, SlotEntry]
    boards: dict[_Name, BoardEntry]


class RaftEntry(_Entry, frozen=True):
    layout: _Name
    bay: _Part
    serial: _Text
    type: _Name | None = None
    cell: _Cell | None = None
    header: _Part | None = None


class DetectorEntry(_Entry, frozen=True):
    id: Annotated[int, Meta(ge=0, le=1_000_000)]
    serial: _Text
    at: tuple[_Millimetres, _Millimetres]
    yaw: Literal[0, 90, 180, 270] = 0


class AmplifierEntry(_Entry, frozen=True):
    gain: _Row
    read_noise: _Row
    saturation: _Row


class CameraEntry(_Entry, frozen=True):
    format: Literal["raftwright-camera/1"]
    name: _Name
    instrume: _Text
    telescop: _Text
    code: _Code
    detector_types: dict[_Name, DetectorTypeEntry]
    board_types: dict[_Name, BoardTypeEntry]
    raft_layouts: dict[_Name, RaftLayoutEntry]
    rafts: dict[_Part, RaftEntry]
    detectors: dict[_Name, DetectorEntry]
    amplifiers: dict[_Name, AmplifierEntry]
    title: _Comment = ""
    aliases: _Comment = ""
    constants: dict[_Keyword, _Text] = {}
    extension: ExtensionEntry = ExtensionEntry()
    wcs_tables: dict[_Name, dict[str, dict[int, _Row]]] = {}


# Known from here on: two threads that are the first to convert to a type at the same time crash msgspec.
msgspec.json.Decoder(CameraEntry, strict=False)


def read_entries(findings: Findings) -> CameraEntry | None:
    """The entries of a document; None if they do not fit, with every misfit noted in its place."""
    value = findings.document.value
    try:
        return msgspec.convert(value, CameraEntry, strict=False)
    except msgspec.ValidationError as error:
        before = len(findings.problems)
        find_misfits(findings, value, CameraEntry, ())
        if len(findings.problems) == before:
            findings.add((), str(error))  # the walk missed it: msgspec's own words are better than none
        return None


def find_misfits(findings: Findings, value: Any, kind: Any, place: Place) -> None:
    """Finds every misfit of a value with a type, entry by entry, so that each has its own place."""
    if findings.full:
        return
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if not isinstance(value, dict):
            findings.add(place, f"{shown(value)} stands where keys belong; write `key: value`")
            return
        fields = msgspec.structs.fields(kind)
        names = [field.encode_name for field in fields]
        for key in value:
            if key not in names and not findings.full:
                findings.add((*place, key), f"unknown key{_near(key, names)}")
        for field in fields:
            key = field.encode_name
            if key in value:
                find_misfits(findings, value[key], field.type, (*place, key))
            elif field.required:
                findings.add(place, f"key {key!r} is missing here; add it")
    elif typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            findings.add(place, f"{shown(value)} stands where names belong; write `name: value`")
            return
        key_kind, value_kind = typing.get_args(kind)
        for key, item in value.items():
            _leaf(findings, key, key_kind, (*place, key))
            find_misfits(findings, item, value_kind, (*place, key))
    elif typing.get_origin(kind) is list and isinstance(value, list):
        for index, item in enumerate(value):
            find_misfits(findings, item, typing.get_args(kind)[0], (*place, index))
    elif typing.get_origin(kind) is tuple and isinstance(value, list):
        parts = typing.get_args(kind)
        if len(value) != len(parts):
            findings.add(place, f"{len(value)} values stand where {len(parts)} belong; mend the list")
        for index, (item, part) in enumerate(zip(value, parts, strict=False)):
            find_misfits(findings, item, part, (*place, index))
    else:
        _leaf(findings, value, kind, place)


def _leaf(findings: Findings, value: Any, kind: Any, place: Place) -> None:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        findings.add(place, f"{shown(value)} does not fit; write {_wanted(kind, str(error))}")


def _wanted(kind: Any, complaint: str) -> str:
    """What belongs in a place, in the words of somebody who writes a camera file."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(kind))
    for pattern, words in _WORDS.items():
        if f"'{pattern}'" in complaint.replace("\\\\", "\\"):
            return words
    wanted = complaint.split(" - at ")[0].split(", got ")[0].removeprefix("Expected ").replace("`", "")
    for word, plain in (
        ("array", "a list"),
        ("int", "a whole number"),
        ("float", "a number"),
        ("str", "text"),
    ):
        wanted = wanted.replace(word, plain)
    return wanted


def _near(key: str, names: list[str]) -> str:
    near = difflib.get_close_matches(key[:40], names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; remove it, or use one of {', '.join(names)}"
