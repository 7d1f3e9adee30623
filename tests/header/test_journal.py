"""What was collected survives the process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from observatory import Observatory

from raftwright.errors import StorageError
from raftwright.header import Collector, build_header
from raftwright.header.intake import Intake
from raftwright.header.journal import Journal

COMCAM = Observatory()
CREATED = 1_800_000_000_000_000_000


_begun: dict[Path, Journal] = {}


def begin(path: Path) -> Intake:
    """Who had this journal before was killed."""
    if path in _begun:
        _begun[path].close()
    journal = _begun[path] = Journal(path)
    intake = Intake(Collector(COMCAM.spec), journal)
    intake.recover()
    return intake


def tell(intake: Intake, number: int, *kinds: str, telemetry: bool = True) -> str:
    exposure = COMCAM.exposure(number)
    if telemetry:
        for topic, fields in COMCAM.simulated.telemetry(exposure):
            intake.take("telemetry", {"topic": topic, **fields})
    events = COMCAM.events(exposure)
    for kind in kinds or tuple(events):
        assert intake.take(kind, events[kind], "2026-11-23T01:02:26.456Z") is None
    return str(exposure.name)


def document(intake: Intake, obsid: str) -> bytes:
    return build_header(COMCAM.spec, intake.collector.snapshot(obsid), created=CREATED).data


def test_after_any_event_all_before_it_is_there_again(tmp_path: Path) -> None:
    """F13: another process goes on where the first was killed, after each event."""
    whole = begin(tmp_path / "whole")
    obsid = tell(whole, 1)
    expected = document(whole, obsid)
    kinds = list(COMCAM.events(COMCAM.exposure(1)))
    for cut in range(len(kinds) + 1):
        path = tmp_path / f"cut-{cut}"
        tell(begin(path), 1, *kinds[:cut]) if cut else None
        second = begin(path)
        tell(second, 1, *kinds[cut:], telemetry=cut == 0) if cut < len(kinds) else None
        image = second.collector.snapshot(obsid)
        assert image.complete
        assert document(second, obsid) == expected


def test_half_a_line_at_the_end_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    obsid = tell(begin(path), 1, "startIntegration", "startReadout")
    with path.open("ab") as file:
        file.write(b'{"e":"endReadout","f":{"imageNa')
    again = begin(path)
    assert again.counts["damaged"] == 1
    assert set(again.collector.snapshot(obsid).events) == {"startIntegration", "startReadout"}
    tell(again, 1, "endReadout")
    assert begin(path).counts["damaged"] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\n",
        b"[1, 2]\n",
        b'{"e": 5}\n',
        b'{"t": "A", "s": "x"}\n',
        b'{"b": 1}\n',
        b"\xff\xfe\n",
        b"{}\n",
    ],
)
def test_lines_that_are_none_are_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(line)
    intake = begin(path)
    assert intake.counts["damaged"] == (0 if line == b"{}\n" else 1)
    obsid = tell(intake, 1)
    assert document(begin(path), obsid) == document(intake, obsid)


def test_an_image_that_was_written_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    intake = begin(path)
    obsid = tell(intake, 1)
    assert intake.collector.due(1e9) == [obsid]
    intake.collector.snapshot(obsid)
    intake.collector.built(obsid, True, 0.0)
    intake.built(obsid, True)
    again = begin(path)
    assert again.collector.due(1e9) == []
    later = begin(path)
    tell(later, 1, "endOfImageTelemetry")
    assert later.collector.counts["doubled"] == 1


def test_the_deadline_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    tell(begin(path), 1, "startIntegration", "startReadout", "endReadout")
    import raftwright.header.intake as module

    real = module.times.now
    monkeypatch.setattr(module.times, "now", lambda: real() + 20_000_000_000)
    intake = begin(path)
    (tracked,) = intake.collector.under_way()
    assert 8.0 < tracked.deadline - time.monotonic() < 10.5


def test_it_begins_anew_with_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    intake = begin(path)
    for number in range(1, 30):
        obsid = tell(intake, number)
        intake.collector.due(time.monotonic() + 1.0)
        intake.collector.snapshot(obsid)
        intake.collector.built(obsid, True, time.monotonic())
        intake.built(obsid, True)
    last = tell(intake, 30, "startIntegration")
    before = path.stat().st_size
    intake.renew()
    assert path.stat().st_size < before / 2
    again = begin(path)
    assert [str(t.image.name)[-6:] for t in again.collector.under_way()] == [f"{n:06}" for n in range(1, 31)]
    assert again.collector.snapshot(last).samples == intake.collector.snapshot(last).samples
    assert again.collector.due(again.collector._images[last].deadline + 1.0) == [last]


def test_what_comes_while_it_begins_anew_is_in_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", limit=1000)
    told: list[int] = []

    def tell_on(offset: int) -> None:
        for n in range(offset, 3000, 10):
            journal.append({"n": n})
            told.append(n)
            time.sleep(0.0005)

    threads = [threading.Thread(target=tell_on, args=(offset,)) for offset in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        journal.renew(lambda: ({"n": n} for n in list(told)))
    for thread in threads:
        thread.join()
    assert {entry["n"] for entry in journal.entries()} == set(told)
    assert len(told) == 900
    assert journal.damaged == 0
    assert sorted(os.listdir(tmp_path)) == ["journal", "journal.lock"]


def test_a_disk_that_is_full_costs_no_header(tmp_path: Path) -> None:
    intake = begin(tmp_path / "journal")

    def refuse(entry: Any) -> None:
        raise StorageError(28, "the header service's journal fails (No space left on device)", "journal")

    intake._journal.append = refuse  # type: ignore[method-assign]
    obsid = tell(intake, 1)
    assert intake.collector.snapshot(obsid).complete
    assert "No space left" in intake.trouble
    assert intake.counts["not_journalled"] > 4


def test_a_journal_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(StorageError, match="journal"):
        Journal(tmp_path / "journal")


def test_a_journal_is_of_one_service(tmp_path: Path) -> None:
    """A second one would begin it anew without what the first one knows: of another camera, say."""
    first = Journal(tmp_path / "journal")
    with pytest.raises(StorageError, match="another header service has this journal; give each its own"):
        Journal(tmp_path / "journal")
    first.append({"b": "one", "c": True})
    first.renew(lambda: [{"b": "two", "c": True}])
    with pytest.raises(StorageError, match="another header service"):
        Journal(tmp_path / "journal")
    first.close()
    second = Journal(tmp_path / "journal")
    assert list(second.entries()) == [{"b": "two", "c": True}]
    second.close()


def test_what_is_not_announced_is_not_done(tmp_path: Path) -> None:
    """D059: a document is stored and waits for its announcement, or its second version cannot be stored; the
    journal is begun anew, and the process is killed."""

    def after_a_kill(intake: Intake) -> set[str]:
        intake.renew()
        copy = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        copy.write_bytes((tmp_path / "journal").read_bytes())
        again = Intake(Collector(COMCAM.spec), Journal(copy))
        again.recover()
        return {str(t.image.name) for t in again.collector.under_way() if t.build_at is not None}

    intake = Intake(Collector(COMCAM.spec), Journal(tmp_path / "journal"))
    exposure = COMCAM.exposure(1)
    obsid = str(exposure.name)
    for kind, fields in COMCAM.events(exposure).items():
        assert intake.take(kind, fields) is None
    collector = intake.collector
    assert collector.due(1e9) == [obsid]
    collector.snapshot(obsid)
    collector.built(obsid, True, 0.0)
    assert after_a_kill(intake) == {obsid}, "nobody was told yet"
    intake.built(obsid, True)
    assert after_a_kill(intake) == set()
    late = {**COMCAM.events(exposure)["endOfImageTelemetry"], "darkTime": 99.0}
    intake.take("endOfImageTelemetry", late)
    assert collector.due(1e9 + 10) == [obsid]
    collector.snapshot(obsid)
    collector.failed(obsid, 0.0, 30.0)
    assert after_a_kill(intake) == {obsid}, "its second version is not stored"


def test_what_is_journalled_and_not_yet_collected_is_in_the_new_journal(tmp_path: Path) -> None:
    """The journal is begun anew at the very moment between the two."""
    intake = begin(tmp_path / "journal")
    usual, go_on, between = intake.collector.event, threading.Event(), threading.Event()

    def slowly(*args: Any) -> str | None:
        between.set()
        assert go_on.wait(5.0)
        return usual(*args)

    intake.collector.event = slowly  # type: ignore[method-assign]
    threads = [
        threading.Thread(target=tell, args=(intake, 1, "startIntegration"), kwargs={"telemetry": False}),
        threading.Thread(target=lambda: between.wait(5.0) and intake.renew()),
    ]
    for thread in threads:
        thread.start()
    assert between.wait(5.0)
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(begin(tmp_path / "journal").collector) == 1
