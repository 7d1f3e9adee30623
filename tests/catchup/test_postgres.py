"""Catching up with the ledger in PostgreSQL: two archivers and a forwarder, a file lost and one damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recovery import fits_in, path_of, wait_for

import postgres_server
from hand_daq import HandStore
from raftwright.catchup.giving_way import others_at_work, take_role
from raftwright.ledger import UnitKey, open_ledger


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.PostgresServer]:
    """PostgreSQL, for these tests."""
    one = postgres_server.start(_missing)
    yield one
    one.stop()


@pytest.fixture
def url(server: postgres_server.PostgresServer) -> str:
    """An empty database."""
    return server.new_database()


def test_lost_damaged_and_raced(
    daq: HandStore, serve: Any, forward: Any, catch_up: Any, out: Path, url: str
) -> None:
    """D087, D091, D093."""
    images = daq.add(*range(1, 7))
    server = serve()
    forwarder = forward(server.endpoint, ledger=url)
    first = catch_up(server.endpoint, ledger=url, every=0.2, give_way=0.0)
    second = catch_up(server.endpoint, ledger=url, every=0.2, give_way=0.0)
    wait_for(lambda: len(fits_in(out)) == 54, timeout=40.0)
    wait_for(lambda: forwarder.idle and first.idle and second.idle)
    for image in images:
        for source in image.sources.values():
            assert source.read_bytes == source.base.bytes, "it was fetched twice"
    forwarder.stop()
    first.stop()
    second.stop()
    lost, damaged = path_of(out, images[0], "R22_S11"), path_of(out, images[1], "R22_S22")
    was = lost.read_bytes(), damaged.read_bytes()
    lost.unlink()
    damaged.write_bytes(was[1][:-1] + b"x")
    with open_ledger(url) as ledger:
        assert ledger.files.verified(str(damaged), False, "its sum is another")
        service = catch_up(server.endpoint, ledger=url, once=True)
        assert list(service.survey.findings) == []
        assert service.progress.units_done == 2
        assert {row.state for row in ledger.images.select()} == {"complete"}
    assert (lost.read_bytes(), damaged.read_bytes()) == was


def test_who_is_at_work(url: str) -> None:
    with open_ledger(url) as mine, open_ledger(url) as other, open_ledger(url) as third:
        mine.renew()
        assert not others_at_work(mine)
        key = UnitKey("CC_S_20261122_000099", "abc", "22/0")
        assert other.claims.claim([(key, "raw", 100)])
        assert others_at_work(mine)
        assert not others_at_work(other), "it is its own"
        assert take_role(other) == take_role(other), "it has one already"
        assert not others_at_work(mine), "they catch up too"
        assert take_role(third) != take_role(other)
