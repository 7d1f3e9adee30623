"""The built-in cameras against LSST's own tables, row by row."""

from __future__ import annotations

import collections
import re
from pathlib import Path

import pytest

from raftwright.camera import Camera, camera, camera_by_instrume
from raftwright.errors import NotFoundError

KINDS = {"SCIENCE": "science", "GUIDER": "guider", "WAVEFRONT": "wavefront"}


def test_every_detector_of_the_table(detector_rows: list[dict[str, str]]) -> None:
    assert len(detector_rows) == 215
    for row in detector_rows:
        cam = camera(row["instrument"])
        found = cam.detector(f"{row['raft']}_{row['sensor']}")
        board = cam.board(row["daq_location"])
        assert found is cam.detector(int(row["detector"]))
        assert (found.raft, found.slot, found.id) == (row["raft"], row["sensor"], int(row["detector"]))
        assert (found.type.vendor, found.kind) == (row["vendor"], KINDS[row["type"]])
        assert (found.serial, found.raft_serial) == (row["serial"], row["raft_serial"])
        assert (found.type.ccd_manu, found.type.ccd_type) == (row["ccd_manu"], row["ccd_type"])
        assert (found.x_mm, found.y_mm) == (float(row["x_mm"]), float(row["y_mm"]))
        assert found.yaw_deg == float(row["yaw_deg"])
        assert found.header_raft == row["raftbay_hdr"]
        assert found.file_stem == f"{row['raftbay_hdr']}_{row['sensor']}"
        assert cam.detector(found.file_stem) is found
        assert len(found.segments) == int(row["fits_image_hdus"])
        assert (board.name, found.board, found.location) == (row["reb"], row["reb"], row["daq_location"])
        assert found in board.detectors
        assert _stream_rank(board.plane_of, board.planes_of(found)) == int(row["stream_ccd"])


def _stream_rank(plane_of: tuple[int, ...], planes: range) -> int:
    """Which run of channels of the stream is this detector's: 0 for the first."""
    channels = [p for p, plane in enumerate(plane_of) if plane in planes]
    assert channels == list(range(channels[0], channels[0] + len(planes)))
    return channels[0] // len(planes)


@pytest.mark.parametrize("name", ["LSSTCam", "LSSTComCam", "LATISS"])
def test_no_detector_more_than_the_table(name: str, detector_rows: list[dict[str, str]]) -> None:
    wanted = {f"{row['raft']}_{row['sensor']}" for row in detector_rows if row["instrument"] == name}
    cam = camera(name)
    assert {d.name for d in cam.detectors} == wanted
    assert [d.id for d in cam.detectors] == sorted(d.id for d in cam.detectors)
    assert sum(len(board.detectors) for board in cam.boards.values()) == len(wanted)
    assert sum(len(raft.detectors) for raft in cam.rafts) == len(wanted)


def test_every_amplifier_of_the_table(amp_rows: list[dict[str, str]]) -> None:
    assert len(amp_rows) == 3376
    seen: collections.Counter[tuple[str, int]] = collections.Counter()
    for row in amp_rows:
        detector = camera(row["instrument"]).detector(int(row["detector"]))
        seen[row["instrument"], detector.id] += 1
        segment = detector.segments[int(row["hdu"]) - 1]
        assert segment.index == int(row["hdu"]) - 1
        assert segment.amp == row["amp"]
        assert segment.name == "Segment" + row["amp"][1:]
        assert detector.segment(row["amp"]) is detector.segment(segment.name) is segment
        assert (segment.ix, segment.iy) == (int(row["ix"]), int(row["iy"]))
        assert (segment.flip_x, segment.flip_y) == (row["flipx"] == "1", row["flipy"] == "1")
        assert segment.gain == float(row["gain"])
        assert segment.read_noise == float(row["read_noise"])
        assert segment.saturation == float(row["saturation"])
    for name in ("LSSTCam", "LSSTComCam", "LATISS"):
        for detector in camera(name).detectors:
            assert seen[name, detector.id] == len(detector.segments)


def test_lsstcam_as_a_whole(lsstcam: Camera) -> None:
    boards = collections.Counter(board.kind for board in lsstcam.boards.values())
    assert boards == {"science": 63, "guider": 4, "wavefront": 4}
    assert len(lsstcam.rafts) == 25
    vendors = collections.Counter(d.type.vendor for d in lsstcam.detectors if d.kind == "science")
    assert vendors == {"ITL": 72, "E2V": 117}
    assert [d.id for d in lsstcam.raft("R44").detectors] == [201, 202, 203, 204]
    for raft in lsstcam.rafts:
        # The second digit of a raft's name grows with x, the first with y.
        x = sum(d.x_mm for d in raft.detectors) / len(raft.detectors)
        y = sum(d.y_mm for d in raft.detectors) / len(raft.detectors)
        corner = 1.0 if raft.name in ("R00", "R04", "R40", "R44") else 0.2
        assert abs(x - 127 * (int(raft.name[2]) - 2)) < 40 * corner
        assert abs(y - 127 * (int(raft.name[1]) - 2)) < 40 * corner
        assert raft.bay == raft.name[1:]


@pytest.mark.parametrize(
    ("name", "instrume", "telescop", "code", "platform", "partition"),
    [
        ("LSSTCam", "lsstCam", "Simonyi Survey Telescope", "MC", "lsstcam", "camera"),
        ("LSSTComCam", "ComCam", "Simonyi Survey Telescope", "CC", "comcam", "comcam"),
        ("LATISS", "LATISS", "LSST AuxTelescope", "AT", "auxtel", "lat"),
    ],
)
def test_header_constants(
    name: str, instrume: str, telescop: str, code: str, platform: str, partition: str
) -> None:
    cam = camera(name)
    assert (cam.name, cam.instrume, cam.telescop, cam.code) == (name, instrume, telescop, code)
    assert cam.constants["PLATFORM"] == platform
    assert cam.constants["DAQPART"] == partition


@pytest.mark.parametrize(
    ("instrume", "name"),
    [
        ("lsstCam", "LSSTCam"),
        ("LSSTCAMSIM", "LSSTCam"),
        ("ComCam", "LSSTComCam"),
        ("ComCamSim ", "LSSTComCam"),
        ("LSSTComCam", "LSSTComCam"),
        ("LATISS", "LATISS"),
        ("LSST_ATISS", "LATISS"),
        ("MiniCam", "MiniCam"),
    ],
)
def test_camera_by_instrume(instrume: str, name: str) -> None:
    assert camera_by_instrume(instrume) is camera(name)


def test_no_camera_by_instrume() -> None:
    with pytest.raises(NotFoundError, match="'nothing' is no built-in camera's"):
        camera_by_instrume("nothing")


@pytest.mark.parametrize(
    ("vendor", "width_height", "registers"),
    [("ITL", (576, 2048), (3, 509, 64, 2000, 48, 1)), ("E2V", (576, 2048), (10, 512, 54, 2002, 46, 2))],
)
def test_nominal_geometry(
    lsstcam: Camera, vendor: str, width_height: tuple[int, int], registers: tuple[int, ...]
) -> None:
    for detector in lsstcam.detectors:
        if detector.type.vendor == vendor:
            g = detector.type.geometry
            assert (g.width, g.height) == width_height
            sizes = (g.prescan, g.columns, g.overscan, g.rows, g.parallel_overscan, detector.type.op_flags)
            assert sizes == registers


def test_shared_blocks_agree() -> None:
    """Each file stands alone; what LSST's cameras have in common is the same in all of them."""
    one, two, three = camera("LSSTCam"), camera("LSSTComCam"), camera("LATISS")
    assert one.systems == two.systems == three.systems
    assert one.raft_pitch == two.raft_pitch == three.raft_pitch
    assert one.board("22/0").plane_of == two.board("22/0").plane_of
    types = [cam.detectors[0].type for cam in (one, two, three)]
    for kind in types[1:]:
        assert (kind.geometry, kind.segments, kind.chip) == (
            types[0].geometry,
            types[0].segments,
            types[0].chip,
        )


def test_code_names_no_camera() -> None:
    """Another observatory needs a data file and nothing else."""
    package = Path(__file__).parents[2] / "python/raftwright/camera"
    names = re.compile(
        r"LSSTCam|LSSTComCam|ComCam|LATISS|MiniCam|AuxTel|E2V|ITL\b|Reb[0-9GW]|\bR22\b", re.IGNORECASE
    )
    for path in package.glob("*.py"):
        code = re.sub(r'"""(.|\n)*?"""|#.*', "", path.read_text())
        assert not names.search(code), path.name
