"""`raftwright info` and `raftwright camera`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftwright import _core
from raftwright.camera import camera_names

Run = Callable[..., Any]


def test_a_raw_file(run: Run, raws: Path) -> None:
    path = next(raws.glob("*S11.fits"))
    done = run("info", path)
    assert done.code == 0
    assert f"image {raws.name}, detector R22_S11 of LSSTComCam" in done.out
    assert "16 images of 43 x 46" in done.out
    assert "RICE_1" in done.out
    answer = run("info", path, "--json").json
    assert (answer["kind"], answer["detector"], answer["hdus"]) == ("raw file", "R22_S11", 19)
    assert [segment["name"] for segment in answer["segments"]][:2] == ["Segment10", "Segment11"]
    header = run("info", path, "--header")
    assert "RAFTBAY = 'R22     '" in header.out
    assert run("info", path, "--header", "--json").json["header"]["RAFTBAY"] == "R22"


def test_a_recording(run: Run, comcam: Path) -> None:
    done = run("info", comcam)
    assert done.code == 0
    assert "R22_S10 R22_S11 R22_S12" in done.out
    answer = run("info", comcam, "--json").json
    assert (answer["kind"], answer["image"], len(answer["sources"])) == ("recording", comcam.name, 3)
    assert answer["sources"][1]["registers"][2] == 24


def test_a_recording_of_an_unknown_camera(run: Run, editable: Path) -> None:
    path = editable / "image.json"
    path.write_text(path.read_text().replace("LSSTComCam", "Elsewhere"))
    done = run("info", editable)
    assert done.code == 0
    assert "recording of" in done.out
    assert "raftwright: note: " in done.err


def test_directories(run: Run, raws: Path, comcam: Path, editable: Path, tmp_path: Path) -> None:
    files = run("info", raws, "--json").json
    assert files["kind"] == "raw files"
    assert len(files["files"]) == 9
    assert "9 raw files of 1 image" in run("info", raws.parent).out
    store = run("info", comcam.parent, "--json").json
    assert (store["kind"], store["images"]) == ("store", [comcam.name])
    (editable / "image.json").write_text("{")
    broken = run("info", editable.parent, "--json").json
    assert broken["images"] == []
    assert len(broken["problems"]) == 1
    mixed = tmp_path / "mixed"
    shutil.copytree(raws, mixed)
    next(mixed.glob("*S00.fits")).write_text("junk")
    told = run("info", mixed)
    assert told.code == 0
    assert "S00.fits" in told.err


def test_build(run: Run) -> None:
    done = run("info", "--build")
    assert done.code == 0
    assert "kernels in use" in done.out
    assert _core.active_level() in done.out
    answer = run("info", "--build", "--json").json
    assert answer["build"]["kernels in use"] == _core.active_level()
    assert answer["packages"]["numpy"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "nowhere: there is no such"), ("empty", "no raw FITS file"), ("text.fits", "text.fits")],
)
def test_what_info_cannot_tell(run: Run, tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.fits").write_text("hello")
    done = run("info", name)
    assert done.code == 1
    assert says in done.error


def test_hostile_names_cannot_act_on_a_terminal(run: Run, raws: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil\x1b[2J\nraftwright: error: forged"
    evil.mkdir()
    shutil.copy(next(raws.glob("*S11.fits")), evil / "x\x07\u202e.fits")
    for arguments in (
        ["info", evil],
        ["verify", evil],
        ["info", evil / "x\x07\u202e.fits"],
        ["show", evil, "-o", evil],
    ):
        done = run(*arguments)
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
        assert not any(line.startswith("raftwright: error: forged") for line in done.err.splitlines())
    assert run("info", evil, "--json").json["path"] == str(evil)


def test_hostile_headers_choose_no_path(run: Run, raws: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    inside = tmp_path / "inside"
    inside.mkdir()
    with fits.open(next(raws.glob("*S11.fits")), disable_image_compression=True) as file:
        file[0].header["OBSID"] = "../../evil/x"
        file.writeto(inside / "x.fits", output_verify="ignore")
    for command in ("show", "mosaic"):
        done = run(command, inside / "x.fits", "--json")
        assert done.code == 0, done.err
        assert Path(done.json["path"]).parent == Path(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "______evil_x_R22_S11.fits",
        "______evil_x_R22_S11.png",
        "inside",
    ]


# --- camera -------------------------------------------------------------------------------------------


def test_list(run: Run) -> None:
    done = run("camera", "list")
    assert done.code == 0
    for name in camera_names():
        assert f"\n{name} " in done.out
    answer = run("camera", "list", "--json").json
    assert [entry["name"] for entry in answer["cameras"]] == list(camera_names())


def test_show_a_camera(run: Run) -> None:
    done = run("camera", "show", "LSSTCam")
    assert "25 rafts, 71 boards, 205 CCDs" in done.out
    assert "RebW=00/0 RebG=00/1" in done.out
    raft = run("camera", "show", "LSSTCam", "--raft", "R00")
    assert "R00_SW1" in raft.out
    detector = run("camera", "show", "LSSTCam", "--detector", 94)
    assert "R22_S11, detector 94" in detector.out
    assert run("camera", "show", "LSSTCam", "--detector", "R22_S11").out == detector.out
    answer = run("camera", "show", "LSSTCam", "--detector", 94, "--json").json["detector"]
    assert answer["name"] == "R22_S11"
    assert len(answer["segments"]) == 16
    assert len(run("camera", "show", "LSSTCam", "--json").json["camera"]["rafts"]) == 25


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["LSTCam"], "did you mean LSSTCam"),
        (["LSSTCam", "--raft", "R99"], "R99"),
        (["LSSTCam", "--detector", "205"], "205"),
        (["LSSTCam", "--detector", "9" * 4000], "999"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_camera_show_cannot(run: Run, arguments: list[str], says: str) -> None:
    done = run("camera", "show", *arguments)
    assert done.code == 1
    assert says in done.error


def test_check(run: Run, tmp_path: Path) -> None:
    import raftwright.camera

    good = Path(raftwright.camera.__file__).parent / "data" / "MiniCam.yaml"
    done = run("camera", "check", good)
    assert done.code == 0
    assert "no problem" in done.out
    bad = tmp_path / "bad.yaml"
    bad.write_text(good.read_text().replace("xor: 0", "xor: 0x1ffff").replace("yaw: 180", "yaw: 17"))
    refused = run("camera", "check", bad)
    assert refused.code == 5
    assert "bad.yaml" in refused.error
    answer = run("camera", "check", bad, "--json").json
    assert answer["status"] == "faults"
    assert all(isinstance(problem["line"], int) for problem in answer["problems"])
    assert run("camera", "check", "nowhere.yaml").code == 1
    (tmp_path / "x.yaml").write_bytes(b"\x00\xff" * 100)
    assert run("camera", "check", "x.yaml").code == 5
