"""Forwarders on a ledger that fails: nothing is lost, and they go on by themselves."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from night import counts, wait_for

import postgres_server
from hand_daq import HandStore
from raftwright import _core
from raftwright.forwarder import Forwarder
from raftwright.ledger import open_ledger

Forward = Callable[..., Forwarder]


def check(url: str, archive: Path, images: int) -> None:
    """Every image is complete, and every file is in the ledger as it is on the disk, once."""
    with open_ledger(url) as ledger:
        states = [(image.obsid, ledger.images.judge(image.id).state) for image in ledger.images.select()]
        assert len(states) == images
        assert {state for _, state in states} == {"complete"}, states
        rows = list(ledger.files.of_images())
    assert {row.path for row in rows} == {str(path) for path in archive.rglob("*.fits*")}
    assert len(rows) == 9 * images
    for row in rows:
        data = Path(row.path).read_bytes()
        assert (len(data), f"{_core.crc32c(data):08x}") == (row.bytes, row.crc32c)


def test_two_forwarders_share_a_ledger(url: str, daq: HandStore, forwarder: Forward, archive: Path) -> None:
    daq.add(*range(1, 25))
    for image in daq.all.values():
        for source in image.sources.values():
            source.on_read = lambda: time.sleep(0.002)
    both = [forwarder(url), forwarder(url)]
    wait_for(lambda: counts(url) == {"done": 72})
    with open_ledger(url, read_only=True) as ledger:
        owners = {unit.owner for unit in ledger.claims.units()}
        assert owners == {one.ledger.owner for one in both}
        assert {unit.attempts for unit in ledger.claims.units()} == {1}
    for one in both:
        one.stop()
    check(url, archive, 24)


@pytest.fixture
def own_server() -> Iterator[postgres_server.PostgresServer]:
    one = postgres_server.start(pytest.skip)
    yield one
    one.stop()


def test_postgresql_is_restarted_while_images_come(
    own_server: postgres_server.PostgresServer, daq: HandStore, forwarder: Forward, archive: Path
) -> None:
    url = own_server.new_database()
    one = forwarder(url)
    daq.add(1, 2)
    wait_for(lambda: counts(url) == {"done": 6})
    for number, how in ((3, signal.SIGINT), (6, signal.SIGQUIT)):
        daq.add(number)
        own_server.shut(how)
        daq.add(number + 1)
        time.sleep(0.5)
        own_server.start()
        daq.add(number + 2)
        wait_for(lambda number=number: counts(url) == {"done": 3 * (number + 2)}, 60)
    wait_for(lambda: one.idle and not one.problems())
    one.stop()
    check(url, archive, 8)


def test_somebody_holds_the_lock_for_a_while(
    sqlite_url: str, daq: HandStore, forwarder: Forward, archive: Path
) -> None:
    one = forwarder(sqlite_url)
    daq.add(1)
    wait_for(lambda: counts(sqlite_url) == {"done": 3})
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    daq.add(2, 3)
    time.sleep(2.0)
    assert counts(sqlite_url) == {"done": 3}
    other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: counts(sqlite_url) == {"done": 9})
    one.stop()
    check(sqlite_url, archive, 3)


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_a_ledger_that_is_lost_while_images_come(
    how: str, sqlite_url: str, daq: HandStore, forwarder: Forward, archive: Path, tmp_path: Path
) -> None:
    """Deleted: they go on with a new one. Damaged: they say so, until somebody moves it away; the DAQ keeps
    the images meanwhile."""
    one = forwarder(sqlite_url)
    daq.add(1, 2)
    wait_for(lambda: counts(sqlite_url) == {"done": 6})
    held = daq.make(3)
    held.hold(28 * 108 * 4)
    daq.put(held)
    wait_for(lambda: counts(sqlite_url) == {"done": 6, "claimed": 3})
    files = list(tmp_path.glob("ledger.db*"))
    if how == "damaged":
        for path in files:
            if not path.name.endswith("-shm"):
                with path.open("r+b") as stream:
                    for page in range(0, os.path.getsize(path), 4096):
                        stream.seek(page)
                        stream.write(b"\xa5" * 4096)
        daq.add(4)
        wait_for(lambda: any("damaged" in problem for problem in one.problems()))
    for path in tmp_path.glob("ledger.db*"):
        path.rename(tmp_path / f"away-{path.name}")
    held.mend()
    daq.add(5)
    images = 5 if how == "damaged" else 4
    wait_for(lambda: counts(sqlite_url) == {"done": 3 * images}, 60)
    wait_for(lambda: one.idle)
    one.stop()
    check(sqlite_url, archive, images)
