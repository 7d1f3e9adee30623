"""image.json: what is read, what is kept, what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import Camera, camera
from raftwright.daq import ImageInfo, Registers, SourceInfo, check_source, simulate_image
from raftwright.daq.info import FORMAT, MAX_DOCUMENT_BYTES, decode_info, encode_info
from raftwright.errors import CameraError, FormatError

EXAMPLE: dict[str, Any] = {
    "format": "raftwright-recording/1",
    "name": "MC_O_20261122_000123",
    "camera": "LSSTCam",
    "folder": "raw",
    "annotation": "",
    "opcode": 0,
    "id": "1f2e3d4c5b6a7988",
    "timestamp": "2026-11-22T03:04:05.678901234",
    "sources": [
        {
            "location": "22/0",
            "kind": "science",
            "file": "22-0.raw",
            "bytes": 127401984,
            "crc32c": "0123abcd",
            "registers": [10, 0, 512, 0, 0, 54, 0, 2002, 0, 46, 2],
            "firmware": "31385006",
            "serial": "189216ee",
            "platform": "lsstcam",
            "software": "R5-V7.1",
        }
    ],
}


def read(document: Any) -> ImageInfo:
    return decode_info(json.dumps(document).encode(), "r/image.json")


def with_source(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(EXAMPLE)
    document["sources"][0].update(changes)
    return document


def test_the_documented_example() -> None:
    info = read(EXAMPLE)
    assert info.name == "MC_O_20261122_000123"
    assert info.camera == "LSSTCam"
    assert info.timestamp == "2026-11-22T03:04:05.678901234"
    assert info.locations == ("22/0",)
    (source,) = info.sources
    assert source.kind == "science"
    assert source.bytes == 127401984
    assert source.registers.as_list() == EXAMPLE["sources"][0]["registers"]
    assert check_source(source, camera("LSSTCam").board("22/0")) == 127401984
    assert json.loads(encode_info(info)) == EXAMPLE


def test_a_line_a_key_and_a_line_a_source() -> None:
    lines = encode_info(read(EXAMPLE)).decode().splitlines()
    assert len(lines) == 1 + 8 + 3 + 1
    assert lines[1] == f'  "format": "{FORMAT}",'
    assert lines[10].startswith('    {"location":"22/0"')


def test_unknown_keys_are_kept() -> None:
    document = with_source(temperature=-99.5, nested={"a": [1, None, True]})
    document["observer"] = "ünïcode ✓"
    document["list"] = [1, 2, {"x": "y"}]
    info = read(document)
    assert info.extra == {"observer": "ünïcode ✓", "list": [1, 2, {"x": "y"}]}
    assert info.sources[0].extra == {"temperature": -99.5, "nested": {"a": [1, None, True]}}
    assert json.loads(encode_info(info)) == document


def test_what_may_be_left_out() -> None:
    document = copy.deepcopy(EXAMPLE)
    for key in ("folder", "annotation", "opcode", "id", "timestamp"):
        del document[key]
    for key in ("firmware", "serial", "platform", "software"):
        del document["sources"][0][key]
    info = read(document)
    assert (info.folder, info.annotation, info.opcode, info.id, info.timestamp) == ("raw", "", 0, "", "")
    assert info.sources[0].software == ""


words = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40)
names = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,30}[A-Za-z0-9_]\Z")
hexes = st.integers(0, 2**64 - 1).map(lambda n: f"{n:x}") | st.just("")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
extras = st.dictionaries(words.map(lambda text: f"x-{text}"), values, max_size=3)


@st.composite
def infos(draw: st.DrawFn) -> ImageInfo:
    sources = []
    for number in range(draw(st.integers(0, 4))):
        size = draw(st.integers(0, 2**50))
        edges = sorted(draw(st.sets(st.integers(0, min(size, 10**6)), max_size=6)))
        gaps = tuple(zip(edges[0::2], edges[1::2], strict=False))
        sources.append(
            SourceInfo(
                location=f"{number:02d}/{draw(st.integers(0, 3))}",
                kind=draw(st.sampled_from(["science", "guider", "wavefront"])),
                registers=Registers.parse(draw(st.lists(st.integers(1, 99), min_size=10, max_size=16))),
                bytes=size,
                file=f"{number}{draw(names)}",
                crc32c=f"{draw(st.integers(0, 2**32 - 1)):08x}",
                gaps=gaps,
                firmware=draw(hexes),
                serial=draw(hexes),
                platform=draw(words),
                software=draw(words),
                extra=draw(extras),
            )
        )
    return ImageInfo(
        name=draw(names),
        camera=draw(names),
        sources=tuple(sources),
        folder=draw(names),
        annotation=draw(words),
        opcode=draw(st.integers(0, 2**32 - 1)),
        id=draw(hexes),
        timestamp=draw(st.datetimes().map(lambda moment: moment.isoformat())),
        extra=draw(extras),
    )


@given(info=infos())
def test_descriptions_survive(info: ImageInfo) -> None:
    assert decode_info(encode_info(info), "it") == info


HOSTILE_NAMES = [
    *("", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "nul\0", "line\nbreak", "\x1b[2J", "ünïcode"),
    *(" a", "a ", ".hidden", "x" * 201, "x" * 10_000_000, 5, None, [], "\u202eabc"),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:12])
@pytest.mark.parametrize("key", ["name", "camera", "folder", "file"])
def test_names_must_be_plain(key: str, name: Any) -> None:
    document = with_source(file=name) if key == "file" else {**EXAMPLE, key: name}
    with pytest.raises(FormatError) as caught:
        read(document)
    message = str(caught.value)
    assert message.startswith("r/image.json: ")
    assert len(message) < 400
    assert message.isprintable()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "not a recording"),
        ([], "not a recording"),
        ({}, "not a recording"),
        ({**EXAMPLE, "format": "raftwright-recording/2"}, "raftwright-recording/2"),
        ({**EXAMPLE, "format": 1}, "reads raftwright-recording/1 only"),
        ({**EXAMPLE, "format": "x" * 10**6}, "reads raftwright-recording/1 only"),
        ({**EXAMPLE, "sources": None}, r"\$\.sources"),
        ({**EXAMPLE, "sources": [None]}, r"\$\.sources\[0\]"),
        ({**EXAMPLE, "sources": EXAMPLE["sources"] * 2}, "location '22/0' is given to more than one"),
        ({**EXAMPLE, "sources": EXAMPLE["sources"] * 5000}, "4096"),
        ({**EXAMPLE, "timestamp": "yesterday"}, "timestamp 'yesterday' is no time"),
        ({**EXAMPLE, "timestamp": "2026-13-22T03:04:05"}, "is no time"),
        ({**EXAMPLE, "timestamp": "2026-11-22T03:04:05Z"}, "is no time"),
        ({**EXAMPLE, "timestamp": "2026-11-22T03:04:05.1234567891"}, "is no time"),
        ({**EXAMPLE, "timestamp": "\u0662026-11-22T03:04:05"}, "is no time"),
        ({**EXAMPLE, "opcode": -1}, r"\$\.opcode"),
        ({**EXAMPLE, "opcode": 10**400}, r"opcode"),
        ({**EXAMPLE, "opcode": True}, r"\$\.opcode"),
        ({**EXAMPLE, "id": "0x12"}, r"\$\.id"),
        ({**EXAMPLE, "id": "1" * 17}, r"\$\.id"),
        ({**EXAMPLE, "annotation": "two\nlines"}, r"\$\.annotation"),
        ({**EXAMPLE, "annotation": "x" * 10_000_000}, r"\$\.annotation"),
        (with_source(location="22"), r"\$\.sources\[0\]\.location"),
        (with_source(location="../0"), r"location"),
        (with_source(location="22/0\n"), r"location"),
        (with_source(kind="x" * 100_000), r"\$\.sources\[0\]\.kind"),
        (with_source(bytes=-1), r"bytes"),
        (with_source(bytes=2**60), r"bytes"),
        (with_source(bytes=1.5), r"bytes"),
        (with_source(bytes="12"), r"bytes"),
        (with_source(crc32c="123"), r"crc32c"),
        (with_source(crc32c=None), r"crc32c"),
        (with_source(registers=[1, 2, 3]), "source 22/0: registers: 3 values"),
        (with_source(registers=[2**31] * 11), "source 22/0: registers: a segment of"),
        (with_source(registers="10"), r"registers"),
        (with_source(file="image.json"), "image.json, the description itself"),
        (with_source(gaps=[[5, 5]]), "gap"),
        (with_source(gaps=[[0, 127401985]]), "gap"),
        (with_source(gaps=[[0, 5], [5, 9]]), "gap"),
        (with_source(gaps=[[10, 20], [0, 5]]), "gap"),
        (with_source(gaps=[[-1, 5]]), "gap"),
        (with_source(gaps=[[1, 2, 3]]), "gap"),
        (with_source(gaps="0"), "gap"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_bad_documents(document: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        read(document)
    assert str(caught.value).startswith("r/image.json: ")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe{}",
        b'{"format": "\\ud800"}',
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": ' + b"9" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        json.dumps(EXAMPLE).encode()[:-1],
        json.dumps(EXAMPLE).encode() + b"}",
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
    ids=range(13),
)
def test_bad_json(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        decode_info(data, "r/image.json")
    assert str(caught.value).startswith("r/image.json: ")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a/b"},
        {"name": "\ud800"},
        {"extra": {"name": "again"}},
        {"extra": {"x": {1, 2}}},
        {"extra": {"x": (1, 2)}},
        {"extra": {"x": float("nan")}},
        {"extra": {"x": object()}},
        {"annotation": None},
        {"opcode": "0"},
    ],
    ids=lambda changes: ascii(changes)[:30],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any]) -> None:
    info = msgspec.structs.replace(read(EXAMPLE), **changes)
    with pytest.raises(FormatError) as caught:
        encode_info(info)
    assert len(str(caught.value)) < 500


def test_a_source_without_crc_is_no_recording() -> None:
    info = read(EXAMPLE)
    unread = tuple(msgspec.structs.replace(source, crc32c=None) for source in info.sources)
    with pytest.raises(FormatError, match="crc32c"):
        encode_info(msgspec.structs.replace(info, sources=unread))


def test_sources_are_checked_against_the_board(comcam: Camera) -> None:
    source = simulate_image(comcam, "CC_O_20261122_000001").info.sources[0]
    board = comcam.board(source.location)
    assert check_source(source, board) == source.registers.pixels * 108 == source.bytes
    for wrong in (source.bytes - 1, source.bytes + 1, 0, source.bytes * 2):
        with pytest.raises(FormatError, match=f"576 x 2048 .* 127401984 bytes, but the stream has {wrong};"):
            check_source(msgspec.structs.replace(source, bytes=wrong), board)
    smaller = msgspec.structs.replace(source.registers, read_rows=1999)
    with pytest.raises(FormatError, match="source 22/0: its registers say 576 x 2047"):
        check_source(msgspec.structs.replace(source, registers=smaller), board)
    with pytest.raises(CameraError, match=r"kind guider.*science board there \(R22/Reb0\)"):
        check_source(msgspec.structs.replace(source, kind="guider"), board)
