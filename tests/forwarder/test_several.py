"""One of several forwarders that share the work: it dies, its line is cut, the machine has no time for it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand import (
    BYTES,
    ROW,
    Forward,
    Run,
    Serve,
    attempts_of,
    check_archive,
    states_of,
    units_of,
    wait_for,
)

from hand_daq import HandStore, free_port, name_of
from long_line import LongLine
from raftwright.capture.receiving import Receivers
from raftwright.capture.settings import CaptureSettings
from raftwright.ledger import LEASE
from raftwright.service import State
from raftwright.service.control import ask


def owners_of(ledger: Path, number: int) -> Counter[str]:
    """Who has, or had, the sources of an image."""
    return Counter(unit.owner for (name, _), unit in units_of(ledger).items() if name == name_of(number))


def status_of(page: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{page}/status", timeout=10) as answer:
        return dict(json.load(answer))


def test_one_that_dies_between_images_is_not_missed(
    daq: HandStore, serve: Serve, run: Run, out: Path, tmp_path: Path
) -> None:
    """F10, N10: of three that share a ledger one is killed while it has nothing: the next image, at once
    after that, has all of its sources from the others, and nobody waits for a lease."""
    server = serve()
    ledger = tmp_path / "shared.db"
    programs = [run(server.endpoint, "--ledger", str(ledger)) for _ in range(3)]
    wait_for(lambda: all(program.ready for program in programs), 30, programs)
    number = 0
    while programs:
        (image,) = daq.add(number := number + 1)
        begun = time.monotonic()
        wait_for(lambda: states_of(ledger) == {"done": 3 * number}, 20, programs)
        assert time.monotonic() - begun < LEASE / 2
        pids = {int(owner.split(":")[1]) for owner in owners_of(ledger, number)}
        assert pids <= {program.process.pid for program in programs}
        assert {source.read_bytes for source in image.sources.values()} == {BYTES}, "once"
        programs.pop().end(signal.SIGKILL)
    assert number == 3
    assert attempts_of(ledger) == {"claimed": 9, "done": 9}, "nothing was taken over, or tried again"
    assert len(check_archive(out, ledger, daq.all)) == 27


def test_a_line_that_comes_and_goes_is_no_fault(
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    long_line: Callable[..., LongLine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F03: the line of one of two goes and comes at random moments, for longer than it may stand still: it
    answers all the time, is in no FAULT, says what is wrong, and takes its part again. Nothing is lost."""
    monkeypatch.setattr("raftwright.forwarder.service._PATIENCE", 2.0)  # 45 s in earnest
    server = serve(heartbeat=1.0)
    line = long_line(server, rtt=0.05)
    control = f"ipc://{tmp_path}/control"
    near = forward(server.endpoint)
    far = forward(line.endpoint, control=control, deadline=60.0)
    far.store.connection.timeout = 0.5
    states: list[str] = []
    seen: list[State] = []
    longest = 0.0
    over = threading.Event()

    def listen() -> None:
        nonlocal longest
        while not over.wait(0.1):
            begun = time.monotonic()
            answer = ask(control, "health", timeout=5.0)
            longest = max(longest, time.monotonic() - begun)
            states.append(answer.state)
            seen.append(far.state)

    wait_for(lambda: far.lookout.swept and near.lookout.swept)
    some = msgspec.structs.replace(near.settings, locations=["22/0"])
    near.lookout.change(some)
    held = daq.make(1)
    held.hold(5 * ROW, "22/1", "22/2")
    daq.put(held)
    wait_for(lambda: states_of(ledger) == {"done": 1, "claimed": 2})
    near.lookout.change(near.settings)
    chance = random.Random(11)
    listener = threading.Thread(target=listen)
    listener.start()
    try:
        number = 1
        for away in (3.5, *(chance.uniform(0.1, 1.5) for _ in range(3))):
            line.cut()
            daq.add(number := number + 1)
            wait_for(lambda: far.problems(), 10)
            time.sleep(away)
            held.mend()
            line.mend()
            daq.add(number := number + 1)
            time.sleep(chance.uniform(0.1, 0.8))
        wait_for(lambda: states_of(ledger) == {"done": 3 * number}, 30)
        wait_for(lambda: not far.problems(), 10)
        near.lookout.change(some)
        daq.add(number := number + 1)
        wait_for(lambda: states_of(ledger) == {"done": 3 * number}, 30)
    finally:
        over.set()
        listener.join()
    assert set(states) == {"ENABLED"}, Counter(states)
    assert set(seen) == {State.ENABLED}
    assert len(states) > 50
    assert longest < 2.0, "it did not answer at once"
    assert owners_of(ledger, number)[far.ledger.owner] >= 2, "it takes its part again"
    assert attempts_of(ledger)["taken over"] == 0
    assert len(check_archive(out, ledger, daq.all)) == 9 * number


@pytest.fixture
def busy() -> Iterator[None]:
    """Every processor has two programs that never wait."""
    programs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))
    ]
    yield
    for program in programs:
        program.kill()
        program.wait(10)


def test_nobody_is_taken_for_dead_because_the_machine_is_busy(
    daq: HandStore, serve: Serve, run: Run, out: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """F16, N11: for longer than a lease no processor is free: no claim is taken over, no connection is
    given up for silence, no service is in FAULT; and the image is written once."""
    server = serve(heartbeat=1.0)
    ledger = tmp_path / "shared.db"
    port = free_port()
    pages = [f"127.0.0.1:{port + n}" for n in range(2)]
    programs = [run(server.endpoint, "--ledger", str(ledger), "--metrics", page) for page in pages]
    wait_for(lambda: all(program.ready for program in programs), 30, programs)
    image = daq.make(1)
    image.hold(7 * ROW)
    daq.put(image)
    wait_for(lambda: states_of(ledger) == {"claimed": 3}, 20, programs)
    owners = owners_of(ledger, 1)
    request.getfixturevalue("busy")
    until = time.monotonic() + LEASE + 3.0
    while time.monotonic() < until:
        assert owners_of(ledger, 1) == owners
        for page in pages:
            assert status_of(page)["state"] == "ENABLED"
        time.sleep(0.5)
    stream = [status_of(page)["stream"] for page in pages]
    image.mend()
    wait_for(lambda: states_of(ledger) == {"done": 3}, 30, programs)
    assert owners_of(ledger, 1) == owners
    assert attempts_of(ledger) == {"claimed": 3, "done": 3}
    assert [one.get("reconnects", 0) for one in stream] == [0, 0]
    assert [one.get("stalls", 0) for one in stream] == [0, 0]
    assert not [line for program in programs for line in program.log if "fault" in line]
    for program in programs:
        assert program.end() == 0
    assert len(check_archive(out, ledger, daq.all)) == 9


class _Unit:
    """As much of a unit as its receiver is chosen by."""

    def __init__(self, size: int) -> None:
        self.source = self
        self.bytes = size


@settings(max_examples=60)
@given(units=st.integers(0, 90), receivers=st.integers(1, 30), ended=st.integers(0, 90))
def test_sources_are_shared_evenly(units: int, receivers: int, ended: int) -> None:
    """D077: the one division that there is (units go to whoever claims them): of n sources of an image no
    receiver has two more than another, for any n and m, also after some of the first ended."""
    settings = CaptureSettings(out="x", receivers=receivers)
    shared = Receivers(settings, None, None, lambda work: None)  # type: ignore[arg-type]
    lanes = shared._lanes
    given = [_Unit(100) for _ in range(units)]
    for one in given:
        shared.give(one)  # type: ignore[arg-type]
    counts = [lane.load // 100 for lane in lanes]
    assert sum(counts) == units
    assert max(counts) - min(counts) <= 1
    for lane in sorted(lanes, key=lambda lane: -lane.load)[: min(ended, units, receivers)]:
        if lane.load:
            lane._over(lane._inbox.get_nowait())
    for _ in range(units):
        shared.give(_Unit(100))  # type: ignore[arg-type]
    loads = [lane.load // 100 for lane in lanes]
    assert max(loads) - min(loads) <= 1
