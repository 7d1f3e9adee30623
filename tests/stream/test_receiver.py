"""Receivers: sources become pixels whatever happens on the way, or it is said exactly what is missing."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hand_daq import free_port
from raftwright import _core, _stream
from raftwright.camera import camera
from raftwright.daq import MemoryImage, SimulatedStore, SourceInfo, simulate_image
from raftwright.errors import NotFoundError, StorageError, UsageError
from raftwright.stream import Faults, Fetch, NetworkStore, Receiver, Server, connection
from raftwright.stream.progress import chunk_bytes, joined, without

CAMERA = camera("LSSTComCam")
NAME = "CC_S_20261122_000001"
PLACE = "22/0"
TALL = [3, 0, 20, 0, 0, 5, 0, 398, 0, 2, 1]
"""28 x 400 pixels a segment: sources of 1.2 MB, in 13 chunks of 32 rows."""
CHUNK = 32 * 28 * 108

Serve = Callable[..., Server]


class Stills:
    """Images in memory whose CRCs are known, as a store."""

    def __init__(self, *images: MemoryImage) -> None:
        self.all = {image.info.name: image for image in images}

    def folders(self) -> list[str]:
        return ["raw"]

    def images(self, folder: str | None = None) -> list[str]:
        return sorted(self.all) if folder in (None, "raw") else []

    def underway(self) -> list[str]:
        return []

    def image(self, name: str) -> MemoryImage:
        if name not in self.all:
            raise NotFoundError(f"no image {name[:40]!a}")
        return self.all[name]

    def notices(self, timeout: float | None = None) -> Iterator[Any]:
        time.sleep(min(0.2, 0.2 if timeout is None else timeout))
        return iter(())


def still(name: str = NAME, seed: int = 1, **changes: Any) -> MemoryImage:
    """An image with tall segments; `changes` are made to the descriptions of its sources."""
    simulated = simulate_image(CAMERA, name, seed=seed, registers=TALL)
    streams = {s.location: simulated.source(s.location).read(0, s.bytes) for s in simulated.info.sources}
    sources = [
        msgspec.structs.replace(s, **{"crc32c": f"{_core.crc32c(streams[s.location]):08x}", **changes})
        for s in simulated.info.sources
    ]
    return MemoryImage(msgspec.structs.replace(simulated.info, sources=tuple(sources)), streams)


@pytest.fixture(scope="module")
def images() -> list[MemoryImage]:
    return [still(f"CC_S_20261122_00000{n}", n) for n in (1, 2, 3)]


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Makes receivers for a server, which are closed at the end."""
    opened: list[Any] = []

    def make(server: Server, **keys: Any) -> Receiver:
        store = NetworkStore(server.endpoint, timeout=5.0)
        keys.setdefault("chunk_bytes", CHUNK)
        keys.setdefault("credit", 4 * CHUNK)
        opened.extend((store, Receiver(store, **keys)))
        return opened[-1]

    yield make
    for one in reversed(opened):
        one.close()


def readout_for(info: SourceInfo, **products: Any) -> _core.Readout:
    registers = info.registers
    return _core.Readout(CAMERA.board(info.location).layout, registers.width, registers.height, **products)


def begin(receiver: Receiver, image: MemoryImage, location: str = PLACE, seconds: float = 20.0) -> Fetch:
    info = image.source(location).info
    return receiver.fetch(image.info.name, info, readout_for(info), deadline=time.monotonic() + seconds)


def finish(receiver: Receiver, *fetches: Fetch, seconds: float = 25.0) -> None:
    """Runs until all of them ended."""
    left = list(fetches)
    until = time.monotonic() + seconds
    while left:
        assert time.monotonic() < until, "fetches do not end"
        for fetch in receiver.run(0.5):
            assert fetch.outcome is not None
            left.remove(fetch)


def is_right(fetch: Fetch, image: MemoryImage) -> bool:
    source = image.source(fetch.location)
    layout = CAMERA.board(fetch.location).layout
    expected = _core.unpack_reference(layout, source.read(0, source.info.bytes))
    found = np.stack([fetch.readout.plane(k).ravel() for k in range(layout.channels)])
    return bool(fetch.readout.complete) and np.array_equal(found, expected)


# -- when all is well


@pytest.mark.parametrize("plain", [False, True], ids=["loop", "pyzmq"])
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_sources_become_pixels(
    serve: Serve, receive: Any, images: list[MemoryImage], tmp_path: Any, transport: str, plain: bool
) -> None:
    bind = "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{tmp_path}/s"
    receiver = receive(serve(Stills(*images), bind), plain=plain)
    places = images[0].info.locations
    fetches = {begin(receiver, image, place): image for image in images for place in places}
    assert receiver.active == len(fetches) == 9
    finish(receiver, *fetches)
    for fetch, image in fetches.items():
        assert (fetch.outcome, fetch.reason) == ("complete", "")
        assert is_right(fetch, image)
        info = image.source(fetch.location).info
        assert fetch.crc32c == fetch.source_crc32c == info.crc32c
        assert fetch.received == fetch.expected == info.bytes
        assert (fetch.gaps, fetch.retries) == ([], 0)
        assert 0 < fetch.first_byte <= fetch.last_byte <= time.monotonic()
    assert receiver.active == receiver.outstanding == 0
    stats = receiver.stats
    assert stats["bytes"] == sum(f.received for f in fetches)
    assert stats["chunks"] == 9 * 13
    assert stats["copied_bytes"] == stats["asked_again"] == stats["duplicate"] == stats["lost"] == 0


def test_the_tag_comes_back_and_what_is_there_is_not_asked_for(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    image = images[0]
    receiver = receive(serve(Stills(image)))
    info = image.source(PLACE).info
    readout = readout_for(info)
    readout.add(0, image.source(PLACE).read(0, 500_000))
    tag = object()
    fetch = receiver.fetch(NAME, info, readout, deadline=time.monotonic() + 10, tag=tag)
    finish(receiver, fetch)
    assert fetch.tag is tag
    assert fetch.outcome == "complete"
    assert is_right(fetch, image)
    assert fetch.received == info.bytes - 500_000
    assert fetch.crc32c is None  # of what it did not receive it knows none
    again = receiver.fetch(NAME, info, readout, deadline=time.monotonic() + 10)
    finish(receiver, again)
    assert (again.outcome, again.received) == ("complete", 0)


def test_credit_bounds_what_is_on_its_way(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    server = serve(Stills(*images))
    receiver = receive(server, credit=2 * CHUNK)
    fetches = [begin(receiver, image) for image in images]
    most = 0
    while any(fetch.outcome is None for fetch in fetches):
        receiver.run(0.0)
        most = max(most, receiver.outstanding)
    assert 0 < most <= 3 * 2 * CHUNK
    assert all(fetch.outcome == "complete" for fetch in fetches)


def test_a_receiver_that_stops_holds_no_more_than_its_credit(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    server = serve(Stills(*images), heartbeat=0.1)
    receiver = receive(server, credit=2 * CHUNK)
    fetch = begin(receiver, images[0])
    receiver.run(0.0)
    time.sleep(0.5)
    assert server.status()["data"]["bytes"] <= 2 * CHUNK
    finish(receiver, fetch)
    assert fetch.outcome == "complete"
    assert receiver.stats["stalls"] == receiver.stats["reconnects"] == 0  # it was we who did not listen


def test_more_pulls_than_the_server_takes_wait_for_their_turn(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    from raftwright.stream.server import Limits

    server = serve(Stills(*images), limits=Limits(chunk=(1024, 16 << 20), pulls=2))
    receiver = receive(server)
    fetches = [begin(receiver, image, place) for image in images for place in images[0].info.locations]
    finish(receiver, *fetches)
    assert {fetch.outcome for fetch in fetches} == {"complete"}
    assert receiver.stats["errors"] == 0


def test_wake_and_timeout(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    receiver = receive(serve(Stills(*images)))
    begun = time.monotonic()
    assert receiver.run(0.2) == []
    assert 0.15 < time.monotonic() - begun < 2
    for fetching in (False, True):
        if fetching:
            finish(receiver, begin(receiver, images[0]))
        threading.Timer(0.2, receiver.wake).start()
        begun = time.monotonic()
        assert receiver.run(30.0) == []
        assert 0.1 < time.monotonic() - begun < 5
    receiver.wake()
    begun = time.monotonic()
    assert receiver.run(30.0) == []
    assert time.monotonic() - begun < 1


def test_a_cancelled_fetch_is_not_returned_and_lets_go_of_its_readout(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    receiver = receive(serve(Stills(*images)), credit=CHUNK)
    given_up, kept = begin(receiver, images[0]), begin(receiver, images[1])
    receiver.run(0.0)
    receiver.cancel(given_up)
    receiver.cancel(given_up)
    assert given_up.outcome == "cancelled"
    finish(receiver, kept)
    assert kept.outcome == "complete"
    assert receiver.run(0.2) == []
    assert given_up.readout.received < given_up.expected
    receiver.close()
    receiver.close()
    receiver.wake()
    with pytest.raises(UsageError, match="closed"):
        begin(receiver, images[0])


def test_a_readout_of_another_size_is_refused(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    receiver = receive(serve(Stills(*images)))
    info = images[0].source(PLACE).info
    readout = _core.Readout(CAMERA.board(PLACE).layout, 28, 399)
    with pytest.raises(UsageError, match="make one of its registers"):
        receiver.fetch(NAME, info, readout, deadline=time.monotonic() + 1)
    finished = begin(receiver, images[0])
    finished.readout.finish()
    finish(receiver, finished)
    assert finished.outcome == "refused"
    assert "finished" in finished.reason


def test_planes_may_lie_in_memory_of_others(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    receiver = receive(serve(Stills(*images)))
    info = images[0].source(PLACE).info
    memory = np.zeros(_core.planes_bytes(48, 28, 400) + 64, np.uint8)
    aligned = memory[-memory.ctypes.data % 64 :]
    readout = readout_for(info, memory=aligned)
    fetch = receiver.fetch(NAME, info, readout, deadline=time.monotonic() + 10)
    finish(receiver, fetch)
    assert is_right(fetch, images[0])
    assert np.shares_memory(readout.plane(47), memory)


# -- sources that are not all there


def test_a_source_that_is_being_read_out(serve: Serve, receive: Any, live: Any) -> None:
    """D031: complete."""
    server = serve(live, heartbeat=0.1)
    receiver = receive(server)
    image = live.all[NAME]
    source = image.source(PLACE)
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 20)
    size = source.base.bytes
    for part in (0, 1, 2):
        source.arrived = [(0, part * 6048)] if part else []
        for _ in range(4):
            assert receiver.run(0.1) == []
        assert fetch.readout.received == part * 6048
    source.arrived = [(0, size)]
    source.final = True
    finish(receiver, fetch)
    assert fetch.outcome == "complete"
    assert fetch.source_crc32c == fetch.crc32c == f"{_core.crc32c(source.data):08x}"
    stats = receiver.stats
    assert stats["waits"] > 0
    assert stats["stalls"] == stats["reconnects"] == stats["asked_again"] == 0


def test_gaps_of_the_source_are_told(serve: Serve, receive: Any, live: Any) -> None:
    """D031: short, and by how much."""
    source = live.all[NAME].source(PLACE)
    source.arrived = [(0, 10_000), (20_000, 48_000)]
    source.final = True
    receiver = receive(serve(live))
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 20)
    finish(receiver, fetch)
    assert fetch.outcome == "incomplete"
    assert fetch.gaps == fetch.readout.gaps() == [(10_000, 20_000), (48_000, 48_384)]
    assert fetch.received == 38_000
    assert fetch.crc32c is None
    assert "gaps" in fetch.reason
    fetch.readout.finish(-1)


def test_the_deadline_ends_a_fetch_and_keeps_what_came(serve: Serve, receive: Any, live: Any) -> None:
    """D003, D031, D033: timed out, within a tenth of the deadline, and how much came."""
    source = live.all[NAME].source(PLACE)
    source.arrived = [(0, 9072)]
    server = serve(live, heartbeat=0.1)
    receiver = receive(server)
    begun = time.monotonic()
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=begun + 2.0)
    finish(receiver, fetch)
    assert 1.8 < time.monotonic() - begun < 2.2
    assert fetch.outcome == "timed-out"
    assert fetch.received == 9072
    assert "deadline" in fetch.reason
    assert fetch.gaps == [(9072, 48384)]
    until = time.monotonic() + 5
    while server.status()["data"]["pulls"]:  # it was told
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_image_that_is_deleted_meanwhile(serve: Serve, receive: Any, live: Any) -> None:
    """D031: gone, with what came."""
    source = live.all[NAME].source(PLACE)
    source.arrived = [(0, 9072)]
    receiver = receive(serve(live, heartbeat=0.1))
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 20)
    assert receiver.run(0.5) == []
    source.error = NotFoundError("it was removed")
    finish(receiver, fetch)
    assert fetch.outcome == "gone"
    assert fetch.readout.received == 9072
    never = receiver.fetch(
        "CC_S_20261122_000099", source.base, readout_for(source.base), deadline=time.monotonic() + 9
    )
    finish(receiver, never)
    assert never.outcome == "gone"


def test_a_store_with_a_problem_is_asked_again(serve: Serve, receive: Any, live: Any) -> None:
    image = live.all[NAME]
    image.mend()
    source = image.source(PLACE)
    source.error = StorageError(5, "the disk is away", "disk")
    receiver = receive(serve(live))
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 20)
    assert receiver.run(0.8) == []
    assert 2 <= receiver.stats["errors"] <= 8  # with longer and longer pauses
    source.error = None
    finish(receiver, fetch)
    assert fetch.outcome == "complete"
    source.error = StorageError(5, "the disk is away", "disk")
    late = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 0.5)
    finish(receiver, late)
    assert late.outcome == "timed-out"
    assert "storage" in late.reason


def test_a_description_that_changed_is_refused(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    info = images[0].source(PLACE).info
    simulated = simulate_image(CAMERA, NAME, registers=[3, 0, 20, 0, 0, 5, 0, 498, 0, 2, 1])
    streams = {s.location: simulated.source(s.location).read(0, s.bytes) for s in simulated.info.sources}
    receiver = receive(serve(Stills(MemoryImage(simulated.info, streams))))
    fetch = receiver.fetch(NAME, info, readout_for(info), deadline=time.monotonic() + 20)
    finish(receiver, fetch)
    assert fetch.outcome == "refused"
    assert "its description says" in fetch.reason


def test_bytes_that_are_not_those_of_the_crc_are_fetched_once_more(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    damaged = still(crc32c="12345678")
    receiver = receive(serve(Stills(damaged)))
    fetch = begin(receiver, damaged)
    finish(receiver, fetch)
    assert fetch.outcome == "damaged"
    assert "12345678" in fetch.reason
    assert (fetch.source_crc32c, fetch.crc32c) == ("12345678", images[0].source(PLACE).info.crc32c)
    assert receiver.stats["restarts"] == 1
    assert receiver.stats["bytes"] == 2 * fetch.expected
    assert is_right(fetch, damaged)  # nothing better is to be had


# -- when things go wrong on the way


@pytest.mark.parametrize(
    "faults",
    [
        "drop=0.05",
        "duplicate=0.1",
        "reorder=0.1",
        "corrupt=0.05",
        "wrong-length=0.05",
        "delay=0.02:0.3s",
        "drop=0.03,duplicate=0.03,reorder=0.03,corrupt=0.03,wrong-length=0.03,cut=0.004",
    ],
)
def test_faults_are_mended(serve: Serve, receive: Any, images: list[MemoryImage], faults: str) -> None:
    chosen = Faults.parse(faults, seed=3)
    server = serve(Stills(*images), faults=chosen, heartbeat=0.2)
    receiver = receive(server)
    for _ in range(2):
        fetches = {
            begin(receiver, image, place): image for image in images for place in images[0].info.locations
        }
        finish(receiver, *fetches)
        for fetch, image in fetches.items():
            assert (fetch.outcome, fetch.reason) == ("complete", "")
            assert is_right(fetch, image)
            assert fetch.crc32c == image.source(fetch.location).info.crc32c
    done = chosen.counts()
    assert sum(done.values()) > 2, "the faults did not happen"
    stats = receiver.stats
    if faults.startswith(("drop=0.05", "corrupt", "wrong")):
        assert stats["asked_again"] > 0
        assert stats["reconnects"] == 0
    if faults.startswith("corrupt"):
        assert stats["corrupt"] + stats["malformed"] == done["corrupt"]
    assert stats["bytes"] == 2 * sum(fetch.expected for fetch in fetches)


def test_a_connection_that_is_silent_is_made_anew(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    server = serve(Stills(*images), faults=Faults.parse("stall=0.1:60s", seed=1), heartbeat=0.1)
    receiver = receive(server)
    fetches = {begin(receiver, image): image for image in images}
    finish(receiver, *fetches)
    for fetch, image in fetches.items():
        assert fetch.outcome == "complete"
        assert is_right(fetch, image)
    assert receiver.stats["stalls"] > 0
    assert receiver.stats["asked_again"] > 0


def test_a_server_that_dies_and_comes_back(serve: Serve, receive: Any, live: Any) -> None:
    port = free_port()
    source = live.all[NAME].source(PLACE)
    source.arrived = [(0, 9072)]
    first = serve(live, f"tcp://127.0.0.1:{port}", heartbeat=0.2)
    receiver = receive(first)
    fetch = receiver.fetch(NAME, source.base, readout_for(source.base), deadline=time.monotonic() + 30)
    assert receiver.run(0.5) == []
    first.stop()
    assert receiver.run(0.5) == []
    live.all[NAME].mend()
    serve(live, f"tcp://127.0.0.1:{port}", heartbeat=0.2)
    finish(receiver, fetch)
    assert fetch.outcome == "complete"
    assert fetch.received == 48384  # nothing was asked for twice
    assert receiver.stats["duplicate"] == 0
    assert receiver.stats["reconnects"] >= 1


def test_a_server_that_is_away_for_hours_is_found_again(
    serve: Serve, images: list[MemoryImage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody reads what libzmq tells of an idle connection. Its I/O thread waits when 2000 events wait, and
    with it all sockets: then the process would never hear of the server again. (Hours are seconds here.)"""
    monkeypatch.setattr(connection, "_RECONNECT", (1, 1))
    endpoint = f"ipc://{tmp_path}/s"
    server = serve(Stills(*images), endpoint)
    with NetworkStore(endpoint, io_threads=1) as store, Receiver(store) as receiver:
        assert store.images() == [image.info.name for image in images]
        before = begin(receiver, images[0])
        finish(receiver, before)
        server.stop()
        time.sleep(6)
        serve(Stills(*images), endpoint)
        after = begin(receiver, images[1])
        finish(receiver, after)
        assert (before.outcome, after.outcome) == ("complete", "complete")
        assert store.images() == [image.info.name for image in images]


def test_a_server_that_is_not_there_yet(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    port = free_port()
    with NetworkStore(f"tcp://127.0.0.1:{port}", timeout=1.0) as store, Receiver(store) as receiver:
        fetch = begin(receiver, images[0], seconds=1.0)
        finish(receiver, fetch)
        assert fetch.outcome == "timed-out"
        assert "does the server run" in fetch.reason
        fetch = begin(receiver, images[0])
        receiver.run(0.2)
        serve(Stills(*images), f"tcp://127.0.0.1:{port}")
        finish(receiver, fetch)
        assert fetch.outcome == "complete"


# -- the loop


def test_another_thread_computes_while_chunks_are_taken(
    serve: Serve, receive: Any, images: list[MemoryImage]
) -> None:
    """It works; how little it costs is what the figure in bench/ measures."""
    receiver = receive(serve(Stills(*images)))
    stop = threading.Event()
    turns = 0

    def compute() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += sum(range(100)) > 0

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        fetches = {
            begin(receiver, image, place): image for image in images for place in images[0].info.locations
        }
        finish(receiver, *fetches)
    finally:
        stop.set()
        thread.join()
    assert turns > 0
    assert all(is_right(fetch, image) for fetch, image in fetches.items())


def test_memory_goes_with_its_fetch(serve: Serve, receive: Any, images: list[MemoryImage]) -> None:
    receiver = receive(serve(Stills(*images)))
    info = images[0].source(PLACE).info
    held = bytearray(_core.planes_bytes(48, 28, 400) + 64)
    view = memoryview(held)
    start = -np.frombuffer(held, np.uint8).ctypes.data % 64
    fetch = receiver.fetch(NAME, info, readout_for(info, memory=view[start:]), deadline=time.monotonic() + 10)
    finish(receiver, fetch)
    del fetch, view
    gc.collect()
    held.append(0)  # BufferError while anybody has it


def test_the_loop_refuses_what_it_cannot_use(images: list[MemoryImage]) -> None:
    loop = _stream.ReceiveLoop("/nowhere/_zmq.so")
    assert "not loaded" in loop.problem
    with pytest.raises(UsageError, match="take"):
        loop.run(0, 0, 0.0)
    info = images[0].source(PLACE).info
    with pytest.raises(UsageError, match="8 and 4"):
        loop.open(1, readout_for(info), b"123", b"1234", 5)
    with pytest.raises(AttributeError):
        loop.open(1, object(), bytes(8), bytes(4), 5)
    with pytest.raises(UsageError):
        loop.ask(1, 1, 0, 1, 1, 0.0)
    with pytest.raises(UsageError):
        loop.progress(1)
    with pytest.raises(UsageError):
        loop.restart(1)
    assert (loop.missing(1), loop.write_off(1, 2), loop.silent(1e6), loop.events()) == (0, 0, [], [])
    loop.take(b"", b"", 0.0)
    assert loop.counters["malformed"] == 1


@given(
    row=st.integers(1, 1 << 26),
    wanted=st.integers(1, 1 << 26),
    low=st.integers(1, 1 << 21),
    more=st.integers(0, 1 << 24),
)
def test_chunks_are_whole_rows_within_the_limits(row: int, wanted: int, low: int, more: int) -> None:
    found = chunk_bytes(row, wanted, (low, low + more))
    assert low <= found <= low + more
    if 32 * row <= more:
        assert found % (32 * row) == 0
        if low <= wanted <= low + more:
            assert abs(found - wanted) <= 32 * row
    elif row <= more:
        assert found % row == 0


def test_the_chunks_of_a_science_board() -> None:
    assert chunk_bytes(576 * 108, 4 << 20, (1 << 20, 16 << 20)) == 2 * 32 * 576 * 108
    assert chunk_bytes(28 * 36, 4 << 20, (1 << 20, 16 << 20)) >= 1 << 20


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))),
)
def test_ranges(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    def points(ranges: Any) -> set[int]:
        return {n for begin, end in ranges for n in range(begin, end)}

    together = joined(some)
    assert points(together) == points(some)
    assert all(a < b < c < d for (a, b), (c, d) in itertools.pairwise(together))
    assert points(without(list(together), others)) == points(some) - points(others)


def test_stores_of_the_simulation_have_no_crc(serve: Serve, receive: Any) -> None:
    store = SimulatedStore("LSSTComCam", 5, count=1, registers=TALL)
    receiver = receive(serve(store))
    name = store.images()[0]
    info = store.image(name).source(PLACE).info
    fetch = receiver.fetch(name, info, readout_for(info), deadline=time.monotonic() + 10)
    finish(receiver, fetch)
    assert fetch.outcome == "complete"
    assert fetch.crc32c is not None
