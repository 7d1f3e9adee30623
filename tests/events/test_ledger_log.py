"""The ledger's history, told: every change, in order, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_stand import wait_for

import raftwright
from raftwright.events import LedgerLog, Outbox, open_publisher, open_subscriber
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
