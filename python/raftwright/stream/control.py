"""The control socket: greeting, catalogue queries, keep-alive."""

from __future__ import annotations

import logging
import queue
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import zmq

from raftwright.daq.info import describe
from raftwright.daq.store import DaqImage, Store, check_range
from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.stream import messages, wire
from raftwright.stream.inbound import check_count, next_message, peer_of
from raftwright.stream.messages import (
    Available,
    Folders,
    Images,
    Problem,
    Query,
    SourceState,
    Welcome,
    decode,
    encode,
)
from raftwright.stream.refusals import Refusals
from raftwright.stream.shelf import Shelf
from raftwright.stream.socket_threads import SocketThreads
from raftwright.stream.wire import Header, Type, WireError

__all__ = ["Catalogue", "Control"]

_log = logging.getLogger("raftwright.stream")

_MOST_NAMES: Final = 10_000
"""Names in one reply."""
_MOST_RANGES: Final = 200_000
_MOST_WAITING: Final = 1000
"""Queries that wait for the store; more are refused."""
_BATCH: Final = 256
_MOST_MET: Final = 256
"""Clients with other software that are remembered as told about."""


class Catalogue:
    """Answers to queries, as bodies of REPLY. Raises WireError, and what the store raises."""

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self._store = store
        self._shelf = shelf

    def answer(self, query: Query) -> bytes:
        """The body of the reply."""
        match query.what:
            case "folders":
                names = self._store.folders()
                return encode(Folders(names[:_MOST_NAMES], len(names) > _MOST_NAMES))
            case "images":
                return self._images(query)
            case "underway":
                names = self._store.underway()
                return encode(Images(names[:_MOST_NAMES], len(names) > _MOST_NAMES))
            case "image":
                return self._image(_given(query.image, "image"))
            case "available":
                return self._available(query)
        raise WireError("not-found", f"there is no query {ascii(query.what)[:40]} in version {wire.VERSION}")

    def _images(self, query: Query) -> bytes:
        names = self._store.images(query.folder)
        begin = 0 if query.after is None else bisect_right(names, query.after)
        most = min(query.limit or _MOST_NAMES, _MOST_NAMES)
        return encode(Images(names[begin : begin + most], begin + most < len(names)))

    def _image(self, name: str) -> bytes:
        image = self._shelf.image(name).image
        info = image.info
        states = {source.location: _state(image, source.location) for source in info.sources}
        if all(state.final for state in states.values()):
            info = image.info  # once more: what became known at the end is in it
        final = all(state.final for state in states.values())
        body = encode({"image": describe(info), "final": final, "sources": states})
        if len(body) > wire.MAX_BODY_TO_CLIENT:
            raise WireError("internal", f"the description of {ascii(name)[:80]} is too large for a message")
        return body

    def _available(self, query: Query) -> bytes:
        image = self._shelf.image(_given(query.image, "image")).image
        source = image.source(_given(query.location, "location"))
        offset = query.offset or 0
        length = source.info.bytes - offset if query.length is None else query.length
        try:
            check_range(source.info, offset, length)
        except UsageError as error:
            raise WireError("range", str(error)) from None
        final = source.final
        ranges = source.available(offset, length)
        return encode(Available(ranges[:_MOST_RANGES], final, len(ranges) > _MOST_RANGES))


def _given(value: str | None, what: str) -> str:
    if value is None:
        raise WireError("malformed", f"the query lacks its key {what}")
    return value


def _state(image: DaqImage, location: str) -> SourceState:
    try:
        source = image.source(location)
        final = source.final
        size = source.info.bytes
        return SourceState(final, sum(end - begin for begin, end in source.available(0, size)))
    except (RaftwrightError, OSError):
        return SourceState(final=True, available=0)  # a pull will be told why


class Control(SocketThreads):
    """Serves the control socket. Queries have a thread of their own: a slow store delays no PONG."""

    def __init__(
        self, catalogue: Catalogue, welcome: Callable[[], Welcome], session: int, refusals: Refusals
    ) -> None:
        super().__init__("stream control", "stream catalogue")
        self._catalogue = catalogue
        self._welcome = welcome
        self._session = session
        self._refusals = refusals
        self._queries: queue.Queue[tuple[bytes, int, Query, str] | None] = queue.Queue(_MOST_WAITING)
        self._answers: deque[tuple[bytes, Header, bytes]] = deque()
        self._met: set[tuple[str, str]] = set()

    def stop(self) -> None:
        """Asks the threads to end."""
        super().stop()
        try:
            self._queries.put_nowait(None)
        except queue.Full:
            return  # the worker looks at `_stop` after each

    def _turn(self, readable: bool) -> None:
        while self._answers:
            self._send(*self._answers.popleft())
        if readable:
            self._receive()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            message = next_message(self.socket)
            if message is None:
                return
            frames, count = message
            identity, request = frames[0].bytes, 0
            try:
                check_count(count)
                header = wire.unpack(frames[1].buffer)
                request = header.request
                wire.check_body(header, frames[2].buffer)
                self._handle(identity, header, frames[2])
            except WireError as error:
                self._refusals.add(error.code, peer_of(frames[-1], identity), str(error))
                self._error(identity, request, error.code, str(error), error.more)

    def _handle(self, identity: bytes, header: Header, frame: Any) -> None:
        if header.type is Type.PING:
            self.counts["pings"] += 1
            self._send(identity, Header(Type.PONG, header.request, session=self._session), b"")
            return
        if header.type is Type.HELLO:
            self._greet(identity, header, frame.bytes, peer_of(frame, identity))
            return
        if header.type is not Type.QUERY:
            raise WireError("unknown-type", f"the control socket does not take {header.type.name}")
        if header.request == 0:
            raise WireError("malformed", "request number 0; numbers begin at 1")
        self.counts["queries"] += 1
        query = decode(frame.bytes, Query, wire.MAX_BODY_TO_SERVER)
        try:
            self._queries.put_nowait((identity, header.request, query, peer_of(frame, identity)))
        except queue.Full:
            raise WireError("busy", f"{_MOST_WAITING} queries wait already; try again later") from None

    def _greet(self, identity: bytes, header: Header, body: bytes, peer: str) -> None:
        hello = decode(body, messages.Hello, wire.MAX_BODY_TO_SERVER)
        if not set(hello.versions) & set(wire.SPOKEN):
            raise WireError(
                "version",
                f"the client speaks versions {hello.versions[:8]} of the protocol, this server "
                f"{list(wire.SPOKEN)}; use releases that share one",
                {"spoken": list(wire.SPOKEN), "got": hello.versions[:8]},
            )
        self.counts["greetings"] += 1
        if hello.software not in (messages.SOFTWARE, ""):
            self._note(peer, ascii(hello.software)[1:-1][:80])
        self._send(
            identity, Header(Type.WELCOME, header.request, session=self._session), encode(self._welcome())
        )

    def _note(self, peer: str, software: str) -> None:
        """A client of another release: it is served, and said once."""
        if (peer, software) in self._met:
            return
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met.add((peer, software))
        _log.info("the client %s runs %s, this server %s", peer, software, messages.SOFTWARE)

    def _error(
        self, identity: bytes, request: int, code: str, message: str, more: dict[str, Any] | None = None
    ) -> None:
        header, body = self._problem(request, code, message, more)
        self._send(identity, header, body)

    def _problem(
        self, request: int, code: str, message: str, more: dict[str, Any] | None = None
    ) -> tuple[Header, bytes]:
        self.counts[f"error_{code}"] += 1
        header = Header(Type.ERROR, request, session=self._session)
        return header, encode(Problem(code, message[:4000], **(more or {})))

    def _send(self, identity: bytes, header: Header, body: bytes) -> None:
        try:
            self.socket.send(identity, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self.counts["unsent"] += 1  # it does not read, or is gone: it will ask again if it lives
            return
        self.socket.send(wire.pack(header, body), zmq.SNDMORE | zmq.NOBLOCK)
        self.socket.send(body, zmq.NOBLOCK)

    # -- the thread of the store

    def _with_store(self) -> None:
        while not self._stop.is_set():
            entry = self._queries.get()
            if entry is None:
                return
            identity, request, query, peer = entry
            try:
                body = self._catalogue.answer(query)
                answer = Header(Type.REPLY, request, session=self._session), body
            except WireError as error:
                self._refusals.add(error.code, peer, str(error))
                answer = self._problem(request, error.code, str(error), error.more)
            except NotFoundError as error:
                answer = self._problem(request, "not-found", str(error.args[0] if error.args else error))
            except (RaftwrightError, OSError) as error:
                answer = self._problem(request, "storage", str(error))
            except Exception as error:
                _log.exception("internal error while answering a query")
                answer = self._problem(request, "internal", f"{type(error).__name__}: {error}")
            self._answers.append((identity, *answer))
            if not self._stop.is_set():
                self._wake()
