"""Questions that are asked all the time: their cost does not grow with the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftwright.ledger import DeliveryPlan, ImageFacts, Ledger, open_ledger
from raftwright.report.book import open_book
from raftwright.report.tonight import tonight

HISTORY = 40_000
STEPS = 100


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ledger in which much was delivered."""
    path = tmp_path_factory.mktemp("plans") / "ledger.db"
    with open_ledger(path) as ledger:
        for number in range(1, 101):
            ledger.images.announce(
                ImageFacts(
                    obsid=f"CC_S_20261122_{number:06d}",
                    daq_id=f"{number:x}",
                    camera="LSSTComCam",
                    instrument="LSSTComCam",
                    sources=(),
                    detectors=(),
                )
            )
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO delivery (image_id, destination, path, crc32c, state, queued_tai, delivered_tai)"
        " VALUES (?, ?, ?, ?, 'delivered', 1, 1)",
        ((1 + n * 100 // HISTORY, f"place{n % 3}", f"/archive/{n}", f"{n:08x}") for n in range(HISTORY)),
    )
    connection.commit()
    connection.close()
    return str(path)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each thousand steps of SQLite, on connections that are opened from now on."""
    counted: list[int] = []
    connect = sqlite3.connect

    def counting(*arguments: object, **more: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **more)  # type: ignore[call-overload]
        connection.set_progress_handler(lambda: counted.append(1), 1000)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counting)
    return counted


def queue(ledger: Ledger) -> None:
    ledger.deliveries.plan(
        [DeliveryPlan(image_id=100, destination="place1", path=f"/new/{n}", crc32c="0") for n in range(3)]
    )
    for row in ledger.deliveries.claim("place1", 2):
        ledger.deliveries.end(row, "failed", "made")
    ledger.deliveries.again("place1")
    for row in ledger.deliveries.claim("place1", 10):
        ledger.deliveries.end(row, "delivered")


@pytest.mark.parametrize(
    "ask",
    [
        lambda ledger: ledger.deliveries.any_waiting("place1"),
        lambda ledger: ledger.deliveries.claim("place1", 4),
        lambda ledger: ledger.deliveries.counts(delivered=False),
        lambda ledger: ledger.deliveries.give_back(),
        lambda ledger: ledger.claims.give_back(),
        lambda ledger: ledger.images.select(states=("announced", "capturing"), limit=10),
        lambda ledger: ledger.events.after(ledger.events.last(), 10, ("image", "file")),
        queue,
    ],
    ids=["waiting", "claim", "counts", "give back", "give back sources", "unsettled", "events", "queue"],
)
def test_what_a_service_asks(ask: Callable[[Ledger], object], url: str, steps: list[int]) -> None:
    """D078: a lane that has nothing to do looks into an index, not through all that was ever delivered."""
    with open_ledger(url) as ledger:
        del steps[:]
        ask(ledger)
        assert len(steps) < STEPS / 2, f"{len(steps)} thousand steps"
    assert len(steps) < STEPS / 2, "its end reads all of it"


def test_the_end_gives_back_what_is_under_way(url: str) -> None:
    with open_ledger(url) as ledger:
        plans = [DeliveryPlan(image_id=99, destination="other", path=f"/b/{n}", crc32c="1") for n in range(3)]
        ledger.deliveries.plan(plans)
        assert len(ledger.deliveries.claim("other", 2)) == 2
    with open_ledger(url) as ledger:
        assert ledger.deliveries.counts("other") == {"other": {"queued": 3}}


def test_tonight_at_a_glance(url: str, steps: list[int]) -> None:
    """Names of destinations too, also those to which nothing is on its way."""
    with open_book(url) as book:
        del steps[:]
        found = tonight(book)
    assert {"place0", "place1", "place2"} <= {one.name for one in found.destinations}
    assert len(steps) < 3 * STEPS, f"{len(steps)} thousand steps"


@pytest.mark.usefixtures("ledger")
def test_steps_are_counted(url: str, steps: list[int]) -> None:
    connection = sqlite3.connect(Path(url))
    connection.execute("SELECT count(*) FROM delivery WHERE path LIKE '%x%'").fetchall()
    assert len(steps) > STEPS, "nothing is counted"
    connection.close()
