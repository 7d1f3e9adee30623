"""The sending side of a data socket that does to its chunks what a bad network does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from raftwright.errors import StorageError
from raftwright.stream import wire
from raftwright.stream.faults import Fault, Faults
from raftwright.stream.peers import CutError, FullError, Peer
from raftwright.stream.pulls import Pull
from raftwright.stream.sending import Sender
from raftwright.stream.wire import Type

__all__ = ["FaultySender"]


class FaultySender(Sender):
    """Does the faults of a plan to chunks. What is not touched by one is sent as by `Sender`."""

    def __init__(
        self, memory: int, session: int, faults: Faults, name: str, rebind: Callable[[], Any]
    ) -> None:
        """`rebind` makes the socket anew when it is cut."""
        super().__init__(memory, session)
        self._faults = faults
        self._chooser = faults.chooser(name)
        self._rebind = rebind

    def transmit(
        self, peer: Peer, pull: Pull, header: bytes, body: memoryview, buffer: bytearray | None
    ) -> None:
        """Sends a chunk, or what becomes of it."""
        fault = self._chooser.chunk()
        if fault is None:
            super().transmit(peer, pull, header, body, buffer)
            self._send_held(peer, pull)
            return
        self._faults.count(fault.kind)
        try:
            self._harm(fault, peer, pull, header, body)
        finally:
            if buffer is not None:
                self.outbox.give_back(buffer)  # everything below sends copies

    def _harm(self, fault: Fault, peer: Peer, pull: Pull, header: bytes, body: memoryview) -> None:
        match fault.kind:
            case "die":
                os._exit(70)
            case "cut":
                self._cut()
                raise CutError
            case "drop":
                return
            case "reorder":
                pull.held.append((header, bytes(body)))
                return
            case "delay" | "stall":
                self._send_copy(peer, header, bytes(body))
                pull.paused_until = time.monotonic() + fault.seconds
                if fault.kind == "stall":
                    pull.silent_until = pull.paused_until
            case "duplicate":
                self._send_copy(peer, header, bytes(body))
                self._send_copy(peer, header, bytes(body))
            case "corrupt":
                self._send_copy(peer, *_corrupted(header, body, fault.number))
            case "wrong-length":
                cut = 1 + fault.number % len(body)
                short = bytes(body[:-cut])
                self._send_copy(peer, wire.pack(wire.unpack(header), short), short)
            case "garbage":
                noise = fault.number.to_bytes(8, "little") * 40
                self._send_copy(peer, noise[: fault.number % 130], noise)
                self._send_copy(peer, header, bytes(body))
        self._send_held(peer, pull)

    def say(self, peer: Peer, pull: Pull, kind: Type, body: bytes = b"", offset: int = 0) -> None:
        """What was kept back is sent before the END of its pull."""
        if kind is Type.END:
            self._send_held(peer, pull)
        super().say(peer, pull, kind, body, offset)

    def _send_held(self, peer: Peer, pull: Pull) -> None:
        while pull.held:
            self._send_copy(peer, *pull.held.pop(0))

    def _send_copy(self, peer: Peer, header: bytes, body: bytes) -> None:
        view = memoryview(body)
        with contextlib.suppress(FullError):  # then it is one of those that are lost
            self.send(peer.identity, header, view)
            self.count(peer, view.nbytes)

    def _cut(self) -> None:
        self.socket.close(linger=0)
        until = time.monotonic() + 10.0
        while True:
            try:
                self.socket = self._rebind()
                return
            except StorageError:
                if time.monotonic() > until:
                    raise


def _corrupted(header: bytes, body: memoryview, number: int) -> tuple[bytes, bytes]:
    """A byte is changed: mostly of the body, now and then of the header."""
    bit = 1 << (number & 7)
    place = number >> 8
    if number & 0x70 == 0:
        wrong = bytearray(header)
        wrong[place % len(wrong)] ^= bit
        return bytes(wrong), bytes(body)
    changed = bytearray(body)
    changed[place % len(changed)] ^= bit
    return header, bytes(changed)
