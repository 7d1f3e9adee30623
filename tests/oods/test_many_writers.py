"""Two hundred who write into the ledger, and one who writes into the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from oods_stand import Site, wait_for
from producers import PRODUCERS, facts_of, produce
from small_raws import Raws

import postgres_server
from raftwright.butler import make_repository, open_repository
from raftwright.ledger import open_ledger

IMAGE = "MC_O_20261122_000001"
PROMISED = 0.5
"""Seconds, of 98 % of the commits."""


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a whole image; nobody changes it."""
    return Raws(tmp_path_factory.mktemp("image")).all_of(IMAGE)


@pytest.fixture
def site(database: str, tmp_path: Path, empty_repo: Path) -> Iterator[Site]:
    """With ledger and registry in one or the other; what is committed is synced."""
    made = Site(tmp_path, empty_repo)
    server = None
    if database == "postgresql":
        server = postgres_server.start(_missing, durable=True, connections=2 * PRODUCERS + 60)
        made.ledger.close()
        made.url = server.new_database()
        made.ledger = open_ledger(made.url)
        made.repo = tmp_path / "second"
        make_repository(made.repo, db_url=server.new_database(), cameras=["LSSTCam"]).close()
    yield made
    made.close()
    if server is not None:
        server.stop()


@pytest.mark.parametrize(
    ("database", "own"), [("sqlite", False), ("sqlite", True), ("postgresql", True)], ids=str
)
def test_d163_two_hundred_write_and_one_ingests(site: Site, paths: list[Path], own: bool) -> None:
    """D163: who writes does not wait for the registry, nor long for the others; each file is ingested once.

    As services do it, the threads of a process share a ledger; or each has a connection of its own."""
    site.ledger.images.announce(facts_of(IMAGE))
    service = site.oods()
    wait_for(lambda: service.active)
    commits = produce(site.url, [paths], every=2.0, spread=2.0, own=own)
    times = sorted(commit.seconds for commit in commits)
    assert times[int(0.98 * len(times))] < PROMISED
    rows = {row.path: row for row in site.ingested(len(paths), service)}
    assert len({row.dataset_id for row in rows.values()}) == len(rows) == len(paths) == 205
    with open_repository(site.repo) as repository:
        refs = repository.find("LSSTCam")
        assert {str(ref.id) for ref in refs} == {row.dataset_id for row in rows.values()}
    waits = sorted((rows[commit.path].ingested_tai or 0.0) - commit.ended for commit in commits)
    print(f"commits p98 {times[int(0.98 * len(times))]:.3f} s; in the Butler after {waits[-1]:.3f} s")
    assert waits[-1] < 20.0, "bench/test_writers.py has the figure"


@pytest.mark.parametrize("database", ["sqlite"])
def test_d163_all_at_the_same_instant(site: Site, paths: list[Path]) -> None:
    """D163: 200 connections in one moment, as no camera does it: what each waits is what all take, not the
    pauses of those who look whether it is their turn. With the pauses that SQLite makes it was 5 to 7 s."""
    site.ledger.images.announce(facts_of(IMAGE))
    commits = produce(site.url, [paths], every=2.0, spread=0.0, own=True)
    times = sorted(commit.seconds for commit in commits)
    print(f"commits p98 {times[int(0.98 * len(times))]:.3f} s, most {times[-1]:.3f} s")
    assert times[int(0.98 * len(times))] < 3.0
