"""Who pulls at a data socket, and how much of what a client may have."""

from __future__ import annotations

from collections import deque

from raftwright.stream import wire
from raftwright.stream.pulls import Pull

__all__ = ["CutError", "FullError", "GoneError", "Limits", "NoBufferError", "Peer"]


class Limits:
    """What a server grants, all in bytes but `pulls` and `heartbeat` (seconds)."""

    def __init__(
        self,
        *,
        chunk: tuple[int, int] = (wire.MIN_CHUNK, wire.MAX_CHUNK),
        credit: int = 256 << 20,
        pulls: int = 256,
        heartbeat: float = 1.0,
        window: int = 32 << 20,
        memory: int = 128 << 20,
    ) -> None:
        self.chunk = chunk
        """Smallest and largest."""
        self.credit = credit
        """Most that may be outstanding for one pull."""
        self.pulls = pulls
        """Of one connection."""
        self.heartbeat = heartbeat
        self.window = max(window, 2 * chunk[1])
        """What ZeroMQ may hold for one peer."""
        self.memory = max(memory, 2 * chunk[1])
        """Buffers of one data socket."""


class Peer:
    """One connection, as a data socket sees it."""

    __slots__ = ("identity", "in_flight", "paused_until", "pulls", "queue", "waiting")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.pulls: dict[int, Pull] = {}
        self.queue: deque[Pull] = deque()
        """Those of which something can be sent now."""
        self.in_flight = 0
        """Bytes that ZeroMQ holds for it."""
        self.paused_until = 0.0
        self.waiting = False
        """Stands in a queue of peers."""


class NoBufferError(Exception):
    """All buffers are under way."""


class FullError(Exception):
    """The peer's queue is full."""


class GoneError(Exception):
    """The peer cannot be reached."""


class CutError(Exception):
    """All connections of the socket were cut, on purpose; it is a new one now."""
