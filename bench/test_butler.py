"""Ingest of a full LSSTCam image into a Butler repository, against `butler.ingest` alone:
`pytest bench/test_butler.py -s`.

Both enter the same 205 small files, by turns, in one process and two repositories of their own in SQLite, in
place. The bare call gets its dimension records and dataset references made beforehand and looks into no
file; ours makes them from names and sidecars, looks whose each file is, and says what became of it. Sizes and
sums of the files are known, as the ledger knows them.

RAFTWRIGHT_BENCH_DISK: where files and repositories are. RAFTWRIGHT_BENCH_ROUNDS (7): images.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lsst.daf.butler")

from lsst.daf.butler import Butler, FileDataset
from lsst.resources import ResourcePath

from raftwright.butler import Incoming, Ingester, make_repository
from raftwright.butler.records import exposure_records
from raftwright.camera import camera
from raftwright.daq import simulate_image
from raftwright.rawfile import ImageName, write_image
from raftwright.rawfile.standing import digest

ROUNDS = int(os.environ.get("RAFTWRIGHT_BENCH_ROUNDS", "7"))
LONGEST = 2.0
"""Seconds."""
RATIO = 1.3
HEADER: dict[str, Any] = {
    "IMGTYPE": "OBJECT",
    "EXPTIME": 30.0,
    "DATE-BEG": "2026-11-23T01:02:03.456",
    "DATE-END": "2026-11-23T01:02:33.956",
    "TRACKSYS": "RADEC",
    "RADESYS": "ICRS",
    "RASTART": 53.5,
    "DECSTART": -27.5,
    "ROTPA": 12.5,
    "ROTCOORD": "sky",
    "FILTER": "r_57",
}


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        yield Path(name)


def write(root: Path, number: int) -> list[Path]:
    """The 205 files of an image."""
    lsstcam = camera("LSSTCam")
    registers = (10, 0, 20, 0, 0, 4, 0, 16, 0, 3, 2)
    name = f"MC_O_20261122_{number:06}"
    image = simulate_image(lsstcam, name, locations=list(lsstcam.boards), registers=registers, seed=number)
    records = [{"keyword": key, "value": value, "comment": ""} for key, value in HEADER.items()]
    header = yaml.safe_dump({"PRIMARY": records}).encode()
    return [file.path for file in write_image(image, root, header=header, durable=False).files]


def bare(butler: Butler, make: Any, paths: list[Path]) -> float:
    """Seconds of `butler.ingest`, with everything that it wants made beforehand."""
    lsstcam = camera("LSSTCam")
    name = ImageName.parse(paths[0].parent.name)
    records = exposure_records(name, lsstcam, {"OBSID": str(name), "INSTRUME": "lsstCam", **HEADER})
    butler.registry.insertDimensionData("physical_filter", records.physical_filter, skip_existing=True)
    butler.registry.insertDimensionData("group", records.group, skip_existing=True)
    butler.registry.insertDimensionData("day_obs", records.day_obs, skip_existing=True)
    butler.registry.insertDimensionData("exposure", records.exposure)
    datasets = []
    for path in paths:
        detector = lsstcam.detector("_".join(path.stem.split("_")[-2:]))
        ref = make("raw", "LSSTCam", records.exposure["id"], detector.id)
        datasets.append(FileDataset(path=ResourcePath(str(path)), refs=[ref]))
    begun = time.perf_counter()
    butler.ingest(*datasets, transfer="direct")
    return time.perf_counter() - begun


@pytest.mark.timeout(600)
def test_a_full_image_in_one_batch(disk: Path) -> None:
    images = [write(disk / "archive", number) for number in range(1, ROUNDS + 1)]
    assert all(len(paths) == 205 for paths in images)
    sums = {path: digest(path) for paths in images for path in paths}
    ours, theirs = [], []
    with (
        make_repository(disk / "ours", cameras=["LSSTCam"]) as mine,
        make_repository(disk / "theirs", cameras=["LSSTCam"]) as other,
    ):
        ingester = Ingester(mine)
        for turn, paths in enumerate(images):

            def one(paths: list[Path] = paths) -> None:
                files = [
                    Incoming.of(str(path), crc32c=sums[path].crc32c, bytes=sums[path].bytes) for path in paths
                ]
                begun = time.perf_counter()
                outcomes = ingester.ingest(files)
                ours.append(time.perf_counter() - begun)
                assert [outcome.state for outcome in outcomes] == ["ingested"] * 205

            def two(paths: list[Path] = paths) -> None:
                theirs.append(bare(other.butler, _unexpanded(other), paths))

            for step in (one, two) if turn % 2 else (two, one):
                step()
        # The same datasets with the same ids and files, and they can be read.
        found, wanted = mine.find("LSSTCam"), other.find("LSSTCam")
        assert len(found) == 205 * ROUNDS
        assert {ref.id for ref in found} == {ref.id for ref in wanted}
        assert mine.uris(found) == other.uris(wanted)
        for ref in found[:: 205 // 3]:
            assert mine.butler.get(ref.makeComponentRef("header")) == other.butler.get(
                ref.makeComponentRef("header")
            )
        assert mine.butler.get(found[94]).mosaic.shape == (32, 160)
    middle, bare_middle = statistics.median(ours[1:]), statistics.median(theirs[1:])
    ratio = statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))
    print(
        f"\n{ROUNDS - 1} images of 205 files after a first: ingest median {middle:.3f} s, most"
        f" {max(ours[1:]):.3f} s, first {ours[0]:.3f} s; bare butler.ingest median {bare_middle:.3f} s;"
        f" ratio {ratio:.2f}"
    )
    assert max(ours) <= LONGEST
    assert ratio <= RATIO


def _unexpanded(repository: Any) -> Any:
    """Makes references as any script would: of a data id, without records."""
    from lsst.daf.butler import DataCoordinate

    def make(kind: str, instrument: str, exposure: int, detector: int) -> Any:
        data_id = DataCoordinate.standardize(
            instrument=instrument,
            exposure=exposure,
            detector=detector,
            dimensions=repository.types[kind].dimensions,
        )
        return repository.ref_of(kind, data_id)

    return make
