"""Files are ingested and told soon, whatever their number, and a read that failed costs nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from oods_stand import Site, wait_for

from raftwright.errors import StorageError
from raftwright.events import open_subscriber
from raftwright.ledger.ingests import Ingests

SOON = 2.0
"""Seconds from what the ledger knows to what is announced."""


def soon(heard: dict[str, float], number: int) -> None:
    """So many are told of, all soon after this."""
    known = time.monotonic()
    wait_for(lambda: len(heard) >= number)
    assert max(heard.values()) - known < SOON


def test_one_file_or_many_are_announced_soon(site: Site) -> None:
    """D124, D134: by the next look at the ledger, without a setting for the number."""
    events = f"ipc://{site.path}/events"
    heard: dict[str, float] = {}
    over, listening = threading.Event(), threading.Event()

    def listen() -> None:
        with open_subscriber(events, kinds=("imageInOODS",)) as subscriber:
            listening.set()
            while not over.is_set():
                for event in subscriber.events(timeout=0.1):
                    heard.setdefault(
                        " ".join(event.fields[name] for name in ("obsid", "raft", "sensor")), time.monotonic()
                    )

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        listening.wait(10)
        site.oods(publish=events)
        site.image(1)  # opens connections, reads headers of the kind for the first time
        wait_for(lambda: len(heard) == 3)
        site.image(2)
        soon(heard, 6)
        site.image(3, locations=[f"{raft}/{board}" for raft in (20, 21, 22, 23) for board in range(3)])
        soon(heard, 42)
    finally:
        over.set()
        thread.join()


def test_a_read_that_fails_neither_ends_the_loop_nor_repeats_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D114."""
    turn, failed = Ingests.turn, []

    def sometimes(self: Ingests, *arguments: Any, **more: Any) -> Any:
        if len(failed) < 3:
            failed.append(1)
            raise StorageError(5, "cannot be read now", "ledger.db")
        return turn(self, *arguments, **more)

    service = site.oods()
    monkeypatch.setattr(Ingests, "turn", sometimes)
    site.image(1)
    rows = site.ingested(3, service)
    assert len(failed) == 3
    assert {row.attempts for row in rows} == {1}, "each was taken once"
    assert service.problems() == []
