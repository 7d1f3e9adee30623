"""The same with PostgreSQL as the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_stand import Archive, wait_for

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
def archive(server: postgres_server.PostgresServer, tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path, server.new_database())
    yield made
    made.close()


def test_images_are_judged_and_delivered(archive: Archive) -> None:
    first = archive.archiver(archive.to("links"), archive.to("copies", link="never"))
    second = archive.archiver(archive.to("links"))
    assert (first.active, second.active) == (True, False)
    images = archive.take(*range(1, 5))
    wait_for(
        lambda: archive.counts() == {n: {"delivered": 76} for n in ("links", "copies")}, 30, archive.counts
    )
    assert [archive.state(image) for image in images] == ["complete"] * 4
    for name in ("links", "copies"):
        archive.check(archive.place(name), images)


def test_a_server_that_is_started_anew(archive: Archive, server: postgres_server.PostgresServer) -> None:
    """F18: the database goes and comes; what was under way is delivered, once."""
    archive.archiver(archive.to("links"))
    images = archive.take(1)
    wait_for(lambda: archive.counts() == {"links": {"delivered": 19}}, 20, archive.counts)
    server.shut()
    server.start()
    images += archive.take(2)
    wait_for(lambda: archive.counts() == {"links": {"delivered": 38}}, 30, archive.counts)
    archive.check(archive.place("links"), images)
