"""Servers that speak garbage, another version, or lie: refused with one clear error, counted, told once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq

from raftwright import _core
from raftwright.camera import camera
from raftwright.daq import SourceInfo, simulate_image
from raftwright.daq.info import describe
from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.stream import NetworkStore, Receiver
from raftwright.stream.messages import SOFTWARE
from raftwright.stream.wire import HEADER_BYTES, Header, Type, image_key, pack, source_key, unpack

CAMERA = camera("LSSTComCam")
NAME = "CC_S_20261122_000001"
PLACE = "22/0"
IMAGE = simulate_image(CAMERA, NAME, registers=[3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1])
INFO: SourceInfo = IMAGE.source(PLACE).info
DATA = IMAGE.source(PLACE).read(0, INFO.bytes)
KEYS = {"image_key": image_key(NAME), "source_key": source_key(PLACE)}

Frames = list[bytes]
Answer = Callable[["Impostor", bytes, Header, bytes], list[Frames]]
"""Impostor, identity, header and body of what came -> messages, frame by frame."""


class Impostor:
    """A server that answers as it is told to. One socket serves control and data."""

    def __init__(self, control: Answer | None = None, data: Answer | None = None) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets = [self.context.socket(zmq.ROUTER) for _ in range(2)]
        for socket in self.sockets:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in self.sockets]
        self.endpoint, self.data = (f"tcp://127.0.0.1:{port}" for port in ports)
        self.answers = [control or honest_control, data or honest_data]
        self.welcome: dict[str, Any] = {
            "version": 1, "session": 7, "heartbeat": 0.2, "chunk": [1024, 1 << 24], "credit": 1 << 28,
            "pulls": 256, "notices": "tcp://127.0.0.1:1", "data": [self.data], "software": "", "store": "",
        }  # fmt: skip
        self.seen: list[Type] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        while not self.stop.is_set():
            for socket, _ in poller.poll(50):
                identity, first, body = socket.recv_multipart()
                header = unpack(first)
                self.seen.append(header.type)
                answer = self.answers[self.sockets.index(socket)]
                for frames in answer(self, identity, header, body):
                    socket.send_multipart([identity, *frames])

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.context.destroy(linger=0)


def message(kind: Type, request: int, body: Any = b"", **fields: Any) -> Frames:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return [pack(Header(kind, request, session=7, **fields), data), data]


def chunk(
    request: int, begin: int, end: int, sequence: int, body: bytes | None = None, **fields: Any
) -> Frames:
    data = DATA[begin:end] if body is None else body
    header = Header(
        Type.CHUNK, request, begin, end - begin, sequence=sequence, session=7, **{**KEYS, **fields}
    )
    return [pack(header, data), data]


def end(request: int, sequence: int, **changes: Any) -> Frames:
    body = {"bytes": INFO.bytes, "crc32c": f"{_core.crc32c(DATA):08x}", "gaps": [], "sent": INFO.bytes}
    return message(Type.END, request, {**body, **changes}, sequence=sequence, **KEYS)


def honest_control(server: Impostor, _: bytes, header: Header, body: bytes) -> list[Frames]:
    match header.type:
        case Type.HELLO:
            return [message(Type.WELCOME, header.request, server.welcome)]
        case Type.PING:
            return [message(Type.PONG, header.request)]
        case Type.QUERY if b"image" in body:
            state = {place: {"final": True, "available": 1} for place in IMAGE.info.locations}
            reply = {"image": describe(IMAGE.info), "final": True, "sources": state}
            return [message(Type.REPLY, header.request, reply)]
    return [message(Type.REPLY, header.request, {"folders": ["raw"]})]


def honest_data(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
    if header.type is not Type.PULL:
        return []
    begin, last = header.offset, header.offset + header.length
    if begin == last:
        return [end(header.request, 0)]
    return [chunk(header.request, begin, last, 0), end(header.request, 1)]


@pytest.fixture
def impostor() -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(**answers: Answer) -> Impostor:
        made.append(Impostor(**answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def client() -> Iterator[Callable[..., NetworkStore]]:
    made: list[NetworkStore] = []

    def make(server: Impostor, timeout: float = 1.0) -> NetworkStore:
        made.append(NetworkStore(server.endpoint, timeout=timeout))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Impostor]
Client = Callable[..., NetworkStore]


def fetched(store: NetworkStore, seconds: float = 3.0, plain: bool = False) -> Any:
    """A fetch of the one source that ended, and the statistics of its receiver."""
    readout = _core.Readout(CAMERA.board(PLACE).layout, INFO.registers.width, INFO.registers.height)
    with Receiver(store, plain=plain) as receiver:
        fetch = receiver.fetch(NAME, INFO, readout, deadline=time.monotonic() + seconds)
        while fetch.outcome is None:
            receiver.run(0.5)
        return fetch, receiver.stats


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]


# -- the control socket


def test_an_honest_impostor_is_a_server(impostor: Make, client: Client) -> None:
    store = client(impostor())
    assert store.folders() == ["raw"]
    assert store.image(NAME).info == IMAGE.info
    for plain in (False, True):
        fetch, stats = fetched(store, plain=plain)
        assert fetch.outcome == "complete"
        assert stats["malformed"] == stats["strange"] == 0


GARBAGE: dict[str, Callable[[int], Frames]] = {
    "nothing": lambda _: [b"", b""],
    "one frame": lambda _: [b"hello"],
    "three frames": lambda n: [*message(Type.WELCOME, n, {}), b"x"],
    "http": lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""],
    "another magic": lambda n: [b"ABCD" + message(Type.WELCOME, n)[0][4:], b""],
    "header damaged": lambda n: [message(Type.WELCOME, n)[0][:40] + b"\x01" * 24, b""],
    "body damaged": lambda n: [message(Type.WELCOME, n, {"a": 1})[0], b"{}"],
    "a type that is not": lambda n: _patched(message(Type.WELCOME, n), 5, 99),
    "a type that is not for clients": lambda n: message(Type.HELLO, n),
}


def _patched(frames: Frames, place: int, value: int) -> Frames:
    head = bytearray(frames[0])
    head[place] = value
    head[60:] = _core.crc32c(head[:60]).to_bytes(4, "little")
    return [bytes(head), *frames[1:]]


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_instead_of_a_welcome(
    impostor: Make, client: Client, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    store = client(impostor(control=lambda _, __, header, ___: [GARBAGE[what](header.request)] * 3), 0.6)
    with pytest.raises(StorageError, match="not of the protocol"):
        store.images()
    assert store.stats["refused"] >= 3
    assert len(refusals(caplog)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b'{"version":1}', b"[" * 100_000,
        {"version": 2, "data": ["tcp://127.0.0.1:1"]}, {"data": []}, {"chunk": [5, 4]}, {"chunk": [0, 4]},
        {"heartbeat": 0}, {"heartbeat": 1e9}, {"session": -1}, {"credit": 0},
    ],
    ids=lambda body: str(body)[:24],
)  # fmt: skip
def test_a_welcome_that_cannot_be(impostor: Make, client: Client, body: Any) -> None:
    def answer(server: Impostor, _: bytes, header: Header, __: bytes) -> list[Frames]:
        sent = body if isinstance(body, bytes) else {**server.welcome, **body}
        return [message(Type.WELCOME, header.request, sent)]

    with pytest.raises(FormatError, match="tcp://127"):
        client(impostor(control=answer)).images()


def test_a_server_of_another_version(impostor: Make, client: Client) -> None:
    """F17: the versions of both are in the error."""

    def speaks_nine(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        return [_patched(message(Type.WELCOME, header.request), 4, 9)]

    def says_so(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        body = {"code": "version", "message": "no", "spoken": [9], "got": 1}
        return [message(Type.ERROR, header.request, body)]

    for answer in (speaks_nine, says_so):
        begun = time.monotonic()
        with pytest.raises(FormatError, match=r"version.*9") as caught:
            client(impostor(control=answer), timeout=5.0).images()
        assert "only 1;" in str(caught.value) or "here it is [1]" in str(caught.value)
        assert time.monotonic() - begun < 2  # there is nothing to wait for


def test_a_server_of_another_release_is_used_and_both_are_named(
    impostor: Make, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """F17: the same protocol, other software; said once, however often it is greeted."""
    caplog.set_level(logging.INFO)
    server = impostor()
    server.welcome["software"] = "daq-server 3.1\n"
    store = client(server)
    for _ in range(3):
        store.connection._greeted = 0.0
        store.refresh()
        assert store.folders() == ["raw"]
    (told,) = [r.getMessage() for r in caplog.records if "3.1" in r.getMessage()]
    assert told.endswith(f"the server runs daq-server 3.1\\n, here it is {SOFTWARE}")


def test_answers_that_do_not_fit(impostor: Make, client: Client) -> None:
    """F25: an image that is described under another name than it was asked for is refused."""
    replies: list[Any] = []

    def answer(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        if header.type is Type.QUERY:
            return [message(Type.REPLY, header.request + 17, {"folders": ["another question"]})] + [
                message(Type.REPLY, header.request, reply) for reply in replies
            ]
        return honest_control(server, identity, header, body)

    server = impostor(control=answer)
    for reply in ({"folders": 5}, b"", {"images": []}, {"folders": [["x"]]}):
        replies[:] = [reply]
        with pytest.raises(FormatError):
            client(server).folders()
    replies[:] = [{"folders": ["b", "a"]}]
    assert client(server).folders() == ["a", "b"]
    other = msgspec.json.decode(msgspec.json.encode(describe(IMAGE.info)))
    for change in ({"name": "CC_S_20261122_000002"}, {"name": "../../etc/passwd"}, {"sources": 5}):
        replies[:] = [{"image": {**other, **change}, "final": True, "sources": {}}]
        with pytest.raises(FormatError):
            client(server).image(NAME)
    replies[:] = [{"images": ["b"], "more": True}]  # for ever
    assert client(server).images() == ["b"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("not-found", NotFoundError), ("gone", NotFoundError), ("storage", StorageError),
        ("internal", StorageError), ("never heard of", StorageError), ("busy", StorageError),
        ("malformed", FormatError),
    ],
)  # fmt: skip
def test_errors_of_the_server(impostor: Make, client: Client, code: str, expected: type[Exception]) -> None:
    def answer(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        if header.type is Type.QUERY:
            said = {"code": code, "message": "because \x1b[31mof that"}
            return [message(Type.ERROR, header.request, said)]
        return honest_control(server, identity, header, body)

    with pytest.raises(expected, match="because") as caught:
        client(impostor(control=answer)).image(NAME)
    assert "\x1b" not in str(caught.value)


# -- the data socket


@pytest.mark.parametrize("plain", [False, True], ids=["loop", "pyzmq"])
@pytest.mark.parametrize("what", [*GARBAGE, "pages"])
def test_garbage_among_chunks_is_dropped_and_told_once(
    impostor: Make, client: Client, caplog: pytest.LogCaptureFixture, what: str, plain: bool
) -> None:
    def answer(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        garbage = [[b"x" * 64] * 50] if what == "pages" else [GARBAGE[what](header.request)]
        sent = honest_data(server, identity, header, body)
        return [*garbage * 3, *sent[:1], *garbage * 3, *sent[1:]] if sent else []

    fetch, stats = fetched(client(impostor(data=answer)), plain=plain)
    assert fetch.outcome == "complete"
    assert stats["malformed"] + stats["strange"] + stats["corrupt"] == 6
    assert len(refusals(caplog)) <= 1
    expected = _core.unpack_reference(CAMERA.board(PLACE).layout, DATA)
    assert (fetch.readout.plane(5).ravel() == expected[5]).all()


def test_another_version_on_the_data_socket(
    impostor: Make, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        return [_patched(message(Type.END, header.request), 4, 2)]

    begun = time.monotonic()
    fetch, _ = fetched(client(impostor(data=answer)), seconds=10.0)
    assert time.monotonic() - begun < 3
    assert fetch.outcome == "refused"
    assert "version 2" in fetch.reason


WRONG: dict[str, Callable[[int], Frames]] = {
    "another image": lambda n: chunk(n, 0, INFO.bytes, 0, image_key=b"x" * 8),
    "another source": lambda n: chunk(n, 0, INFO.bytes, 0, source_key=b"xxxx"),
    "beyond the stream": lambda n: chunk(n, INFO.bytes - 5, INFO.bytes + 5, 0, DATA[:10]),
    "far beyond it": lambda n: chunk(n, 2**63, 2**63 + 10, 0, DATA[:10]),
    "a sequence that cannot be": lambda n: chunk(n, 0, INFO.bytes, 2**60),
    "nothing": lambda n: chunk(n, 0, 0, 0, b""),
    "another request": lambda n: chunk(n + 1000, 0, INFO.bytes, 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_chunks_that_were_not_asked_for_are_not_used(impostor: Make, client: Client, what: str) -> None:
    """F25: nor those that carry the key of another image, or of another source."""

    def answer(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        sent = honest_data(server, identity, header, body)
        return [WRONG[what](header.request), *sent]

    fetch, stats = fetched(client(impostor(data=answer)))
    assert fetch.outcome == "complete"
    assert stats["strange"] + stats["stale"] == 1
    assert stats["bytes"] == INFO.bytes


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"bytes": INFO.bytes + 1}, "refused"),
        ({"crc32c": "nonsense"}, "timed-out"),
        ({"crc32c": None}, "complete"),
        ({"crc32c": "00000000"}, "damaged"),
        ({"gaps": [[5, 1], [-3, 4]]}, "timed-out"),
        ({"gaps": [[2**62, 2**63 - 1], [7, 3]]}, "complete"),
        ({"sent": 0}, "complete"),
    ],
)
def test_ends_that_lie(impostor: Make, client: Client, changes: dict[str, Any], outcome: str) -> None:
    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        if header.type is not Type.PULL:
            return []
        pieces = [chunk(header.request, header.offset, header.offset + header.length, 0)] * (
            header.length > 0
        )
        return [*pieces, end(header.request, len(pieces), **changes)]

    fetch, _ = fetched(client(impostor(data=answer)), seconds=0.8)
    assert fetch.outcome == outcome


def test_a_server_that_never_sends_everything(impostor: Make, client: Client) -> None:
    asked: list[float] = []

    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        if header.type is not Type.PULL:
            return []
        asked.append(time.monotonic())
        return [end(header.request, 0)]

    fetch, _ = fetched(client(impostor(data=answer)), seconds=1.5)
    assert fetch.outcome == "timed-out"
    assert 3 <= len(asked) <= 8  # it is asked less and less often


def test_a_source_of_nothing_but_gaps(impostor: Make, client: Client) -> None:
    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        whole = {"gaps": [[0, INFO.bytes]], "sent": 0, "crc32c": None}
        return [end(header.request, 0, **whole)] if header.type is Type.PULL else []

    fetch, _ = fetched(client(impostor(data=answer)))
    assert fetch.outcome == "incomplete"
    assert fetch.gaps == [(0, INFO.bytes)]


def test_a_stream_in_crumbs(impostor: Make, client: Client) -> None:
    """Chunks of one byte, backwards: slow, but right and bounded."""
    length = 3000

    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        if header.type is not Type.PULL:
            return []
        rest = chunk(header.request, length, INFO.bytes, 0)
        crumbs = [chunk(header.request, n, n + 1, length - n) for n in reversed(range(length))]
        return [rest, *crumbs, end(header.request, length + 1)]

    fetch, stats = fetched(client(impostor(data=answer)), seconds=10.0)
    assert fetch.outcome == "complete"
    assert stats["chunks"] == length + 1
    assert stats["copied_bytes"] <= length + 3024


@pytest.mark.parametrize("seed", range(3))
def test_fuzzed_frames(impostor: Make, client: Client, seed: int) -> None:
    chance = random.Random(seed)

    def answer(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        out: list[Frames] = []
        for frames in honest_data(server, identity, header, body):
            for _ in range(60):
                head = bytearray(frames[0])
                for _ in range(chance.randrange(1, 4)):
                    head[chance.randrange(HEADER_BYTES)] = chance.randrange(256)
                if chance.random() < 0.8:
                    head[:6] = frames[0][:6]
                    head[60:] = _core.crc32c(head[:60]).to_bytes(4, "little")
                tail = bytearray(frames[1])
                if tail and chance.random() < 0.5:
                    tail[chance.randrange(len(tail))] ^= 1 << chance.randrange(8)
                out.append([bytes(head), bytes(tail)][: chance.choice((1, 2, 2, 2, 2))])
            out.append(frames)
        return out

    fetch, stats = fetched(client(impostor(data=answer)), seconds=10.0)
    assert stats["malformed"] + stats["strange"] + stats["corrupt"] + stats["stale"] > 10
    # A body that was not touched may come with another, equally valid place: then the CRC of the whole tells.
    assert fetch.outcome in ("complete", "damaged", "refused", "gone")
    if fetch.outcome == "complete":
        expected = _core.unpack_reference(CAMERA.board(PLACE).layout, DATA)
        assert all((fetch.readout.plane(k).ravel() == expected[k]).all() for k in range(48))


def test_data_endpoints_that_cannot_be(impostor: Make, client: Client) -> None:
    server = impostor()
    for endpoint in ("", "nonsense", "udp://x:1", "inproc://x", "tcp://127.0.0.1", "/etc/passwd"):
        server.welcome["data"] = [endpoint]
        fetch, _ = fetched(client(server), seconds=1.0)
        assert fetch.outcome in ("refused", "timed-out")


def test_the_log_is_not_flooded(impostor: Make, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(_: Impostor, __: bytes, header: Header, ___: bytes) -> list[Frames]:
        return [[b"garbage", b""]] * 200

    fetched(client(impostor(data=answer)), seconds=1.0)
    assert len(caplog.records) < 10


def test_a_catalogue_without_end_is_refused(
    impostor: Callable[..., Impostor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that always has more images must not fill the memory."""
    monkeypatch.setattr("raftwright.stream.client._MOST_NAMES", 50)

    def more(server: Impostor, identity: bytes, header: Header, body: bytes) -> list[Frames]:
        if header.type is not Type.QUERY:
            return honest_control(server, identity, header, body)
        last = int(msgspec.json.decode(body).get("after", "CC_S_20261122_000000").rsplit("_", 1)[1])
        names = [f"CC_S_20261122_{number:06d}" for number in range(last + 1, last + 11)]
        return [message(Type.REPLY, header.request, {"images": names, "more": True})]

    server = impostor(control=more)
    with NetworkStore(server.endpoint) as store, pytest.raises(FormatError, match="more than 50 images"):
        store.images()
