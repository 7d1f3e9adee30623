"""A data socket that does to its chunks what a bad network does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import zmq

from raftwright.stream import wire
from raftwright.stream.delivery import Delivery, FullError, GoneError, Peer
from raftwright.stream.faults import Fault, Faults
from raftwright.stream.pulls import Pull

__all__ = ["FaultyDelivery"]


class FaultyDelivery(Delivery):
    """Injects the faults of a plan. What is not touched by one is sent as by `Delivery`."""

    def plan(self, faults: Faults, rebind: Callable[[], Any]) -> None:
        """Sets the plan, and how the socket is made anew when it is cut. Before `start`."""
        self._faults = faults
        self._chooser = faults.chooser(self._name)
        self._rebind = rebind

    def _transmit(
        self, peer: Peer, pull: Pull, header: bytes, body: memoryview, buffer: bytearray | None
    ) -> None:
        fault = self._chooser.chunk()
        if fault is None:
            super()._transmit(peer, pull, header, body, buffer)
            self._send_held(peer, pull)
            return
        try:
            self._harm(fault, peer, pull, header, body)
        finally:
            if buffer is not None:
                self._outbox.give_back(buffer)  # everything below sends copies
        self._faults.count(fault.kind)

    def _harm(self, fault: Fault, peer: Peer, pull: Pull, header: bytes, body: memoryview) -> None:
        match fault.kind:
            case "die":
                os._exit(70)
            case "cut":
                self._faults.count("cut")
                self._cut()
                raise GoneError
            case "drop":
                return
            case "reorder":
                pull.held.append((header, bytes(body)))
                return
            case "delay" | "stall":
                self._send_copy(peer, header, bytes(body))
                pull.paused_until = time.monotonic() + fault.seconds
                self._next_beat = min(self._next_beat, pull.paused_until)
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

    def _end(self, peer: Peer, pull: Pull) -> None:
        self._send_held(peer, pull)
        super()._end(peer, pull)

    def _send_held(self, peer: Peer, pull: Pull) -> None:
        while pull.held:
            self._send_copy(peer, *pull.held.pop(0))

    def _send_copy(self, peer: Peer, header: bytes, body: bytes) -> None:
        view = memoryview(body)
        with contextlib.suppress(FullError):  # then it is one of those that are lost
            self._send(peer.identity, header, view)
            peer.in_flight += view.nbytes
            self.counts["chunks"] += 1
            self.counts["bytes"] += view.nbytes

    def _cut(self) -> None:
        self._forget_all()
        self.socket.close(linger=0)
        until = time.monotonic() + 10.0
        while True:
            try:
                self.socket = self._rebind()
                break
            except zmq.ZMQError:
                if time.monotonic() > until or self._stop.wait(0.01):
                    raise
        self._socket_is_new = True


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
