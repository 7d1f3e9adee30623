"""The server as clients see it: greeting, catalogue, pulls, live sources, notices."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from hand_daq import free_port
from raftwright import _core
from raftwright.daq import (
    CadenceStore,
    MemoryImage,
    Notice,
    RecordedStore,
    SimulatedFrames,
    SimulatedStore,
    simulate_image,
    write_recording,
)
from raftwright.daq.info import decode_description
from raftwright.errors import NotFoundError, StorageError, UsageError
from raftwright.stream import Server
from raftwright.stream.control import Control
from raftwright.stream.messages import SOFTWARE
from raftwright.stream.server import Limits
from raftwright.stream.wire import Header, Type, image_key, source_key

NAME = "CC_S_20261122_000001"
PLACE = "22/0"
SIZE = 48384
SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]

Connect = Callable[..., Any]
Serve = Callable[..., Server]


def data_of(server: Server, n: int = 0) -> str:
    return str(server.endpoints["data"][n])


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.01)


def test_greeting(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still, name="a store")
    client = plain(server.endpoint)
    header, welcome = client.ask(Type.HELLO, {"versions": [1, 7], "software": "x", "name": "y"})
    assert header.type is Type.WELCOME
    assert header.session == welcome["session"] == server.session
    assert welcome["version"] == 1
    assert welcome["store"] == "a store"
    assert welcome["heartbeat"] == 0.3
    assert welcome["notices"] == server.endpoints["notices"]
    assert welcome["data"] == server.endpoints["data"]
    assert len(welcome["data"]) == 2
    header, answer = client.ask(Type.PING)
    assert (header.type, answer) == (Type.PONG, None)


def test_a_client_of_other_versions_is_refused_by_name(
    serve: Serve, plain: Connect, still: SimulatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """D170, F17: in the log stand the versions of both."""
    client = plain(serve(still).endpoint)
    for _ in range(3):
        header, answer = client.ask(Type.HELLO, {"versions": [2, 3]})
        assert header.type is Type.ERROR
        assert answer["code"] == "version"
        assert answer["spoken"] == [1]
        assert answer["got"] == [2, 3]
        assert "1" in answer["message"]
        assert "2" in answer["message"]
    (told,) = [r.getMessage() for r in caplog.records if "version" in r.getMessage()]  # once a peer
    assert "speaks versions [2, 3]" in told
    assert "this server [1]" in told


def test_a_client_of_another_release_is_served_and_both_are_named(
    serve: Serve, plain: Connect, still: SimulatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """F17: the same protocol, other software, however it calls itself."""
    client = plain(serve(still).endpoint)
    for _ in range(3):
        header, _ = client.ask(Type.HELLO, {"versions": [1, 7], "software": "raftwright 9.9 \x1b[31m"})
        assert header.type is Type.WELCOME
        client.ask(Type.HELLO, {"versions": [1], "software": SOFTWARE})
    assert client.query("folders")["folders"] == ["raw"]
    (told,) = [r.getMessage() for r in caplog.records if "9.9" in r.getMessage()]
    assert told.endswith(f"runs raftwright 9.9 \\x1b[31m, this server {SOFTWARE}")


def test_the_catalogue(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    client = plain(serve(still).endpoint)
    names = still.images()
    assert client.query("folders")["folders"] == ["raw"]
    assert client.query("images") == {"images": names, "more": False}
    assert client.query("images", folder="raw", after=names[0], limit=1) == {
        "images": names[1:2],
        "more": True,
    }
    assert client.query("images", after=names[1]) == {"images": names[2:], "more": False}
    assert client.query("images", after="zzz")["images"] == []
    assert client.query("images", folder="no such")["images"] == []
    assert client.query("underway")["images"] == []
    reply = client.query("image", image=NAME)
    assert decode_description(reply["image"], "the reply") == still.image(NAME).info
    assert reply["final"] is True
    assert reply["sources"][PLACE] == {"final": True, "available": SIZE}
    ranges = client.query("available", image=NAME, location=PLACE, offset=100, length=50)
    assert ranges == {"ranges": [[100, 150]], "final": True, "more": False}
    assert client.query("available", image=NAME, location=PLACE)["ranges"] == [[0, SIZE]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"what": "image", "image": "no such image"}, "not-found"),
        ({"what": "image", "image": "../../etc/passwd"}, "not-found"),
        ({"what": "image", "image": "\0"}, "not-found"),
        ({"what": "image", "image": ""}, "not-found"),
        ({"what": "image"}, "malformed"),
        ({"what": "available", "image": NAME, "location": "99/9"}, "not-found"),
        ({"what": "available", "image": NAME}, "malformed"),
        ({"what": "available", "image": NAME, "location": PLACE, "offset": SIZE, "length": 1}, "range"),
        ({"what": "available", "image": NAME, "location": PLACE, "offset": 2**62, "length": 2**62}, "range"),
        ({"what": "available", "image": NAME, "location": PLACE, "offset": 2**62}, "range"),
        ({"what": "the weather"}, "not-found"),
        ({"what": 3}, "malformed"),
        ({}, "malformed"),
        ([], "malformed"),
    ],
)
def test_queries_that_cannot_be_answered(
    serve: Serve, plain: Connect, still: SimulatedStore, body: Any, code: str
) -> None:
    client = plain(serve(still).endpoint)
    assert client.refused(Type.QUERY, body) == code
    assert client.query("folders")["folders"] == ["raw"]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_source_is_pulled(
    serve: Serve, plain: Connect, still: SimulatedStore, tmp_path: Path, transport: str
) -> None:
    server = serve(still, "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{tmp_path}/s")
    truth = still.image(NAME).source(PLACE).read(0, SIZE)
    for n in range(2):
        client = plain(data_of(server, n))
        data, end = client.fetch(NAME, PLACE, 0, SIZE, chunk=5000, credit=12000)
        assert data == truth
        assert end == {"bytes": SIZE, "sent": SIZE, "crc32c": None, "gaps": []}
        data, end = client.fetch(NAME, PLACE, 777, 33333, chunk=4096)
        assert data == truth[777 : 777 + 33333]
        assert end["sent"] == 33333
        assert end["bytes"] == SIZE
    data, end = client.fetch(NAME, PLACE, SIZE, 0)
    assert (data, end["sent"]) == (b"", 0)
    eventually(lambda: server.status()["data"]["pulls"] == 0)
    assert server.status()["data"]["ended"] == 5


def test_chunks_are_cut_on_the_grid_of_the_pull(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    client = plain(data_of(serve(still)))
    number = client.pull(NAME, PLACE, 500, 10_000, chunk=3000)
    chunks = [(h.offset, h.length) for h, _ in client.messages(number) if h.type is Type.CHUNK]
    assert chunks == [(500, 3000), (3500, 3000), (6500, 3000), (9500, 1000)]


def test_no_more_is_sent_than_was_granted(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    client = plain(data_of(serve(still)))
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=10_000, credit=25_000)
    got = 0
    waits = 0
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        message = client.receive(0.1)
        if message is not None:
            assert message[0].type in (Type.CHUNK, Type.WAIT)
            got += len(message[1])
            waits += message[0].type is Type.WAIT
    assert got == 20_000
    assert 2 <= waits <= 14, "alive every heartbeat of 0.3 s, at most four times in it"
    client.send(Header(Type.CREDIT, number, length=100_000))
    rest = list(client.messages(number))
    assert sum(len(body) for header, body in rest if header.type is Type.CHUNK) == SIZE - 20_000
    assert rest[-1][0].type is Type.END


def test_pulls_are_served_in_turn(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    client = plain(data_of(serve(still)))
    numbers = [client.pull(NAME, place, 0, SIZE, chunk=1024, credit=0) for place in ("22/0", "22/1", "22/2")]
    for number in numbers:
        client.send(Header(Type.CREDIT, number, length=MANY))
    order = []
    ended = 0
    while ended < 3:
        header, _ = client.receive()
        ended += header.type is Type.END
        order += [header.request] * (header.type is Type.CHUNK)
    middle = order[len(order) // 3 : 2 * len(order) // 3]
    assert {middle.count(number) for number in numbers} <= set(range(10, len(middle) // 2)), "none waits"


MANY = 1 << 20


def test_a_cancelled_pull_says_nothing_more(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still)
    client = plain(data_of(server))
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=10_000, credit=10_000)
    assert client.receive()[0].type is Type.CHUNK
    client.send(Header(Type.CANCEL, number))
    client.send(Header(Type.CREDIT, number, length=MANY))
    time.sleep(0.1)
    while (message := client.receive(0.0)) is not None:
        assert message[0].type is Type.WAIT
    assert client.receive(0.8) is None
    eventually(lambda: server.status()["data"]["pulls"] == 0)
    assert client.fetch(NAME, PLACE, 0, 5000)[1]["sent"] == 5000


def order(**changes: Any) -> tuple[Header, bytes]:
    body = {"image": NAME, "location": PLACE, "credit": MANY, "chunk": 4096, **changes.pop("body", {})}
    header = Header(Type.PULL, 9, 0, SIZE, image_key(body["image"]), source_key(body["location"]))
    return header._replace(**changes), msgspec.json.encode(body)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (order(body={"image": "no such"}), "not-found"),
        (order(body={"location": "1/1"}), "not-found"),
        (order(offset=1), "range"),
        (order(offset=2**64 - 1, length=2**64 - 1), "range"),
        (order(length=2**63), "range"),
        (order(body={"chunk": 1023}), "limit"),
        (order(body={"chunk": 17 << 20}), "limit"),
        (order(body={"credit": 1 << 40}), "limit"),
        (order(body={"chunk": 0}), "malformed"),
        (order(body={"chunk": "x"}), "malformed"),
        (order(body={"credit": -1}), "malformed"),
        (order(request=0), "malformed"),
        (order(image_key=b"otherkey"), "malformed"),
        (order(source_key=b"othe"), "malformed"),
        ((order()[0], b"{}"), "malformed"),
        ((order()[0], b""), "malformed"),
        ((order()[0]._replace(type=Type.QUERY), b"{}"), "unknown-type"),
        ((order()[0]._replace(type=Type.HELLO), b"{}"), "unknown-type"),
        ((order()[0]._replace(type=Type.CHUNK), b"x"), "unknown-type"),
    ],
)
def test_pulls_that_cannot_be(
    serve: Serve, plain: Connect, still: SimulatedStore, message: tuple[Header, bytes], code: str
) -> None:
    client = plain(data_of(serve(still)))
    client.send(*message)
    header, answer = client.answer()
    assert header.type is Type.ERROR
    assert header.request == message[0].request
    assert answer["code"] == code
    assert client.fetch(NAME, PLACE, 0, 5000)[1]["sent"] == 5000


def test_a_number_that_is_in_use_and_too_much_credit_are_refused(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    client = plain(data_of(serve(still, limits=Limits(chunk=(1024, MANY), credit=100_000))))
    client.pull(NAME, PLACE, 0, SIZE, credit=0, chunk=4096, number=5)
    client.pull(NAME, PLACE, 0, SIZE, credit=0, chunk=4096, number=5)
    assert client.answer()[1]["code"] == "malformed"
    client.pull(NAME, PLACE, 0, SIZE, credit=0, chunk=4096, number=6)
    client.send(Header(Type.CREDIT, 6, length=100_001))
    header, answer = next((h, a) for h, a in iter(client.answer, None) if h.type is Type.ERROR)
    assert (header.request, answer["code"]) == (6, "limit")


def test_what_never_arrived_is_not_sent(serve: Serve, plain: Connect, live: Any) -> None:
    source = live.all[NAME].sources[PLACE]
    source.arrived = [(100, 5000), (9000, 9001), (20_000, SIZE)]
    source.final = True
    client = plain(data_of(serve(live)))
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=4096)
    *chunks, (_, body) = client.messages(number)
    covered = sorted((header.offset, header.offset + len(data)) for header, data in chunks)
    assert covered[0] == (100, 4096)
    assert (9000, 9001) in covered
    assert sum(end - begin for begin, end in covered) == 4900 + 1 + SIZE - 20_000
    end = msgspec.json.decode(body)
    assert end["gaps"] == [[0, 100], [5000, 9000], [9001, 20_000]]
    assert end["sent"] == 4900 + 1 + SIZE - 20_000
    assert end["crc32c"] == f"{_core.crc32c(source.data):08x}"
    number = client.pull(NAME, PLACE, 5000, 4000, chunk=4096)
    *chunks, (_header, body) = client.messages(number)
    assert chunks == []
    assert msgspec.json.decode(body)["sent"] == 0


# -- sources that are being read out


def test_a_live_source_is_sent_as_it_comes(serve: Serve, plain: Connect, live: Any) -> None:
    source = live.all[NAME].sources[PLACE]
    client = plain(data_of(serve(live)))
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=10_000)
    header, _ = client.receive()
    assert (header.type, header.offset) == (Type.WAIT, 0)
    begun = time.monotonic()
    source.arrived = [(0, 25_000)]
    whole = [client.receive()[0] for _ in range(2)]
    assert [(h.offset, h.length) for h in whole] == [(0, 10_000), (10_000, 10_000)]
    assert time.monotonic() - begun < 0.09, "whole chunks do not wait"
    header, _ = client.receive()
    assert (header.type, header.offset, header.length) == (Type.CHUNK, 20_000, 5000)
    assert 0.09 < time.monotonic() - begun < 0.3, "a part of a chunk waits for its rest, but not for long"
    header, _ = client.receive()
    assert (header.type, header.offset) == (Type.WAIT, 25_000)
    source.arrived = [(0, 25_000), (40_000, SIZE)]
    source.final = True
    rest = list(client.messages(number))
    assert [(h.offset, h.length) for h, _ in rest if h.type is Type.CHUNK] == [(40_000, SIZE - 40_000)]
    end = msgspec.json.decode(rest[-1][1])
    assert end["gaps"] == [[25_000, 40_000]]
    assert end["crc32c"] is not None


def test_chunks_of_a_live_source_come_in_any_order(serve: Serve, plain: Connect, live: Any) -> None:
    source = live.all[NAME].sources[PLACE]
    client = plain(data_of(serve(live)))
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=4096)
    source.arrived = [(40_960, SIZE)]
    first = client.receive()
    while first[0].type is Type.WAIT:
        first = client.receive()
    assert first[0].offset == 40_960
    source.arrived = [(0, SIZE)]
    source.final = True
    data = bytearray(SIZE)
    sent = 0
    for header, body in [first, *client.messages(number)]:
        if header.type is Type.CHUNK:
            data[header.offset : header.offset + len(body)] = body
            sent += len(body)
    assert data == source.data
    assert sent == SIZE, "nothing twice"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("the image was removed"), "gone"),
        (StorageError(5, "cannot be read", "/dev/sdx"), "storage"),
        (OSError(5, "Input/output error"), "storage"),
        (ZeroDivisionError("a bug"), "internal"),
    ],
)
def test_a_source_that_fails_ends_its_pull_only(
    serve: Serve, plain: Connect, live: Any, error: Exception, code: str
) -> None:
    image = live.all[NAME]
    client = plain(data_of(serve(live)))
    doomed = client.pull(NAME, "22/0", 0, SIZE, chunk=4096)
    other = client.pull(NAME, "22/1", 0, SIZE, chunk=4096)
    image.sources["22/0"].arrived = image.sources["22/1"].arrived = [(0, 8192)]
    time.sleep(0.05)
    image.sources["22/0"].error = error
    image.sources["22/1"].arrived = [(0, SIZE)]
    image.sources["22/1"].final = True
    ended = {}
    while len(ended) < 2:
        header, body = client.receive()
        if header.type in (Type.END, Type.ERROR):
            ended[header.request] = (header.type, msgspec.json.decode(body))
    assert ended[doomed][0] is Type.ERROR
    assert ended[doomed][1]["code"] == code
    assert ended[other][0] is Type.END
    assert ended[other][1]["sent"] == SIZE


def test_an_image_of_a_cadence_that_is_removed_is_gone(serve: Serve, plain: Connect) -> None:
    frames = SimulatedFrames("LSSTComCam", 1, registers=SMALL, pattern="coordinates")
    with CadenceStore(frames, every=0.4, readout=0.1, keep=1, count=3) as store:
        server = serve(store)
        client = plain(data_of(server))
        time.sleep(0.1)
        number = client.pull(store.name_of(1), PLACE, 0, SIZE, credit=4096, chunk=4096)
        *_, (header, body) = client.messages(number)
        assert header.type is Type.ERROR
        assert msgspec.json.decode(body)["code"] == "gone"
        assert (
            plain(server.endpoint).refused(Type.QUERY, {"what": "image", "image": store.name_of(1)})
            == "not-found"
        )


def test_recordings_are_served_from_disk(serve: Serve, plain: Connect, tmp_path: Path) -> None:
    image = simulate_image("LSSTComCam", NAME, seed=2, registers=SMALL)
    done = write_recording(tmp_path / NAME, image, durable=False)
    server = serve(RecordedStore(tmp_path))
    client = plain(data_of(server))
    data, end = client.fetch(NAME, PLACE, 0, SIZE, chunk=5000)
    assert data == image.source(PLACE).read(0, SIZE)
    assert end["crc32c"] == done.info.sources[0].crc32c
    (tmp_path / NAME / "22-1.raw").unlink()
    (tmp_path / NAME / "22-2.raw").write_bytes(b"short")
    for place, code in (("22/1", "not-found"), ("22/2", "storage")):
        number = client.pull(NAME, place, 0, SIZE)
        (header, body), *_ = client.messages(number)
        assert header.type is Type.ERROR
        assert msgspec.json.decode(body)["code"] == code
    states = plain(server.endpoint).query("image", image=NAME)["sources"]
    assert [states[place]["available"] for place in ("22/0", "22/1", "22/2")] == [SIZE, 0, 0]


def test_memory_is_sent_without_a_copy_and_summed_once(
    serve: Serve, plain: Connect, still: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = still.image(NAME)
    held = MemoryImage(
        image.info, {place: image.source(place).read(0, SIZE) for place in image.info.locations}
    )

    class Held:
        def images(self, folder: str | None = None) -> list[str]:
            return [NAME]

        def folders(self) -> list[str]:
            return ["raw"]

        def underway(self) -> list[str]:
            return []

        def image(self, name: str) -> MemoryImage:
            return held

        def notices(self, timeout: float | None = None) -> Any:
            return iter(())

    summed: list[int] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(_core, name)

        def crc32c(self, data: Any, crc: int = 0) -> int:
            summed.append(len(data))
            return _core.crc32c(data, crc)

    server = serve(Held())
    client = plain(data_of(server))
    monkeypatch.setattr("raftwright.stream.sending._core", Counted())
    for _ in range(3):
        data, _ = client.fetch(NAME, PLACE, 0, SIZE, chunk=8192)
        assert data == image.source(PLACE).read(0, SIZE)
    assert sum(summed) == SIZE
    assert server.status()["data"]["buffers"] == 0


# -- notices


def test_notices_are_numbered(serve: Serve, plain: Connect, live: Any) -> None:
    server = serve(live)
    client = plain(server.endpoints["notices"], kind=zmq.SUB, SUBSCRIBE=b"RWST")
    header, first = client.answer()
    assert first == {"kind": "alive"}
    assert header.type is Type.NOTICE
    assert header.session == server.session
    last = header.sequence
    live.all["CC_S_20261122_000002"] = live.all[NAME]
    live.events.put(Notice("begun", "CC_S_20261122_000002"))
    for n in range(50):
        live.events.put(Notice("progress", NAME, PLACE, n))
    live.events.put(Notice("complete", NAME))
    live.events.put(Notice("complete", NAME))
    live.events.put(Notice("missed", ""))
    live.events.put(Notice("removed", NAME))
    del live.all[NAME]
    kinds = []
    while "removed" not in kinds:
        header, body = client.answer()
        missed = header.sequence - last - 1
        last = header.sequence
        kinds += ["missed"] * missed + [body["kind"]]
        if body["kind"] == "begun":
            assert body["folder"] == "raw"
        if body["kind"] == "progress":
            assert (body["location"], body["bytes"]) == (PLACE, 0)
    kinds = [kind for kind in kinds if kind != "alive"]
    assert kinds == ["begun", "progress", "complete", "missed", "removed"]


def test_what_a_store_does_not_tell_is_found_in_its_catalogue(
    serve: Serve, plain: Connect, live: Any
) -> None:
    heard: list[Notice] = []
    server = serve(live, observer=heard.append)
    client = plain(server.endpoints["notices"], kind=zmq.SUB, SUBSCRIBE=b"RWST")
    assert client.answer()[1]["kind"] == "alive"
    live.all[NAME].mend()
    later = live.make(2)
    later.hold(0)
    live.all["CC_S_20261122_000002"] = later
    found = set()
    until = time.monotonic() + 5
    while len(found) < 2 and time.monotonic() < until:
        body = client.answer()[1]
        if body["kind"] != "alive":
            found.add((body["kind"], body["image"]))
    assert found == {("complete", NAME), ("begun", "CC_S_20261122_000002")}
    assert {(n.kind, n.image) for n in heard} == found


# -- beginning and ending


def test_ports_follow_from_the_first_and_are_free_again(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    port = free_port()
    sessions = set()
    for _ in range(5):
        server = Server(still, f"tcp://127.0.0.1:{port}")
        with server:
            assert server.endpoint == f"tcp://127.0.0.1:{port}"
            assert server.endpoints["notices"] == f"tcp://127.0.0.1:{port + 1}"
            assert plain(server.endpoint).query("folders")["folders"] == ["raw"]
            with pytest.raises(StorageError, match="cannot be bound"):
                serve(still, f"tcp://127.0.0.1:{port}")
            sessions.add(server.session)
    assert len(sessions) == 5


def test_an_ipc_endpoint_is_not_taken_from_another_server(
    serve: Serve, plain: Connect, still: SimulatedStore, tmp_path: Path
) -> None:
    first = serve(still, f"ipc://{tmp_path}/s")
    with pytest.raises(StorageError, match="another server"):
        serve(still, f"ipc://{tmp_path}/s")
    assert plain(first.endpoint).query("folders")["folders"] == ["raw"]
    first.stop()
    assert plain(serve(still, f"ipc://{tmp_path}/s").endpoint).query("folders")["folders"] == ["raw"]


def test_every_address_is_announced_as_a_star(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = serve(still, "tcp://0.0.0.0:0")
    port = server.endpoint.rpartition(":")[2]
    welcome = plain(f"tcp://127.0.0.1:{port}").ask(Type.HELLO, {"versions": [1]})[1]
    assert welcome["notices"].startswith("tcp://*:")
    assert all(endpoint.startswith("tcp://*:") for endpoint in welcome["data"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_sockets": 0},
        {"data_sockets": 65},
        {"heartbeat": 0},
        {"io_threads": 0},
        {"allowed": ["x"]},
        {"bind": "x"},
    ],
)
def test_servers_that_cannot_be(still: SimulatedStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Server(still, **wrong)


def test_a_server_stops_though_its_store_hangs(serve: Serve, plain: Connect, live: Any) -> None:
    server = serve(live)
    client = plain(server.endpoint)
    live.slow = 8.0
    client.send(Header(Type.QUERY, 1), b'{"what": "folders"}')
    time.sleep(0.1)
    header, _ = client.ask(Type.PING, timeout=1.0)
    assert header.type is Type.PONG, "a store that is slow delays no sign of life"
    begun = time.monotonic()
    server.stop(1.0)
    assert time.monotonic() - begun < 4.0
    live.slow = 0.0
    server.stop(1.0)


def test_servers_leave_nothing_behind(plain: Connect, still: SimulatedStore) -> None:
    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def once() -> None:
        with Server(still, "tcp://127.0.0.1:0", limits=Limits(chunk=(1024, MANY))) as server:
            client = plain(data_of(server))
            client.fetch(NAME, PLACE, 0, SIZE)
            client.close()

    once()  # pyzmq's own thread stays
    before = left()
    for _ in range(10):
        once()
    eventually(lambda: left() == before)


def test_a_store_that_fails_for_a_while_is_watched_again(serve: Serve, plain: Connect, live: Any) -> None:
    server = serve(live)
    client = plain(server.endpoints["notices"], kind=zmq.SUB, SUBSCRIBE=b"RWST")
    assert client.answer()[1]["kind"] == "alive"
    working = live.notices

    def failing(timeout: float | None = None) -> Any:
        raise StorageError(5, "cannot be read", "/data")

    live.notices = failing
    time.sleep(0.7)
    assert plain(server.endpoint).query("folders")
    live.notices = working
    live.all["CC_S_20261122_000009"] = live.all[NAME]
    begun = {"kind": "begun", "image": "CC_S_20261122_000009", "folder": "raw"}
    assert any(client.answer()[1] == begun for _ in range(20))
    assert server.status()["notices"]["store_errors"] >= 1


def test_a_mistake_in_a_thread_of_a_socket_does_not_end_it(
    serve: Serve, plain: Connect, live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug met by one message must not make the server deaf to all others."""
    server = serve(live)
    client = plain(server.endpoint)
    monkeypatch.setattr(Control, "_greet", lambda *_: 1 // 0)
    client.send(Header(Type.HELLO, 1), b"{}")
    assert client.receive(0.5) is None
    monkeypatch.undo()
    assert client.query("underway")["images"] == ["CC_S_20261122_000001"]
    assert server.status()["control"]["internal"] == 1


def test_a_server_can_pass_on_what_another_serves(serve: Serve, plain: Connect, live: Any) -> None:
    from raftwright.stream.client import NetworkStore

    first = serve(live, limits=Limits())
    source = live.all[NAME].sources[PLACE]
    source.arrived = [(0, 4096)]
    with NetworkStore(first.endpoint) as between:
        second = serve(between)
        control = plain(second.endpoint)
        assert control.query("underway")["images"] == [NAME]
        client = plain(data_of(second))
        number = client.pull(NAME, PLACE, 0, SIZE, chunk=4096)
        header, body = client.receive()
        while header.type is Type.WAIT:
            header, body = client.receive()
        assert (header.offset, body) == (0, source.data[:4096])
        live.all[NAME].mend()
        rest = list(client.messages(number, 20))
        assert rest[-1][0].type is Type.END
        data = b"".join(part for head, part in rest if head.type is Type.CHUNK)
        assert data == source.data[4096:]
        eventually(lambda: control.query("images")["images"] == [NAME])
        second.stop()


def test_a_server_that_cannot_have_all_its_sockets_leaves_none(serve: Serve, still: SimulatedStore) -> None:
    """The last one is taken: the others are free again at once."""
    import socket

    port = free_port()
    taken = socket.socket()
    try:
        taken.bind(("127.0.0.1", port + 2))
        with pytest.raises(StorageError, match=str(port + 2)):
            serve(still, f"tcp://127.0.0.1:{port}")
    finally:
        taken.close()
    serve(still, f"tcp://127.0.0.1:{port}")
