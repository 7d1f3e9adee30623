"""Retention where ledger and registry are in PostgreSQL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oods_stand import Site
from test_retention import copied, datasets, leaver

import postgres_server
from raftwright.butler import make_repository, open_repository
from raftwright.errors import StorageError
from raftwright.ledger import open_ledger, tai


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.PostgresServer]:
    one = postgres_server.start(_missing)
    yield one
    one.stop()


@pytest.fixture
def site(tmp_path: Path, empty_repo: Path, server: postgres_server.PostgresServer) -> Iterator[Site]:
    made = Site(tmp_path, empty_repo)
    made.ledger.close()
    made.url = server.new_database()
    made.ledger = open_ledger(made.url)
    made.repo = tmp_path / "second"
    make_repository(made.repo, db_url=server.new_database(), cameras=["LSSTCam"]).close()
    yield made
    made.close()


def test_two_at_once(site: Site) -> None:
    """Each file is removed once; registry, ledger and disk agree; one that is at work keeps others out."""
    paths = [path for number in (1, 2) for path in site.image(number)]
    site.ingested(6)
    copied(site, "a", "vault")
    begin = threading.Barrier(2)
    gone: list[int] = []
    refused: list[str] = []

    def work() -> None:
        with open_ledger(site.url) as ledger, open_repository(site.repo, writeable=True) as repository:
            ledger.keep_alive()
            leave = leaver(site, repository, ledger)
            rows = ledger.ingests.select(repository="oods", states=["ingested"])
            begin.wait(20)
            try:
                with leave.alone():
                    gone.extend(row.id for row in leave.remove(rows, "old"))
                    leave.resume()
            except StorageError as error:
                refused.append(str(error))

    works: list[Callable[[], None]] = [work, work]
    threads = [threading.Thread(target=each) for each in works]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert len(gone) == len(set(gone)) == 6
    assert all("another retention" in one for one in refused)
    assert datasets(site) == set()
    assert {row.state for row in site.rows()} == {"removed"}
    assert not any(path.exists() for path in paths)


def test_what_is_kept_is_told(site: Site) -> None:
    """Pinned and tagged files, by whatever database."""
    site.image(1)
    site.image(2)
    rows = site.ingested(6)
    site.ledger.ingests.pin("for a paper", repository="oods", ids=[rows[0].id])
    site.ledger.tags.tag("best", [rows[-1].image_id])
    held = {row.id: why for row, why in site.ledger.ingests.held("oods", "ingested", tai() + 1)}
    assert held.pop(rows[0].id) == "is pinned"
    assert held == dict.fromkeys((row.id for row in rows[3:]), "is tagged best")
    assert set(site.ledger.ingests.kept(rows)) == {rows[0].id, *held}
