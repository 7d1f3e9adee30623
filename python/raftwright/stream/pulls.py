"""One pull: which bytes of a source are to be sent next, and when it has come to its end."""

from __future__ import annotations

from collections import deque

from raftwright.daq.store import Source, cut_gaps
from raftwright.stream.messages import Pull as Order
from raftwright.stream.shelf import Shelved

__all__ = ["PATIENCE", "Pull"]

PATIENCE = 0.1
"""Seconds that a chunk which is not whole yet may wait for its rest."""


class Pull:
    """The bytes [offset, offset + length) of a source, for one peer. Owned by one thread."""

    __slots__ = (
        "chunk",
        "credit",
        "end",
        "final",
        "held",
        "image_key",
        "last_message",
        "offset",
        "order",
        "part_since",
        "paused_until",
        "peer",
        "ranges",
        "ready",
        "request",
        "sent",
        "sequence",
        "shelved",
        "silent_until",
        "source",
        "source_key",
        "todo",
    )

    def __init__(
        self,
        peer: bytes,
        request: int,
        order: Order,
        keys: tuple[bytes, bytes],
        extent: tuple[int, int],
        shelved: Shelved,
        source: Source,
        now: float,
    ) -> None:
        self.peer = peer
        self.request = request
        self.order = order
        self.image_key, self.source_key = keys
        self.offset, length = extent
        self.end = self.offset + length
        self.chunk = order.chunk
        self.credit = order.credit
        self.shelved = shelved
        self.source = source
        self.sequence = 0
        self.sent = 0
        self.final = False
        """Nothing will be added to `ranges`."""
        self.ranges: deque[tuple[int, int]] = deque()
        """What can be sent at once."""
        self.todo: list[tuple[int, int]] = [(self.offset, self.end)] if length else []
        """What was not there yet."""
        self.last_message = now
        self.part_since: float | None = None
        """Since when a part of a chunk waits for its rest."""
        self.ready = False
        """Stands in the queue of its peer."""
        self.paused_until = 0.0
        self.silent_until = 0.0
        self.held: list[tuple[bytes, bytes]] = []
        """Messages kept back by an injected fault."""

    def refresh(self, now: float) -> None:
        """Asks the source for what has arrived. Raises what the source raises."""
        if self.final:
            return
        final = self.source.final  # before the ranges: what was final has all of them
        if self.todo:
            begin = self.todo[0][0]
            arrived = self.source.available(begin, self.todo[-1][1] - begin)
            self._take(arrived, final, now)
        if final:
            self.final = True
            self.todo = []

    def _take(self, arrived: list[tuple[int, int]], final: bool, now: float) -> None:
        if final and len(self.todo) == 1:
            self.ranges.extend(arrived)
            return
        patience_ended = self.part_since is not None and now - self.part_since >= PATIENCE
        withheld = False
        left: list[tuple[int, int]] = []
        for begin, end in self.todo:
            taken: list[tuple[int, int]] = []
            for first, last in arrived:
                low, high = max(first, begin), min(last, end)
                if low >= high:
                    continue
                rest = (high - self.offset) % self.chunk
                if rest and high != end and not final and not patience_ended:
                    high -= rest  # what is missing of this chunk may come at once
                    withheld = True
                if low < high:
                    taken.append((low, high))
            self.ranges.extend(taken)
            left.extend(cut_gaps(tuple(taken), begin, end - begin))
        self.todo = left
        if not withheld:
            self.part_since = None
        elif self.part_since is None or self.ranges:
            self.part_since = now

    def piece(self) -> tuple[int, int] | None:
        """The next chunk [begin, end), if there is one and the credit is enough for it."""
        if not self.ranges:
            return None
        begin, end = self.ranges[0]
        end = min(end, begin + self.chunk - (begin - self.offset) % self.chunk)
        return (begin, end) if end - begin <= self.credit else None

    def advance(self, begin: int, end: int, now: float) -> None:
        """The chunk was sent."""
        _, last = self.ranges[0]
        if end == last:
            self.ranges.popleft()
        else:
            self.ranges[0] = (end, last)
        self.credit -= end - begin
        self.sent += end - begin
        self.last_message = now

    @property
    def ended(self) -> bool:
        """All that the source has was sent."""
        return self.final and not self.ranges

    def number(self) -> int:
        """Sequence number of the next message."""
        number = self.sequence
        self.sequence += 1
        return number
