"""How messages of a data socket are made and sent: chunks without a copy, the rest as it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import zmq

from raftwright import _core
from raftwright.daq.store import view_of
from raftwright.errors import FormatError
from raftwright.stream import wire
from raftwright.stream.buffers import Outbox
from raftwright.stream.messages import Problem, encode
from raftwright.stream.peers import FullError, GoneError, NoBufferError, Peer
from raftwright.stream.pulls import Pull
from raftwright.stream.wire import Header, Type

__all__ = ["Sender"]


class Sender:
    """The sending side of a data socket. Used by its thread only.

    All methods that send raise FullError and GoneError, and have sent nothing then.
    """

    def __init__(self, memory: int, session: int) -> None:
        self.socket: Any = None
        self.outbox = Outbox(memory)
        self.counts: Counter[str] = Counter()
        self._session = session

    def chunk(self, peer: Peer, pull: Pull, begin: int, end: int, now: float) -> None:
        """Sends [begin, end) of a pull's source. Raises NoBufferError, and what the source raises."""
        body, buffer, crc = self._read(peer, pull, begin, end - begin)
        header = wire.pack(
            Header(
                Type.CHUNK,
                pull.request,
                begin,
                end - begin,
                pull.image_key,
                pull.source_key,
                pull.sequence,
                self._session,
            ),
            body_crc=crc,
        )
        self.transmit(peer, pull, header, body, buffer)
        pull.sequence += 1
        pull.advance(begin, end, now)

    def transmit(
        self,
        peer: Peer,
        pull: Pull,  # noqa: ARG002 - for those who do worse
        header: bytes,
        body: memoryview,
        buffer: bytearray | None,
    ) -> None:
        """Sends a chunk that is made. The buffer comes back when it is on its way, or was not sent."""
        try:
            self.send(peer.identity, header, body, buffer)
        except Exception:
            if buffer is not None:
                self.outbox.give_back(buffer)
            raise
        self.count(peer, body.nbytes)

    def count(self, peer: Peer, size: int) -> None:
        """Takes note of a chunk that was sent."""
        peer.in_flight += size
        self.counts["chunks"] += 1
        self.counts["bytes"] += size

    def say(self, peer: Peer, pull: Pull, kind: Type, body: bytes = b"", offset: int = 0) -> None:
        """Sends WAIT or END of a pull."""
        header = Header(
            kind, pull.request, offset, 0, pull.image_key, pull.source_key, pull.sequence, self._session
        )
        self.send(peer.identity, wire.pack(header, body), body)
        pull.sequence += 1

    def error(
        self, identity: bytes, request: int, code: str, message: str, more: dict[str, Any] | None = None
    ) -> None:
        """Sends ERROR, if it can be sent; a client that hears nothing asks again."""
        body = encode(Problem(code, message, **(more or {})))
        header = wire.pack(Header(Type.ERROR, request, session=self._session), body)
        try:
            self.send(identity, header, body)
        except (FullError, GoneError):
            self.counts["errors_unsent"] += 1

    def send(
        self, identity: bytes, header: bytes, body: bytes | memoryview, buffer: bytearray | None = None
    ) -> None:
        """Sends two frames to a peer; a memoryview without a copy."""
        socket = self.socket
        try:
            socket.send(identity, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:
            raise FullError from None
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise GoneError from None
            raise
        socket.send(header, zmq.SNDMORE | zmq.NOBLOCK)
        if isinstance(body, memoryview):
            self.outbox.watch(identity, body, buffer)
            socket.send(body, zmq.NOBLOCK, copy=False)
        else:
            socket.send(body, zmq.NOBLOCK)

    def _read(
        self, peer: Peer, pull: Pull, offset: int, length: int
    ) -> tuple[memoryview, bytearray | None, int]:
        """A chunk's bytes, the buffer that they are in if it is ours, and their CRC-32C."""
        view = view_of(pull.source, offset, length)
        if view is not None:
            sums = pull.shelved.sums
            crc = sums.get((pull.order.location, offset, length))
            if crc is None:
                crc = _core.crc32c(view)
                pull.shelved.remember(pull.order.location, offset, length, crc)
            return memoryview(view), None, crc  # an object of its own, to see when it is let go of
        # Who has nothing under way gets one anyway: those who do not read must not hold up the others.
        buffer = self.outbox.buffer(length, needed=peer.in_flight == 0)
        if buffer is None:
            raise NoBufferError
        try:
            body = memoryview(buffer)[:length]
            if pull.source.readinto(offset, body) != length:
                raise FormatError(f"source {pull.order.location}: fewer bytes at {offset} than it has")
            return body, buffer, _core.crc32c(body)
        except BaseException:
            self.outbox.give_back(buffer)
            raise
