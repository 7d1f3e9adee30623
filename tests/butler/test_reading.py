"""Through the Butler, as observers read: ours and in a process that knows nothing but the Butler."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from small_raws import SKY, Raws

pytest.importorskip("lsst.daf.butler")

import raftwright
from raftwright.butler import (
    GuiderStamps,
    Incoming,
    Ingester,
    Outcome,
    Raw,
    Repository,
    make_repository,
)
from raftwright.butler.reading import as_box
from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.rawfile import open_raw

Open = Callable[..., Repository]
WHERE: dict[str, Any] = {
    "instrument": "LSSTCam",
    "exposure": 2026112200123,
    "detector": "R22_S11",
    "collections": "LSSTCam/defaults",
}


def ingested(repository: Repository, paths: list[Path]) -> list[Outcome]:
    outcomes = Ingester(repository).ingest([Incoming.of(str(path)) for path in paths])
    assert {outcome.state for outcome in outcomes} == {"ingested"}
    return outcomes


@pytest.fixture
def get(archive: Raws, opened: Open) -> Callable[..., Any]:
    """`butler.get` of one CCD."""
    repository = opened()
    ingested(repository, archive.image())

    def one(name: str = "raw", **parameters: Any) -> Any:
        return repository.butler.get(name, parameters=parameters or None, **WHERE)

    return one


@pytest.fixture
def judge(archive: Raws) -> Callable[[], Any]:
    """The same CCD as raftwright itself reads it."""
    return lambda: open_raw(next(archive.root.rglob("*R22_S11.fits")))


def test_a_raw(get: Callable[..., Any], judge: Callable[[], Any]) -> None:
    raw, wanted = get(), judge()
    assert isinstance(raw, Raw)
    assert raw.header == wanted.header
    assert raw.header["OBJECT"] == "ECDFS"
    assert (raw.detector.name, raw.camera.name, raw.missing_pixels) == ("R22_S11", "LSSTCam", 0)
    assert raw.names == wanted.names
    assert len(raw.names) == 16
    for name in raw.names:
        assert np.array_equal(raw.segments[name], wanted.segments[name])
        assert raw.segment_header(name)["EXTNAME"] == name
    assert np.array_equal(raw.mosaic, wanted.mosaic())
    assert np.array_equal(np.asarray(raw), wanted.mosaic())
    with pytest.raises(UsageError, match="has 16 segments"):
        _ = raw.segment


def test_its_components(get: Callable[..., Any], judge: Callable[[], Any]) -> None:
    wanted = judge()
    assert get("raw.header") == wanted.header
    assert np.array_equal(get("raw.mosaic"), wanted.mosaic())
    segments = get("raw.segments")
    assert list(segments) == list(wanted.names)
    assert all(np.array_equal(segments[name], wanted.segments[name]) for name in segments)
    with pytest.raises(Exception, match="segment"):
        get("raw.segment")


def test_its_parameters(get: Callable[..., Any], judge: Callable[[], Any]) -> None:
    wanted = judge()
    segment = wanted.segments["Segment10"]
    assert np.array_equal(get("raw.segment", segment="Segment10"), segment)
    assert np.array_equal(get("raw.segment", segment="C10"), segment)
    assert np.array_equal(get("raw.segment", segment="C10", bbox=(2, 3, 5, 7)), segment[3:10, 2:7])
    assert list(get("raw.segments", segment="C10")) == ["Segment10"]
    assert np.array_equal(get("raw.mosaic", bbox=(10, 4, 100, 20)), wanted.mosaic()[4:24, 10:110])
    assert np.array_equal(get(bbox=(10, 4, 100, 20)).mosaic, wanted.mosaic()[4:24, 10:110])
    assert np.array_equal(get("raw.mosaic", overscan=True), wanted.mosaic(overscan=True))
    assert np.array_equal(get("raw.mosaic", bin=2), wanted.mosaic(bin=2))

    class Box:
        """Has the methods of `lsst.geom.Box2I`."""

        getBeginX = staticmethod(lambda: 10)  # noqa: N815
        getBeginY = staticmethod(lambda: 4)  # noqa: N815
        getWidth = staticmethod(lambda: 100)  # noqa: N815
        getHeight = staticmethod(lambda: 20)  # noqa: N815

    assert np.array_equal(get("raw.mosaic", bbox=Box()), wanted.mosaic()[4:24, 10:110])


@pytest.mark.parametrize(
    ("parameters", "error", "said"),
    [
        ({"segment": "Segment99"}, NotFoundError, "no segment 'Segment99'"),
        ({"segment": 3}, NotFoundError, "no segment"),
        ({"bbox": (0, 0, 10_000, 1)}, UsageError, "goes beyond"),
        ({"bbox": (-1, 0, 1, 1)}, UsageError, "is no bbox"),
        ({"bbox": "all"}, UsageError, "is no bbox"),
        ({"bin": 0}, UsageError, "no binning"),
        ({"bin": "two"}, UsageError, "no binning"),
        ({"segment": "C10", "bin": 2}, UsageError, "as it was read out"),
    ],
)
def test_parameters_that_cannot_be_meant(
    parameters: dict[str, Any], error: type[Exception], said: str, get: Callable[..., Any]
) -> None:
    with pytest.raises(Exception, match=said) as caught:
        get("raw.mosaic", **parameters)
    causes = []
    one: BaseException | None = caught.value
    while one is not None:
        causes.append(type(one))
        one = one.__cause__ or one.__context__
    assert error in causes


@pytest.mark.parametrize(
    "box", [np.array([10, 4, 100, 20]), [np.int64(10), 4, np.uint8(100), 20], (10, 4, 100, 20)]
)
def test_a_box_of_whole_numbers_of_any_kind(box: Any) -> None:
    """As they come out of NumPy."""
    assert as_box(box) == (10, 4, 100, 20)
    assert {type(part) for part in as_box(box)} == {int}


@pytest.mark.parametrize(
    "box", [{1, 2, 3, 4}, {0: 1}, (0, 0, 1.0, 1), (True, 0, 1, 1), None, 5, (0, 0, 1, 1, 1), np.zeros(4)]
)
def test_what_is_no_box(box: Any) -> None:
    with pytest.raises(UsageError, match="is no bbox"):
        as_box(box)


def test_a_plain_butler_in_another_process_reads_it(archive: Raws, opened: Open, repo: Path) -> None:
    """It has nothing of raftwright imported: configuration and formatter say how it is done."""
    ingested(opened(), archive.image())
    program = """
import json, sys
from lsst.daf.butler import Butler
assert not [name for name in sys.modules if name.startswith("raftwright")]
with Butler.from_config(sys.argv[1], collections="LSSTCam/defaults", instrument="LSSTCam") as butler:
    raw = butler.get("raw", exposure=2026112200123, detector=94)
    same = butler.get("raw", day_obs=20261122, seq_num=123, detector=94)
    part = butler.get("raw.mosaic", exposure=2026112200123, detector=94, parameters={"bbox": (0, 0, 4, 3)})
    header = butler.get("raw.header", exposure=2026112200123, detector=94)
print(json.dumps([header["OBSID"], list(raw.mosaic.shape), list(part.shape), int(same.mosaic.sum())]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(repo)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(Path(raftwright.__file__).parents[1]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    obsid, shape, part, total = json.loads(done.stdout)
    wanted = open_raw(next(archive.root.rglob("*R22_S11.fits"))).mosaic()
    assert (obsid, shape, part) == ("MC_O_20261122_000123", list(wanted.shape), [3, 4])
    assert total == int(wanted.sum())


def test_a_later_header_is_read_with_the_raw(archive: Raws, opened: Open) -> None:
    from small_raws import document

    from raftwright.rawfile.document import read_header_document
    from raftwright.rawfile.later import write_later_sidecar

    paths = archive.image(header=None)
    repository = opened()
    (outcome, *_) = ingested(repository, paths)
    (ref,) = repository.datasets([outcome.dataset_id])
    assert repository.butler.get(ref.makeComponentRef("header")).get("OBJECT") is None
    source = archive.root / "header.yaml"
    source.write_bytes(document(SKY))
    write_later_sidecar(paths[0], read_header_document(source), source, durable=False)
    assert repository.butler.get(ref.makeComponentRef("header"))["OBJECT"] == "ECDFS"


def test_a_guider(archive: Raws, opened: Open) -> None:
    path = archive.guider(stamps=4)
    repository = opened()
    ingested(repository, [*archive.image(), path])
    where = {**WHERE, "detector": "R00_SG0"}
    stamps = repository.butler.get("guider", **where)
    assert isinstance(stamps, GuiderStamps)
    assert (len(stamps), stamps[2].shape, stamps.metadata["N_STAMPS"]) == (4, (40, 50), 4)
    assert [int(stamp[0, 0]) for stamp in stamps] == [1, 2, 3, 4]
    assert stamps.headers[1]["STMPTIME"] == "2026-11-23T01:02:02.000"
    assert isinstance(repository.butler.get("guider.header", **where), fits.Header)
    assert repository.butler.get("guider.header", **where)["ROIROWS"] == 40
    assert len(repository.butler.get("guider.stamps", **where)) == 4


def test_a_camera_of_a_file(archive: Raws, tmp_path: Path, project_root: Path) -> None:
    """Its file is kept in the repository; who reads without raftwright names it."""
    source = project_root / "python/raftwright/camera/data/MiniCam.yaml"
    text = source.read_text().replace("MiniCam", "OtherCam").replace("code: MN", "code: ON")
    file = tmp_path / "other.yaml"
    file.write_text(text)
    from raftwright.camera import camera

    other = camera(file)
    name = f"{other.code}_O_20261122_000007"
    paths = archive.image(name, other, [next(iter(other.boards))])
    with make_repository(tmp_path / "repo", cameras=[file]) as repository:
        file.unlink()
        ingested(repository, paths)
        where: dict[str, Any] = {
            "instrument": other.name,
            "exposure": 2026112200007,
            "detector": 0,
            "collections": repository.chain_of(other.name),
        }
        raw = repository.butler.get("raw", **where)
        wanted = open_raw(paths[0], camera=other).mosaic()
        assert np.array_equal(raw.mosaic, wanted)
        kept = tmp_path / "repo/cameras" / f"{other.name}.yaml"
        again = repository.butler.get("raw.mosaic", parameters={"camera": str(kept)}, **where)
        assert np.array_equal(again, wanted)


def test_a_file_that_was_cut_since_is_no_raw(archive: Raws, opened: Open) -> None:
    paths = archive.image()
    repository = opened()
    (outcome, *_) = ingested(repository, paths)
    (ref,) = repository.datasets([outcome.dataset_id])
    paths[0].chmod(0o644)
    paths[0].write_bytes(paths[0].read_bytes()[:-2880])
    with pytest.raises(Exception, match="does not match size"):
        repository.butler.get(ref)


def test_nothing_is_put(get: Callable[..., Any], opened: Open) -> None:
    raw = get()
    repository = opened()
    where = {key: WHERE[key] for key in ("instrument", "exposure")}
    with pytest.raises(Exception, match="serialize") as caught:
        repository.butler.put(raw, "raw", run="LSSTCam/raw/all", detector=5, **where)
    assert isinstance(caught.value.__cause__, UsageError)
    assert "ingested as the files that they are" in str(caught.value.__cause__)
    assert len(repository.find("LSSTCam")) == 3


def test_no_guider_file(tmp_path: Path) -> None:
    from raftwright.butler.reading import read_guider

    path = tmp_path / "x.fits"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError):
        read_guider(str(path))
