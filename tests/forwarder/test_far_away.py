"""A forwarder far from its DAQ: 180 ms there and back, a packet of a thousand lost, the line cut at times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stand import BYTES, ROW, Forward, Serve, attempts_of, check_archive, states_of, wait_for

from hand_daq import HandStore, name_of
from long_line import LongLine


def test_images_over_a_long_line_are_written_in_time(
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    long_line: Callable[..., LongLine],
) -> None:
    """F04, N05: images that are read out while they are fetched, over connections that are made: all are
    written two seconds after the end of their readout (98 of 100 would do), whatever is lost on the way, and
    each is fetched once. Then the line is cut at random moments: later, but nothing is lost."""
    line = long_line(serve(heartbeat=1.0), rtt=0.18, loss=0.001, seed=4)
    done: dict[str, float] = {}
    forwarder = forward(
        line.endpoint,
        observer=lambda facts: done.setdefault(facts["image"], time.monotonic()),
        sweep=5.0,
    )
    wait_for(lambda: forwarder.lookout.swept)
    daq.add(100)
    wait_for(lambda: len(done) == 1)
    ended: dict[str, float] = {}
    for number in range(1, 15):
        image = daq.make(number)
        image.hold(6 * ROW)
        daq.put(image)
        time.sleep(0.7)
        image.mend()
        ended[name_of(number)] = time.monotonic()
    wait_for(lambda: len(done) == 15, 30)
    took = sorted(done[name] - ended[name] for name in ended)
    assert took[-1] <= 2.0, took
    assert line.counts()["lost"] > 1, "nothing was lost on the way: the test shows nothing"
    assert attempts_of(ledger) == {"claimed": 45, "done": 45}
    assert {source.read_bytes for image in daq.all.values() for source in image.sources.values()} == {BYTES}

    chance = random.Random(4)
    for number in range(15, 20):
        image = daq.make(number)
        image.hold(6 * ROW)
        daq.put(image)
        time.sleep(chance.uniform(0.0, 0.6))
        line.cut()
        time.sleep(chance.uniform(0.0, 0.4))
        line.mend()
        image.mend()
    wait_for(lambda: states_of(ledger) == {"done": 60}, 60)
    forwarder.stop()
    rows: list[Any] = check_archive(out, ledger, daq.all)
    assert len(rows) == 180
    assert {(row.version, row.missing) for row in rows} == {(1, 0)}
