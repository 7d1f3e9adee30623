"""What the archiver tells of itself and of the ledger."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from archive_stand import Archive, wait_for

from raftwright.events import Event, Subscriber, open_subscriber


def hear(subscriber: Subscriber, heard: list[Event], seconds: float = 0.2) -> list[Event]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        heard += [one for one in itertools.islice(subscriber.events(timeout=left), 1) if one.kind != "missed"]
    return heard


def test_its_state_is_told(archive: Archive, tmp_path: Path) -> None:
    """N21: `serviceState`, as of every service that publishes."""
    endpoint = f"ipc://{tmp_path}/told"
    heard: list[Event] = []
    with open_subscriber(endpoint, kinds=["serviceState"]) as subscriber:
        archiver = archive.archiver(publish=endpoint)
        hear(subscriber, heard, 1.0)
        archiver.command("disable")
        wait_for(lambda: [one["state"] for one in hear(subscriber, heard)][-1:] == ["DISABLED"])
    assert heard[-1]["service"] == "archiver"


def test_every_change_of_the_ledger_is_told(archive: Archive, tmp_path: Path) -> None:
    """F06: also what happened while nobody told it; and nothing of before it began."""
    endpoint = f"ipc://{tmp_path}/told"
    (old,) = archive.take(1)
    steps = ["announced", "capturing", "complete"]
    heard: list[Event] = []

    def states(obsid: str) -> list[str]:
        hear(subscriber, heard)
        return [one["new"] for one in heard if one.fields.get("obsid") == obsid and one["thing"] == "image"]

    with open_subscriber(endpoint, kinds=["stateChanged", "ledgerNote"]) as subscriber:
        archiver = archive.archiver(archive.to("oods"), publish=endpoint)
        hear(subscriber, heard, 1.0)
        (one,) = archive.take(2)
        wait_for(lambda: states(one.base.name) == steps, 10, lambda: states(one.base.name))
        archiver.stop(1.0)
        (other,) = archive.take(3)
        archive.archiver(archive.to("oods"), publish=endpoint)
        wait_for(lambda: states(other.base.name) == steps, 15, lambda: states(other.base.name))
    assert states_of_roles(heard)[-2:] == ["given up", "taken"]
    assert "announced" not in [each["new"] for each in heard if each.fields.get("obsid") == old.base.name]
    numbers = [each.number for each in heard]
    assert numbers == sorted(set(numbers))


def states_of_roles(heard: list[Event]) -> list[str]:
    return ["given up" if each["new"] == "given up" else "taken" for each in heard if each["thing"] == "role"]
