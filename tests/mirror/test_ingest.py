"""What is mirrored goes into a Butler repository, each file for itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mirror_stand import Stand, wait_for

from raftwright.camera import camera
from raftwright.daq import simulate_image
from raftwright.rawfile import write_image

pytest.importorskip(
    "lsst.daf.butler", reason="lsst-daf-butler is not installed: pip install 'raftwright[butler]'"
)

E2V = (10, 0, 20, 0, 0, 4, 0, 16, 0, 3, 2)


def raws(stand: Stand, name: str, *locations: str, root: Path | None = None) -> list[Path]:
    image = simulate_image(camera("LSSTComCam"), name, locations=list(locations), registers=E2V)
    report = write_image(image, root or stand.source, threads=1, durable=False, camera=camera("LSSTComCam"))
    return [file.path for file in report.files]


def ingests(stand: Stand) -> dict[str, str]:
    with sqlite3.connect(f"file:{stand.manifest}?mode=ro", uri=True) as run:
        found = run.execute("SELECT name, ingest FROM entry WHERE ingest <> ''").fetchall()
    run.close()
    return {os.fsdecode(name): state for name, state in found}


def datasets(repo: Path) -> set[tuple[int, int]]:
    from raftwright.butler import open_repository

    repository = open_repository(repo)
    try:
        refs = repository.butler.query_datasets("raw", collections="*", find_first=False, explain=False)
        for ref in refs:
            assert repository.butler.get(ref).mosaic.any()
        return {(int(ref.dataId["exposure"]), int(ref.dataId["detector"])) for ref in refs}
    finally:
        repository.close()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    from raftwright.butler import make_repository

    root = tmp_path / "repo"
    make_repository(root, cameras=["LSSTComCam"]).close()
    return root


def test_into_a_butler(stand: Stand, repo: Path) -> None:
    """D174: rafts and CCDs may be absent, a file that no translator knows is kept as `unsupported`, nobody
    has to say go; and what was ingested stays readable when its file is renamed or changed."""
    ingest: dict[str, Any] = {"repository": str(repo), "retries": 1, "longest": 0.5}
    first = raws(stand, "CC_O_20261122_000001", "22/0")  # three CCDs of nine
    stand.write("TS8/other_camera_0001.fits", b"SIMPLE  = somebody else's")
    stand.write("20261122/log.txt", b"no file to ingest")
    truncated = raws(stand, "CC_O_20261122_000002", "22/1")[0]
    truncated.write_bytes(truncated.read_bytes()[:-5000])
    with stand.mirror(ingest=ingest, watch="always") as mirror:
        wait_for(stand.same, 20, mirror.status)
        names = {path.name for path in stand.source.rglob("*.fits")}
        wait_for(
            lambda: set(ingests(stand)) == names and "queued" not in ingests(stand).values(),
            40,
            lambda: (ingests(stand), mirror.status()),
        )
        found = ingests(stand)
        assert found.pop("other_camera_0001.fits") == "unsupported"
        assert found.pop(truncated.name) in ("failed", "unsupported")
        assert set(found.values()) == {"ingested"}
        assert {path.name for path in first} < set(found)
        assert "log.txt" not in found
        os.rename(stand.source / "20261122", stand.source / "night")
        later = raws(stand, "CC_O_20261122_000003", "22/2")
        wait_for(stand.same, 20, mirror.status)
        wait_for(
            lambda: (
                {path.name for path in later} <= {n for n, s in ingests(stand).items() if s == "ingested"}
            ),
            40,
        )
    assert len(datasets(repo)) == 3 + 2 + 3
    status = mirror.trees["tree"]
    assert status.ingesting is not None


def test_a_repository_that_is_away(stand: Stand, repo: Path) -> None:
    """Files are mirrored all the same, and ingested when it is back."""
    away = repo.with_name("away")
    os.rename(repo, away)
    names = {path.name for path in raws(stand, "CC_O_20261122_000001", "22/0")}
    with stand.mirror(ingest={"repository": str(repo)}) as mirror:
        wait_for(stand.same, 20, mirror.status)
        wait_for(lambda: any("nothing is ingested" in one for one in mirror.status()["problems"]), 20)
        assert set(ingests(stand).values()) == {"queued"}
        os.rename(away, repo)
        wait_for(lambda: ingests(stand) == dict.fromkeys(names, "ingested"), 40, lambda: ingests(stand))
        wait_for(lambda: mirror.status()["problems"] == [])


def test_what_was_mirrored_before_is_ingested_too(stand: Stand, repo: Path, tmp_path: Path) -> None:
    """Once somebody says that it is to be; and into another repository where that is named instead."""
    names = {path.name for path in raws(stand, "CC_O_20261122_000001", "22/0")}
    stand.write("log.txt", b"no file to ingest")
    with stand.mirror():
        wait_for(stand.same, 20)
    assert ingests(stand) == {}
    shutil.copytree(repo, tmp_path / "other")
    for one in (repo, tmp_path / "other"):
        with stand.mirror(ingest={"repository": str(one)}) as mirror:
            wait_for(lambda: ingests(stand) == dict.fromkeys(names, "ingested"), 40, lambda: ingests(stand))
            wait_for(lambda one=one: len(datasets(one)) == 3, 20)
            assert mirror.trees["tree"].ingesting is not None
            assert mirror.trees["tree"].ingesting.adopt() == 0


def test_once_says_what_was_not_ingested(stand: Stand, tmp_path: Path) -> None:
    raws(stand, "CC_O_20261122_000001", "22/0")
    both = [str(stand.source), str(stand.far), "--manifest", str(stand.manifest), "--settle", "100ms"]
    once = [sys.executable, "-m", "raftwright", "mirror", "once", *both, "--patience", "200ms"]
    done = subprocess.run([*once, "--butler", str(tmp_path / "none")], capture_output=True, text=True)
    assert done.returncode == 5
    assert "3 files not ingested: see `raftwright mirror status`" in done.stdout
    assert subprocess.run(once, capture_output=True, check=False).returncode == 0, "nobody asked for it"


def test_unsupported_is_asked_about_again(stand: Stand, repo: Path) -> None:
    """D174: once the repository knows the camera."""
    from raftwright.butler import make_repository

    name = "AT_O_20261122_000001"
    image = simulate_image(camera("LATISS"), name, registers=E2V)
    write_image(image, stand.source, threads=1, durable=False, camera=camera("LATISS"))
    with stand.mirror(ingest={"repository": str(repo)}) as mirror:
        wait_for(lambda: set(ingests(stand).values()) == {"unsupported"}, 30, lambda: ingests(stand))
    make_repository(repo, cameras=["LATISS"]).close()
    with stand.mirror(ingest={"repository": str(repo)}) as mirror:
        time.sleep(0.5)
        assert set(ingests(stand).values()) == {"unsupported"}
        assert mirror.obey("retry", {}) == {"tree": {"files": 0, "ingests": 1}}
        wait_for(lambda: set(ingests(stand).values()) == {"ingested"}, 30, lambda: ingests(stand))
