"""The same with PostgreSQL as the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from handoff_stand import Site, hidden_in, wait_for

import postgres_server


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
def site(server: postgres_server.PostgresServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, server.new_database())
    yield made
    made.close()


def test_replicas_are_brought_and_mended(site: Site) -> None:
    endpoints = site.to("far"), site.to("vault", custodial=True)
    first, second = site.hand_off(*endpoints), site.hand_off(*endpoints)
    assert (first.active, second.active) == (True, False)
    for number in range(1, 5):
        site.image(number)
    site.delivered("far", "vault", count=28, timeout=30)
    site.check("far", 1, 2, 3, 4)
    spoilt = site.spoil(next(site.place("vault").rglob("*.fits")))
    first.command("scrub")
    wait_for(lambda: hidden_in(site.place("vault"), ".damaged") == [spoilt])
    wait_for(lambda: site.states("vault") == {"verified": 28})
    site.check("vault", 1, 2, 3, 4)


def test_a_server_that_is_started_anew(site: Site, server: postgres_server.PostgresServer) -> None:
    """F18, D148: the database goes and comes; what was under way is there, once."""
    site.hand_off(site.to("far"))
    site.image(1)
    site.delivered("far", count=7, timeout=20)
    server.shut()
    server.start()
    site.image(2)
    site.delivered("far", count=14, timeout=30)
    site.check("far", 1, 2)


def test_a_backlog_gives_way(site: Site) -> None:
    """F01."""
    endpoint = site.to("far")
    Path(endpoint.root).rmdir()
    site.hand_off(endpoint, backlog=0.3)
    site.image(1)
    wait_for(
        lambda: [row[0] for row in site.ledger.read("SELECT min(priority) FROM delivery")] == [10_000], 15
    )
