"""Images that do not come whole: gaps marked exactly, versions when the rest comes, tries that grow rarer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from stand import (
    BYTES,
    LOCATIONS,
    ROW,
    SAMPLE,
    Forward,
    Serve,
    attempts_of,
    check_archive,
    fits_in,
    rows_of,
    states_of,
    units_of,
    wait_for,
)

from hand_daq import HandImage, HandStore, name_of
from raftwright.events import open_subscriber
from raftwright.stream.faults import Faults


def missing_per_segment(path: Path) -> set[tuple[tuple[int, int], ...]]:
    missing = json.loads(path.with_suffix(".json").read_bytes())["__MISSING__"]
    assert len(missing) == 16
    return {tuple((first, count) for first, count in runs) for runs in missing.values()}


def test_a_deadline_that_passes_leaves_marked_gaps_that_are_repaired_later(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, tmp_path: Path
) -> None:
    server = serve()
    image = daq.make(1)
    image.hold(5 * ROW, "22/1")
    events = f"ipc://{tmp_path}/events"
    seen: list[Any] = []
    with open_subscriber(events) as subscriber:
        forwarder = forward(server.endpoint, deadline=0.7, events=events, observer=seen.append)
        time.sleep(0.2)
        daq.put(image)
        wait_for(lambda: states_of(ledger) == {"done": 2, "incomplete": 1})
        unit = units_of(ledger)[name_of(1), "22/1"]
        assert unit.received == 5 * ROW
        assert "the deadline passed" in unit.reason
        first = check_archive(out, ledger, daq.all)
        assert len(first) == 9
        marked = [row for row in first if row.missing]
        assert {(row.location, row.missing) for row in marked} == {("22/1", 16 * 28 * 11)}
        assert len(marked) == 3
        for row in marked:
            assert missing_per_segment(Path(row.path)) == {((5 * 28, 11 * 28),)}
        listed = forwarder.status()["incomplete"]
        assert [(one["image"], one["location"], one["missing_bytes"]) for one in listed] == [
            (name_of(1), "22/1", BYTES - 5 * ROW)
        ]
        before = {path: path.read_bytes() for path in fits_in(out)}
        image.mend()
        wait_for(lambda: states_of(ledger) == {"done": 3})
        told = list(subscriber.events(timeout=0.5))
    time.sleep(0.7)
    tries = attempts_of(ledger)
    time.sleep(0.7)
    assert attempts_of(ledger) == tries, "what is done is tried again"
    assert forwarder.idle
    forwarder.stop()

    for path, data in before.items():
        assert path.read_bytes() == data, f"{path} was changed"
    rows = check_archive(out, ledger, daq.all)
    assert len(rows) == 12
    by_path = {row.path: row for row in rows}
    repaired = [row for row in rows if row.version == 2]
    assert len(repaired) == 3
    for row in repaired:
        old = by_path[row.replaces]
        assert row.path == old.path.replace(".fits", ".v2.fits")
        assert (old.replaced_by, old.missing, row.missing) == (row.path, 16 * 28 * 11, 0)
        sidecar = json.loads(Path(row.path).with_suffix(".json").read_bytes())
        assert sidecar["__VERSION__"] == 2
        assert sidecar["__REPLACES__"] == {
            "file": Path(old.path).name,
            "crc32c": old.crc32c,
            "missing": old.missing,
        }
    incomplete = [event for event in told if event.kind == "imageIncomplete"]
    assert [(e["location"], e["missing_bytes"]) for e in incomplete] == [("22/1", BYTES - 5 * ROW)], (
        "told once"
    )
    mended = {event["path"]: event["replaces"] for event in told if event.kind == "fileRepaired"}
    assert mended == {row.path: Path(row.replaces).name for row in repaired}
    assert sum(event.kind == "fileWritten" for event in told) == 12


def test_a_server_that_loses_everything_for_a_while(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    faults = Faults.parse("drop=0.6", seed=5)
    server = serve(faults=faults)
    forwarder = forward(server.endpoint, deadline=0.6)
    (image,) = daq.add(1)
    wait_for(lambda: states_of(ledger)["incomplete"] + states_of(ledger)["failed"] >= 1)
    faults._chunk_rules = []
    wait_for(lambda: states_of(ledger) == {"done": 3})
    wait_for(lambda: forwarder.idle)
    forwarder.stop()
    rows = check_archive(out, ledger, {name_of(1): image})
    assert sum(row.missing == 0 for row in rows) == 9
    assert forwarder.receivers.stats["asked_again"] > 0


def test_gaps_for_ever_are_exact_and_tried_ever_more_rarely(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D164."""
    server = serve()
    image = daq.make(1)
    image.lose(3 * ROW + 5 * SAMPLE, 4 * ROW + 2 * SAMPLE, "22/0")
    image.lose(10 * ROW, 10 * ROW + 1, "22/2")  # a byte: of some segments one pixel
    daq.put(image)
    forwarder = forward(server.endpoint, retry=0.4)
    wait_for(lambda: states_of(ledger) == {"done": 1, "incomplete": 2})
    begun = time.monotonic()
    wait_for(lambda: units_of(ledger)[name_of(1), "22/0"].attempts >= 3, 15)
    assert time.monotonic() - begun > 0.4 + 0.8 - 0.3
    time.sleep(1.0)
    assert units_of(ledger)[name_of(1), "22/0"].attempts <= 4, "a hot loop"
    forwarder.stop()
    rows = check_archive(out, ledger, daq.all)
    assert len(rows) == 9, "another try that gives no more makes no files"
    for row in rows:
        if row.location == "22/0":
            assert missing_per_segment(Path(row.path)) == {((3 * 28 + 5, 25),)}
            assert row.missing == 16 * 25
    assert 1 <= sum(row.missing for row in rows if row.location == "22/2") <= 48
    lost = forwarder.metrics.snapshot()["drops"]
    assert lost["pixels"] == {"incomplete": {"count": 2, "bytes": 25 * SAMPLE + 1}}, "each loss counts once"
    assert lost["preview"] == {}


def test_segments_that_are_missing_cost_no_other(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F20: four channels of a board never come, in no sample of the image. The segments that they are have no
    pixel, the other 44 have all of theirs; the CCDs are flagged in file, sidecar and ledger."""
    server = serve()
    image = daq.make(1)
    source = image.sources["22/1"]
    packed = 9  # bytes of four channels of a sample
    source.arrived = [(0, 3 * packed)]
    for sample in range(28 * 16):
        last = (sample + 1) * SAMPLE + 3 * packed if sample < 28 * 16 - 1 else BYTES
        source.arrived.append((sample * SAMPLE + 4 * packed, last))
    daq.put(image)
    forwarder = forward(server.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 2, "incomplete": 1})
    forwarder.stop()
    rows = check_archive(out, ledger, daq.all)
    assert len(rows) == 9
    flagged = [row for row in rows if row.missing]
    assert {row.location for row in flagged} == {"22/1"}
    lost = 0
    for row in flagged:
        marked = json.loads(Path(row.path).with_suffix(".json").read_bytes())["__MISSING__"]
        assert all(runs == [[0, 28 * 16]] for runs in marked.values()), "a segment is lost in part"
        assert row.missing == len(marked) * 28 * 16
        lost += len(marked)
    assert lost == 4
    assert units_of(ledger)[name_of(1), "22/1"].received == BYTES - 28 * 16 * packed


@pytest.mark.parametrize("came", [0, 6])
def test_an_image_that_is_deleted_while_it_is_read(
    came: int, daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    image = daq.make(1)
    image.hold(came * ROW)
    daq.put(image)
    forwarder = forward(server.endpoint)
    wait_for(lambda: forwarder.receivers.stats.get("chunks", 0) >= 3 * came and states_of(ledger)["claimed"])
    time.sleep(0.4)  # what is there has come
    daq.remove(image)
    wait_for(lambda: states_of(ledger) == {"gone": 3})
    wait_for(lambda: forwarder.idle)
    time.sleep(0.5)
    forwarder.stop()
    rows = check_archive(out, ledger, {name_of(1): image})
    assert len(rows) == (9 if came else 0)
    for row in rows:
        assert missing_per_segment(Path(row.path)) == {((came * 28, (16 - came) * 28),)}
    for unit in units_of(ledger).values():
        assert unit.attempts == 1, "it is not there: nothing to try"
        assert "removed" in unit.reason
        assert unit.received == came * ROW


@pytest.mark.parametrize("listening", [True, False])
def test_what_waits_for_its_repair_ends_when_the_daq_has_the_image_no_longer(
    listening: bool, daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    image, _ = daq.make(1), daq.add(2)
    image.hold(5 * ROW, "22/1")
    daq.put(image)
    known = dict(daq.all)
    options = {"deadline": 0.5, "retry": 60.0, "sweep": 0.1}
    forwarder = forward(server.endpoint, **options)
    wait_for(lambda: states_of(ledger) == {"done": 5, "incomplete": 1})
    if not listening:
        forwarder.stop()
    daq.remove(image)
    if not listening:
        time.sleep(1.0)  # the notice is told
        forwarder = forward(server.endpoint, **options)
    wait_for(lambda: states_of(ledger) == {"done": 5, "gone": 1})
    unit = units_of(ledger)[name_of(1), "22/1"]
    assert unit.received == 5 * ROW
    assert "the DAQ has it no longer; before: " in unit.reason
    assert forwarder.report()["incomplete"] == []
    assert len(check_archive(out, ledger, known)) == 18


def test_what_was_gone_and_is_there_again_is_fetched(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    image = daq.make(1)
    image.hold(4 * ROW)
    daq.put(image)
    forward(server.endpoint)
    wait_for(lambda: states_of(ledger)["claimed"] == 3)
    time.sleep(0.3)
    daq.remove(image)
    wait_for(lambda: states_of(ledger) == {"gone": 3})
    image.removed = False
    image.mend()
    daq.put(image)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    rows = check_archive(out, ledger, daq.all)
    assert sorted(row.version for row in rows) == [1] * 9 + [2] * 9


def test_another_image_of_the_same_name_is_kept_beside(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    (first,) = daq.add(1, seed=1)
    forwarder = forward(server.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.parent.name == name_of(1)}
    other = daq.make(1, seed=2)
    assert other.base.id != first.base.id
    daq.all = {name_of(1): other}  # no notice: it has to be found
    wait_for(lambda: states_of(ledger) == {"done": 3, "conflict": 3})
    wait_for(lambda: forwarder.idle)
    assert forwarder.status()["units"] == {"done": 3, "conflict": 3}
    forwarder.stop()
    for path, data in before.items():
        assert path.read_bytes() == data, f"{path} was touched"
    rows = rows_of(ledger)
    kept = [row for row in rows if row.status == "conflict"]
    assert len(rows) == 18
    assert len(kept) == 9
    assert {row.daq_id for row in kept} == {other.base.id}
    assert {row.daq_id for row in rows if row not in kept} == {first.base.id}
    for row in kept:
        assert ".fits.conflict-" in row.path
        assert Path(row.path).stat().st_size == row.bytes
    assert fits_in(out) == {Path(row.path) for row in rows}


def test_a_source_that_lies_never_passes_as_complete(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    image = daq.make(1)
    right = image.sources["22/1"].crc32c
    image.sources["22/1"].crc32c = "12345678"
    daq.put(image)
    forwarder = forward(server.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 2, "failed": 1})
    unit = units_of(ledger)[name_of(1), "22/1"]
    assert "12345678" in unit.reason
    assert {row.location for row in rows_of(ledger)} == {"22/0", "22/2"}
    assert len(fits_in(out)) == 6
    assert [one["location"] for one in forwarder.status()["incomplete"]] == ["22/1"]
    image.sources["22/1"].crc32c = right
    wait_for(lambda: states_of(ledger) == {"done": 3})
    check_archive(out, ledger, daq.all)


def test_many_images_that_wait_for_repair_do_not_hide_the_others(
    daq: HandStore, serve: Serve, forward: Forward, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftwright.forwarder.looking._AT_A_TIME", 3)
    server = serve()
    broken: list[HandImage] = []
    for number in range(1, 8):
        broken.append(daq.make(number, locations=["22/0"], rafts=None))
        broken[-1].lose(0, ROW)
        daq.put(broken[-1])
    forward(server.endpoint, retry=60.0, sweep=0.5)
    wait_for(lambda: states_of(ledger) == {"incomplete": 7}, 15)
    later = daq.make(50, locations=["22/0"], rafts=None)
    daq.all = {**daq.all, name_of(50): later}  # no notice
    wait_for(lambda: units_of(ledger).get((name_of(50), "22/0")) is not None, 15)
    wait_for(lambda: states_of(ledger) == {"incomplete": 7, "done": 1})


def test_the_locations_are_those_of_the_stand() -> None:
    assert set(HandStore().make(1).sources) == set(LOCATIONS)
