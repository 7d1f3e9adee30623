"""What a listener missed over ZeroMQ it asks for; what cannot be had is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from event_stand import Program, SqliteLog, Wire, wait_for

from raftwright.events import DeadLetters, Event, Outbox, Subscriber, open_publisher, open_subscriber
from raftwright.events.publisher import ZmqPublisher


def image(number: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return "imageWritten", {"instrument": "LSSTCam", "obsid": f"MC_{number:06d}", "files": number, **more}


def numbers(events: list[Event]) -> list[int]:
    return [event["files"] for event in events if event.kind == "imageWritten"]


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    return SqliteLog(tmp_path / "log.db")


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/events"


@pytest.fixture
def publisher(endpoint: str, log: SqliteLog) -> Iterator[ZmqPublisher]:
    with open_publisher(endpoint, name="p", log=log, alive=0.1) as publisher:
        assert isinstance(publisher, ZmqPublisher)
        assert not Outbox(log, publisher, "zmq").step()  # there is nothing to be told yet
        yield publisher


def meet(subscriber: Subscriber, publisher: ZmqPublisher, log: SqliteLog | None = None) -> None:
    """Until the one hears the other, and knows where things stand."""

    def heard() -> bool:
        publisher.publish("hello")
        return any(event.kind == "hello" for event in subscriber.events(0.05))

    wait_for(heard)
    if log is not None:
        log.add(image(0))
        publisher.relay(log.id, log.after(log.last() - 1, 1), 1.0)
    for event in subscriber.events(0.4):
        subscriber.done(event)


def lose(publisher: ZmqPublisher, kind: str, fields: dict[str, Any]) -> None:
    """An event that the publisher tells and the wire loses."""
    send, publisher._send = publisher._send, lambda kind, body: None  # type: ignore[method-assign]
    try:
        publisher.publish(kind, **fields)
    finally:
        publisher._send = send  # type: ignore[method-assign]


def test_what_was_lost_comes_from_memory_and_in_order(publisher: ZmqPublisher) -> None:
    with open_subscriber(publisher.endpoint) as subscriber:
        meet(subscriber, publisher)
        publisher.publish(*image(1)[:1], **image(1)[1])
        for number in (2, 3):
            lose(publisher, *image(number))
        publisher.publish("imageWritten", **image(4)[1])
        lose(publisher, *image(5))  # the last one: `alive` tells of it
        seen = list(subscriber.events(0.6))
        assert numbers(seen) == [1, 2, 3, 4, 5]
        assert [event.kind for event in seen if event.kind == "missed"] == []
        assert (subscriber.missed, subscriber.malformed) == (0, 0)


def test_only_the_kinds_that_are_listened_to_are_fetched(publisher: ZmqPublisher) -> None:
    with open_subscriber(publisher.endpoint, kinds=["imageWritten", "hello"]) as subscriber:
        meet(subscriber, publisher)
        for number in range(1, 30):
            lose(publisher, "other", {"n": number})
            lose(publisher, *image(number))
        publisher.publish("imageWritten", **image(30)[1])
        seen = list(subscriber.events(0.6))
    assert numbers(seen) == list(range(1, 31))
    assert {event.kind for event in seen} == {"imageWritten"}


def test_memory_is_bounded_and_what_is_gone_is_told(publisher: ZmqPublisher) -> None:
    with open_subscriber(publisher.endpoint) as subscriber:
        meet(subscriber, publisher)
        text = "x" * 50_000
        for number in range(1, 201):  # 10 MB
            lose(publisher, *image(number, text=text))
        publisher.publish("imageWritten", **image(201)[1])
        seen = list(subscriber.events(1.0))
    assert publisher._recent._bytes <= 4 << 20
    got = numbers(seen)
    assert got == list(range(202 - len(got), 202))
    assert 70 < len(got) < 90
    [lost] = [event for event in seen if event.kind == "missed"]
    assert (lost["of"], lost["count"]) == ("imageWritten", 201 - len(got))
    assert subscriber.missed == 201 - len(got)


@pytest.mark.parametrize("seed", range(4))
def test_events_lost_doubled_late_and_out_of_order(tmp_path: Path, log: SqliteLog, seed: int) -> None:
    """Each comes once, whatever the wire does; those that come by the answer come in order."""
    target = f"ipc://{tmp_path}/wire"
    with open_publisher(f"ipc://{tmp_path}/events", name="p", log=log, alive=0.1) as publisher:
        wire = Wire(publisher.endpoint, target, seed, rate=0.1)
        try:
            with open_subscriber(target) as subscriber:
                meet(subscriber, publisher, log)  # type: ignore[arg-type]
                wire.lost = wire.doubled = wire.late = 0
                seen: list[Event] = []
                outbox = Outbox(log, publisher, "zmq", every=0.02).start()
                for start in range(1, 601, 20):
                    log.add(*(image(number) for number in range(start, start + 20)))
                    publisher.publish("hint", n=start)
                    seen += subscriber.events(0.02)
                wait_for(lambda: outbox.relayed >= 600)
                seen += subscriber.events(1.0)
                outbox.stop()
        finally:
            wire.close()
    assert min(wire.lost, wire.doubled, wire.late) > 20
    assert sorted(number for number in numbers(seen) if number) == list(range(1, 601))
    assert [event["n"] for event in sorted(seen, key=lambda e: e.number) if event.kind == "hint"] == list(
        range(1, 601, 20)
    )
    assert subscriber.missed == 0
    assert subscriber.repeated > 20


def test_a_listener_that_was_away_goes_on_where_it_was(
    publisher: ZmqPublisher, log: SqliteLog, tmp_path: Path
) -> None:
    mine = SqliteLog(tmp_path / "mine.db")
    outbox = Outbox(log, publisher, "zmq", every=0.02).start()
    with open_subscriber(publisher.endpoint, group="archiver", cursors=mine) as subscriber:
        meet(subscriber, publisher, log)
        log.add(*(image(number) for number in range(1, 11)))
        events = [event for event in subscriber.events(0.5) if event.kind == "imageWritten"]
        assert numbers(events) == list(range(1, 11))
        for event in events[:6]:
            subscriber.done(event)
    log.add(*(image(number) for number in range(11, 1500)))  # three answers full
    wait_for(lambda: log.cursor("zmq") == log.last())
    with open_subscriber(publisher.endpoint, group="archiver", cursors=mine) as subscriber:
        seen = []
        for event in subscriber.events(0.6):
            seen.append(event)
            subscriber.done(event)
        assert numbers(seen) == list(range(7, 1500)), "four were not done, the others are new"
        assert subscriber.missed == 0
    with open_subscriber(publisher.endpoint, group="archiver", cursors=mine) as subscriber:
        assert numbers(list(subscriber.events(0.5))) == []
    with open_subscriber(publisher.endpoint, group="another", cursors=mine) as subscriber:
        assert numbers(list(subscriber.events(0.5))) == [], "who is new begins now"
    outbox.stop()


def test_a_publisher_that_was_killed_loses_nothing_durable(tmp_path: Path, log: SqliteLog) -> None:
    """D059, F13: killed at any time, between sending and noting too; each event is given once."""
    endpoint = f"ipc://{tmp_path}/killed"
    code = (
        "import sys, time, pathlib\nfrom event_stand import SqliteLog\n"
        "from raftwright.events import Outbox, open_publisher\n"
        "log = SqliteLog(pathlib.Path(sys.argv[1]))\n"
        "move = log.move_cursor\n"
        "def slow(name, number):\n    time.sleep(0.05)\n    move(name, number)\n"
        "log.move_cursor = slow\n"
        "with open_publisher(sys.argv[2], name='p', log=log, alive=0.1) as publisher:\n"
        "    Outbox(log, publisher, 'zmq', every=0.01).start()\n    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    seen: list[Event] = []
    over = threading.Event()
    with open_subscriber(endpoint, group="g", cursors=SqliteLog(tmp_path / "mine.db")) as subscriber:

        def listen() -> None:
            while not over.is_set():
                for event in subscriber.events(0.1):
                    seen.append(event)
                    subscriber.done(event)

        thread = threading.Thread(target=listen)
        thread.start()
        total = 0
        try:
            for _ in range(5):
                with Program(code, str(log.path), endpoint) as program:
                    assert program.line() == "up"
                    wait_for(lambda: any(event.kind != "missed" for event in seen) or _feed(log))
                    for _ in range(10):
                        log.add(*(image(number) for number in range(total + 1, total + 21)))
                        total += 20
                        time.sleep(0.02)
                    program.kill()
            with Program(code, str(log.path), endpoint) as program:
                assert program.line() == "up"
                wait_for(lambda: len(set(numbers(seen)) - {0}) == total, 20)
                time.sleep(0.3)
        finally:
            over.set()
            thread.join()
    got = [number for number in numbers(seen) if number]
    assert sorted(got) == list(range(1, total + 1)), "none is lost, none is given twice"


def _feed(log: SqliteLog) -> bool:
    log.add(image(0))
    time.sleep(0.05)
    return False


def test_a_log_that_was_restored_from_a_copy(tmp_path: Path) -> None:
    """Its numbers are given out again, for other events: they are no repeats."""
    endpoint = f"ipc://{tmp_path}/events"
    log = SqliteLog(tmp_path / "before.db")
    with open_subscriber(endpoint) as subscriber:
        with open_publisher(endpoint, name="p", log=log, alive=0.1) as publisher:
            meet(subscriber, publisher, log)  # type: ignore[arg-type]
            log.add(*(image(number) for number in range(1, 101)))
            assert Outbox(log, publisher, "zmq").step()
            assert numbers(list(subscriber.events(0.5))) == list(range(1, 101))
        restored = SqliteLog(tmp_path / "after.db")
        restored.add(*(image(number) for number in range(50)))
        with open_publisher(endpoint, name="p", log=restored, alive=0.1) as publisher:
            restored.move_cursor("zmq", 50)
            wait_for(lambda: any(e.kind == "missed" for e in subscriber.events(0.1)))
            list(subscriber.events(0.3))
            restored.add(*(image(number) for number in range(1001, 1011)))
            assert Outbox(restored, publisher, "zmq").step()
            assert numbers(list(subscriber.events(0.6))) == list(range(1001, 1011))


def test_questions_of_strangers_do_no_harm(publisher: ZmqPublisher, log: SqliteLog) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(publisher._replay_endpoint)
        for frames in (
            *([b""], [b"x" * 60_000], [b"{}"], [b"[" * 50_000], [b"a", b"b"], [b"\xff"]),
            [b'{"format": "raftwright-replay/2", "id": 1, "log": "x", "after": 0}'],
        ):
            socket.send_multipart(frames)
        assert not socket.poll(300)
        socket.send(b'{"format": "raftwright-replay/1", "id": 7, "log": "nobody", "after": 0}')
        assert socket.poll(2000)
        assert b'"unknown-log"' in socket.recv()
        log.broken = True
        socket.send(b'{"format": "raftwright-replay/1", "id": 8, "log": "ledger-1", "after": 0}')
        assert socket.poll(2000)
        assert b'"error":"storage"' in socket.recv()
        log.broken = False
        log.add(*(image(number, text="x" * 30_000) for number in range(100)))
        socket.send(b'{"format": "raftwright-replay/1", "id": 9, "log": "ledger-1", "after": 0}')
        assert socket.poll(2000)
        head, *events = socket.recv_multipart()
        assert b'"more":true' in head
        assert sum(map(len, events)) < 1.2e6, "an answer is bounded"
    with open_subscriber(publisher.endpoint) as subscriber:
        meet(subscriber, publisher)


def test_a_path_that_is_too_long_for_a_second_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/" + "x" * (104 - len(str(tmp_path)))
    with open_publisher(f"ipc://{path}", alive=0.1) as publisher:
        assert "nobody can ask" in caplog.text
        assert isinstance(publisher, ZmqPublisher)
        with open_subscriber(publisher.endpoint) as subscriber:
            meet(subscriber, publisher)
            list(subscriber.events(0.3))
            lose(publisher, *image(1))
            [lost] = subscriber.events(0.5)
            assert (lost.kind, lost["count"]) == ("missed", 1)


def test_nobody_answers(tmp_path: Path, publisher: ZmqPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is told after some tries, and what came meanwhile is given at once after the first."""
    monkeypatch.setattr("raftwright.events.subscriber._PATIENCE", 0.2)
    monkeypatch.setattr("raftwright.events.replay.Replay.answer", lambda self, frame: 1 / 0)
    monkeypatch.setattr("raftwright.events.publisher.FormatError", ZeroDivisionError)
    with open_subscriber(publisher.endpoint) as subscriber:
        meet(subscriber, publisher)
        lose(publisher, *image(1))
        begun = time.monotonic()
        publisher.publish("imageWritten", **image(2)[1])
        event = next(subscriber.events(5.0))
        assert (event["files"], time.monotonic() - begun < 1.5) == (2, True)
        [lost] = subscriber.events(1.5)
        assert (lost.kind, lost["of"], lost["count"]) == ("missed", "imageWritten", 1)


def test_what_is_no_event_becomes_a_dead_letter(tmp_path: Path, endpoint: str) -> None:
    """F65: 999 of 1000 are dealt with."""
    dead = DeadLetters(tmp_path / "dead")
    with (
        zmq.Context() as context,
        context.socket(zmq.PUB) as socket,
        open_publisher(f"ipc://{tmp_path}/real") as real,
        open_subscriber(endpoint, dead=dead) as subscriber,
    ):
        socket.linger = 0
        socket.sndhwm = 0
        socket.bind(endpoint)
        assert isinstance(real, ZmqPublisher)
        while not list(subscriber.events(0.02)):
            socket.send_multipart([b"hello", real._encoded("hello", 0, {})])
        list(subscriber.events(0.2))
        for number in range(1, 1001):
            kind, fields = image(number)
            if number == 500:
                del fields["obsid"]
            socket.send_multipart([kind.encode(), real._encoded(kind, 0, fields)])
        seen = list(subscriber.events(0.5))
        assert numbers(seen) == [number for number in range(1, 1001) if number != 500]
        [name] = dead.names()
        assert "imageWritten lacks obsid" in dead.read(name).reason
        assert b'"files":500' in dead.read(name).body
        subscriber.refuse(seen[0], "not for us")
        assert dead.read(dead.names()[1]).reason == "not for us"
        assert subscriber.malformed == 2


def test_idle_costs_nothing(publisher: ZmqPublisher) -> None:
    """D082: less than 2 % of a core, publisher and listener together."""
    with open_subscriber(publisher.endpoint) as subscriber:
        meet(subscriber, publisher)
        cpu, wall = time.process_time(), time.monotonic()
        list(subscriber.events(2.0))
        assert (time.process_time() - cpu) / (time.monotonic() - wall) < 0.02
