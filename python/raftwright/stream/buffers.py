"""Memory on its way out: what ZeroMQ still holds of each peer, and buffers that come back when it is sent."""

from __future__ import annotations

import os
import weakref
from collections import deque
from typing import TypeAlias

__all__ = ["Outbox"]

_Ref: TypeAlias = "weakref.ref[memoryview]"


class Outbox:
    """Counts bytes in flight and lends buffers, both bounded. Owned by one thread; releases come from others.

    A chunk that is sent without a copy belongs to ZeroMQ until its memoryview is let go of. `fd` becomes
    readable when that happens while `waiting` is set.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        """Bytes that buffers may have in all."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.waiting = False
        self.in_flight = 0
        """Bytes that ZeroMQ holds, as far as `collect` has seen."""
        self._lent = 0
        self._pooled = 0
        self._free: dict[int, list[bytearray]] = {}
        self._released: deque[tuple[bytes, int, bytearray | None]] = deque()
        self._alive: dict[int, _Ref] = {}
        self._serial = 0

    def buffer(self, size: int, *, needed: bool = False) -> bytearray | None:
        """One of at least `size` bytes, or None: all memory is under way. With `needed`, one is made then."""
        rounded = -(-size // 65536) * 65536
        free = self._free.get(rounded)
        if free:
            self._pooled -= rounded
            self._lent += rounded
            return free.pop()
        if self._lent + rounded > self.memory and self._lent and not needed:
            return None
        if self._lent + self._pooled + rounded > self.memory:
            self._free.clear()
            self._pooled = 0
        self._lent += rounded
        return bytearray(rounded)

    def give_back(self, buffer: bytearray) -> None:
        """Returns a buffer that was not sent."""
        self._lent -= len(buffer)
        self._keep(buffer)

    def watch(self, peer: bytes, body: memoryview, buffer: bytearray | None) -> None:
        """Counts a body that is about to be sent, until nobody holds that memoryview any more."""
        self.in_flight += body.nbytes
        self._serial += 1
        serial, size, released, alive = self._serial, body.nbytes, self._released, self._alive

        def gone(_: object) -> None:
            alive.pop(serial, None)
            released.append((peer, size, buffer))
            if self.waiting:
                self.wake()

        alive[serial] = weakref.ref(body, gone)

    def wake(self) -> None:
        """Makes `fd` readable. From any thread."""
        fd = self.fd
        if fd >= 0:
            os.eventfd_write(fd, 1)

    def drain(self) -> None:
        """Makes `fd` unreadable again."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return

    def collect(self) -> list[tuple[bytes, int]]:
        """(peer, bytes) of what was sent since the last call."""
        done = []
        while self._released:
            peer, size, buffer = self._released.popleft()
            self.in_flight -= size
            if buffer is not None:
                self._lent -= len(buffer)
                self._keep(buffer)
            done.append((peer, size))
        return done

    @property
    def held(self) -> int:
        """Bytes of buffers, lent or free."""
        return self._lent + self._pooled

    def _keep(self, buffer: bytearray) -> None:
        if self._lent + self._pooled + len(buffer) <= self.memory:
            self._pooled += len(buffer)
            self._free.setdefault(len(buffer), []).append(buffer)

    def close(self) -> None:
        """Lets go of the descriptor; what is still under way comes back unseen."""
        self.waiting = False
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
