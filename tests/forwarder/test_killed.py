"""Forwarders that are killed, and forwarders that share an archive."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stand import (
    BYTES,
    LOCATIONS,
    ROW,
    Forward,
    Run,
    Serve,
    attempts_of,
    check_archive,
    fits_in,
    states_of,
    units_of,
    wait_for,
)

from hand_daq import HandStore, name_of
from raftwright.events import open_subscriber
from raftwright.ledger import open_ledger


def test_units_of_one_that_is_killed_are_taken_over(
    daq: HandStore, serve: Serve, run: Run, forward: Forward, out: Path, ledger: Path, tmp_path: Path
) -> None:
    """D040, F11: within three seconds, by another that was told nothing; what was done is not done again."""
    server = serve()
    (done,) = daq.add(1)
    image = daq.make(2)
    image.hold(7 * ROW)
    first = run(server.endpoint)
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [first])
    daq.put(image)
    wait_for(lambda: states_of(ledger)["claimed"] == 3)
    events = f"ipc://{tmp_path}/events"
    with open_subscriber(events, kinds=["unitTakenOver"]) as subscriber:
        second = forward(server.endpoint, events=events)
        time.sleep(1.0)
        assert {unit.owner for unit in units_of(ledger).values()} != {second.ledger.owner}
        assert states_of(ledger)["claimed"] == 3
        begun = time.monotonic()
        first.end(signal.SIGKILL)
        wait_for(
            lambda: (
                {unit.owner for (name, _), unit in units_of(ledger).items() if name == name_of(2)}
                == {second.ledger.owner}
            ),
            5,
        )
        assert time.monotonic() - begun < 3.0, "a dead process of the same machine is seen at once"
        image.mend()
        wait_for(lambda: states_of(ledger) == {"done": 6})
        told = list(subscriber.events(timeout=0.3))
    assert sorted(event["location"] for event in told) == list(LOCATIONS)
    assert {event["owner"] for event in told} == {second.ledger.owner}
    assert len(check_archive(out, ledger, daq.all)) == 18
    assert {source.read_bytes for source in done.sources.values()} == {BYTES}, "what was done is done again"
    assert attempts_of(ledger)["taken over"] == 3


@pytest.mark.parametrize("gap", [False, True])
def test_files_that_the_journal_never_heard_of(
    gap: bool, daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """Killed between the files and the ledger: what is whole is found, what has gaps is repaired."""
    server = serve()
    image = daq.make(1)
    if gap:
        image.lose(2 * ROW, 3 * ROW)
    daq.put(image)
    first = forward(server.endpoint, retry=300.0)
    wait_for(lambda: states_of(ledger) == {"incomplete" if gap else "done": 3})
    first.stop()
    with sqlite3.connect(ledger) as db:
        db.execute("DELETE FROM file")
        db.execute("UPDATE source SET state = 'claimed', owner = 'nobody:1:00', received = 0, next_try = 0")
    db.close()
    image.mend()
    forward(server.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    rows = check_archive(out, ledger, daq.all)
    assert sorted(row.version for row in rows) == ([1] * 9 + [2] * 9 if gap else [1] * 9)
    assert {source.read_bytes for source in image.sources.values()} == {2 * BYTES - ROW if gap else BYTES}


def test_two_with_journals_of_their_own_write_every_file_once(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, tmp_path: Path
) -> None:
    server = serve()
    ledgers = [tmp_path / "a.db", tmp_path / "b.db"]
    forwarders = [forward(server.endpoint, ledger=str(path)) for path in ledgers]
    wait_for(lambda: all(one.idle for one in forwarders))
    for number in range(1, 13):
        image = daq.make(number)
        if number == 5:
            image.lose(0, ROW, "22/1")
        image_is_live = number % 2 == 0
        if image_is_live:
            image.hold(3 * ROW)
        daq.put(image)
        time.sleep(0.03)
        if image_is_live:
            image.mend()
    expected = {"done": 35, "incomplete": 1}
    wait_for(lambda: all(states_of(path) == expected for path in ledgers), 20)
    daq.all[name_of(5)].mend()
    wait_for(lambda: all(states_of(path) == {"done": 36} for path in ledgers), 20)
    for one in forwarders:
        one.stop()
    assert not [path for path in fits_in(out) if ".conflict-" in path.name]
    assert len(fits_in(out)) == 12 * 9 + 3
    written: Counter[str] = Counter()
    for path in ledgers:
        rows = check_archive(out, path, daq.all)
        written.update(row.path for row in rows if row.status == "written")
    assert set(written.values()) == {1}, "written twice"
    assert set(written) == {str(path) for path in fits_in(out)}


def test_two_with_one_journal_share_the_work(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D019: the second needs nothing but the same settings."""
    server = serve()
    for number in range(1, 17):
        image = daq.make(number)
        for source in image.sources.values():
            source.on_read = lambda: time.sleep(0.001)
        daq.put(image)
    seen: list[Any] = []
    forwarders = [forward(server.endpoint, observer=seen.append, memory=8 << 20) for _ in range(2)]
    wait_for(lambda: states_of(ledger) == {"done": 48}, 30)
    for one in forwarders:
        one.stop()
    owners = Counter(unit.owner for unit in units_of(ledger).values())
    assert min(owners[one.ledger.owner] for one in forwarders) > 5, owners
    check_archive(out, ledger, daq.all)
    for image in daq.all.values():
        assert {source.read_bytes for source in image.sources.values()} == {BYTES}
    assert {one["image"] for one in seen} == set(daq.all), "an image was told of by nobody"


def test_locations_are_shared_by_assignment(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    daq.add(1, 2)
    one = forward(server.endpoint, locations=["22/0"])
    wait_for(lambda: states_of(ledger) == {"done": 2} and one.idle)
    two = forward(server.endpoint, rafts=["R22"], locations=["22/1"])
    wait_for(lambda: states_of(ledger) == {"done": 6})
    wait_for(lambda: two.idle)
    check_archive(out, ledger, daq.all)


def test_kills_again_and_again(daq: HandStore, serve: Serve, run: Run, out: Path, tmp_path: Path) -> None:
    """D086: two processes, one ledger, one of them killed every now and then while images come; nobody is in
    charge of them."""
    server = serve()
    path = tmp_path / "shared.db"
    options = ("--ledger", str(path))
    programs = [run(server.endpoint, *options), run(server.endpoint, *options)]
    wait_for(lambda: all(program.ready for program in programs), 20, programs)
    for number in range(1, 25):
        image = daq.make(number)
        image.hold(8 * ROW)
        daq.put(image)
        time.sleep(0.04)
        if number % 6 == 0:
            programs[number // 6 % 2].end(signal.SIGKILL)
            programs[number // 6 % 2] = run(server.endpoint, *options)
        image.mend()
    wait_for(lambda: states_of(path) == {"done": 72}, 40)
    wait_for(lambda: all(program.ready for program in programs), 20, programs)
    for program in programs:
        assert program.end() == 0
    assert len(check_archive(out, path, daq.all)) == 216
    with open_ledger(path, read_only=True) as opened:
        done = Counter((e.image, e.location) for e in opened.claims.history() if e.kind == "done")
    assert set(done.values()) == {1}
