"""What the tests of the stream share: a client that is as plain as can be and can do what it must not, and
stores."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec
import pytest
import zmq

from hand_daq import SMALL, HandStore
from raftwright.daq import SimulatedStore
from raftwright.daq.store import Store
from raftwright.stream.server import Limits, Server
from raftwright.stream.wire import Header, Type, check_body, image_key, pack, source_key, unpack

MIB = 1 << 20


class Plain:
    """A connection to one socket of a server."""

    def __init__(
        self, endpoint: str, *, kind: int = zmq.DEALER, identity: bytes = b"", **options: Any
    ) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        if identity:
            self.socket.setsockopt(zmq.IDENTITY, identity)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)
        self.numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.context.destroy(linger=0)

    def send(self, header: Header, body: bytes = b"") -> None:
        self.socket.send_multipart([pack(header, body), body])

    def send_raw(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def receive(self, timeout: float = 5.0) -> tuple[Header, bytes] | None:
        if not self.socket.poll(int(timeout * 1000)):
            return None
        header, body = self.socket.recv_multipart()
        return unpack(header), body

    def answer(self, timeout: float = 5.0) -> tuple[Header, Any]:
        got = self.receive(timeout)
        assert got is not None, "no answer"
        header, body = got
        check_body(header, body)
        return header, msgspec.json.decode(body) if body else None

    def ask(self, kind: Type, body: Any = None, timeout: float = 5.0) -> tuple[Header, Any]:
        number = next(self.numbers)
        self.send(Header(kind, number), b"" if body is None else msgspec.json.encode(body))
        header, answer = self.answer(timeout)
        assert header.request == number
        return header, answer

    def query(self, what: str, **keys: Any) -> Any:
        header, answer = self.ask(Type.QUERY, {"what": what, **keys})
        assert header.type is Type.REPLY, answer
        return answer

    def refused(self, kind: Type, body: Any = None) -> str:
        header, answer = self.ask(kind, body)
        assert header.type is Type.ERROR, (header, answer)
        assert answer["message"]
        return str(answer["code"])

    def pull(
        self,
        image: str,
        location: str,
        offset: int,
        length: int,
        *,
        credit: int = 64 * MIB,
        chunk: int = MIB,
        number: int | None = None,
    ) -> int:
        number = next(self.numbers) if number is None else number
        body = msgspec.json.encode({"image": image, "location": location, "credit": credit, "chunk": chunk})
        self.send(
            Header(Type.PULL, number, offset, length, image_key(image), source_key(location)),
            body,
        )
        return number

    def messages(self, number: int, timeout: float = 10.0) -> Iterator[tuple[Header, bytes]]:
        """Everything that comes for a request, up to END or ERROR."""
        until = time.monotonic() + timeout
        while True:
            got = self.receive(max(0.0, until - time.monotonic()))
            assert got is not None, "the pull does not end"
            header, _body = got
            if header.request != number:
                continue
            yield got
            if header.type in (Type.END, Type.ERROR):
                return

    def fetch(
        self, image: str, location: str, offset: int, length: int, **keys: Any
    ) -> tuple[bytearray, dict[str, Any]]:
        """The bytes and the body of END; every header is checked."""
        number = self.pull(image, location, offset, length, **keys)
        data = bytearray(length)
        for n, (header, body) in enumerate(self.messages(number)):
            check_body(header, body)
            assert header.sequence == n
            if header.type is Type.CHUNK:
                assert header.length == len(body)
                assert offset <= header.offset
                assert header.offset + len(body) <= offset + length
                assert (header.image_key, header.source_key) == (image_key(image), source_key(location))
                data[header.offset - offset : header.offset - offset + len(body)] = body
                self.send(Header(Type.CREDIT, number, length=len(body)))
            elif header.type is Type.END:
                return data, msgspec.json.decode(body)
            elif header.type is Type.ERROR:
                raise AssertionError(body)
        raise AssertionError("no END")


@pytest.fixture
def plain() -> Iterator[Callable[..., Plain]]:
    """Makes connections that are closed at the end."""
    opened: list[Plain] = []

    def make(endpoint: str, **keys: Any) -> Plain:
        opened.append(Plain(endpoint, **keys))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers on free ports that are stopped at the end. Chunks may be as small as 1 KiB."""
    started: list[Server] = []

    def make(store: Store, bind: str = "tcp://127.0.0.1:0", **keys: Any) -> Server:
        keys.setdefault("limits", Limits(chunk=(1024, 16 << 20)))
        keys.setdefault("heartbeat", 0.3)
        started.append(Server(store, bind, **keys))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def live() -> HandStore:
    """One image, CC_S_20261122_000001, of which nothing has arrived."""
    store = HandStore()
    image = store.make(1)
    image.hold(0)
    store.all[image.base.name] = image
    return store


@pytest.fixture(scope="session")
def still() -> SimulatedStore:
    """Three small images, complete."""
    return SimulatedStore("LSSTComCam", 5, count=3, registers=SMALL)
