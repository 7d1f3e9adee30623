"""The ledger's history, told: every change, in order, once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from event_stand import wait_for

import raftwright
from raftwright.events import Event, LedgerLog, Outbox, open_publisher, open_subscriber
from raftwright.ledger import Ledger, open_ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "ledger.db")


def test_every_change_is_told_in_order(ledger: Ledger, tmp_path: Path) -> None:
    from raftwright.daq import Registers, simulate_image
    from raftwright.ledger import facts_of

    registers = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)
    log = LedgerLog(ledger)
    assert log.id == LedgerLog(ledger).id
    with (
        open_publisher(f"ipc://{tmp_path}/events", name="p", log=log, alive=0.1) as publisher,
        open_subscriber(publisher.endpoint) as subscriber,
    ):
        assert publisher.ready(5.0)
        list(subscriber.events(0.4))
        outbox = Outbox(log, publisher, "zmq", every=0.05).start()
        for number in (1, 2):
            image = simulate_image("LSSTComCam", f"CC_O_20261122_00000{number}", seed=1, registers=registers)
            ledger.images.announce(facts_of(image.info, raftwright.camera("LSSTComCam")))
        assert log.last() > 0
        wait_for(lambda: outbox.relayed == log.last())
        seen = list(subscriber.events(0.5))
        outbox.stop()
    assert [event.number for event in seen] == list(range(1, log.last() + 1))
    assert {event.log for event in seen} == {log.id}
    changes = [event for event in seen if event.kind == "stateChanged"]
    assert {event["obsid"] for event in changes} == {"CC_O_20261122_000001", "CC_O_20261122_000002"}
    assert {(event["instrument"], event["dayobs"]) for event in changes} == {("LSSTComCam", "20261122")}
    assert {(event["thing"], event["new"]) for event in changes} >= {("image", "announced")}
    rows = ledger.events.after(0)
    assert [event["subject"] for event in seen] == [row.subject for row in rows]
    ledger.close()


@pytest.mark.parametrize("how", ["deleted", "restored"])
def test_another_ledger_in_its_place_while_it_is_told(how: str, tmp_path: Path) -> None:
    """Its numbers begin again, or are given out again: nobody takes them for repeats."""
    from raftwright.daq import Registers, simulate_image
    from raftwright.ledger import facts_of

    registers = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)
    path, camera = tmp_path / "ledger.db", raftwright.camera("LSSTComCam")

    def announce(*numbers: int) -> None:
        with open_ledger(path) as other:
            for number in numbers:
                name = f"CC_O_20261122_{number:06}"
                info = simulate_image("LSSTComCam", name, seed=1, registers=registers).info
                other.images.announce(facts_of(info, camera))

    announce(1)
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "before.db"),))
    connection.close()
    told: list[Event] = []

    def heard(*numbers: int) -> bool:
        told.extend(subscriber.events(0.1))
        found = {event.fields.get("obsid") for event in told}
        return {f"CC_O_20261122_{number:06}" for number in numbers} <= found

    with (
        open_ledger(path) as ledger,
        open_publisher(
            f"ipc://{tmp_path}/events", name="p", log=(log := LedgerLog(ledger)), alive=0.1
        ) as publisher,
        open_subscriber(publisher.endpoint) as subscriber,
    ):
        assert publisher.ready(5.0)
        list(subscriber.events(0.3))
        outbox = Outbox(log, publisher, "zmq", every=0.05).start()
        announce(*range(2, 30))
        wait_for(lambda: heard(*range(2, 30)))
        for file in tmp_path.glob("ledger.db*"):
            file.unlink()
        if how == "restored":
            (tmp_path / "before.db").rename(path)
        announce(31, 32)
        wait_for(lambda: heard(31, 32))
        announce(33)
        wait_for(lambda: heard(33))
        outbox.stop()
