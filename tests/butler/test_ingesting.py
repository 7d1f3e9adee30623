"""Files into a repository: what it knows of them afterwards, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_raws import BIAS, RAFT, SKY, Raws

pytest.importorskip("lsst.daf.butler")

from raftwright.butler import Incoming, Ingester, Outcome, Repository
from raftwright.errors import FormatError, UsageError
from raftwright.rawfile.standing import digest

Open = Callable[..., Repository]
EXPOSURE = 2026112200123


def incoming(paths: Sequence[Path]) -> list[Incoming]:
    return [Incoming.of(str(path), crc32c=digest(path).crc32c, bytes=path.stat().st_size) for path in paths]


def states(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def exposure(repository: Repository, number: int = EXPOSURE, instrument: str = "LSSTCam") -> Any:
    (record,) = repository.butler.query_dimension_records(
        "exposure", instrument=instrument, exposure=number, explain=False
    )
    return record


def test_what_a_sidecar_tells_is_in_the_registry(archive: Raws, opened: Open) -> None:
    repository = opened()
    outcomes = Ingester(repository).ingest(incoming(archive.image(header={**SKY, "MAXINDEX": 2})))
    assert states(outcomes) == ["ingested"] * 3
    record = exposure(repository)
    assert (record.obs_id, record.day_obs, record.seq_num) == ("MC_O_20261122_000123", 20261122, 123)
    assert (record.seq_start, record.seq_end) == (123, 124)
    assert (record.exposure_time, record.dark_time) == (30.125, 30.5)
    assert (record.observation_type, record.observation_reason) == ("science", "field survey")
    assert (record.target_name, record.science_program) == ("ECDFS", "BLOCK-1")
    assert (record.tracking_ra, record.tracking_dec) == pytest.approx((53.5, -27.5))
    assert (record.sky_angle, record.zenith_angle, record.azimuth) == pytest.approx((12.5, 29.0, 100.0))
    assert (record.group, record.physical_filter) == (SKY["GROUPID"], "r_57")
    assert record.timespan.begin.tai.isot[:23] == SKY["DATE-BEG"]
    assert record.timespan.end.tai.isot[:23] == SKY["DATE-END"]
    assert record.has_simulated is False
    (filter_record,) = repository.butler.query_dimension_records(
        "physical_filter", instrument="LSSTCam", physical_filter="r_57"
    )
    assert filter_record.band == "r"
    (day,) = repository.butler.query_dimension_records("day_obs", instrument="LSSTCam")
    assert day.timespan.begin.tai.isot[:23] == "2026-11-22T12:00:00.000"


def test_ids_are_those_that_anybody_computes(archive: Raws, opened: Open) -> None:
    """UUID5 of dataset type, run and data id, in the name space that the Butler has for them."""
    repository = opened()
    for outcome, path in zip(
        Ingester(repository).ingest(incoming(paths := archive.image())), paths, strict=True
    ):
        stem = path.stem.removeprefix("MC_O_20261122_000123_")
        (detector,) = [
            record.id
            for record in repository.butler.query_dimension_records("detector", instrument="LSSTCam")
            if record.full_name == stem
        ]
        text = f"dataset_type=raw,run=LSSTCam/raw/all,detector={detector},exposure={EXPOSURE}"
        text += ",instrument=LSSTCam"
        space = uuid.UUID("840b31d9-05cd-5161-b2c8-00d32b280d0f")
        assert outcome.dataset_id == str(uuid.uuid5(space, text))
        assert (outcome.exposure, outcome.instrument, outcome.run) == (EXPOSURE, "LSSTCam", "LSSTCam/raw/all")


@pytest.mark.parametrize(
    ("name", "camera", "location", "number"),
    [
        ("AT_O_20261122_000005", "LATISS", "00/0", 2026112200005),
        ("CC_C_20230101_000006", "LSSTComCam", "22/1", 3023010100006),
        ("MC_H_20261122_000007", "LSSTCam", "22/0", 4026112200007),
        ("MC_S_20261122_000008", "LSSTCam", "22/0", 2026112200008),
    ],
)
def test_exposure_numbers(
    name: str, camera: str, location: str, number: int, archive: Raws, opened: Open
) -> None:
    repository = opened()
    outcomes = Ingester(repository).ingest(incoming(archive.image(name, camera, [location], header=BIAS)))
    assert set(states(outcomes)) == {"ingested"}
    record = exposure(repository, number, camera)
    assert record.obs_id == name
    assert record.has_simulated is (name[3] in "HS")
    assert (record.observation_type, record.tracking_ra, record.can_see_sky) == ("bias", None, False)


def test_without_a_sidecar_the_header_of_the_file_does(archive: Raws, opened: Open) -> None:
    paths = archive.image()
    for path in paths:
        path.with_suffix(".json").unlink()
    repository = opened()
    assert states(Ingester(repository).ingest(incoming(paths))) == ["ingested"] * 3
    assert exposure(repository).physical_filter == "r_57"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1, 2]", b'{"OBSID": 7}', b"\xff\xfe", b'{"OBSID": "MC_O_20261122_000999"}']
)
def test_a_sidecar_that_cannot_be_used_is_none(text: bytes, archive: Raws, opened: Open) -> None:
    paths = archive.image()
    for path in paths:
        path.with_suffix(".json").write_bytes(text)
    repository = opened()
    assert states(Ingester(repository).ingest(incoming(paths))) == ["ingested"] * 3
    assert exposure(repository).physical_filter == "r_57"


def test_an_image_without_a_header_is_known_by_its_name(archive: Raws, opened: Open) -> None:
    """And when its header has come, in a later sidecar, the registry learns it from the next file."""
    from small_raws import document

    from raftwright.rawfile.document import read_header_document
    from raftwright.rawfile.later import write_later_sidecar

    paths = archive.image(header=None)
    repository = opened()
    ingester = Ingester(repository)
    assert states(ingester.ingest(incoming(paths[:1]))) == ["ingested"]
    record = exposure(repository)
    assert (record.day_obs, record.seq_num, record.obs_id) == (20261122, 123, "MC_O_20261122_000123")
    assert (record.timespan, record.physical_filter, record.observation_type) == (None, "unknown", "unknown")
    source = archive.root / "header.yaml"
    source.write_bytes(document(SKY))
    found = read_header_document(source)
    for path in paths:
        assert write_later_sidecar(path, found, source, durable=False) is not None
    assert states(ingester.ingest(incoming(paths[1:2]))) == ["ingested"]
    record = exposure(repository)
    assert (record.physical_filter, record.exposure_time) == ("r_57", 30.125)
    changed = json.loads(paths[2].with_suffix(".json").read_text()) | {"OBSID": "MC_O_20261122_000123"}
    changed |= {"FILTER": "g_6", "DATE-BEG": "2026-11-23T01:02:03.456", "EXPTIME": 5.0}
    one = incoming(paths[2:])[0]
    again = Incoming(path=one.path, obsid=one.obsid, detector=one.detector, header=changed)
    assert states(Ingester(repository).ingest([again])) == ["ingested"]
    assert exposure(repository).physical_filter == "r_57"  # what was told once stays


def test_a_header_that_comes_after_all_files(archive: Raws, opened: Open) -> None:
    """The same files again are no news, but what their later sidecars tell is."""
    from small_raws import document

    from raftwright.rawfile.document import read_header_document
    from raftwright.rawfile.later import write_later_sidecar

    paths = archive.image(header=None)
    repository = opened()
    ingester = Ingester(repository)
    assert states(ingester.ingest(incoming(paths))) == ["ingested"] * 3
    source = archive.root / "header.yaml"
    source.write_bytes(document(SKY))
    for path in paths:
        write_later_sidecar(path, read_header_document(source), source, durable=False)
    assert states(ingester.ingest(incoming(paths[:1]))) == ["duplicate"]
    record = exposure(repository)
    assert (record.physical_filter, record.exposure_time, record.target_name) == ("r_57", 30.125, "ECDFS")
    (outcome,) = ingester.define_visits([("LSSTCam", EXPOSURE)])
    assert outcome.state == "defined"


def test_odd_values_of_a_header_do_not_keep_an_image_out(archive: Raws, opened: Open) -> None:
    odd = {**SKY, "GROUPID": "g" * 70, "OBJECT": "x" * 70, "REASON": "r" * 66}
    odd |= {"CURINDEX": 9000, "MAXINDEX": 2, "RASTART": 530.0, "DECSTART": 127.5, "ELSTART": 200.0}
    paths = archive.image(header=odd)
    repository = opened()
    one = incoming(paths)[0]
    told = json.loads(paths[0].with_suffix(".json").read_text())
    told |= {
        "EXPTIME": "many",
        "DATE-BEG": [1, 2],
        "FILTER": {"a": 1},
        "IMGTYPE": "T" * 90,
        "DARKTIME": 1e400,
    }
    told |= {"PROGRAM": "\0\n\t", "SEQNUM": "x", "DAYOBS": None, "": 3}
    hostile = Incoming(path=one.path, obsid=one.obsid, detector=one.detector, header=told)
    assert states(Ingester(repository).ingest([hostile, *incoming(paths[1:])])) == ["ingested"] * 3
    record = exposure(repository)
    assert record.group == str(EXPOSURE)
    assert len(record.observation_type) <= 16


# -- how files get in


@pytest.mark.parametrize("transfer", ["direct", "hardlink", "copy", "move"])
def test_ways_in(transfer: Any, archive: Raws, opened: Open, repo: Path) -> None:
    paths = archive.image()
    contents = [path.read_bytes() for path in paths]
    inodes = [path.stat().st_ino for path in paths]
    repository = opened()
    ingester = Ingester(repository)
    files = incoming(paths)
    outcomes = ingester.ingest(files, transfer)
    assert states(outcomes) == ["ingested"] * 3
    for path, content, inode, outcome in zip(paths, contents, inodes, outcomes, strict=True):
        there = Path(outcome.uri.removeprefix("file://"))
        assert there.read_bytes() == content
        if transfer == "direct":
            assert there == path
        else:
            folder = repo / "LSSTCam/raw/all/20261122/MC_O_20261122_000123"
            assert there == folder / path.name
            assert there.with_suffix(".json").exists()
        assert (there.stat().st_ino == inode) is (transfer != "copy")
        assert path.exists() is path.with_suffix(".json").exists() is (transfer != "move")
        (ref,) = repository.datasets([outcome.dataset_id])
        assert repository.uris([ref]) == {outcome.dataset_id: outcome.uri}
        assert repository.butler.get(ref).header["OBSID"] == "MC_O_20261122_000123"
    if transfer != "move":
        assert states(ingester.ingest(files, transfer)) == ["duplicate"] * 3
    assert list(repo.rglob(".raftwright*")) == []


def test_a_copy_that_is_not_as_announced_is_refused(archive: Raws, opened: Open) -> None:
    paths = archive.image()
    files = incoming(paths)
    files[1] = Incoming.of(str(paths[1]), crc32c="00000000")
    outcomes = Ingester(opened()).ingest(files, "copy")
    assert states(outcomes) == ["ingested", "failed", "ingested"]
    assert paths[1].name in outcomes[1].reason


def test_a_move_never_takes_what_is_needed(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """Neither the file that the repository reads, nor an older version, which it does not have."""
    (path, *_) = archive.image()
    ingester = Ingester(opened())
    (outcome,) = ingester.ingest(incoming([path]), "direct")
    assert states(ingester.ingest(incoming([path]), "move")) == ["duplicate"]
    assert path.exists()
    (better, *_) = archive.image(seed=8, root=tmp_path / "other")
    second = path.with_name(path.name.replace(".fits", ".v2.fits"))
    shutil.copy(better, second)
    (newer,) = ingester.ingest(incoming([second]), "move")
    assert (newer.state, newer.replaced, second.exists()) == ("ingested", outcome.uri, False)
    (older,) = ingester.ingest(incoming([path]), "move")
    assert (older.state, older.older, path.exists()) == ("duplicate", True, True)


def test_a_move_across_file_systems(archive: Raws, opened: Open) -> None:
    """D122: copied, compared, named, and only then removed where it was."""
    there = Path("/dev/shm")
    if not there.is_dir() or there.stat().st_dev == archive.root.parent.stat().st_dev:
        pytest.skip("no second file system")
    folder = there / f"raftwright-{os.getpid()}"
    try:
        paths = archive.image(root=folder)
        contents = [path.read_bytes() for path in paths]
        repository = opened()
        outcomes = Ingester(repository).ingest(incoming(paths), "move")
        assert states(outcomes) == ["ingested"] * 3
        for path, content, outcome in zip(paths, contents, outcomes, strict=True):
            assert not path.exists()
            assert Path(outcome.uri.removeprefix("file://")).read_bytes() == content
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- the same again, and another


def test_the_same_again_is_as_good(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """D119: a duplicate with equal checksum is a success, wherever it lies."""
    paths = archive.image()
    ingester = Ingester(opened())
    first = ingester.ingest(incoming(paths))
    shutil.copytree(archive.root, tmp_path / "copy")
    copies = [tmp_path / "copy" / path.relative_to(archive.root) for path in paths]
    again = ingester.ingest([*incoming(copies), *incoming(paths)])
    assert states(again) == ["duplicate"] * 6
    assert all(outcome.good and outcome.code == 0 for outcome in again)
    assert [outcome.uri for outcome in again] == [outcome.uri for outcome in first] * 2


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_another_content_is_a_conflict(transfer: Any, archive: Raws, opened: Open, tmp_path: Path) -> None:
    paths = archive.image()
    others = archive.image(seed=8, root=tmp_path / "other")
    repository = opened()
    ingester = Ingester(repository)
    first = ingester.ingest(incoming(paths), transfer)
    again = ingester.ingest(incoming(others), transfer)
    assert states(again) == ["conflict"] * 3
    assert all(outcome.code == 1 and outcome.reason for outcome in again)
    refs = repository.datasets([outcome.dataset_id for outcome in first])
    assert repository.uris(refs) == {outcome.dataset_id: outcome.uri for outcome in first}
    both = ingester.ingest([*incoming(others), *incoming(paths)], transfer)  # in one batch
    assert states(both) == ["conflict"] * 3 + ["duplicate"] * 3


def test_a_file_that_was_changed_since_is_a_conflict(archive: Raws, opened: Open) -> None:
    (path, *_) = archive.image()
    ingester = Ingester(opened())
    (file,) = incoming([path])
    assert states(ingester.ingest([file])) == ["ingested"]
    changed = bytearray(path.read_bytes())
    changed[-3000] ^= 1
    path.chmod(0o644)
    path.write_bytes(changed)
    (outcome,) = ingester.ingest([file])
    assert (outcome.state, "was changed" in outcome.reason) == ("conflict", True)


def test_two_different_files_of_one_detector_in_one_batch(
    archive: Raws, opened: Open, tmp_path: Path
) -> None:
    (path, *_) = archive.image()
    (other, *_) = archive.image(seed=8, root=tmp_path / "other")
    outcomes = Ingester(opened()).ingest(incoming([path, other, path]))
    assert states(outcomes) == ["ingested", "conflict", "duplicate"]


@pytest.mark.parametrize("transfer", ["direct", "hardlink"])
def test_a_later_version_takes_the_place(
    transfer: Any, archive: Raws, opened: Open, tmp_path: Path, repo: Path
) -> None:
    """The registry reads the version that lacks less; the older file stays, and never comes back."""
    (path, *_) = archive.image()
    (better, *_) = archive.image(seed=8, root=tmp_path / "other")
    second = path.with_name(path.name.replace(".fits", ".v2.fits"))
    shutil.copy(better, second)
    repository = opened()
    ingester = Ingester(repository)
    (first,) = ingester.ingest(incoming([path]), transfer)
    (outcome,) = ingester.ingest(incoming([second]), transfer)
    assert (outcome.state, outcome.replaced) == ("ingested", first.uri)
    assert outcome.dataset_id == first.dataset_id
    old = Path(first.uri.removeprefix("file://"))
    assert old.read_bytes() == path.read_bytes()
    assert outcome.uri.endswith(".v2.fits")
    (ref,) = repository.datasets([first.dataset_id])
    assert repository.uris([ref]) == {first.dataset_id: outcome.uri}
    want = Path(outcome.uri.removeprefix("file://")).read_bytes()
    assert want == second.read_bytes()
    assert repository.butler.get(ref).file.path == Path(outcome.uri.removeprefix("file://"))
    (older,) = ingester.ingest(incoming([path]), transfer)
    assert (older.state, older.uri) == ("duplicate", outcome.uri)
    (same,) = ingester.ingest(incoming([second]), transfer)
    assert (same.state, same.uri) == ("duplicate", outcome.uri)
    assert list(repo.rglob(".*.kept")) == []


def test_both_versions_in_one_batch(archive: Raws, opened: Open, tmp_path: Path) -> None:
    (path, *_) = archive.image()
    (better, *_) = archive.image(seed=8, root=tmp_path / "other")
    second = path.with_name(path.name.replace(".fits", ".v2.fits"))
    shutil.copy(better, second)
    outcomes = Ingester(opened()).ingest(incoming([second, path]))
    assert states(outcomes) == ["ingested", "ingested"]
    assert outcomes[0].replaced == outcomes[1].uri


def test_a_file_that_is_gone_is_read_elsewhere(archive: Raws, opened: Open, tmp_path: Path) -> None:
    paths = archive.image()
    repository = opened()
    ingester = Ingester(repository)
    first = ingester.ingest(incoming(paths))
    archive.root.rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(archive.root) for path in paths]
    again = ingester.ingest(incoming(moved))
    assert states(again) == ["ingested"] * 3
    assert [outcome.replaced for outcome in again] == [outcome.uri for outcome in first]
    assert repository.butler.get(repository.datasets([again[0].dataset_id])[0]).mosaic.shape == (32, 160)


# -- guiders


def test_guiders_wait_for_their_exposure(archive: Raws, opened: Open) -> None:
    """D118: the repository says that it waits, and the caller's ledger keeps it."""
    path = archive.guider()
    repository = opened()
    ingester = Ingester(repository)
    (outcome,) = ingester.ingest(incoming([path]))
    assert (outcome.state, outcome.good, outcome.again) == ("waiting", False, True)
    assert repository.find("LSSTCam", kind="guider") == []
    assert states(ingester.ingest(incoming(archive.image()))) == ["ingested"] * 3
    (outcome,) = ingester.ingest(incoming([path]))
    assert (outcome.state, outcome.run, outcome.dataset_type) == (
        "ingested",
        "LSSTCam/raw/guider",
        "guider",
    )
    other = archive.guider("MC_O_20261122_000124")
    outcomes = ingester.ingest(incoming([other, *archive.image("MC_O_20261122_000124")]))
    assert states(outcomes) == ["ingested"] * 4  # it comes with its exposure


# -- what is bad fails alone


def test_bad_files_fail_alone(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """D119 and D129: truncated, not FITS, of another image, empty, a directory, gone, not yet whole."""
    paths = archive.image(locations=RAFT)
    assert len(paths) == 9
    files = incoming(paths)

    def spoil(number: int, content: bytes) -> None:
        paths[number].chmod(0o644)
        paths[number].write_bytes(content)
        files[number] = Incoming.of(str(paths[number]))

    whole = paths[0].read_bytes()
    spoil(0, whole[: len(whole) // 2])
    spoil(1, b"\x89PNG" + bytes(range(256)) * 40)
    spoil(2, paths[3].read_bytes())
    spoil(4, b"")
    paths[5].unlink()
    paths[5].mkdir()
    paths[6].unlink()
    files[7] = Incoming.of(str(paths[7]), bytes=paths[7].stat().st_size + 2880)
    repository = opened()
    outcomes = Ingester(repository).ingest(files)
    assert states(outcomes) == [*["failed"] * 3, "ingested", *["failed"] * 4, "ingested"]
    for number, outcome in enumerate(outcomes):
        assert outcome.good or str(paths[number]) in outcome.reason, outcome
        assert outcome.again is (number in (6, 7)), outcome
        assert outcome.code == {3: 0, 8: 0, 6: 1, 7: 1}.get(number, 2)
    assert len(repository.find("LSSTCam")) == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_fails_alone(archive: Raws, opened: Open) -> None:
    paths = archive.image()
    files = incoming(paths)
    paths[1].chmod(0)
    outcomes = Ingester(opened()).ingest(files, "copy")
    assert states(outcomes) == ["ingested", "failed", "ingested"]
    assert outcomes[1].again


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_what_is_there_and_vanished_here_fails_alone(
    transfer: Any, archive: Raws, opened: Open, tmp_path: Path
) -> None:
    """A link that leads nowhere, a link to a directory, and a link to the file itself."""
    paths = archive.image()
    ingester = Ingester(opened())
    folder = tmp_path / "links"
    folder.mkdir()
    for path, target in zip(paths, (tmp_path / "nowhere", archive.root, paths[2]), strict=True):
        (folder / path.name).symlink_to(target)
    links = [Incoming.of(str(folder / path.name)) for path in paths]
    outcomes = ingester.ingest(links, transfer)
    assert states(outcomes) == ["failed", "failed", "ingested"]
    assert states(ingester.ingest(incoming(paths), transfer)) == ["ingested", "ingested", "duplicate"]


def test_a_file_that_the_registry_refuses_fails_alone(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """The batch is halved until only it is left: one detector has been taken out of the registry's table."""
    paths = archive.image(locations=RAFT)
    repository = opened()
    ingester = Ingester(repository)
    ingester.ingest(incoming(archive.image("MC_O_20261122_000001")))  # knows all detectors from now on
    import sqlite3

    with sqlite3.connect(Path(repository.root) / "gen3.sqlite3") as registry:
        registry.execute("DELETE FROM detector WHERE instrument = 'LSSTCam' AND full_name = 'R22_S02'")
    outcomes = ingester.ingest(incoming(paths))
    bad = [number for number, path in enumerate(paths) if "R22_S02" in path.name]
    assert [number for number, outcome in enumerate(outcomes) if outcome.state == "failed"] == bad
    assert sum(outcome.state == "ingested" for outcome in outcomes) == 8
    assert "refuses" in outcomes[bad[0]].reason


@pytest.mark.parametrize(
    "path",
    [
        "/archive/../../etc/MC_O_20261122_000123_R22_S11.fits",
        "MC_O_20261122_000123_R22_S11.fits",
        "/archive/new\nline/MC_O_20261122_000123_R22_S11.fits",
        "/archive/nul\0/MC_O_20261122_000123_R22_S11.fits",
        "/archive/\udcff/MC_O_20261122_000123_R22_S11.fits",
        "ftp://host/MC_O_20261122_000123_R22_S11.fits",
        "file:///archive/MC_O_20261122_000123_R22_S11.fits",
        "/archive/" + "x" * 5000 + "/MC_O_20261122_000123_R22_S11.fits",
        "",
    ],
)
def test_hostile_paths(path: str, opened: Open) -> None:
    file = Incoming(path=path, obsid="MC_O_20261122_000123", detector="R22_S11")
    (outcome,) = Ingester(opened()).ingest([file])
    assert outcome.state == "unsupported"
    assert "\n" not in outcome.reason
    assert outcome.reason.isprintable()


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("XX_O_20261122_000123_R22_S11.fits", "unsupported"),
        ("MC_O_20261122_000123_R99_S11.fits", "failed"),
        ("MC_Z_20261122_000123_R22_S11.fits", "unsupported"),
        ("MC_O_20261122_100123_R22_S11.fits", "unsupported"),
        ("MC_O_20269922_000123_R22_S11.fits", "unsupported"),
        ("MC_O_20261122_000123_R22_S11.fits;rm -rf", "unsupported"),
        ("MC_O_20261122_000123_R22_S11.json", "unsupported"),
        ("MC_O_20261122_000123_expectedSensors.json", "unsupported"),
    ],
)
def test_odd_names(name: str, state: str, archive: Raws, opened: Open) -> None:
    """D120: identity comes from the name of the object, and from nothing that was made up."""
    (path, *_) = archive.image()
    there = path.with_name(name)
    if not there.exists():
        shutil.copy(path, there)
    (outcome,) = Ingester(opened()).ingest([Incoming(path=str(there))])
    assert (outcome.state, outcome.code) == (state, 2)


def test_odd_directories_are_no_trouble(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """A directory may be called anything that is text: the repository's URIs are quoted."""
    root = tmp_path / "a b#c%20?é'\";$(x)"
    paths = archive.image(root=root)
    repository = opened()
    ingester = Ingester(repository)
    outcomes = ingester.ingest(incoming(paths))
    assert states(outcomes) == ["ingested"] * 3
    for outcome in outcomes:
        assert repository.butler.get(repository.datasets([outcome.dataset_id])[0]).mosaic.shape == (32, 160)
    assert states(ingester.ingest(incoming(paths))) == ["duplicate"] * 3


def test_what_is_announced_must_agree(archive: Raws, opened: Open) -> None:
    (path, *_) = archive.image()
    ingester = Ingester(opened())
    for said in ({"detector": "R22_S00"}, {"obsid": "MC_O_20261122_000124"}, {"kind": "guider"}):
        facts: dict[str, Any] = {"obsid": "MC_O_20261122_000123", "detector": "R22_S10", **said}
        assert states(ingester.ingest([Incoming(path=str(path), **facts)])) == ["unsupported"]


def test_usage(archive: Raws, opened: Open) -> None:
    assert Ingester(opened()).ingest([]) == []
    with pytest.raises(UsageError, match="no way to ingest"):
        Ingester(opened()).ingest([], "symlink")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="reading only"):
        Ingester(opened(writeable=False))
    with pytest.raises(FormatError):
        Incoming.of("/archive/picture.png")


@pytest.mark.parametrize("transfer", ["hardlink", "move"])
def test_a_repository_whose_path_is_quoted_in_a_uri(
    tmp_path: Path, repo: Path, opened: Open, transfer: Any
) -> None:
    """What is moved leaves its place, what is removed takes its sidecars with it."""
    place = repo.rename(tmp_path / "our oods #1 é")
    archive = Raws(tmp_path / "a b")
    paths = archive.image()
    ingester = Ingester(opened(place))
    files = [Incoming.of(str(path)) for path in paths]
    outcomes = ingester.ingest(files, transfer)
    assert {outcome.state for outcome in outcomes} == {"ingested"}
    assert any(path.exists() for path in paths) == (transfer != "move")
    repository = opened(place)
    refs = repository.find("LSSTCam")
    assert sorted(repository.uris(refs).values()) == sorted(outcome.uri for outcome in outcomes)
    assert repository.butler.get(refs[0]).mosaic.shape == (32, 160)
    assert len(repository.remove(refs)) == 3
    assert not [path for path in place.rglob("MC_*") if path.is_file()]
