"""A repository with its registry in PostgreSQL, on a real server."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from small_raws import RAFT, Raws, ended, forked

import postgres_server

pytest.importorskip("lsst.daf.butler")

from raftwright.butler import Incoming, Ingester, define_visits, make_repository, open_repository
from raftwright.errors import StorageError, UsageError


def test_from_making_to_removing(
    server: postgres_server.PostgresServer, archive: Raws, tmp_path: Path
) -> None:
    url = server.new_database()
    repo = tmp_path / "repo"
    make_repository(repo, db_url=url, namespace="oods", cameras=["LSSTCam"]).close()
    make_repository(repo, db_url=url, cameras=["LATISS"]).close()  # again, and more
    assert not (repo / "gen3.sqlite3").exists()
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'oods'"
        ).fetchone()
    assert tables is not None
    assert tables[0] > 30
    with pytest.raises(UsageError, match="has its registry in"):
        make_repository(repo, db_url="postgresql://somebody@elsewhere/else")
    files = [Incoming.of(str(path)) for path in archive.image(locations=RAFT)]
    with open_repository(repo, writeable=True) as repository:
        outcomes = Ingester(repository).ingest(files)
        assert {outcome.state for outcome in outcomes} == {"ingested"}
        again = Ingester(repository).ingest(files)
        assert {outcome.state for outcome in again} == {"duplicate"}
        (visit,) = define_visits(repository, [("LSSTCam", 2026112200123)])
        assert visit.state == "defined"
        refs = repository.find("LSSTCam", dayobs=20261122)
        assert len(refs) == 9
        assert repository.butler.get(refs[4]).mosaic.shape == (32, 160)
        assert len(repository.remove(refs[:4])) == 4
        assert len(repository.find("LSSTCam")) == 5


def test_several_processes_ingest_the_same(
    server: postgres_server.PostgresServer, archive: Raws, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    make_repository(repo, db_url=server.new_database(), cameras=["LSSTCam"]).close()
    files = [Incoming.of(str(path)) for path in archive.image(locations=RAFT)]

    def work() -> None:
        with open_repository(repo, writeable=True) as repository:
            for outcome in Ingester(repository).ingest(files):
                assert outcome.good, outcome

    pids = [forked(work) for _ in range(3)]
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    with open_repository(repo) as repository:
        assert len(repository.uris(repository.find("LSSTCam"))) == 9


def test_a_server_that_goes_and_comes_back(archive: Raws, tmp_path: Path) -> None:
    """While it is away that is said; then the same files go in, through the same connections."""

    def missing(reason: str) -> None:
        pytest.skip(reason)

    server = postgres_server.start(missing)
    try:
        repo = tmp_path / "repo"
        make_repository(repo, db_url=server.new_database(), cameras=["LSSTCam"]).close()
        files = [Incoming.of(str(path)) for path in archive.image()]
        with open_repository(repo, writeable=True) as repository:
            ingester = Ingester(repository)
            server.shut()
            with pytest.raises(StorageError, match="look after the database"):
                ingester.ingest(files)
            server.start()
            for _ in range(2):  # a connection that was lost is found out once
                try:
                    outcomes = ingester.ingest(files)
                    break
                except StorageError:
                    continue
            assert {outcome.state for outcome in outcomes} == {"ingested"}
    finally:
        server.stop()
