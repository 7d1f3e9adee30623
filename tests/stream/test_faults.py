"""Faults on purpose: how they are written, that they come from the seed, and that each one happens."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zmq

from raftwright.daq import Notice, SimulatedStore
from raftwright.errors import UsageError
from raftwright.stream import Faults, Server
from raftwright.stream.faults import Rule
from raftwright.stream.wire import Header, Type, WireError, check_body, unpack

NAME = "CC_S_20261122_000001"
PLACE = "22/0"
SIZE = 48384
CHUNK = 2048

Connect = Callable[..., Any]
Serve = Callable[..., Server]


def test_a_plan_is_read_and_written() -> None:
    plan = Faults.parse("drop=0.01, delay=0.5:200ms,stall=1e-3:2min, die=0", seed=3)
    assert plan.rules == (
        Rule("drop", 0.01),
        Rule("delay", 0.5, 0.2),
        Rule("stall", 0.001, 120.0),
        Rule("die", 0.0),
    )
    assert Faults.parse(str(plan)).rules == plan.rules
    assert Faults.parse("").rules == ()
    assert Faults.parse("stall=0.1").rules[0].seconds == 3.0


@pytest.mark.parametrize(
    "text",
    ["drop", "drop=", "drop=x", "drop=2", "drop=-1", "flood=0.1", "drop=0.1,drop=0.2", "drop=0.1:3s",
     "delay=0.1:3y", "drop=0.6,corrupt=0.6", "delay=0.1:9999s", "=0.1", "drop=nan", "drop=1.1.1",
     "d\0op=0.1"],
)  # fmt: skip
def test_plans_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Faults.parse(text)


def test_the_same_seed_gives_the_same_faults() -> None:
    def drawn(seed: int, stream: str) -> list[Any]:
        chooser = Faults.parse("drop=0.2,corrupt=0.2,delay=0.1", seed).chooser(stream)
        return [chooser.chunk() for _ in range(200)]

    assert drawn(1, "a") == drawn(1, "a")
    assert drawn(1, "a") != drawn(2, "a")
    assert drawn(1, "a") != drawn(1, "b")
    kinds = [fault.kind for fault in drawn(1, "a") if fault is not None]
    assert 20 < kinds.count("drop") < 60
    assert 5 < kinds.count("delay") < 40


def faulty(serve: Serve, still: SimulatedStore, plan: str, **keys: Any) -> Server:
    return serve(still, faults=Faults.parse(plan, 7), data_sockets=1, **keys)


def received(client: Any, timeout: float = 5.0) -> list[tuple[Header, bytes]]:
    """All messages of a pull, without checks but that of the header."""
    number = client.pull(NAME, PLACE, 0, SIZE, chunk=CHUNK)
    got = []
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if not client.socket.poll(200):
            continue
        header, body = client.socket.recv_multipart()
        try:
            found = unpack(header)
        except WireError:
            got.append((None, body))
            continue
        if found.request == number:
            got.append((found, body))
            if found.type is Type.END:
                break
    return got


def client_of(server: Server, plain: Connect) -> Any:
    return plain(server.endpoints["data"][0])


def chunks(got: list[Any]) -> list[tuple[Header, bytes]]:
    return [(h, b) for h, b in got if h is not None and h.type is Type.CHUNK]


def test_without_chances_nothing_happens(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "drop=0,cut=0")
    data, _ = client_of(server, plain).fetch(NAME, PLACE, 0, SIZE, chunk=CHUNK)
    assert data == still.image(NAME).source(PLACE).read(0, SIZE)
    assert server.status()["faults"] == {}


def test_dropped_chunks_leave_out_their_numbers(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "drop=0.3")
    got = received(client_of(server, plain))
    dropped = server.status()["faults"]["drop"]
    assert 0 < dropped < 24
    assert len(chunks(got)) == 24 - dropped
    assert got[-1][0].sequence == 24
    assert msgspec.json.decode(got[-1][1])["sent"] == SIZE, "what was sent, not what arrived"


def test_duplicated_chunks_are_the_same(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "duplicate=0.3")
    got = chunks(received(client_of(server, plain)))
    assert len(got) == 24 + server.status()["faults"]["duplicate"] > 24
    assert len({header for header, _ in got}) == 24


def test_reordered_chunks_all_come(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "reorder=0.3")
    got = received(client_of(server, plain))
    offsets = [header.offset for header, _ in chunks(got)]
    assert offsets != sorted(offsets)
    assert sorted(offsets) == list(range(0, SIZE, CHUNK))
    assert got[-1][0].type is Type.END
    for header, body in chunks(got):
        check_body(header, body)


def test_corrupt_chunks_show(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "corrupt=0.4")
    bad = 0
    for header, body in received(client_of(server, plain)):
        try:
            assert header is not None
            check_body(header, body)
        except (WireError, AssertionError):
            bad += 1
    assert bad == server.status()["faults"]["corrupt"] > 0


def test_wrong_lengths_show_though_the_sums_are_right(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    server = faulty(serve, still, "wrong-length=0.3")
    got = chunks(received(client_of(server, plain)))
    assert len(got) == 24
    short = [header for header, body in got if len(body) != header.length]
    assert len(short) == server.status()["faults"]["wrong-length"] > 0
    for header, body in got:
        check_body(header, body)


def test_garbage_between_chunks(serve: Serve, plain: Connect, still: SimulatedStore) -> None:
    server = faulty(serve, still, "garbage=0.3")
    got = received(client_of(server, plain))
    assert len(chunks(got)) == 24
    assert len([1 for header, _ in got if header is None]) == server.status()["faults"]["garbage"] > 0


@pytest.mark.parametrize(("kind", "waits"), [("delay", True), ("stall", False)])
def test_delays_and_stalls(
    serve: Serve, plain: Connect, still: SimulatedStore, kind: str, waits: bool
) -> None:
    server = faulty(serve, still, f"{kind}=0.1:0.4s", heartbeat=0.2)
    heard = [time.monotonic()]
    client = client_of(server, plain)
    kinds = []
    for header, _ in client.messages(client.pull(NAME, PLACE, 0, SIZE, chunk=CHUNK), 20):
        heard.append(time.monotonic())
        kinds.append(header.type)
    times = server.status()["faults"][kind]
    assert times > 0
    assert heard[-1] - heard[0] > times * 0.39
    assert kinds.count(Type.CHUNK) == 24
    silence = max(after - before for before, after in itertools.pairwise(heard))
    assert (silence < 0.35) is waits


def test_a_cut_forgets_pulls_and_lets_everybody_come_back(
    serve: Serve, plain: Connect, still: SimulatedStore
) -> None:
    server = faulty(serve, still, "cut=0.05")
    data = bytearray(SIZE)
    todo = set(range(0, SIZE, CHUNK))
    client = client_of(server, plain)
    until = time.monotonic() + 20
    while todo and time.monotonic() < until:
        begin = min(todo)
        number = client.pull(NAME, PLACE, begin, SIZE - begin, chunk=CHUNK)
        while client.socket.poll(300):
            header, body = client.socket.recv_multipart()
            found = unpack(header)
            if found.request == number and found.type is Type.END:
                break
            if found.request == number and found.type is Type.CHUNK:
                data[found.offset : found.offset + len(body)] = body
                todo.discard(found.offset)
    assert not todo
    assert data == still.image(NAME).source(PLACE).read(0, SIZE)
    assert server.status()["faults"]["cut"] > 0
    assert plain(server.endpoint).query("folders")["folders"] == ["raw"]


def test_lost_notices_leave_out_their_numbers(serve: Serve, plain: Connect, live: Any) -> None:
    server = serve(live, faults=Faults.parse("lose-notice=0.5", 1))
    client = plain(server.endpoints["notices"], kind=zmq.SUB, SUBSCRIBE=b"RWST")
    client.answer(10)
    for n in range(40):
        live.all[f"X{n}"] = live.all[NAME]
        live.events.put(Notice("begun", f"X{n}"))
    numbers = []
    while (message := client.receive(0.25)) is not None:
        numbers.append(message[0].sequence)
    assert 5 < len(numbers) < 40
    assert numbers[-1] - numbers[0] + 1 > len(numbers)


def test_to_die_is_to_end_at_once() -> None:
    code = """
import time, sys
from raftwright.daq import SimulatedStore
from raftwright.stream import Faults, Server
server = Server(SimulatedStore("LSSTComCam", registers=[3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]),
                "tcp://127.0.0.1:0", faults=Faults.parse("die=1")).start()
print(server.endpoints["data"][0], flush=True)
time.sleep(30)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        context: zmq.Context[Any] = zmq.Context()
        with context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
            from raftwright.stream.wire import image_key, pack, source_key

            body = msgspec.json.encode({"image": NAME, "location": PLACE, "credit": SIZE, "chunk": 1 << 20})
            socket.send_multipart(
                [pack(Header(Type.PULL, 1, 0, SIZE, image_key(NAME), source_key(PLACE)), body), body]
            )
            assert process.wait(20) == 70
        context.term()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
