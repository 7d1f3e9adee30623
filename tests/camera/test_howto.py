"""The how-to page must stay true."""

from __future__ import annotations

import re
from pathlib import Path

import raftwright.camera
from raftwright.camera import camera, check_file, segment_wcs
from raftwright.camera.schema import CameraEntry, DetectorTypeEntry, ExtensionEntry

DATA = Path(raftwright.camera.__file__).with_name("data")
PAGE = (Path(__file__).parents[2] / "docs/howto/add-your-camera.md").read_text()
BLOCKS = re.findall(r"^```(yaml)?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(EXAMPLE,) = [text for kind, text in BLOCKS if kind == "yaml"]


def test_the_example_is_a_camera(tmp_path: Path) -> None:
    path = tmp_path / "mycam.yaml"
    path.write_text(EXAMPLE)
    assert [str(problem) for problem in check_file(path)] == []
    cam = camera(path)
    board = cam.board("00/0")
    assert (cam.name, board.bits, board.xor_mask, board.plane_of) == ("MyCam", 16, 0x8000, (0, 1))
    assert cam.detector("R0_S0").segments[1].flip_x


def test_its_snippets(tmp_path: Path) -> None:
    constants, extension, table = [t for kind, t in BLOCKS if not kind and not t.startswith("raftwright ")]
    path = tmp_path / "mycam.yaml"
    path.write_text(EXAMPLE + constants + extension)
    cam = camera(path)
    assert cam.constants == {"DAQPART": "main", "OBSERVAT": "My Observatory"}
    assert [system.letter for system in cam.systems] == ["C"]
    assert segment_wcs(cam, cam.detector(0), cam.detector(0).segments[0], cam.detector(0).type.geometry)
    head, name, row = table.splitlines()
    real = (DATA / "LSSTCam.yaml").read_text()
    assert head in real
    assert row in real[real.index(f"\n{name}\n    A:") :].split("\n  R44_SG1:")[0]


def test_every_key_is_explained() -> None:
    for entry in (CameraEntry, ExtensionEntry, DetectorTypeEntry):
        for field in entry.__struct_fields__:
            assert re.search(rf"`{field}`|\b{field}:", PAGE), field
