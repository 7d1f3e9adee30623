"""What the archiver says of the DAQ, and what one strange image of it does to the others."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
import pytest
from archive_stand import Archive, wait_for

from hand_daq import HandStore
from raftwright.errors import StorageError


class Away(HandStore):
    """Does not answer."""

    away = True

    def underway(self) -> list[str]:
        if self.away:
            raise StorageError(111, "nobody answers", "tcp://daq")
        return super().underway()


def test_a_daq_that_is_away_is_told_once(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    """D080: one line when it goes and one when it is back, however often it is asked."""
    caplog.set_level(logging.INFO, "raftwright.archiver")
    store = Away()
    archiver = archive.archiver(store=store, sweep=2.5)
    wait_for(lambda: any("DAQ cannot be asked" in one for one in archiver.problems()))
    until = time.monotonic() + 5.5
    while time.monotonic() < until:
        assert any("DAQ cannot be asked" in one for one in archiver.problems()), "it said that all is well"
        time.sleep(0.02)
    said = [record.message for record in caplog.records if "DAQ" in record.message]
    assert len(said) == 1, said
    store.away = False
    wait_for(lambda: not archiver.problems(), 5)
    said = [record.message for record in caplog.records if "DAQ" in record.message]
    assert len(said) == 2, said


def test_a_number_that_no_ledger_takes_holds_no_image(archive: Archive) -> None:
    """D143: what cannot be entered is set aside, with the reason, and the others are announced."""
    image: Any = archive.store.make(1)
    source = image.sources["22/1"]
    source.base = msgspec.structs.replace(source.base, bytes=1 << 70)
    image.base = msgspec.structs.replace(image.base, sources=())
    archive.store.put(image)
    later = archive.store.make(2)
    archive.store.all = {**archive.store.all, later.base.name: later}  # no notice tells of it
    archiver = archive.archiver()
    wait_for(lambda: archive.state(later) == "announced", 5)
    wait_for(lambda: any("images cannot be entered" in one for one in archiver.problems()), 5)
    assert not any("the DAQ" in one for one in archiver.problems())
    assert archive.state(image) == ""
