"""A receiver with a meter asks for no more bytes a second than it may, and for none while it is quiet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raftwright import _core
from raftwright.camera import camera
from raftwright.daq import SimulatedStore
from raftwright.errors import UsageError
from raftwright.stream import NetworkStore, Receiver, Server
from raftwright.stream.fetch import Fetch
from raftwright.stream.metering import Meter

CAMERA = camera("LSSTComCam")
TALL = [3, 0, 20, 0, 0, 5, 0, 398, 0, 2, 1]
"""28 x 400 pixels a segment: sources of 1.2 MB, in 13 chunks of 32 rows."""
CHUNK = 32 * 28 * 108
Serve = Callable[..., Server]


def test_a_meter_gives_no_more_than_its_rate_over_any_time() -> None:
    meter = Meter(1_000_000, slice=50_000)
    begun = time.monotonic()
    given = 0
    while time.monotonic() - begun < 0.5:
        given += meter.take(10**9, 1000)
        spent = time.monotonic() - begun
        # a quarter of a second at once after a rest, and at most one slice beyond
        assert given <= 1_000_000 * (spent + 0.25) + 50_000
    assert given > 1_000_000 * 0.5, "it gives what it may"
    assert meter.given == given


def test_many_threads_share_one_meter() -> None:
    meter = Meter(2_000_000, slice=10_000)
    begun = time.monotonic()
    sums: list[int] = []

    def ask() -> None:
        mine = 0
        while time.monotonic() - begun < 0.4:
            mine += meter.take(5000, 1000)
            time.sleep(0)
        sums.append(mine)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sums) <= 2_000_000 * (time.monotonic() - begun + 0.25) + 10_000


def test_a_meter_that_is_quiet_gives_nothing_and_grains_are_whole() -> None:
    meter = Meter(slice=10_000)
    assert meter.take(10**6, 3000) == 9000
    assert meter.take(2000, 3000) == 2000, "the rest is no whole grain"
    assert meter.take(10**6, 64_000) == 64_000, "a grain is never cut"
    meter.quiet = True
    assert meter.take(10**6, 3000) == 0
    meter.quiet = False
    meter.rate = 1.0
    assert meter.take(100, 10) <= 10, "nothing was saved up at the rate before"
    with pytest.raises(UsageError):
        Meter(-1)


@pytest.fixture
def metered(serve: Serve) -> Iterator[Callable[..., tuple[Receiver, NetworkStore]]]:
    opened: list[Any] = []

    def make(meter: Meter) -> tuple[Receiver, NetworkStore]:
        server = serve(SimulatedStore(CAMERA, 1, registers=TALL))
        store = NetworkStore(server.endpoint, timeout=5.0)
        receiver = Receiver(store, chunk_bytes=CHUNK, credit=4 * CHUNK, meter=meter)
        opened.extend((store, receiver))
        return receiver, store

    yield make
    for one in reversed(opened):
        one.close()


def begin(receiver: Receiver, store: NetworkStore, location: str, seconds: float = 20.0) -> Fetch:
    name = store.images()[0]
    image = store.image(name).info
    info = next(source for source in image.sources if source.location == location)
    board = CAMERA.board(location)
    readout = _core.Readout(board.layout, info.registers.width, info.registers.height)
    return receiver.fetch(name, info, readout, deadline=time.monotonic() + seconds)


def test_a_receiver_keeps_to_the_rate(metered: Any) -> None:
    """D089: bandwidth."""
    meter = Meter(3_000_000, slice=2 * CHUNK)
    receiver, store = metered(meter)
    fetches = [begin(receiver, store, location) for location in ("22/0", "22/1")]
    begun = time.monotonic()
    left = set(fetches)
    while left:
        left -= set(receiver.run(0.5))
        got = receiver.stats["bytes"]
        assert got <= 3_000_000 * (time.monotonic() - begun + 0.25) + 2 * CHUNK
        assert time.monotonic() - begun < 15
    assert [fetch.outcome for fetch in fetches] == ["complete", "complete"]
    total = sum(fetch.expected for fetch in fetches)
    assert time.monotonic() - begun >= total / 3_000_000 - 0.3
    assert fetches[0].retries == 0, "slices are no second tries"


def test_a_receiver_goes_on_when_the_quiet_is_over(metered: Any) -> None:
    meter = Meter(1_500_000, slice=CHUNK)
    receiver, store = metered(meter)
    fetch = begin(receiver, store, "22/0")
    while receiver.stats["bytes"] < 2 * CHUNK:
        receiver.run(0.02)
    meter.quiet = True
    receiver.run(0.1)  # what was asked for
    came = receiver.stats["bytes"]
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        assert receiver.run(0.05) == []
    assert receiver.stats["bytes"] == came < fetch.expected
    meter.quiet = False
    done: list[Fetch] = []
    while not done:
        done = receiver.run(1.0)
    assert done[0].outcome == "complete"
