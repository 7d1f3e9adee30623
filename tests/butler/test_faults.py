"""Locks, kills, others at the same time: the registry and the disk agree afterwards."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_raws import RAFT, Raws, ended, forked

pytest.importorskip("lsst.daf.butler")

from raftwright.butler import Incoming, Ingester, Repository, open_repository
from raftwright.errors import StorageError
from raftwright.rawfile.standing import digest

Open = Callable[..., Repository]


def incoming(paths: list[Path]) -> list[Incoming]:
    return [Incoming.of(str(path), crc32c=digest(path).crc32c) for path in paths]


def check_whole(repository: Repository, count: int) -> None:
    """Every dataset has its file and can be read; nothing else is there."""
    refs = repository.find("LSSTCam")
    assert len(refs) == count
    uris = repository.uris(refs)
    assert len(uris) == count
    for ref in refs:
        path = Path(uris[str(ref.id)].removeprefix("file://"))
        assert path.is_file()
        assert path.with_suffix(".json").is_file()
        assert repository.butler.get(ref).mosaic.shape == (32, 160)
    assert repository.mend() == 0
    hidden = [path for path in Path(repository.root).rglob(".*") if path.is_file()]
    assert [path for path in hidden if not path.name.startswith(".raftwright-")] == []


def holding(database: Path, ready: Path, until: Path) -> None:
    """Has the registry's lock from `ready` until `until` is there."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    ready.touch()
    began = time.monotonic()
    while not until.exists() and time.monotonic() < began + 60:
        time.sleep(0.01)
    connection.execute("ROLLBACK")


def wait_for(path: Path, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.005)


def test_a_locked_registry_is_waited_for_but_not_for_ever(
    archive: Raws, opened: Open, repo: Path, tmp_path: Path
) -> None:
    files = incoming(archive.image())
    ingester = Ingester(opened(busy=0.5))
    ready, until = tmp_path / "ready", tmp_path / "until"
    pid = forked(lambda: holding(repo / "gen3.sqlite3", ready, until))
    try:
        wait_for(ready)
        began = time.monotonic()
        with pytest.raises(StorageError, match="hold its lock") as caught:
            ingester.ingest(files)
        assert 0.4 < time.monotonic() - began < 5.0
        assert caught.value.filename == str(repo)
    finally:
        until.touch()
        assert ended(pid) == 0
    assert {outcome.state for outcome in ingester.ingest(files)} == {"ingested"}
    again, later = tmp_path / "again", tmp_path / "later"
    pid = forked(lambda: holding(repo / "gen3.sqlite3", again, later))
    wait_for(again)
    free = forked(lambda: (time.sleep(0.5), later.touch()))  # type: ignore[arg-type,return-value]
    others = incoming(archive.image("MC_O_20261122_000124"))
    assert {outcome.state for outcome in Ingester(opened()).ingest(others)} == {"ingested"}
    assert ended(free) == ended(pid) == 0
    check_whole(opened(), 6)


@pytest.mark.parametrize("transfer", ["direct", "hardlink"])
def test_killed_at_any_moment(transfer: Any, archive: Raws, opened: Open, repo: Path, tmp_path: Path) -> None:
    """Whatever was done or not, the same files again give the same repository."""
    chance = random.Random(20261122)
    count = killed = number = 0
    while killed < 4 and number < 24:
        number += 1
        files = incoming(archive.image(f"MC_O_20261122_{number:06}", locations=RAFT))
        ready = tmp_path / f"ready-{number}"

        def work(files: list[Incoming] = files, ready: Path = ready) -> None:
            ingester = Ingester(open_repository(repo, writeable=True))
            ready.touch()
            ingester.ingest(files, transfer)

        pid = forked(work)
        wait_for(ready)
        time.sleep(chance.uniform(0.0, 0.08))
        os.kill(pid, signal.SIGKILL)
        killed += ended(pid) == -signal.SIGKILL
        repository = opened()
        outcomes = Ingester(repository).ingest(files, transfer)
        assert {outcome.state for outcome in outcomes} <= {"ingested", "duplicate"}, outcomes
        count += len(files)
    check_whole(opened(), count)
    assert killed == 4


def test_killed_while_a_version_is_replaced(archive: Raws, opened: Open, repo: Path, tmp_path: Path) -> None:
    """The old version is read or the new one, never neither, once somebody ingests again."""
    import shutil

    chance = random.Random(3)
    for number in range(1, 7):
        name = f"MC_O_20261122_{number:06}"
        paths = archive.image(name)
        better = archive.image(name, seed=8, root=tmp_path / "other")
        seconds = [path.with_name(path.name.replace(".fits", ".v2.fits")) for path in paths]
        for source, target in zip(better, seconds, strict=True):
            shutil.copy(source, target)
        repository = opened()
        first = Ingester(repository).ingest(incoming(paths), "hardlink")
        assert {outcome.state for outcome in first} == {"ingested"}
        ready = tmp_path / f"ready-{number}"

        def work(seconds: list[Path] = seconds, ready: Path = ready) -> None:
            ingester = Ingester(open_repository(repo, writeable=True))
            ready.touch()
            ingester.ingest(incoming(seconds), "hardlink")

        pid = forked(work)
        wait_for(ready)
        time.sleep(chance.uniform(0.02, 0.15))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        outcomes = Ingester(repository).ingest(incoming(seconds), "hardlink")
        assert {outcome.state for outcome in outcomes} <= {"ingested", "duplicate"}, outcomes
        refs = repository.datasets([outcome.dataset_id for outcome in outcomes])
        uris = repository.uris(refs)
        for old, new, path, second in zip(first, outcomes, paths, seconds, strict=True):
            assert uris[new.dataset_id].endswith(".v2.fits")
            assert Path(uris[new.dataset_id].removeprefix("file://")).read_bytes() == second.read_bytes()
            assert Path(old.uri.removeprefix("file://")).read_bytes() == path.read_bytes()
    assert list(repo.rglob(".*.kept")) == []
    assert repository.mend() == 0


def test_several_processes_ingest_the_same(archive: Raws, opened: Open, repo: Path, tmp_path: Path) -> None:
    """Each is told that all is well, and there is each dataset once."""
    files = incoming(archive.image(locations=RAFT))
    go = tmp_path / "go"

    def work(number: int) -> None:
        chance = random.Random(number)
        mine = chance.sample(files, len(files))
        ingester = Ingester(open_repository(repo, writeable=True))
        wait_for(go)
        for begin in range(0, len(mine), 3):
            for outcome in ingester.ingest(mine[begin : begin + 3], "hardlink"):
                assert outcome.good, outcome

    pids = [forked(lambda number=number: work(number)) for number in range(3)]  # type: ignore[misc]
    time.sleep(0.5)
    go.touch()
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    check_whole(opened(), 9)


# -- leaving


def test_removed_datasets_are_gone_and_direct_files_stay(archive: Raws, opened: Open) -> None:
    """D123: the registry goes first; the file is the caller's to delete, and he knows where it is."""
    paths = archive.image()
    repository = opened()
    ingester = Ingester(repository)
    outcomes = ingester.ingest(incoming(paths))
    refs = repository.datasets([outcomes[0].dataset_id, outcomes[1].dataset_id])
    assert len(refs) == 2
    assert repository.remove(refs) == refs
    assert repository.remove(refs) == []  # again
    assert [str(ref.id) for ref in repository.find("LSSTCam")] == [outcomes[2].dataset_id]
    assert all(path.exists() for path in paths)
    assert {outcome.state for outcome in ingester.ingest(incoming(paths[:2]))} == {"ingested"}
    check_whole(repository, 3)


def test_files_of_the_store_go_with_their_datasets(archive: Raws, opened: Open, repo: Path) -> None:
    """D123: no sidecar stays behind."""
    repository = opened()
    Ingester(repository).ingest(incoming(archive.image()), "copy")
    folder = repo / "LSSTCam/raw/all/20261122/MC_O_20261122_000123"
    assert len(list(folder.iterdir())) == 6
    repository.remove(repository.find("LSSTCam")[:2])
    assert sorted(path.suffix for path in folder.iterdir()) == [".fits", ".json"]
    repository.remove(repository.find("LSSTCam"))
    assert not folder.exists()


def test_a_file_that_is_gone_already_does_not_stop_it(archive: Raws, opened: Open) -> None:
    """D121."""
    repository = opened()
    outcomes = Ingester(repository).ingest(incoming(archive.image()), "copy")
    Path(outcomes[1].uri.removeprefix("file://")).unlink()
    assert len(repository.remove(repository.find("LSSTCam"))) == 3
    assert repository.find("LSSTCam") == []


def test_tagged_data_stay(archive: Raws, opened: Open) -> None:
    from lsst.daf.butler import CollectionType

    repository = opened()
    Ingester(repository).ingest(incoming(archive.image()))
    refs = repository.find("LSSTCam")
    assert repository.tagged(refs) == set()
    repository.butler.collections.register("u/observer/good", CollectionType.TAGGED)
    repository.butler.registry.associate("u/observer/good", refs[1:2])
    assert repository.tagged(refs) == {str(refs[1].id)}
    assert [ref.id for ref in repository.remove(refs)] == [refs[0].id, refs[2].id]
    assert [ref.id for ref in repository.find("LSSTCam")] == [refs[1].id]
    assert [ref.id for ref in repository.remove(refs, tagged=True)] == [refs[1].id]


def test_killed_while_datasets_leave(archive: Raws, opened: Open, repo: Path, tmp_path: Path) -> None:
    """What was begun is ended when somebody opens the repository to write; what left may come again."""
    chance = random.Random(5)
    for number in range(1, 4):
        files = incoming(archive.image(f"MC_O_20261122_{number:06}", locations=RAFT))
        repository = opened()
        Ingester(repository).ingest(files, "hardlink")
        ready = tmp_path / f"ready-{number}"

        def work(ready: Path = ready) -> None:
            mine = open_repository(repo, writeable=True)
            refs = mine.find("LSSTCam")
            ready.touch()
            mine.remove(refs)

        pid = forked(work)
        wait_for(ready)
        time.sleep(chance.uniform(0.0, 0.06))
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        again = opened()
        ingester = Ingester(again)  # mends
        refs = again.find("LSSTCam")
        for uri in again.uris(refs).values():
            assert Path(uri.removeprefix("file://")).exists()
        assert len(refs) in (0, 9)
        outcomes = ingester.ingest(files, "hardlink")
        assert all(outcome.good for outcome in outcomes), outcomes
        check_whole(again, 9)
        again.remove(again.find("LSSTCam"))


@pytest.mark.parametrize("transfer", ["direct", "copy"])
def test_what_somebody_left_half_removed_comes_again(
    transfer: Any, archive: Raws, opened: Open, repo: Path
) -> None:
    """As it is when a process dies after the registry's commit and before the files: a service that runs on
    meanwhile is in nobody's way."""
    files = incoming(archive.image())
    repository = opened()
    ingester = Ingester(repository)
    first = ingester.ingest(files, transfer)
    other = opened()
    refs = other.find("LSSTCam")
    with other.butler.transaction():
        other.butler._datastore.trash(refs)
        other.butler._registry.removeDatasets(refs)
    assert repository.find("LSSTCam") == []
    again = ingester.ingest(files, transfer)
    assert [outcome.state for outcome in again] == ["ingested"] * 3, again
    assert [outcome.uri for outcome in again] == [outcome.uri for outcome in first]
    check_whole(opened(), 3)
