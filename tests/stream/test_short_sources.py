"""Sources that stop anywhere: what came of them is never passed off as all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np

from hand_daq import SMALL, HandStore
from raftwright import _core
from raftwright.camera import camera
from raftwright.stream import Fetch, NetworkStore, Receiver, Server

CAMERA = camera("LSSTComCam")
PLACE = "22/0"
SIZE = 48384
SAMPLE = 108
ROW = 28 * SAMPLE
ENDS = sorted(
    {
        0,
        1,
        SAMPLE - 1,
        SAMPLE,
        SAMPLE + 1,
        ROW - 1,
        ROW,
        ROW + 1,
        SIZE - ROW,
        SIZE - SAMPLE,
        SIZE - 2,
        SIZE - 1,
    }
    | set(random.Random(26).sample(range(SIZE), 36))
)
"""Bytes after which they stop: at and beside every edge, and anywhere."""

Serve = Callable[..., Server]


def fetch_all(
    server: Server, store: HandStore, seconds: float, then: Callable[[], None] | None = None
) -> dict[int, Fetch]:
    """All of them at a time; the number of an image says where it stops. `then` is called when all is there
    that comes."""
    fetches = {}
    with NetworkStore(server.endpoint) as far, Receiver(far, chunk_bytes=1024, credit=8192) as receiver:
        deadline = time.monotonic() + seconds
        for end in ENDS:
            info = store.all[f"CC_S_20261122_{end:06d}"].source(PLACE).base
            registers = info.registers
            layout = CAMERA.board(PLACE).layout
            readout = _core.Readout(layout, registers.width, registers.height)
            fetches[end] = receiver.fetch(f"CC_S_20261122_{end:06d}", info, readout, deadline=deadline)
        left = set(fetches.values())
        while left:
            assert time.monotonic() < deadline + 3.0, "they do not end"
            left -= set(receiver.run(0.1))
            if then is not None and all(one.readout.received == end for end, one in fetches.items()):
                then()
                then = None
    return fetches


def check(fetch: Fetch, end: int, data: bytes) -> None:
    """What came is counted to the byte; a pixel is the DAQ's or marked, and some are marked."""
    assert fetch.received == fetch.readout.received == end
    assert fetch.gaps == [(end, SIZE)]
    assert fetch.crc32c is None
    assert not fetch.readout.complete
    fetch.readout.finish(-1)
    right = _core.unpack_reference(CAMERA.board(PLACE).layout, data)
    marked = 0
    for number in range(48):
        plane = fetch.readout.plane(number).ravel()
        missing = np.zeros(plane.size, bool)
        for first, count in fetch.readout.missing(number):
            missing[first : first + count] = True
        assert (plane[missing] == -1).all()
        assert (plane[~missing] == right[number][~missing]).all()
        marked += int(missing.sum())
    assert marked >= -(-(SIZE - end) * 8 // 18)


def held(live: HandStore) -> None:
    for end in ENDS:
        image = live.make(end, registers=SMALL, locations=[PLACE], rafts=None)
        image.hold(end)
        live.all[image.base.name] = image


def test_a_source_that_ends_at_any_byte_is_short(serve: Serve) -> None:
    """F26: it says that it is at its end."""
    store = HandStore()
    held(store)
    for image in store.all.values():
        image.source(PLACE).final = True
    for end, fetch in fetch_all(serve(store), store, 20.0).items():
        assert fetch.outcome == "incomplete", end
        check(fetch, end, store.all[fetch.image].source(PLACE).data)


def test_a_source_that_stands_still_at_any_byte_is_timed_out(serve: Serve) -> None:
    """F26: it says nothing."""
    store = HandStore()
    held(store)
    for end, fetch in fetch_all(serve(store), store, 5.0).items():
        assert fetch.outcome == "timed-out", end
        check(fetch, end, store.all[fetch.image].source(PLACE).data)


def test_a_server_that_dies_at_any_byte_leaves_it_timed_out(serve: Serve) -> None:
    """F26: nobody is there any more, and what came before is kept."""
    store = HandStore()
    held(store)
    server = serve(store)
    for end, fetch in fetch_all(server, store, 6.0, server.stop).items():
        assert fetch.outcome == "timed-out", end
        check(fetch, end, store.all[fetch.image].source(PLACE).data)
