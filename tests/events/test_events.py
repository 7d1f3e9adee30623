"""Events over ZeroMQ: who listens hears all, or knows what was lost; who tells never waits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.events import FORMAT, MAX_BYTES, Event, Publisher, Subscriber, open_publisher, open_subscriber
from raftwright.events.message import decode, encode

FILE: dict[str, Any] = {
    "instrument": "LSSTCam",
    "obsid": "MC_O_20261122_000123",
    "raft": "R22",
    "sensor": "S11",
    "location": "22/1",
    "path": "a/b.fits",
    "bytes": 10,
    "crc32c": "00000000",
    "version": 1,
}


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/events"


@pytest.fixture
def publisher(endpoint: str) -> Iterator[Publisher]:
    with open_publisher(endpoint, name="forwarder-1", alive=0.1) as publisher:
        yield publisher


def joined(publisher: Publisher, *, kinds: list[str] | None = None, name: str = "hello") -> Subscriber:
    """A subscriber that hears the publisher already."""
    wanted = None if kinds is None else [*kinds, name]
    subscriber = open_subscriber(publisher.endpoint, kinds=wanted)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        publisher.publish(name)
        if any(event.kind == name for event in subscriber.events(0.05)):
            for _ in subscriber.events(0.2):
                pass
            return subscriber
    raise AssertionError("the two never met")


def test_an_event_arrives_whole(publisher: Publisher) -> None:
    with joined(publisher) as subscriber:
        publisher.publish("fileWritten", **FILE, adler32="0badcafe")
        [event] = subscriber.events(1.0)
    assert event.kind == "fileWritten"
    assert event.fields == {**FILE, "adler32": "0badcafe"}
    assert (event["obsid"], event.sequence, event.publisher) == (FILE["obsid"], 1, "forwarder-1")
    assert event.session == publisher.session
    assert event.time.endswith("Z")
    assert subscriber.missed == subscriber.malformed == 0


def test_sequences_count_each_kind(publisher: Publisher) -> None:
    with joined(publisher, kinds=["imageWritten"]) as subscriber:
        for number in range(3):
            publisher.publish("fileWritten", **FILE)
            publisher.publish("imageWritten", instrument="LSSTCam", obsid="MC", files=number)
        seen = list(subscriber.events(0.5))
    assert [(event.kind, event.sequence, event["files"]) for event in seen] == [
        ("imageWritten", number + 1, number) for number in range(3)
    ]
    assert subscriber.missed == 0


def test_what_cannot_be_told_is_refused_where_it_is_told(publisher: Publisher) -> None:
    with pytest.raises(UsageError, match="JSON"):
        publisher.publish("x", value=object())
    with pytest.raises(UsageError, match="at most"):
        publisher.publish("x", value="x" * MAX_BYTES)
    with pytest.raises(UsageError, match="no event that a service tells"):
        publisher.publish("alive")
    with joined(publisher) as subscriber:
        publisher.publish("x")
        assert [event.sequence for event in subscriber.events(0.5)] == [1]  # none of those counted


def test_a_gap_is_told(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket, open_subscriber(endpoint) as subscriber:
        socket.linger = 0
        socket.bind(endpoint)

        def send(sequence: int, kind: str = "done", session: str = "s1", **fields: Any) -> None:
            event = Event(
                kind=kind, sequence=sequence, session=session, publisher="p", time="", fields=fields
            )
            socket.send_multipart([kind.encode(), encode(event)])

        while not list(subscriber.events(0.02)):
            send(1, "hello")
        list(subscriber.events(0.1))
        for sequence in (5, 6, 9):
            send(sequence)
        send(0, "alive", sequences={"done": 11, "new": 0})
        send(2, "new")
        send(1, session="s2")
        send(0, "alive", session="s2", sequences={"done": 1, "hello": 1})
        socket.send_multipart([b"done", b"{}"])
        socket.send_multipart([b"done"])
        socket.send_multipart(
            [b"other", encode(Event(kind="done", sequence=1, session="s", publisher="", time="", fields={}))]
        )
        send(2, session="s2")
        seen = [(e.kind, e.fields or e.sequence) for e in subscriber.events(0.5)]
        lost = [f for k, f in seen if k == "missed"]
    assert [s for k, s in seen if k == "done"] == [5, 6, 9, 1, 2]
    assert lost == [
        {"of": "done", "count": 2, "publisher": "p"},  # 7 and 8
        {"of": "done", "count": 2, "publisher": "p"},  # 10 and 11, known from `alive` alone
        {"of": "new", "count": 1, "publisher": "p"},  # a kind that began while we were listening
        {"of": "", "count": 0, "publisher": "p"},  # it began anew
    ]
    assert (subscriber.missed, subscriber.malformed) == (5, 3)


def test_the_loss_of_the_last_event_is_seen(publisher: Publisher) -> None:
    with joined(publisher) as subscriber:
        with publisher._lock:
            publisher._sequences["fileWritten"] += 1  # told, lost on the way, and forgotten by now
            publisher._recent.last += 1
            publisher._recent._kept.clear()
        [event] = subscriber.events(0.5)
    assert event.kind == "missed"
    assert (event["of"], event["count"], subscriber.missed) == ("fileWritten", 1, 1)


def test_who_tells_never_waits(publisher: Publisher) -> None:
    with joined(publisher) as subscriber:  # and then does not listen
        begun = time.monotonic()
        for _ in range(30_000):
            publisher.publish("x", text="x" * 100)
        assert time.monotonic() - begun < 10
        seen = list(subscriber.events(0.5))
        got = sum(event.kind == "x" for event in seen)
        assert got + subscriber.missed == 30_000
        assert subscriber.missed > 0, "queues are bounded"


def test_many_threads_tell(publisher: Publisher) -> None:
    def tell(number: int) -> None:
        for n in range(200):
            publisher.publish("x", thread=number, n=n)

    with joined(publisher) as subscriber:
        threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        seen = list(subscriber.events(0.5))
        for thread in threads:
            thread.join()
    assert [event.sequence for event in seen] == list(range(1, 801))
    for number in range(4):
        assert [e["n"] for e in seen if e["thread"] == number] == list(range(200))


def test_silence_ends_the_iteration(endpoint: str) -> None:
    with open_subscriber(endpoint) as subscriber:  # nobody is there
        begun = time.monotonic()
        assert list(subscriber.events(0.3)) == []
        assert 0.25 < time.monotonic() - begun < 2
    with pytest.raises(UsageError, match="no endpoint"):
        open_subscriber("nonsense")
    with pytest.raises(UsageError, match="needs an endpoint"):
        open_subscriber()


def test_an_endpoint_that_is_taken() -> None:
    with open_publisher("tcp://127.0.0.1:*") as first:
        assert not first.endpoint.endswith("*")
        with pytest.raises(StorageError, match=r"events cannot be told at .*; choose another endpoint"):
            open_publisher(first.endpoint)
    first.close()
    first.publish("x")  # after the end: nobody hears it, nothing breaks


def test_events_of_another_format_are_refused() -> None:
    event = json.loads(encode(Event(kind="x", sequence=1, session="s", publisher="p", time="", fields={})))
    assert event["format"] == FORMAT
    assert decode([b"x", json.dumps({**event, "later": 1}).encode()]).kind == "x"
    for change in ({"format": "raftwright-events/2"}, {"kind": "a b"}, {"sequence": -1}, {"fields": []}):
        with pytest.raises(FormatError):
            decode([b"x", json.dumps({**event, **change}).encode()])
    for body in (b"", b"\xff", b"[" * 60_000, b"{" * MAX_BYTES, b"x" * (MAX_BYTES + 1)):
        with pytest.raises(FormatError):
            decode([b"x", body])


def test_a_process_that_tells_and_ends_is_heard(endpoint: str) -> None:
    code = (
        "import sys, time\nfrom raftwright.events import open_publisher\n"
        "with open_publisher(sys.argv[1], alive=0.05) as p:\n    time.sleep(1.0)\n"
        "    p.publish('last', n=1)\n"
    )
    with open_subscriber(endpoint, kinds=["last"]) as subscriber:
        process = subprocess.Popen([sys.executable, "-c", code, endpoint])
        try:
            event = next(subscriber.events(15))
        finally:
            assert process.wait(15) == 0
    assert (event.kind, event["n"]) == ("last", 1)


def test_no_two_starts_have_one_name() -> None:
    """D083: sessions, and with them logs in which events are numbered from 1; those who claim in a ledger."""
    from raftwright.ledger.owners import this_process

    sessions = set()
    for _ in range(20):
        with open_publisher("tcp://127.0.0.1:*", name="the same") as publisher:
            sessions.add(publisher.session)  # type: ignore[attr-defined]
    assert len(sessions) == 20
    assert len({this_process().name for _ in range(1000)}) == 1000
