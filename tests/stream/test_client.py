"""The network as a store: the same promises as any other, and clear words when the server is not there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import raftwright
from hand_daq import free_port
from raftwright.camera import camera
from raftwright.daq import Notice, SimulatedStore, open_store, write_recording
from raftwright.daq.contract import assert_store
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.stream import Faults, KeyPair, KeyStore, NetworkStore, Server

NAME = "CC_S_20261122_000001"
LATER = "CC_S_20261122_000002"
PLACE = "22/0"

Serve = Callable[..., Server]


@pytest.fixture
def connect() -> Iterator[Callable[..., NetworkStore]]:
    """Makes clients that are closed at the end."""
    opened: list[NetworkStore] = []

    def make(server: Server | str, **keys: Any) -> NetworkStore:
        endpoint = server if isinstance(server, str) else server.endpoint
        keys.setdefault("timeout", 5.0)
        opened.append(NetworkStore(endpoint, **keys))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


Connect = Callable[..., NetworkStore]


# -- the promises of a store


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_it_keeps_the_promises_of_a_store(
    serve: Serve, connect: Connect, still: SimulatedStore, tmp_path: Path, transport: str
) -> None:
    bind = "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{tmp_path}/s"
    client = connect(serve(still, bind))
    assert_store(client, camera("LSSTComCam"), images=1)
    assert client.images() == still.images()
    assert client.image(still.images()[0]).info == still.image(still.images()[0]).info


def test_it_keeps_them_with_gaps_and_under_faults(
    serve: Serve, connect: Connect, still: SimulatedStore, tmp_path: Path
) -> None:
    image = still.image(still.images()[0])
    write_recording(tmp_path / image.info.name, image, durable=False)
    file = next(tmp_path.glob("*/*.raw"))
    os.truncate(file, file.stat().st_size - 5000)
    from raftwright.daq import RecordedStore

    faults = Faults.parse("drop=0.02,corrupt=0.02,duplicate=0.02,reorder=0.02", seed=8)
    server = serve(RecordedStore(tmp_path, salvage=True), faults=faults, heartbeat=0.2)
    client = connect(server, timeout=10.0)
    assert_store(client, camera("LSSTComCam"), images=1)
    sources = [client.image(image.info.name).source(place) for place in image.info.locations]
    assert sum(last - first for s in sources for first, last in s.available(0, s.info.bytes)) == (
        sum(s.info.bytes for s in sources) - 5000
    )
    assert sum(faults.counts().values()) > 0


def test_long_catalogues_come_in_parts(
    serve: Serve, connect: Connect, still: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D170."""
    import raftwright.stream.client as module

    monkeypatch.setattr(module, "_PAGE", 2)
    client = connect(serve(still))
    assert client.images() == still.images()
    assert client.images(after=still.images()[0]) == still.images()[1:]
    assert client.images(after=still.images()[-1]) == []
    assert client.stats["queries"] == 2 + 1 + 1


def test_an_image_is_assembled_from_afar(serve: Serve, still: SimulatedStore) -> None:
    with open_store(serve(still).endpoint) as client:  # type: ignore[attr-defined]
        name = still.images()[0]
        far = raftwright.assemble(client.image(name))
        near = raftwright.assemble(still.image(name))
        assert len(far) == len(near) == 9
        for one, other in zip(far, near, strict=True):
            assert one.name == other.name
            assert all((a == b).all() for a, b in zip(one.planes, other.planes, strict=True))


def test_a_source_that_is_being_read_out(serve: Serve, connect: Connect, live: Any) -> None:
    client = connect(serve(live))
    assert client.images() == []
    assert client.underway() == [NAME]
    image = client.image(NAME)
    source = image.source(PLACE)
    far = live.all[NAME].source(PLACE)
    assert source.info.crc32c is None
    assert not source.final
    assert not image.final
    assert source.available(0, 48384) == []
    far.arrived = [(1000, 3000), (5000, 48384)]
    assert source.available(0, 6000) == [(1000, 3000), (5000, 6000)]
    buffer = bytearray(b"\x55" * 2000)
    assert source.readinto(1500, buffer) == 2000  # does not wait for what has not arrived
    assert bytes(buffer[:1500]) == far.data[1500:3000]
    far.final = True
    assert source.final
    assert source.available(2000, 4000) == [(2000, 3000), (5000, 6000)]
    asked = far.asked
    assert source.available(0, 48384) == far.arrived
    assert far.asked == asked  # what is final is asked for once


def test_many_threads_ask_at_once(serve: Serve, connect: Connect, still: SimulatedStore) -> None:
    client = connect(serve(still))
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            name = still.images()[n % 3]
            for _ in range(5):
                source = client.image(name).source(PLACE)
                assert source.read(0, 5000) == still.image(name).source(PLACE).read(0, 5000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- notices


def collect(
    client: NetworkStore, found: list[Notice], enough: threading.Event, count: int
) -> threading.Thread:
    def listen() -> None:
        for notice in client.notices(timeout=8.0):
            found.append(notice)
            if len(found) >= count:
                enough.set()
                return

    threading.Thread(target=listen, daemon=True).start()


def until(true: Callable[[], Any], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


def test_notices_begin_with_a_doubt_and_then_tell(serve: Serve, connect: Connect, live: Any) -> None:
    client = connect(serve(live, heartbeat=0.1))
    found: list[Notice] = []
    enough = threading.Event()
    collect(client, found, enough, 4)
    until(lambda: found)
    assert found == [Notice("missed", "")]  # what was before is not known
    live.all[LATER] = live.all[NAME]
    live.events.put(Notice("begun", LATER))
    live.events.put(Notice("progress", NAME, PLACE, 1234))
    until(lambda: len(found) == 3)
    del live.all[LATER]
    live.events.put(Notice("removed", LATER))
    assert enough.wait(8)
    assert found[1:] == [
        Notice("begun", LATER),
        Notice("progress", NAME, PLACE, 1234),
        Notice("removed", LATER),
    ]


def test_notices_end_when_it_is_quiet(serve: Serve, connect: Connect, live: Any) -> None:
    client = connect(serve(live, heartbeat=0.1))
    assert list(client.notices(timeout=0.0)) == []
    begun = time.monotonic()
    assert list(client.notices(timeout=0.5)) == [Notice("missed", "")]
    assert time.monotonic() - begun < 4


def test_lost_notices_are_told(serve: Serve, connect: Connect, live: Any) -> None:
    faults = Faults.parse("lose-notice=0.4", seed=2)
    client = connect(serve(live, heartbeat=0.1, faults=faults))
    found: list[Notice] = []
    enough = threading.Event()
    collect(client, found, enough, 60)
    until(lambda: found)
    for n in range(100):
        live.events.put(Notice("progress", NAME, f"22/{n}", 1))
    assert enough.wait(8)
    assert found.count(Notice("missed", "")) > 5


def _told(live: Any, found: list[Notice]) -> bool:
    location = f"22/{len(found)}{time.monotonic_ns() % 10**9}"[:18]
    live.events.put(Notice("progress", NAME, location, 5))
    time.sleep(0.1)
    return any(notice.kind == "progress" for notice in found)


def test_notices_go_on_when_the_server_was_started_anew(serve: Serve, connect: Connect, live: Any) -> None:
    port = free_port()
    first = serve(live, f"tcp://127.0.0.1:{port}", heartbeat=0.1)
    client = connect(first)
    found: list[Notice] = []
    enough = threading.Event()
    collect(client, found, enough, 10**6)
    until(lambda: found)
    first.stop()
    until(lambda: len(found) > 1)
    assert found[-1] == Notice("missed", "")
    second = serve(live, f"tcp://127.0.0.1:{port}", heartbeat=0.1)
    until(lambda: client.connection.welcome.session == second.session)  # type: ignore[union-attr]
    until(lambda: _told(live, found))
    assert client.stats["sessions"] == 1


# -- when the server is away


def test_no_server(connect: Connect) -> None:
    client = connect(f"tcp://127.0.0.1:{free_port()}", timeout=0.5)
    begun = time.monotonic()
    with pytest.raises(StorageError, match="nobody listens there") as caught:
        client.images()
    assert time.monotonic() - begun < 3
    assert caught.value.filename == client.endpoint
    with pytest.raises(StorageError):
        _ = client.welcome
    with pytest.raises(StorageError):
        open_store(f"{client.endpoint}?timeout=0.3")


def test_a_server_that_was_away_is_found_again(serve: Serve, connect: Connect, still: SimulatedStore) -> None:
    port = free_port()
    client = connect(f"tcp://127.0.0.1:{port}", timeout=10.0)
    first = serve(still, f"tcp://127.0.0.1:{port}", heartbeat=0.1)
    assert client.session == first.session
    source = client.image(still.images()[0]).source(PLACE)
    data = source.read(0, 5000)
    first.stop()
    time.sleep(0.6)  # so long a greeting counts as new
    with pytest.raises(StorageError):
        client.refresh(0.5)
    second = serve(still, f"tcp://127.0.0.1:{port}", heartbeat=0.1)
    assert client.images() == still.images()
    assert client.session == second.session != first.session
    assert source.read(0, 5000) == data


def test_a_slow_store_is_waited_for_and_a_dead_one_is_not(serve: Serve, connect: Connect, live: Any) -> None:
    client = connect(serve(live, heartbeat=0.1), timeout=1.0)
    client.folders()
    live.slow = 0.6  # more than three heartbeats: PONG tells that the server lives
    assert client.folders() == ["raw"]
    assert client.stats["reconnects"] == 0
    live.slow = 3.0
    begun = time.monotonic()
    with pytest.raises(StorageError, match="no answer"):
        client.folders()
    assert time.monotonic() - begun < 2.5


def test_a_closed_store(serve: Serve, connect: Connect, still: SimulatedStore) -> None:
    client = connect(serve(still))
    source = client.image(still.images()[0]).source(PLACE)
    client.close()
    client.close()
    for use in (client.images, lambda: source.read(0, 10), lambda: list(client.notices(timeout=1.0))):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_a_store_that_is_closed_while_it_is_read(serve: Serve, connect: Connect, live: Any) -> None:
    """The reader hears that it was closed, and nothing of sockets."""
    source = live.all[NAME].sources[PLACE]
    source.arrived, source.final = [(0, len(source.data))], True
    reading = threading.Event()

    def stall() -> None:
        reading.set()
        time.sleep(1.0)

    source.on_read = stall
    client = connect(serve(live))
    far = client.image(NAME).source(PLACE)
    raised: list[Exception] = []

    def read() -> None:
        try:
            far.read(0, len(source.data))
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(5)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [UsageError]


# -- endpoints and keys


@pytest.mark.parametrize(
    "endpoint",
    ["", "tcp://", "udp://x:1", "tcp://localhost", "tcp://a b:1", "ipc://", "tcp://127.0.0.1:99999"],
)
def test_endpoints_that_cannot_be(endpoint: str) -> None:
    with pytest.raises((UsageError, StorageError)), NetworkStore(endpoint, timeout=0.3) as client:
        client.images()


def test_options_of_an_endpoint() -> None:
    for text, what in (
        ("tcp://127.0.0.1:1?colour=red", "no option"),
        ("tcp://127.0.0.1:1?timeout=soon", "give seconds"),
        ("tcp://127.0.0.1:1?timeout=0", "timeout"),
    ):
        with pytest.raises(UsageError, match=what):
            open_store(text)
    with pytest.raises(UsageError, match="server's public key"):
        NetworkStore("tcp://127.0.0.1:1", keys=KeyPair("a", "b"))
    with pytest.raises(FormatError, match="40 characters"):
        NetworkStore("tcp://127.0.0.1:1", server_key="short")


def test_keys_out_of_the_key_store(
    serve: Serve, still: SimulatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    keys = KeyStore()
    server_pair, mine, stranger = keys.new("dc01"), keys.new("me"), keys.new("stranger")
    server = serve(still, keys=server_pair, allowed=[mine.public])
    with open_store(f"{server.endpoint}?keys=me&server=dc01") as client:  # type: ignore[attr-defined]
        assert client.images() == still.images()
        source = client.image(still.images()[0]).source(PLACE)
        assert source.read(0, 100) == still.image(still.images()[0]).source(PLACE).read(0, 100)
        notices = list(client.notices(timeout=1.0))
        assert notices == [Notice("missed", "")]
    for options, what in (
        ("keys=stranger&server=dc01", "does not let this key in"),
        ("server=dc01", "does not let this key in"),
        ("keys=me&server=stranger", "no answer"),
        ("", "no answer"),
    ):
        begun = time.monotonic()
        with pytest.raises(StorageError, match=what):
            open_store(f"{server.endpoint}?{options}&timeout=0.7".replace("?&", "?"))
        assert time.monotonic() - begun < 4
    assert stranger.public
    with pytest.raises(NotFoundError):
        open_store(f"{server.endpoint}?keys=nobody&server=dc01")
