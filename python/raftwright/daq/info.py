"""What the DAQ tells about an image and its sources, and its JSON form `image.json` (recording format 1)."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.camera import Board, Kind
from raftwright.daq.names import check_plain_name
from raftwright.daq.registers import UNKNOWN, Registers
from raftwright.errors import CameraError, FormatError

__all__ = [
    "FORMAT",
    "MAX_DOCUMENT_BYTES",
    "ImageInfo",
    "SourceInfo",
    "check_source",
    "decode_description",
    "decode_info",
    "describe",
    "encode_info",
]

FORMAT = "raftwright-recording/1"
MAX_DOCUMENT_BYTES = 16 << 20

_Text: TypeAlias = Annotated[str, Meta(max_length=1024, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
_Hex64: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{0,16}\Z")]
_Crc: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{8}\Z")]
_Location: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z]{1,16}/[0-9A-Za-z]{1,16}\Z")]
_Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=2**50)]
_TIMESTAMP = re.compile(r"\A([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?\Z")
_MAX_SOURCES = 4096


class SourceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One source of an image: a board's stream, as the DAQ describes it."""

    location: str
    """DAQ location, e.g. `22/0`."""
    kind: Kind
    """The DAQ's own type of the source."""
    registers: Registers
    bytes: int
    """Length of the complete stream."""
    file: str = ""
    """Name of its file in a recording; may be empty before there is one."""
    crc32c: str | None = None
    """CRC-32C of the stream, 8 hex digits; None where nobody has read it all yet."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Byte ranges [begin, end) that never arrived: ordered, apart, within the stream. A recording has
    filling bytes there, which mean nothing."""
    firmware: str = ""
    """Hexadecimal, up to 32 bits; empty where unknown."""
    serial: str = ""
    """Hexadecimal, up to 64 bits; empty where unknown."""
    platform: str = ""
    software: str = ""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Keys of image.json that this version does not know; kept as they came."""


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the DAQ describes it."""

    name: str
    """E.g. `MC_O_20261122_000123`; a plain file name."""
    camera: str
    """Name of the camera that took it."""
    sources: tuple[SourceInfo, ...]
    folder: str = "raw"
    annotation: str = ""
    opcode: int = 0
    id: str = ""
    """Hexadecimal, 64 bits; empty where unknown."""
    timestamp: str = ""
    """When it was taken: TAI, ISO 8601 with up to nine decimals; empty where unknown."""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Keys of image.json that this version does not know; kept as they came."""

    @property
    def locations(self) -> tuple[str, ...]:
        """Locations of the sources, in their order."""
        return tuple(source.location for source in self.sources)


_DELIVERED = "registersDelivered"


class _SourceDocument(msgspec.Struct):
    location: _Location
    kind: Kind
    file: _Name
    bytes: _Bytes
    crc32c: _Crc
    registers: list[int]
    firmware: _Hex64 = ""
    serial: _Hex64 = ""
    platform: _Text = ""
    software: _Text = ""
    gaps: Annotated[list[tuple[_Bytes, _Bytes]], Meta(max_length=1_000_000)] = []


class _ImageDocument(msgspec.Struct):
    format: Literal["raftwright-recording/1"]
    name: _Name
    camera: _Name
    sources: Annotated[list[_SourceDocument], Meta(max_length=_MAX_SOURCES)]
    folder: _Name = "raw"
    annotation: _Text = ""
    opcode: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    id: _Hex64 = ""
    timestamp: Annotated[str, Meta(max_length=64)] = ""


# Known from here on: two threads that are the first to convert to a type at the same time crash msgspec.
msgspec.json.Decoder(_ImageDocument)


def check_source(info: SourceInfo, board: Board) -> int:
    """Bytes of a source's complete stream, after making sure that its description agrees with the board's.

    Raises CameraError if the board is not of the kind that the source is, FormatError if the registers
    are not known or contradict the byte count.
    """
    if info.kind != board.kind:
        raise CameraError(
            f"source {info.location} is of kind {info.kind}, but the camera has a {board.kind} board there "
            f"({board.path}); name the camera that took the image"
        )
    if info.registers == UNKNOWN:
        said = ascii(info.extra.get(_DELIVERED, "none"))[1:-1][:300]
        raise FormatError(
            f"source {info.location}: its registers are not known, so its geometry is not ({said}); "
            "give those that it was read out with"
        )
    expected = info.registers.pixels * board.sample_bytes
    if info.bytes != expected:
        raise FormatError(
            f"source {info.location}: its registers say {info.registers.width} x {info.registers.height} "
            f"samples of {board.sample_bytes} bytes, which is {expected} bytes, but the stream has "
            f"{info.bytes}; it is damaged, or another camera's"
        )
    return expected


def decode_info(data: bytes, where: str) -> ImageInfo:
    """Reads an image.json; `where` names it in errors. Unknown keys are kept. Raises FormatError."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise FormatError(f"{where}: {len(data)} bytes; a description has at most {MAX_DOCUMENT_BYTES}")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not readable as JSON ({_short(error)}); the file is damaged") from None
    found = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or found is None:
        raise FormatError(f'{where}: not a recording; its image.json begins with {{"format": "{FORMAT}"')
    if found != FORMAT:
        shown = ascii(found)[:40]
        raise FormatError(
            f"{where}: the format is {shown}, but this version reads {FORMAT} only; use one that knows it"
        )
    return _validated(raw, where)


def encode_info(info: ImageInfo) -> bytes:
    """The image.json of an image whose sources all have a file and a CRC. Raises FormatError."""
    document = _as_document(info)
    where = f"image {ascii(info.name)[:60]}"
    try:
        data = msgspec.json.encode(document)
        if _validated(msgspec.json.decode(data), where) != info:
            raise FormatError(
                f"{where}: its description does not survive as JSON; use plain values in `extra`"
            )
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{where}: its description is no JSON ({_short(error)}); use plain values"
        ) from None
    return _laid_out(document)


def describe(info: ImageInfo) -> dict[str, Any]:
    """An image as the keys of image.json, also where CRCs are unknown (null): for the stream protocol.

    Sources without a file get the name that they would have in a recording.
    """
    document = _as_document(info)
    for source in document["sources"]:
        source["file"] = source["file"] or source["location"].replace("/", "-") + ".raw"
    return document


def decode_description(document: Mapping[str, Any], where: str) -> ImageInfo:
    """What `describe` made, checked like an image.json; CRCs may be null. Raises FormatError.

    Registers that are absent, or that no readout can have, are those of one source: it gets `UNKNOWN`, which
    `check_source` refuses, with what came as `registersDelivered` in its `extra`. The others are as they are.
    """
    entries = document.get("sources")
    unknown: set[int] = set()
    if isinstance(entries, list):
        sources = [
            _with_known_shape(entry) if isinstance(entry, dict) else entry for entry in entries[:_MAX_SOURCES]
        ] + entries[_MAX_SOURCES:]
        for number, entry in enumerate(sources):
            if isinstance(entry, dict) and entry.get("crc32c") is None:
                sources[number] = {**entry, "crc32c": "00000000"}
                unknown.add(number)
        document = {**document, "sources": sources}
    info = _validated(dict(document), where)
    if not unknown:
        return info
    return msgspec.structs.replace(
        info,
        sources=tuple(
            msgspec.structs.replace(source, crc32c=None) if n in unknown else source
            for n, source in enumerate(info.sources)
        ),
    )


def _with_known_shape(entry: dict[str, Any]) -> dict[str, Any]:
    given = entry.get("registers")
    try:
        Registers.parse(given)  # type: ignore[arg-type]
    except FormatError as error:
        said = f"{ascii(given)[:200]}: {error}"
        return {**entry, "registers": UNKNOWN.as_list(), _DELIVERED: said}
    return entry


def _laid_out(document: dict[str, Any]) -> bytes:
    """A line a key and a line a source: for eyes and for diffs."""
    lines = []
    for key, value in document.items():
        text = msgspec.json.encode(value)
        if key == "sources" and value:
            text = b"[\n    " + b",\n    ".join(msgspec.json.encode(source) for source in value) + b"\n  ]"
        lines.append(b"  " + msgspec.json.encode(key) + b": " + text)
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def _as_document(info: ImageInfo) -> dict[str, Any]:
    sources = []
    for source in info.sources:
        entry: dict[str, Any] = {
            "location": source.location,
            "kind": source.kind,
            "file": source.file,
            "bytes": source.bytes,
            "crc32c": source.crc32c,
            "registers": source.registers.as_list(),
            "firmware": source.firmware,
            "serial": source.serial,
            "platform": source.platform,
            "software": source.software,
        }
        if source.gaps:
            entry["gaps"] = source.gaps
        sources.append(_with_extra(entry, source.extra, _SourceDocument))
    document = {
        "format": FORMAT,
        "name": info.name,
        "camera": info.camera,
        "folder": info.folder,
        "annotation": info.annotation,
        "opcode": info.opcode,
        "id": info.id,
        "timestamp": info.timestamp,
        "sources": sources,
    }
    return _with_extra(document, info.extra, _ImageDocument)


def _with_extra(
    document: dict[str, Any], extra: Mapping[str, Any], known: type[msgspec.Struct]
) -> dict[str, Any]:
    for key in extra:
        if key in known.__struct_fields__:
            raise FormatError(
                f"extra key {ascii(key)[:40]} is one of the format's own; set that field instead"
            )
    return {**document, **extra}


def _validated(raw: dict[str, Any], where: str) -> ImageInfo:
    try:
        document = msgspec.convert(raw, _ImageDocument)
    except msgspec.ValidationError as error:
        raise FormatError(f"{where}: {_short(error)}; correct it or record the image again") from None
    try:
        for what, name in (("name", document.name), ("camera", document.camera), ("folder", document.folder)):
            check_plain_name(what, name)
        _check_timestamp(document.timestamp)
        sources = tuple(
            _source_info(entry, extra) for entry, extra in zip(document.sources, raw["sources"], strict=True)
        )
        for what, names in (("location", [s.location for s in sources]), ("file", [s.file for s in sources])):
            twice = next((name for name, count in Counter(names).items() if count > 1), None)
            if twice is not None:
                raise FormatError(f"{what} {twice!r} is given to more than one source; each has its own")
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    return ImageInfo(
        name=document.name,
        camera=document.camera,
        sources=sources,
        folder=document.folder,
        annotation=document.annotation,
        opcode=document.opcode,
        id=document.id,
        timestamp=document.timestamp,
        extra={key: value for key, value in raw.items() if key not in _ImageDocument.__struct_fields__},
    )


def _source_info(entry: _SourceDocument, raw: dict[str, Any]) -> SourceInfo:
    place = f"source {entry.location}"
    check_plain_name(f"{place}: file", entry.file)
    if entry.file == "image.json":
        raise FormatError(f"{place}: its file is image.json, the description itself; name its own")
    try:
        registers = Registers.parse(entry.registers)
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from None
    reached = -1
    for begin, end in entry.gaps:
        if not reached < begin < end <= entry.bytes:
            raise FormatError(
                f"{place}: gap [{begin}, {end}) is empty, out of order, touches the one before it or ends "
                f"beyond the stream's {entry.bytes} bytes; list each missing range once, in order"
            )
        reached = end
    return SourceInfo(
        location=entry.location,
        kind=entry.kind,
        registers=registers,
        bytes=entry.bytes,
        file=entry.file,
        crc32c=entry.crc32c,
        gaps=tuple(entry.gaps),
        firmware=entry.firmware,
        serial=entry.serial,
        platform=entry.platform,
        software=entry.software,
        extra={key: value for key, value in raw.items() if key not in _SourceDocument.__struct_fields__},
    )


def _check_timestamp(text: str) -> None:
    if not text:
        return
    match = _TIMESTAMP.match(text)
    try:
        if match is None:
            raise ValueError
        datetime.datetime.fromisoformat(match[1])
    except ValueError:
        raise FormatError(
            f"timestamp {ascii(text)[:40]} is no time; give TAI as 2026-11-22T03:04:05.678, or nothing"
        ) from None


def _short(error: BaseException) -> str:
    text = ascii(str(error))[1:-1] or type(error).__name__
    return text if len(text) <= 220 else f"{text[:120]} .. {text[-100:]}"  # the place stands at the end
