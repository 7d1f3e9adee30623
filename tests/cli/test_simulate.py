"""`raftwright simulate`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftwright.daq import open_recording

Run = Callable[..., Any]
Collect = Callable[[Path], dict[str, bytes]]


def test_it_records_and_says_so(run: Run, tmp_path: Path) -> None:
    done = run(
        "simulate", "CC_S_20261122_000007", "--size", "24x40", "--seed", 3, "--out", "there", "--no-sync"
    )
    assert done.code == 0, done.err
    recording = tmp_path / "there" / "CC_S_20261122_000007"
    assert "recorded CC_S_20261122_000007: 9 CCDs of LSSTComCam from 3 boards" in done.out
    assert str(recording) in done.out
    info = open_recording(recording).info
    assert info.locations == ("22/0", "22/1", "22/2")
    geometry = info.sources[0].registers.geometry
    assert (geometry.prescan, geometry.columns, geometry.rows) == (3, 24, 40)


def test_again_changes_nothing_and_another_seed_is_a_conflict(
    run: Run, tmp_path: Path, files_below: Collect
) -> None:
    command = ["simulate", "MN_S_20261122_000001", "--camera", "MiniCam", "--no-sync"]
    assert run(*command).code == 0
    before = files_below(tmp_path / "MN_S_20261122_000001")
    again = run(*command, "--json")
    assert again.code == 0
    assert again.json["recording_status"] == "unchanged"
    other = run(*command, "--seed", 2)
    assert other.code == 4
    assert "another content" in other.error
    assert files_below(tmp_path / "MN_S_20261122_000001") == before


def test_the_name_by_default_is_of_today(run: Run) -> None:
    done = run("simulate", "--camera", "LATISS", "--dry-run", "--json")
    day = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=12)
    assert done.json["image"] == f"AT_S_{day:%Y%m%d}_000001"


def test_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    done = run("simulate", "--camera", "LSSTCam", "--rafts", "R00", "--dry-run")
    assert done.code == 0
    assert "would simulate" in done.out
    assert "SG0 SG1" in done.out
    assert list(tmp_path.iterdir()) == []


def test_json(run: Run, tmp_path: Path) -> None:
    done = run("simulate", "MN_S_20261122_000001", "--camera", "MiniCam", "--json", "--no-sync")
    answer = done.json
    assert answer["command"] == "simulate"
    assert answer["status"] == "ok"
    assert answer["exit_code"] == 0
    source = answer["sources"][0]
    assert source["detectors"] == ["M1_A", "M1_B"]
    described = json.loads((tmp_path / "MN_S_20261122_000001" / "image.json").read_text())
    assert source["crc32c"] == described["sources"][0]["crc32c"]
    assert answer["bytes"] == described["sources"][0]["bytes"]


def test_boards_by_location_or_name(run: Run) -> None:
    done = run("simulate", "--locations", "22/0,R22/Reb2", "--dry-run", "--json")
    assert [source["location"] for source in done.json["sources"]] == ["22/0", "22/2"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["hello"], 2, "MC_O_20261122_000123"),
        (["../CC_S_20261122_000001"], 2, "not an image name"),
        (["CC_S_20261199_000001"], 2, "20261199"),
        (["--size", "0x5"], 2, "'0x5'"),
        (["--size", "five"], 2, "such as 64x256"),
        (["--size", "70000x10"], 2, "65535"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["--camera", "LSTCam"], 1, "did you mean LSSTCam"),
        (["--camera", "nowhere.yaml"], 1, "nowhere.yaml: there is no such camera file"),
        (["--rafts", "R01"], 1, "LSSTComCam has no raft 'R01'"),
        (["--locations", "22/9"], 1, "22/9"),
        (["--locations", ","], 2, "names nothing"),
    ],
)
def test_what_cannot_be(run: Run, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    done = run("simulate", *arguments, "--out", "never")
    assert done.code == code
    assert says in done.error
    assert not (tmp_path / "never").exists()
