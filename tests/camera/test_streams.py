"""Stream layouts against the decode order of the DAQ and the worked bytes of its description."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import Board, Camera, camera
from raftwright.errors import NotFoundError

needs_core = pytest.mark.skipif(
    importlib.util.find_spec("raftwright._core") is None, reason="the compiled core is not built"
)

BOARDS = [
    (name, location) for name in ("LSSTCam", "LSSTComCam", "LATISS") for location in camera(name).boards
]


def expected_channel(board: Board, auxtel: bool, p: int) -> tuple[str, str]:
    """(slot, segment) of channel p, spelt out from the decode tables of the DAQ and its image writer."""
    k = p % 16
    if auxtel:
        return "S00", f"Segment{'0' if k < 8 else '1'}{k if k < 8 else 15 - k}"
    if board.kind == "science":
        ccd = 2 - p // 16
        return f"S{board.name[-1]}{ccd}", f"Segment{k // 8}{k % 8}"
    if board.kind == "guider":
        return f"SG{1 - p // 16}", f"Segment1{k}" if k < 8 else f"Segment0{15 - k}"
    return f"SW{k // 8}", f"Segment1{k % 8}"


@pytest.mark.parametrize(("name", "location"), BOARDS)
def test_decode_order(name: str, location: str) -> None:
    """D039, D025: science, guider, wavefront and AuxTel boards, each by its own line of the profile."""
    board = camera(name).board(location)
    auxtel = len(board.detectors) == 1
    wanted = 16 * {"science": 3, "guider": 2, "wavefront": 1}[board.kind]
    assert (board.bits, board.channels, board.sample_bytes) == (18, wanted, wanted * 18 // 8)
    assert board.xor_mask == (0x1FFFF if board.kind == "science" else 0x20000)
    assert sorted(board.plane_of) == list(range(wanted))
    for p, plane in enumerate(board.plane_of):
        slot, segment = expected_channel(board, auxtel, p)
        detector = next(d for d in board.detectors if plane in board.planes_of(d))
        found = detector.segments[plane - board.planes_of(detector).start]
        assert (detector.slot, found.name) == (slot, segment)


@pytest.mark.parametrize(
    ("name", "location", "hdu"),
    [
        ("LSSTCam", "22/1", lambda k: 16 - k if k < 8 else k - 7),
        ("LSSTCam", "00/1", lambda k: k + 1),
        ("LSSTCam", "00/0", lambda k: k % 8 + 1),
        ("LATISS", "00/0", lambda k: 16 - k),
    ],
)
def test_channel_to_hdu(name, location, hdu) -> None:
    board = camera(name).board(location)
    for p, plane in enumerate(board.plane_of):
        detector = next(d for d in board.detectors if plane in board.planes_of(d))
        assert plane - board.planes_of(detector).start + 1 == hdu(p % 16)


def pack(board: Board, values: dict[tuple[str, str], int]) -> bytes:
    """One sample, packed bit by bit as the description of the stream says, without the compiled core."""
    bits = 0
    for p, plane in enumerate(board.plane_of):
        detector = next(d for d in board.detectors if plane in board.planes_of(d))
        segment = detector.segments[plane - board.planes_of(detector).start]
        raw = values.get((detector.slot, segment.name), 0) ^ board.xor_mask
        bits |= raw << (board.bits * p)
    return bits.to_bytes(board.sample_bytes, "little")


FOUR = (25000, 25001, 130000, 131073)
OTHER = "a8 61 a6 86 09 bd 7f 00 00"


@pytest.mark.parametrize(
    ("name", "location", "slot", "names", "wanted"),
    [
        ("LSSTCam", "22/1", "S12", "00 01 02 03", "57 9e 59 79 f6 42 80 ff ff"),
        ("LSSTCam", "00/1", "SG1", "10 11 12 13", OTHER),
        ("LSSTCam", "00/0", "SW0", "10 11 12 13", OTHER),
        ("LATISS", "00/0", "S00", "00 01 02 03", OTHER),
    ],
)
def test_worked_bytes(name: str, location: str, slot: str, names: str, wanted: str) -> None:
    board = camera(name).board(location)
    values = {(slot, f"Segment{s}"): v for s, v in zip(names.split(), FOUR, strict=True)}
    assert pack(board, values)[:9] == bytes.fromhex(wanted)


SCIENCE_SAMPLE = bytes.fromhex(
    "0faa39a8d6a01a836a 0baa29a896a01a826a 05aa11a836a09a806a 01aa01a8f69f9a7f6a".replace(" ", "")
)


def science_values(board: Board) -> dict[tuple[str, str], int]:
    return {
        (d.slot, s.name): 20000 + 1000 * int(d.slot[2]) + 10 * int(s.name[-2]) + int(s.name[-1])
        for d in board.detectors
        for s in d.segments
    }


def test_worked_science_sample(lsstcam: Camera) -> None:
    board = lsstcam.board("22/2")
    assert pack(board, science_values(board))[:36] == SCIENCE_SAMPLE


@needs_core
def test_worked_science_sample_through_the_core(lsstcam: Camera) -> None:
    from raftwright import _core

    board = lsstcam.board("22/2")
    assert board.layout is lsstcam.board("01/0").layout  # one layout for all boards of a kind
    planes = np.zeros((48, 1), dtype=np.int32)
    for detector in board.detectors:
        for plane, segment in zip(board.planes_of(detector), detector.segments, strict=True):
            planes[plane] = science_values(board)[detector.slot, segment.name]
    packed, clipped = _core.scramble(board.layout, planes)
    assert clipped == 0
    assert packed[:36] == SCIENCE_SAMPLE
    assert np.array_equal(_core.unpack(board.layout, packed), planes)


@needs_core
@pytest.mark.parametrize(("name", "location"), [*BOARDS[:3], ("LATISS", "00/0"), ("MiniCam", "01/0")])
@given(seed=st.integers(0, 2**32 - 1))
def test_core_agrees_with_packing_by_hand(name: str, location: str, seed: int) -> None:
    from raftwright import _core

    board = camera(name).board(location)
    planes = np.random.default_rng(seed).integers(0, 1 << board.bits, (board.channels, 1), dtype=np.int32)
    values = {}
    for detector in board.detectors:
        for plane, segment in zip(board.planes_of(detector), detector.segments, strict=True):
            values[detector.slot, segment.name] = int(planes[plane, 0])
    assert np.array_equal(_core.unpack(board.layout, pack(board, values)), planes)


def test_minicam_differs_in_everything(minicam: Camera) -> None:
    board = minicam.board("01/0")
    assert (board.bits, board.xor_mask, board.channels, board.sample_bytes) == (16, 0, 8, 16)
    assert [d.name for d in board.detectors] == ["M1_A", "M1_B"]
    assert board.plane_of == (0, 1, 4, 5, 3, 2, 7, 6)  # the CCDs take turns
    sample = pack(board, {("A", "LowerLeft"): 0x0102, ("B", "UpperLeft"): 0xA0B0})
    assert sample == bytes.fromhex("0201" + "0000" * 6 + "b0a0")


def test_planes_of(lsstcam: Camera) -> None:
    board = lsstcam.board("R22/Reb1")
    assert board.location == "22/1"
    assert [board.planes_of(d) for d in board.detectors] == [range(16), range(16, 32), range(32, 48)]
    assert board.planes_of("R22_S11") == range(16, 32)
    corner = lsstcam.board("44/0")
    assert [corner.planes_of(d) for d in corner.detectors] == [range(8), range(8, 16)]
    with pytest.raises(NotFoundError, match="R22_S21"):
        board.planes_of(lsstcam.detector("R22_S21"))
