"""`raftwright assemble`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raftwright import assemble as assemble_in_memory
from raftwright import open_raw

Run = Callable[..., Any]
Collect = Callable[[Path], dict[str, bytes]]


def test_files_of_a_raft(run: Run, comcam: Path, tmp_path: Path) -> None:
    done = run("assemble", comcam, "--out", "out", "--no-sync")
    assert done.code == 0, done.err
    assert done.err == ""
    directory = tmp_path / "out" / "20261122" / comcam.name
    names = sorted(path.name for path in directory.iterdir())
    assert len(names) == 19
    assert f"{comcam.name}_R22_S11.fits" in names
    assert f"{comcam.name}_expectedSensors.json" in names
    for words in (
        "9 CCDs",
        "wrote 9 raw files",
        f"out/20261122/{comcam.name}",
        "pixel/s",
        "MB/s",
        "no pixel is missing",
    ):
        assert words in done.out
    image = assemble_in_memory(comcam)
    raw = open_raw(directory / f"{comcam.name}_R22_S11.fits")
    for name, pixels in image["R22_S11"].segments.items():
        assert np.array_equal(raw.segments[name], pixels)


def test_again_changes_nothing(run: Run, comcam: Path, tmp_path: Path, files_below: Collect) -> None:
    assert run("assemble", comcam, "-o", "out", "--no-sync").code == 0
    before = files_below(tmp_path / "out")
    again = run("assemble", comcam, "-o", "out", "--no-sync")
    assert again.code == 0
    assert "found unchanged 9 raw files" in again.out
    assert files_below(tmp_path / "out") == before


def test_another_content_is_refused_and_both_are_kept(
    run: Run, comcam: Path, tmp_path: Path, files_below: Collect
) -> None:
    assert run("assemble", comcam, "-o", "out", "--no-sync").code == 0
    taken = tmp_path / "out" / "20261122" / comcam.name / f"{comcam.name}_R22_S11.fits"
    taken.write_bytes(b"somebody's")
    done = run("assemble", comcam, "-o", "out", "--no-sync")
    assert done.code == 4
    assert f"{comcam.name}_R22_S11.fits.conflict-" in done.error
    assert taken.read_bytes() == b"somebody's"
    kept = [name for name in files_below(tmp_path / "out") if ".fits.conflict-" in name]
    assert len(kept) == 1
    answer = run("assemble", comcam, "-o", "out", "--no-sync", "--json").json
    assert (answer["status"], answer["exit_code"]) == ("conflict", 4)


def test_missing_pixels(run: Run, editable: Path, tmp_path: Path) -> None:
    stream = editable / "22-1.raw"
    os.truncate(stream, 108 * 1000 + 50)
    refused = run("assemble", editable, "-o", "out")
    assert refused.code == 1
    assert "22-1.raw: has 108050 bytes" in refused.error
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.fits"))

    done = run("assemble", editable, "-o", "out", "--salvage", "--fill", "-7", "--no-sync", "--json")
    assert done.code == 3
    answer = done.json
    assert (answer["status"], answer["exit_code"], answer["complete"]) == ("incomplete", 3, False)
    samples = 43 * 46
    # 50 bytes of the sample that was cut hold 22 whole pixels: 16 of the first CCD, 6 of the second.
    missing = {file["detector"]: file["missing_pixels"] for file in answer["files"]}
    assert missing["R22_S12"] == 16 * (samples - 1001)
    assert missing["R22_S11"] == 16 * (samples - 1000) - 6
    assert missing["R22_S10"] == 16 * (samples - 1000)
    assert missing["R22_S00"] == 0
    assert answer["missing_pixels"] == sum(missing.values())
    again = run("assemble", editable, "-o", "out", "--salvage", "--fill", "-7", "--no-sync")
    assert again.code == 3
    assert f"{sum(missing.values()):,} pixels missing" in again.out
    assert "filled with -7" in again.out
    raw = open_raw(tmp_path / "out" / "20261122" / editable.name / f"{editable.name}_R22_S10.fits")
    assert raw.missing_pixels == missing["R22_S10"]
    assert raw.segments["Segment00"][-1, -1] == -7


def test_json(run: Run, comcam: Path) -> None:
    done = run("assemble", comcam, "-o", "out", "--no-sync", "--json", "--locations", "22/0")
    assert done.err == ""
    answer = done.json
    assert answer["command"] == "assemble"
    assert answer["image"] == comcam.name
    assert [file["detector"] for file in answer["files"]] == ["R22_S00", "R22_S01", "R22_S02"]
    for file in answer["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"]
    assert answer["pixels"] == 48 * 43 * 46


def test_dry_run_writes_nothing(run: Run, comcam: Path, tmp_path: Path) -> None:
    done = run("assemble", comcam, "-o", "out", "--dry-run", "--json")
    assert done.code == 0
    assert len(done.json["files"]) == 9
    assert done.json["already_there"] == 0
    assert not (tmp_path / "out").exists()
    assert run("assemble", comcam, "-o", "out", "--rafts", "R22", "--no-sync").code == 0
    told = run("assemble", comcam, "-o", "out", "--dry-run")
    assert told.out.count("(there already)") == 9


def test_plain_and_a_header_document(run: Run, mini: Path, tmp_path: Path) -> None:
    document = tmp_path / "header.yaml"
    document.write_text("PRIMARY:\n- {keyword: OBSERVER, value: nobody, comment: who}\n")
    done = run("assemble", mini, "-o", "out", "--plain", "--header", document, "--no-sync")
    assert done.code == 0, done.err
    raw = open_raw(next((tmp_path / "out").rglob("*_M1_A.fits")))
    assert raw.header["OBSERVER"] == "nobody"
    assert all(raw.fits.info(hdu)["compression"] == "" for hdu in raw.segments.hdus.values())


def test_a_store_by_its_text(run: Run) -> None:
    done = run("assemble", "simulated:MiniCam?seed=3", "-o", "out", "--no-sync", "--json")
    assert done.code == 0
    assert done.json["camera"] == "MiniCam"


def test_a_directory_of_recordings(run: Run, comcam: Path, tmp_path: Path) -> None:
    one = run("assemble", comcam.parent, "-o", "out", "--dry-run", "--json")
    assert one.json["image"] == comcam.name
    for number in (1, 2):
        assert (
            run(
                "simulate", f"MN_S_20261122_{number:06}", "--camera", "MiniCam", "-o", "two", "--no-sync"
            ).code
            == 0
        )
    several = run("assemble", "two", "-o", "out")
    assert several.code == 2
    assert "--image" in several.error
    chosen = run("assemble", "two", "-o", "out", "--image", "MN_S_20261122_000002", "--no-sync", "--json")
    assert chosen.json["image"] == "MN_S_20261122_000002"
    absent = run("assemble", "two", "-o", "out", "--image", "MN_S_20261122_000009")
    assert absent.code == 1
    assert "MN_S_20261122_000009" in absent.error


def test_corner_rafts(run: Run, corner: Path) -> None:
    answer = run("assemble", corner, "-o", "out", "--rafts", "R00", "--no-sync", "--json").json
    names = [Path(file["path"]).name.removeprefix(f"{corner.name}_") for file in answer["files"]]
    assert names == ["R00_SG0.fits", "R00_SG1.fits", "R00_SW0.fits", "R00_SW1.fits"]


def spoil(recording: Path, old: str, new: str) -> None:
    path = recording / "image.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"registers":[3,0,24', '"registers":[3,0,25', "registers say"),
        ('"registers":[3,0,24', '"registers":[-3,0,24', "UnderCols is -3"),
        ('"registers":[3,0,24', '"registers":[3,0,99999999', "cannot be meant"),
        ('"22/1"', '"99/9"', "99/9"),
        ('"LSSTComCam"', '"NoCam"', "no camera 'NoCam'"),
        ("CC_S_20261122_000001", "hello", "'hello' is not an image name"),
        ("CC_S_20261122_000001", "../../escape", "plain name"),
        ("22-0.raw", "../22-0.raw", "plain name"),
        ("raftwright-recording/1", "raftwright-recording/9", "raftwright-recording/9"),
        ('"kind":"science"', '"kind":"guider"', "guider"),
        ("{", "{{", "not readable as JSON"),
    ],
)
def test_a_description_that_cannot_be(
    run: Run, editable: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    spoil(editable, old, new)
    done = run("assemble", editable, "-o", "out")
    assert done.code == 1
    assert says in done.error
    assert not list(tmp_path.glob("out/**/*.fits*"))


def test_streams_that_cannot_be(run: Run, editable: Path, tmp_path: Path) -> None:
    stream = editable / "22-2.raw"
    whole = stream.read_bytes()
    for content, says in (
        (b"", "is empty"),
        (whole + b"x", "another stream's"),
        (whole[:-1], "copy it again"),
    ):
        stream.write_bytes(content)
        done = run("assemble", editable, "-o", "out", "--locations", "22/2")
        assert done.code == 1
        assert "22-2.raw" in done.error
        assert says in done.error
    stream.write_bytes(b"\xff" + whole[1:])
    done = run("assemble", editable, "-o", "out", "--locations", "22/2")
    assert done.code == 1
    assert "CRC-32C" in done.error
    stream.unlink()
    assert "22-2.raw" in run("assemble", editable, "-o", "out").error
    assert not list(tmp_path.glob("out/**/*S2*.fits*"))


def test_one_bad_board_holds_up_no_other(run: Run, editable: Path, tmp_path: Path) -> None:
    stream = editable / "22-2.raw"
    stream.write_bytes(b"\xff" + stream.read_bytes()[1:])
    done = run("assemble", editable, "-o", "out", "--no-sync", "--json")
    assert done.code == 1
    assert "6 files are there" in done.error
    answer = done.json
    assert answer["status"] == "error"
    assert "CRC-32C" in answer["error"]["message"]
    assert len(answer["files"]) == 6
    assert len(list(tmp_path.glob("out/**/*.fits"))) == 6


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a: [b", "h.yaml: line"), (b"\x00\x01", "no YAML"), (b"- a\n- b\n", "mapping")],
)
def test_header_documents_that_cannot_be(
    run: Run, mini: Path, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "h.yaml").write_bytes(content)
    for extra in ([], ["--dry-run"]):
        done = run("assemble", mini, "-o", "out", "--header", "h.yaml", *extra)
        assert done.code == 1
        assert says in done.error
    assert not list(tmp_path.glob("out/**/*.fits"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 1, "nowhere: there is no such directory"),
        (["a\x1b[31mb"], 1, r"a\x1b[31mb"),
        (["afile"], 2, "afile: is a file"),
        (["."], 1, "no recording in it"),
        (["simulated:Nothing"], 1, "Nothing"),
        (["thing:else"], 1, "thing"),
        (["RECORDING", "--fill", "99999999999"], 2, "32-bit"),
        (["RECORDING", "--rafts", "R99"], 1, "R99"),
        (["RECORDING", "--locations", "1/2"], 1, "1/2"),
        (["RECORDING", "--camera", "LATISS"], 1, "LATISS"),
        (["RECORDING", "--header", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["RECORDING", "--header", "."], 1, "header document"),
        (["RECORDING", "--image", "CC_S_20261122_000009"], 1, "not of CC_S_20261122_000009"),
    ],
)
def test_what_cannot_be(
    run: Run, comcam: Path, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    (tmp_path / "afile").write_text(json.dumps({}))
    done = run("assemble", *(comcam if a == "RECORDING" else a for a in arguments), "-o", "out")
    assert done.code == code, done
    assert says in done.error
    assert not list(tmp_path.glob("out/**/*.fits"))
