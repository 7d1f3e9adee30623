"""Bytes of a source for whoever wants bytes: the plain way, with a copy. `fetch` is the fast one."""

from __future__ import annotations

import errno
import threading
import time
from typing import Any, Final

import zmq

from raftwright.daq.store import cut_gaps
from raftwright.errors import NotFoundError, StorageError, UsageError
from raftwright.stream import wire
from raftwright.stream.connection import Connection
from raftwright.stream.endpoints import reachable
from raftwright.stream.messages import Problem, Pull, decode, encode
from raftwright.stream.wire import Header, Type, WireError

__all__ = ["ByteReader"]

_CREDIT: Final = 8 << 20
_CHUNK: Final = 4 << 20
_MOST_IDLE: Final = 4
"""Connections kept for the next who reads."""
_MOST_RANGES: Final = 1000


class _Line:
    """A data connection and the number of its last request. Belongs to one thread at a time."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.request = 0


class _Part:
    """A range of a source on its way into a buffer."""

    def __init__(self, image: str, location: str, offset: int, target: memoryview) -> None:
        self.image = image
        self.location = location
        self.offset = offset
        self.target = target
        self.keys = wire.image_key(image), wire.source_key(location)
        self.missing = [(offset, offset + len(target))]

    def take(self, header: Header, body: Any) -> int:
        """Copies a chunk; how many of its bytes were missing. What does not fit is left."""
        begin, end = header.offset, header.offset + header.length
        if (header.image_key, header.source_key) != self.keys or header.length != len(body):
            return 0
        if begin < self.offset or end > self.offset + len(self.target):
            return 0
        before = sum(last - first for first, last in self.missing)
        if len(self.missing) > _MOST_RANGES:
            return 0
        self.target[begin - self.offset : end - self.offset] = body
        self.missing = [
            left for first, last in self.missing for left in cut_gaps(((begin, end),), first, last - first)
        ]
        return before - sum(last - first for first, last in self.missing)


class ByteReader:
    """Reads ranges that a server is known to have. Thread-safe: each call has a connection to itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._idle: list[_Line] = []
        self._count = 0
        self._closed = False

    def read(self, image: str, location: str, offset: int, target: memoryview) -> None:
        """Fills `target`; what does not come or comes damaged is asked for again.

        Raises NotFoundError (image or source are gone), StorageError (nothing came for the time-out),
        FormatError (another protocol), and UsageError (the store was closed meanwhile).
        """
        part = _Part(image, location, offset, target)
        progress = time.monotonic()
        pause = 0.05
        said = "nothing came"
        while part.missing and len(target):
            line = self._line()
            before = part.missing
            good = False
            try:
                good, told = self._attempt(line, part)
                said = told or said
            except zmq.ContextTerminated:
                raise UsageError("the store was closed; open it again") from None
            except zmq.ZMQError as error:
                said = f"the connection failed ({error})"
            finally:
                self._give_back(line, good)
            now = time.monotonic()
            if part.missing != before:
                progress, pause = now, 0.05
            elif part.missing:
                if now - progress > self._connection.timeout:
                    raise StorageError(
                        errno.ETIMEDOUT,
                        f"{image} {location}: {said}; does the server run?",
                        self._connection.endpoint,
                    )
                time.sleep(pause)
                pause = min(2 * pause, 2.0)

    def _attempt(self, line: _Line, part: _Part) -> tuple[bool, str]:
        """One pull. Whether the connection is still good for others, and what was wrong."""
        welcome = self._connection.welcome or self._connection.greet()
        begin, end = part.missing[0]
        line.request += 1
        request = line.request
        low, high = welcome.chunk
        chunk = min(max(_CHUNK, low), high)
        credit = min(max(_CREDIT, chunk), welcome.credit)
        body = encode(Pull(part.image, part.location, credit, chunk))
        header = Header(Type.PULL, request, begin, end - begin, *part.keys)
        line.socket.send_multipart([wire.pack(header, body), body])
        silence = max(3 * welcome.heartbeat, 1.0)
        heard = time.monotonic()
        spent = 0
        while part.missing and part.missing[0][0] < end:
            left = heard + silence - time.monotonic()
            if left <= 0 or self._closed:
                return False, "nothing came"
            if not line.socket.poll(max(1, round(1e3 * left))):
                continue
            frames = line.socket.recv_multipart(copy=False)
            try:
                if len(frames) != 2:
                    raise WireError("malformed", "a message has two frames")
                header = wire.unpack(frames[0].buffer)
                if header.request != request:
                    continue
                heard = time.monotonic()
                wire.check_body(header, frames[1].buffer)
            except WireError as error:
                if error.code == "version":
                    raise
                return False, str(error)
            if header.type is Type.CHUNK:
                part.take(header, frames[1].buffer)
                spent += header.length
                if spent >= credit // 2:
                    more = Header(Type.CREDIT, request, length=spent)
                    line.socket.send_multipart([wire.pack(more), b""])
                    spent = 0
            elif header.type is Type.END:
                return True, "the server does not send what it says that it has"
            elif header.type is Type.ERROR:
                return True, self._problem(decode(frames[1].bytes, Problem))
        # All of it came; the END is not waited for, a source that is read out has none yet.
        line.socket.send_multipart([wire.pack(Header(Type.CANCEL, request)), b""])
        return True, ""

    def _problem(self, problem: Problem) -> str:
        said = ascii(problem.message)[1:-1][:300]
        if problem.code in ("not-found", "gone"):
            raise NotFoundError(f"{self._connection.endpoint}: {said}")
        if problem.code == "version":
            raise WireError("version", f"{self._connection.endpoint}: {said}")
        return f"{problem.code}: {said}"

    def _line(self) -> _Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            number = self._count
            self._count += 1
        welcome = self._connection.welcome or self._connection.greet()
        endpoint = reachable(welcome.data[number % len(welcome.data)], self._connection.endpoint)
        socket = self._connection.socket(zmq.DEALER, endpoint, {zmq.SNDHWM: 64, zmq.RCVHWM: 32})
        socket.setsockopt(zmq.SNDTIMEO, round(1e3 * self._connection.timeout))
        socket.connect(endpoint)
        return _Line(socket)

    def _give_back(self, line: _Line, good: bool) -> None:
        with self._lock:
            if good and not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(line)
                return
        line.socket.close(linger=0)

    def close(self) -> None:
        """Closes idle connections; those in use are closed by who has them."""
        with self._lock:
            self._closed = True
            for line in self._idle:
                line.socket.close(linger=0)
            self._idle.clear()
