"""`raftwright replay`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raftwright import assemble

Run = Callable[..., Any]


def test_there_and_back(run: Run, raws: Path, comcam: Path, tmp_path: Path) -> None:
    done = run("replay", raws, "--out", "rec", "--no-sync")
    assert done.code == 0, done.err
    assert f"recorded {comcam.name} of LSSTComCam: 9 CCDs of 3 boards" in done.out
    for path in comcam.glob("*.raw"):
        assert (tmp_path / "rec" / comcam.name / path.name).read_bytes() == path.read_bytes()


def test_part_of_a_board_another_name_and_date(run: Run, raws: Path, tmp_path: Path) -> None:
    name = "CC_C_20261123_000009"
    date = "2026-11-23T01:02:03.456"
    files = sorted(raws.glob("*_S1[02].fits"))
    arguments = ["replay", *files, "-o", "rec", "--name", name, "--date", date, "--fill", "5", "--no-sync"]
    done = run(*arguments, "--json")
    assert done.code == 0, done.err
    answer = done.json
    assert answer["image"] == name
    assert answer["filled"] == ["R22_S11"]
    image = assemble(tmp_path / "rec" / name)
    assert image.info.timestamp == date
    assert set(np.unique(image["R22_S11"].segments["Segment00"])) == {5}
    told = run(*arguments)
    assert "R22_S11: no file of it; every pixel was filled with 5" in told.err
    assert "already there, unchanged" in told.out


def test_dry_run_writes_nothing(run: Run, raws: Path, tmp_path: Path) -> None:
    done = run("replay", next(raws.glob("*S11.fits")), "-o", "rec", "--dry-run", "--json")
    assert done.code == 0
    assert done.json["sources"] == [
        {"location": "22/1", "detectors": ["R22_S11"], "filled": ["R22_S10", "R22_S12"]}
    ]
    assert list(tmp_path.iterdir()) == []


def test_real_files(run: Run, require_shared: Callable[..., Path], tmp_path: Path) -> None:
    source = require_shared("data", "raws", "comCamSim__CC_S_20240404_000780_R22_S01.fits")
    done = run("replay", source, "-o", "rec", "--no-sync", "--json")
    assert done.code == 0, done.err
    assert done.json["filled"] == ["R22_S00", "R22_S02"]
    again = run("assemble", "rec/CC_S_20240404_000780", "-o", "out", "--no-sync", "--json")
    assert again.code == 0
    assert len(again.json["files"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.fits"], 1, "nowhere.fits"),
        (["."], 1, "no raw FITS file"),
        (["text.fits"], 1, "text.fits"),
        (["RAWS", "--name", "bad"], 1, "'bad'"),
        (["RAWS", "--date", "2026-13-01"], 1, "2026-13-01"),
        (["RAWS", "OTHER"], 1, "one image at a time"),
        (["RAWS", "--camera", "Nothing"], 1, "Nothing"),
    ],
)
def test_what_cannot_be(
    run: Run, raws: Path, corner_raws: Path, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    if "text.fits" in arguments:
        (tmp_path / "text.fits").write_text("hello")
    paths = {"RAWS": raws, "OTHER": corner_raws}
    done = run("replay", *(paths.get(a, a) for a in arguments), "-o", "rec")
    assert done.code == code, done
    assert says in done.error
    assert not (tmp_path / "rec").exists()
