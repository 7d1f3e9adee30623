"""Clients that are broken, greedy, dead or strangers: refused, told about once, in nobody's way."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zmq

from raftwright import _core
from raftwright.daq import SimulatedFrames, SimulatedStore
from raftwright.daq.cadence import CadenceStore
from raftwright.stream import KeyStore, Server
from raftwright.stream.server import Limits
from raftwright.stream.wire import Header, Type, image_key, pack, source_key

NAME = "CC_S_20261122_000001"
PLACE = "22/0"
SIZE = 48384
MIB = 1 << 20

Connect = Callable[..., Any]
Serve = Callable[..., Server]


def data_of(server: Server, n: int = 0) -> str:
    return str(server.endpoints["data"][n])


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.01)


def resealed(frame: bytes, place: int, value: int) -> bytes:
    changed = bytearray(frame)
    changed[place] = value
    changed[60:] = struct.pack("<I", _core.crc32c(bytes(changed[:60])))
    return bytes(changed)


@pytest.mark.parametrize("which", ["control", "data"])
def test_garbage_is_refused_and_told_once(
    serve: Serve, plain: Connect, still: SimulatedStore, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    server = serve(still)
    endpoint = server.endpoint if which == "control" else data_of(server)
    chance = random.Random(3)
    good = pack(Header(Type.PING, 1))
    bad = plain(endpoint, SNDHWM=100_000)
    sent = 0
    for n in range(2000):
        frames = [
            chance.randbytes(chance.choice((0, 1, 63, 64, 65, 500))) for _ in range(chance.randrange(1, 5))
        ]
        if n % 3 == 0:
            wrong = bytearray(good)
            wrong[chance.randrange(64)] ^= 1 << chance.randrange(8)
            frames = [bytes(wrong), b""]
        elif n % 7 == 0:
            frames = [good, b"a body that is not the header's"]
        bad.send_raw(*frames)
        sent += 1
    bad.send_raw(*[b""] * 1000)
    bad.send_raw(resealed(good, 5, 77), b"")
    sent += 2
    eventually(lambda: sum(server.status()["refused"].values()) == sent)
    assert set(server.status()["refused"]) == {"malformed", "unknown-type"}

    def told() -> int:
        return sum("refused" in record.getMessage() for record in caplog.records)

    eventually(lambda: told() == 2)  # it is counted first, and told then
    header, answer = bad.answer()
    assert (header.type, answer["code"]) == (Type.ERROR, "malformed")
    assert plain(server.endpoint).query("folders")["folders"] == ["raw"]
    assert plain(data_of(server)).fetch(NAME, PLACE, 0, 5000)[1]["sent"] == 5000
    assert told() == 2, "once for each kind"


def test_another_version_of_the_protocol_is_named(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    """F17."""
    server = serve(still)
    for endpoint in (server.endpoint, data_of(server)):
        client = plain(endpoint)
        client.send_raw(resealed(pack(Header(Type.HELLO, 3)), 4, 2), b"")
        header, answer = client.answer()
        assert header.type is Type.ERROR
        assert answer == {"code": "version", "spoken": [1], "got": 2, "message": answer["message"]}


def test_bytes_that_are_not_even_zeromq(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    import socket

    server = serve(still)
    for endpoint in (server.endpoint, data_of(server), server.endpoints["notices"]):
        host, port = endpoint.removeprefix("tcp://").split(":")
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            random.Random(4).randbytes(4096),
            b"\xff" + bytes(8) + b"\x7f" + b"\x03" + bytes(53),
        ):
            with socket.create_connection((host, int(port)), 5) as raw:
                raw.sendall(data)
    assert plain(server.endpoint).query("folders")["folders"] == ["raw"]
    assert plain(data_of(server)).fetch(NAME, PLACE, 0, 5000)[1]["sent"] == 5000


def test_messages_that_are_too_large_cut_the_connection_only(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    server = serve(still)
    good = plain(server.endpoint)
    assert good.query("folders")
    bad = plain(server.endpoint)
    bad.send(Header(Type.QUERY, 1), b'{"what": "' + b"x" * (2 * MIB) + b'"}')
    assert bad.receive(0.5) is None
    almost = plain(server.endpoint)
    assert almost.refused(Type.QUERY, {"what": "x" * (MIB - 100)}) == "malformed"
    assert good.query("folders")["folders"] == ["raw"]


def test_ten_thousand_pulls(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still, limits=Limits(chunk=(1024, MIB), pulls=256))
    client = plain(data_of(server), SNDHWM=100_000, RCVHWM=100_000)
    for _ in range(10_000):
        client.pull(NAME, PLACE, 0, SIZE, credit=0, chunk=1024)
    refused = 0
    while refused < 10_000 - 256:
        header, body = client.receive()
        if header.type is Type.ERROR:
            assert msgspec.json.decode(body)["code"] == "limit"
            refused += 1
    assert server.status()["data"]["pulls"] == 256
    other = plain(data_of(server))
    begun = time.monotonic()
    assert other.fetch(NAME, PLACE, 0, SIZE)[1]["sent"] == SIZE
    assert time.monotonic() - begun < 2
    for number in range(1, 257):
        client.send(Header(Type.CANCEL, number))
    eventually(lambda: server.status()["data"]["pulls"] == 0)


def test_too_many_clients_at_a_time_are_told_to_try_later(
    serve: Serve, plain: Connect, still: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftwright.stream.delivery._MOST_PEERS", 2)
    server = serve(still)
    clients = [plain(data_of(server)) for _ in range(3)]
    for client in clients[:2]:
        client.pull(NAME, PLACE, 0, SIZE, credit=0)
    eventually(lambda: server.status()["data"]["pulls"] == 2)
    clients[2].pull(NAME, PLACE, 0, SIZE)
    assert clients[2].answer()[1]["code"] == "busy"


def test_peers_that_vanish_are_forgotten(serve: Serve, plain: Connect, live: Any) -> None:
    server = serve(live)
    live.all[NAME].sources[PLACE].arrived = [(0, 4096)]
    clients = [plain(data_of(server)) for _ in range(10)]
    for client in clients:
        client.pull(NAME, PLACE, 0, SIZE, chunk=4096)
        assert client.receive()[0].type is Type.CHUNK
    assert server.status()["data"]["pulls"] == 10
    for client in clients:
        client.close()
    eventually(lambda: server.status()["data"]["pulls"] == 0)
    assert server.status()["data"]["peers"] == 0
    assert server.status()["data"]["pulls_lost"] == 10
    assert live.all[NAME].sources[PLACE].final is False


class _Big:
    """A store with one image of 96 MiB that is made up as it is read, so that it needs buffers."""

    def __init__(self) -> None:
        from raftwright.camera import Geometry
        from raftwright.daq import ImageInfo, Registers, SourceInfo

        registers = Registers.of_geometry(
            Geometry(prescan=0, columns=1024, overscan=0, rows=910, parallel_overscan=0)
        )
        self.source_info = SourceInfo(location=PLACE, kind="science", registers=registers, bytes=96 * MIB)
        self.info = ImageInfo(name=NAME, camera="LSSTComCam", sources=(self.source_info,))
        self.reads = 0

    def folders(self) -> list[str]:
        return ["raw"]

    def images(self, folder: str | None = None) -> list[str]:
        return [NAME]

    def underway(self) -> list[str]:
        return []

    def notices(self, timeout: float | None = None) -> Any:
        return iter(())

    def image(self, name: str) -> Any:
        big = self

        class Source:
            info = big.source_info
            final = True

            def available(self, offset: int, length: int) -> list[tuple[int, int]]:
                return [(offset, offset + length)] if length else []

            def read(self, offset: int, length: int) -> bytes:
                return bytes(length)

            def readinto(self, offset: int, buffer: Any) -> int:
                big.reads += len(buffer)
                return len(buffer)

        class Image:
            info = big.info

            def source(self, location: str) -> Source:
                return Source()

        return Image()


def test_those_who_do_not_read_cost_bounded_memory_and_hold_up_nobody(serve: Serve, plain: Connect) -> None:
    store = _Big()
    limits = Limits(chunk=(MIB, 2 * MIB), credit=1 << 30, window=4 * MIB, memory=8 * MIB)
    server = serve(store, limits=limits, data_sockets=1)
    sleepers = [plain(data_of(server), RCVHWM=1, RCVBUF=65536) for _ in range(5)]
    for client in sleepers:
        client.pull(NAME, PLACE, 0, 24 * MIB, credit=24 * MIB, chunk=2 * MIB)
    eventually(lambda: server.status()["data"].get("chunks", 0) > 0)
    time.sleep(0.5)
    numbers = server.status()["data"]
    assert numbers["pulls"] == 5
    assert numbers["in_flight"] <= 5 * 4 * MIB
    assert numbers["buffers"] <= 8 * MIB + 5 * 2 * MIB
    busy = plain(data_of(server))
    begun = time.monotonic()
    _data, end = busy.fetch(NAME, PLACE, 0, 32 * MIB, credit=8 * MIB, chunk=2 * MIB)
    assert end["sent"] == 32 * MIB
    assert time.monotonic() - begun < 5
    for client in sleepers:  # awake again, they get all of it
        number = 1
        total = sum(len(body) for header, body in client.messages(number, 30) if header.type is Type.CHUNK)
        assert total == 24 * MIB
    eventually(lambda: server.status()["data"]["in_flight"] == 0)
    assert server.status()["data"]["buffers"] <= 8 * MIB


def test_a_client_that_dies_amid_a_stream_gives_its_memory_back(serve: Serve, plain: Connect) -> None:
    server = serve(
        _Big(), data_sockets=1, limits=Limits(chunk=(MIB, 2 * MIB), window=4 * MIB, memory=8 * MIB)
    )
    for _ in range(5):
        client = plain(data_of(server), RCVHWM=1, RCVBUF=65536)
        client.pull(NAME, PLACE, 0, 48 * MIB, credit=48 * MIB, chunk=2 * MIB)
        assert client.receive() is not None
        client.close()
    eventually(lambda: server.status()["data"]["pulls"] == 0)
    eventually(lambda: server.status()["data"]["in_flight"] == 0)
    assert server.status()["data"]["peers"] == 0


def test_an_idle_server_does_next_to_nothing(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still, heartbeat=1.0)
    client = plain(data_of(server))
    client.pull(NAME, PLACE, 0, SIZE, credit=0)
    time.sleep(0.3)
    used = time.process_time()
    time.sleep(2.0)
    assert time.process_time() - used < 0.04, "2 % of a processor, the client's pull included"


def test_a_live_pull_that_waits_is_cheap(serve: Serve, plain: Connect) -> None:
    frames = SimulatedFrames(
        "LSSTComCam", 1, registers=[3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1], pattern="coordinates"
    )
    with CadenceStore(frames, every=60, readout=50, count=1) as store:
        server = serve(store, heartbeat=1.0)
        client = plain(data_of(server))
        time.sleep(0.1)
        for place in ("22/0", "22/1", "22/2"):
            client.pull(store.name_of(1), place, 0, SIZE, chunk=40_000)
        time.sleep(0.3)
        used = time.process_time()
        time.sleep(1.5)
        assert (time.process_time() - used) / 1.5 < 0.10


def test_many_threads_of_clients_at_once(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still)
    truth = {place: still.image(NAME).source(place).read(0, SIZE) for place in ("22/0", "22/1", "22/2")}
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            client = plain(data_of(server, n % 2))
            for _ in range(10):
                place = f"22/{n % 3}"
                assert client.fetch(NAME, place, 0, SIZE, chunk=4096, credit=10_000)[0] == truth[place]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("which", ["control", "data"])
def test_connections_that_end_for_what_came_through_them_are_counted(
    serve: Serve, plain: Connect, still: SimulatedStore, which: str
) -> None:
    """libzmq ends a connection for a message that is too large, and says nothing to anybody."""
    server = serve(still)
    endpoint = server.endpoint if which == "control" else data_of(server)
    good = plain(server.endpoint)
    assert good.query("folders")["folders"] == ["raw"]
    bad = plain(endpoint, RECONNECT_IVL=-1)
    bad.send_raw(pack(Header(Type.PING, 1)), bytes(2 * MIB))
    eventually(lambda: server.status()["connections"].get("ended") == 1)
    assert server.status()["connections"]["made"] == 2
    assert good.query("folders")["folders"] == ["raw"]


# -- keys


def test_encryption_and_who_is_let_in(
    serve: Serve, plain: Connect, still: SimulatedStore, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyStore(tmp_path / "keys")
    server_pair, client_pair, stranger = keys.new("server"), keys.new("client"), keys.new("stranger")
    keys.allow("client", client_pair.public)
    server = serve(still, keys=server_pair, allowed=keys.allowed_keys)

    def curve(pair: Any, server_key: str = server_pair.public) -> dict[str, bytes]:
        return {
            "CURVE_PUBLICKEY": pair.public.encode(),
            "CURVE_SECRETKEY": pair.secret.encode(),
            "CURVE_SERVERKEY": server_key.encode(),
        }

    good = plain(server.endpoint, **curve(client_pair))
    assert good.query("folders")["folders"] == ["raw"]
    data, _ = plain(data_of(server), **curve(client_pair)).fetch(NAME, PLACE, 0, SIZE)
    assert data == still.image(NAME).source(PLACE).read(0, SIZE)
    notices = plain(server.endpoints["notices"], kind=zmq.SUB, SUBSCRIBE=b"RWST", **curve(client_pair))
    assert notices.answer()[1] == {"kind": "alive"}

    for options in (curve(stranger), curve(client_pair, stranger.public), {}):
        for endpoint in (server.endpoint, data_of(server), server.endpoints["notices"]):
            kind = zmq.SUB if endpoint == server.endpoints["notices"] else zmq.DEALER
            other = plain(endpoint, kind=kind, **options)
            if kind == zmq.DEALER:
                other.send(Header(Type.PING, 1))
            else:
                other.socket.setsockopt(zmq.SUBSCRIBE, b"")
            assert other.receive(0.2) is None, "nothing is said to strangers"
    assert server.status()["refused"]["key"] >= 3
    assert server.status()["connections"]["refused"] >= 9
    assert len([r for r in caplog.records if stranger.public in r.getMessage()]) == 1
    keys.allow("stranger", stranger.public)  # seen at once
    assert plain(server.endpoint, **curve(stranger)).query("folders")["folders"] == ["raw"]
    assert good.query("folders")["folders"] == ["raw"]


def test_a_server_with_keys_and_no_list_takes_who_knows_it(
    serve: Serve, plain: Connect, still: SimulatedStore, tmp_path: Any
) -> None:
    pair = KeyStore(tmp_path).new("server")
    server = serve(still, keys=pair)
    public, secret = zmq.curve_keypair()
    client = plain(
        server.endpoint,
        CURVE_PUBLICKEY=public,
        CURVE_SECRETKEY=secret,
        CURVE_SERVERKEY=pair.public.encode(),
    )
    assert client.query("folders")["folders"] == ["raw"]


def test_keys_of_images_are_checked_against_their_names() -> None:
    assert image_key(NAME) != image_key(NAME[:-1] + "2")
    assert source_key("22/0") != source_key("22/1")
