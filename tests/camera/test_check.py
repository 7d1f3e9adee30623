"""Camera files that contradict themselves, or mean harm: every problem is named with its place."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import raftwright.camera
from raftwright.camera import CameraFileError, camera, camera_names, check_file
from raftwright.camera.document import MAX_PROBLEMS
from raftwright.errors import CameraError

DATA = Path(raftwright.camera.__file__).with_name("data")
MINI = (DATA / "MiniCam.yaml").read_text()

Edit = Callable[[str, str], list[str]]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Problems of MiniCam's file after one piece of text was replaced, as `place: message` without line."""

    def edit(old: str, new: str) -> list[str]:
        assert old in MINI
        path = tmp_path / "edited.yaml"
        path.write_text(MINI.replace(old, new, 1))
        problems = check_file(path)
        for problem in problems:
            assert problem.file == str(path)
            where = f"{path}:{problem.line}: " if problem.line else f"{path}: "
            assert str(problem).startswith(where)
            assert str(problem).isascii()
            assert str(problem).isprintable()
            assert len(str(problem)) < 400 + len(str(path))
        if problems:
            with pytest.raises(CameraError, match=re.escape(str(problems[0]))) as caught:
                camera(path)
            assert isinstance(caught.value, CameraFileError)
            assert caught.value.problems == problems
        return [f"{problem.place}: {problem.message}" for problem in problems]

    return edit


@pytest.mark.parametrize("name", camera_names())
def test_built_in_cameras_are_free_of_problems(name: str) -> None:
    assert check_file(DATA / f"{name}.yaml") == []
    assert camera(name).name == name
    assert camera(DATA / f"{name}.yaml").title == camera(name).title


def test_four_cameras_are_built_in() -> None:
    assert camera_names() == ("LATISS", "LSSTCam", "LSSTComCam", "MiniCam")


CONTRADICTIONS = {
    # identity
    "id twice": ("{id: 1,", "{id: 0,", "detectors.M1_B.id: 0 is that of M1_A too"),
    "serial twice": ("MINI-002", "MINI-001", "detectors.M1_B.serial: 'MINI-001' is that of M1_A"),
    "key twice": ("  M1_B: {id: 1", "  M1_A: {id: 1", "detectors.M1_A: key 'M1_A' stands here twice"),
    "amplifier twice": ("amp: LR", "amp: LL", "segments.LowerRight: name 'LL' is also that of LowerLeft"),
    "file name twice": (
        "B: {}",
        "B: {header: A}",
        "detectors.M1_B: its files would be named M1_A as those of M1_A",
    ),
    "location twice": (
        "serial: PLATE-1}",
        "serial: PLATE-1}\n  M2: {bay: 01, layout: plate, type: Mini-4, serial: PLATE-2}",
        "there is no line for M2_A",
    ),
    # streams
    "permutation": (
        "{ccd: 1, amps: UR UL}",
        "{ccd: 1, amps: UR UR}",
        "stream[3]: amplifier 'UR' of CCD 1 comes twice",
    ),
    "missing channel": (
        "amps: UR UL}\n      - {ccd: 1, amps: UR UL",
        "amps: UR UL}\n      - {ccd: 1, amps: UR",
        "boards.Box: no channel of board type Box reads amplifier UL of CCD 1 (Mini-4)",
    ),
    "foreign channel": (
        "{ccd: 1, amps: UR UL}",
        "{ccd: 1, amps: UR UL XX}",
        "CCD 1 (Mini-4) has no amplifier 'XX', which board type Box reads",
    ),
    "ccd left out": (
        "- {ccd: 1, amps: LL LR}",
        "- {ccd: 2, amps: LL LR}",
        "slots: board type Box reads 3 CCDs, but the slots here are 2",
    ),
    "xor too wide": ("xor: 0", "xor: 0x10000", "board_types.Box.xor: 0x10000 does not fit into 16 bits"),
    "xor not a number": ("xor: 0", "xor: -1", "board_types.Box.xor: '-1' does not fit"),
    "bits": ("bits: 16", "bits: 33", "board_types.Box.bits: '33' does not fit; write a whole number <= 32"),
    "kind": (
        "source: science",
        "source: camera",
        "board_types.Box.source: 'camera' does not fit; write science or guider or wavefront",
    ),
    # sizes
    "no columns": ("columns: 128", "columns: 0", "detector_types.Mini-4.geometry.columns: '0' does not fit"),
    "absurd columns": (
        "columns: 128",
        "columns: 99999999999",
        "geometry.columns: '99999999999' does not fit",
    ),
    "too wide": (
        "columns: 128, overscan: 16",
        "columns: 65000, overscan: 65000",
        "geometry: a segment of 130004 x 104",
    ),
    "NaN pixel": ("pixel_um: 15", "pixel_um: .nan", "detector_types.Mini-4.pixel_um: '.nan' does not fit"),
    "nan pixel": ("pixel_um: 15", "pixel_um: nan", "detector_types.Mini-4.pixel_um: 'nan' does not fit"),
    "nan position": ("[-2.1, 0]", "[nan, 0]", "detectors.M1_A.at[0]: "),
    "infinite position": ("[-2.1, 0]", "[inf, 0]", "detectors.M1_A.at[0]: "),
    "far away": ("[-2.1, 0]", "[-2e9, 0]", "detectors.M1_A.at[0]: "),
    "yaw": ("yaw: 180", "yaw: 45", "detectors.M1_B.yaw: '45' does not fit; write 0 or 90 or 180 or 270"),
    "overlap": ("at: [2.1, 0]", "at: [1.7, 0]", "detectors.M1_B.at: it lies on M1_A"),
    "tile taken": (
        "tile: [1, 0], flip: x}",
        "tile: [0, 0], flip: x}",
        "segments.LowerRight.tile: (0, 0) is taken by LowerLeft",
    ),
    "tile outside": (
        "tile: [1, 0], flip: x}",
        "tile: [2, 0], flip: x}",
        "segments.LowerRight.tile: (2, 0) is outside 2 x 2 tiles",
    ),
    "tiles empty": ("tiles: [2, 2]", "tiles: [3, 2]", "tiles: 4 segments do not fill 3 x 2 tiles"),
    "flip": ("flip: xy", "flip: yx", "segments.UpperRight.flip: 'yx' does not fit"),
    "three coordinates": ("[-2.1, 0]", "[-2.1, 0, 1]", "detectors.M1_A.at: 3 values stand where 2 belong"),
    # amplifiers
    "gain": ("gain: 1.5 1.52", "gain: 0 1.52", "amplifiers.M1_A.gain: '0' cannot be; it must be more than 0"),
    "nan gain": ("gain: 1.5 1.52", "gain: nan 1.52", "amplifiers.M1_A.gain: 'nan' cannot be"),
    "negative noise": (
        "read_noise: 4,",
        "read_noise: -4,",
        "amplifiers.M1_A.read_noise: '-4' cannot be; it must be 0 or more",
    ),
    "too few": (
        "gain: 1.5 1.52 1.48 1.51",
        "gain: 1.5 1.52 1.48",
        "amplifiers.M1_A.gain: 3 numbers for 4 segments",
    ),
    "not numbers": (
        "gain: 1.5 1.52",
        "gain: 1.5 one",
        "amplifiers.M1_A.gain: '1.5 one 1.48 1.51' is not a row of numbers",
    ),
    # references
    "no layout": (
        "layout: plate",
        "layout: plane",
        "rafts.M1.layout: there is no raft layout 'plane'; known here: plate",
    ),
    "no type": ("type: Mini-4", "type: Mini-5", "rafts.M1.type: there is no detector type 'Mini-5'"),
    "type nowhere": (", type: Mini-4", "", "rafts.M1: slot A has no detector type"),
    "no board type": ("type: Box", "type: Bax", "boards.Box.type: there is no board type 'Bax'"),
    "unknown slot": ("slots: A B", "slots: A C", "boards.Box.slots: 'C' is not a slot of this layout"),
    "slot twice": ("slots: A B", "slots: A A", "boards.Box.slots: A is read by Box too"),
    "idle slot": ("slots: A B", "slots: A", "raft_layouts.plate.slots.B: no board reads this slot"),
    "no line": (
        "  M1_B: {id: 1, serial: MINI-002, at: [2.1, 0], yaw: 180}\n",
        "",
        "detectors: there is no line for M1_B",
    ),
    "a line too many": (
        "  M1_A: {id: 0",
        "  M9_A: {id: 7, serial: X, at: [50, 0]}\n  M1_A: {id: 0",
        "detectors.M9_A: no raft has such a slot",
    ),
    "frame": ("frame: ccd", "frame: raft", "detectors.M1_A: its slot has no `cell`"),
    "chip": ("frame: ccd", "frame: focal_plane", "detector_types.Mini-4: `chip` is missing"),
    # hostile names and values
    "separator in a raft": (
        "  M1: {bay",
        "  ../M1: {bay",
        "rafts.../M1: '../M1' does not fit; write letters and digits only",
    ),
    "separator in a slot": (
        "      A: {}",
        "      a/b: {}",
        "raft_layouts.plate.slots.a/b: 'a/b' does not fit",
    ),
    "separator in a header name": ("A: {}", "A: {header: ../../x}", "slots.A.header: '../../x' does not fit"),
    "dots": ("layout: plate", "header: .., layout: plate", "rafts.M1.header: '..' does not fit"),
    "separator in a bay": ("bay: 01", "bay: 0/1", "rafts.M1.bay: '0/1' does not fit"),
    "not ASCII": ("serial: MINI-001", "serial: MINI-é", "detectors.M1_A.serial: 'MINI-\\xe9' does not fit"),
    "not ASCII key": ("  M1_A: {id: 0", "  M1_Ä: {id: 0", "detectors.'M1_\\xc4': 'M1_\\xc4' does not fit"),
    "control character": (
        "serial: MINI-001",
        'serial: "MINI\\n001"',
        "detectors.M1_A.serial: 'MINI\\n001' does not fit",
    ),
    "trailing newline": ("code: MN", 'code: "MN\\n"', "code: 'MN\\n' does not fit"),
    "endless text": ("telescop: Made-up", "telescop: " + "x" * 100_000, "telescop: 'xxxxx"),
    "unknown key": (
        "telescop:",
        "telescope: x\ntelescop:",
        "telescope: unknown key; did you mean 'telescop'?",
    ),
    "missing key": ("telescop: Made-up Telescope\n", "", "key 'telescop' is missing here"),
    "list for mapping": (
        "amplifiers:\n",
        "amplifiers: [x]\nother:\n",
        "amplifiers: a list stands where names belong",
    ),
    "text for mapping": (
        "geometry: {prescan: 4, columns: 128, overscan: 16, rows: 96, parallel_overscan: 8}",
        "geometry: big",
        "geometry: 'big' stands where keys belong",
    ),
    "structural constant": (
        "code: MN",
        "code: MN\nconstants: {NAXIS1: 7}",
        "constants.NAXIS1: this card is not the camera's",
    ),
    "derived constant": (
        "code: MN",
        "code: MN\nconstants: {INSTRUME: x}",
        "constants.INSTRUME: this card is not",
    ),
    "keyword": ("code: MN", "code: MN\nconstants: {lower: x}", "constants.lower: 'lower' does not fit"),
    "format": ("raftwright-camera/1", "raftwright-camera/2", "format: 'raftwright-camera/2' does not fit"),
    "table of nothing": (
        "amplifiers:\n",
        "wcs_tables:\n  M1_A: {D: {0: -x 1 0 -y 1 0}}\namplifiers:\n",
        "wcs_tables.M1_A: system 'C' is missing",
    ),
    "table row": (
        "amplifiers:\n",
        "wcs_tables:\n  M1_A: {C: {0: -x 1 0 -x 1 0, 1: -x 1 0 -y 1 0}}\namplifiers:\n",
        "wcs_tables.M1_A.C.0: '-x 1 0 -x 1 0' does not fit",
    ),
    "table rows": (
        "amplifiers:\n",
        "wcs_tables:\n  M1_A: {C: {0: -x 1 0 -y 1 0}}\namplifiers:\n",
        "wcs_tables.M1_A.C: the rows of segments are 0, 1",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_named_with_their_place(what: str, edited: Edit) -> None:
    """D039: also an order of channels that is no permutation."""
    old, new, message = CONTRADICTIONS[what]
    problems = edited(old, new)
    assert any(message in problem for problem in problems), problems


def test_samples_fill_whole_bytes(tmp_path: Path) -> None:
    text = MINI.replace("bits: 16", "bits: 13").replace(
        "- {ccd: 1, amps: UR UL}", "- {ccd: 1, amps: UR UL ZZ}"
    )
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert any("9 channels of 13 bits do not fill whole bytes" in str(p) for p in check_file(path))


def test_one_location_for_two_boards(tmp_path: Path) -> None:
    text = MINI.replace(
        "serial: PLATE-1}", "serial: PLATE-1}\n  M2: {bay: 01, layout: plate, type: Mini-4, serial: P}"
    )
    text = text.replace(
        "amplifiers:\n",
        "  M2_A: {id: 5, serial: Q, at: [20, 0]}\n  M2_B: {id: 6, serial: R, at: [30, 0]}\namplifiers:\n",
    )
    text += (
        "  M2_A: {gain: 1, read_noise: 1, saturation: 1}\n  M2_B: {gain: 1, read_noise: 1, saturation: 1}\n"
    )
    path = tmp_path / "two.yaml"
    path.write_text(text)
    (problem,) = check_file(path)
    assert (problem.place, problem.message) == (
        "rafts.M2.bay",
        "location 01/0 is that of M1/Box too; change one bay",
    )
    assert text.splitlines()[problem.line - 1].startswith("  M2: {bay")


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.yaml"
    text = MINI.replace("gain: 1.6 1.61", "gain: -1 1.61").replace("columns: 128", "columns: x")
    path.write_text(text)
    (problem,) = check_file(path)  # types first: a file that does not read is not looked into
    assert "columns: x" in text.splitlines()[problem.line - 1]
    path.write_text(text.replace("columns: x", "columns: 128"))
    (problem,) = check_file(path)
    assert "gain: -1" in text.splitlines()[problem.line - 1]


def test_all_problems_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    lines = "".join(f"  X{i}: {{id: a, serial: s, at: [0, 0], extra: 1}}\n" for i in range(1000))
    path.write_text(MINI.replace("amplifiers:\n", lines + "amplifiers:\n"))
    started = time.perf_counter()
    problems = check_file(path)
    assert len(problems) == MAX_PROBLEMS
    assert time.perf_counter() - started < 10
    with pytest.raises(CameraError, match=r"\(and at least 199 more\)"):
        camera(path)
