"""One source on its way into a readout: what a caller sees of it, and what is known of it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from raftwright.daq.store import cut_gaps
from raftwright.stream import wire

if TYPE_CHECKING:
    from raftwright import _core
    from raftwright.daq import SourceInfo
    from raftwright.stream.messages import End

__all__ = ["Errand", "Fetch", "Outcome", "Range", "Request", "chunk_bytes", "joined", "without"]

Outcome: TypeAlias = Literal["complete", "incomplete", "timed-out", "gone", "refused", "damaged", "cancelled"]
Range: TypeAlias = tuple[int, int]

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_RUN_ROWS = 32  # the core works on runs of so many rows


def chunk_bytes(row_bytes: int, wanted: int, limits: tuple[int, int]) -> int:
    """Whole runs of 32 rows nearest to `wanted`, else whole rows, within the limits."""
    low, high = limits
    units = (rows * row_bytes for rows in (_RUN_ROWS, 1))
    unit = next((unit for unit in units if high // unit * unit >= low), None)
    if unit is None:
        return min(max(wanted, low), high)
    return unit * min(max(round(wanted / unit), -(-low // unit)), high // unit)


class Fetch:
    """One source on its way into a readout. Read by the thread that has the receiver."""

    def __init__(
        self,
        number: int,
        image: str,
        info: SourceInfo,
        readout: _core.Readout,
        deadline: float,
        tag: object,
    ) -> None:
        self.number = number
        """Different for each fetch of a receiver."""
        self.tag = tag
        self.image = image
        self.location = info.location
        self.readout = readout
        self.deadline = deadline
        """As `time.monotonic` has it."""
        self.outcome: Outcome | None = None
        """None while it is under way.

        complete: all bytes, and their CRC is that of the server if it knows one. incomplete: all that the
        source has, which has gaps. timed-out: the deadline. gone: the image was deleted. refused: the server
        will not, or the readout does not take it. damaged: all bytes came, twice, but the CRC of the whole is
        another. cancelled: by `Receiver.cancel`.
        """
        self.reason = ""
        """A sentence on anything but `complete`."""
        self.expected = info.bytes
        self.received = 0
        """Bytes."""
        self.gaps: list[Range] = []
        """Byte ranges that did not come."""
        self.crc32c: str | None = None
        """Of all that came; None while something is missing."""
        self.source_crc32c: str | None = info.crc32c
        """As the server says."""
        self.retries = 0
        """Pulls that were asked again."""
        self.first_byte = 0.0
        self.last_byte = 0.0


class Request:
    """A pull that was sent and has not ended."""

    __slots__ = ("begin", "end", "ended", "expected", "grace")

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end
        self.expected: list[Range] = [(begin, end)] if begin < end else []
        """What still may come of it; that which was lost or came damaged is asked for with another."""
        self.ended = False
        """Its END came before something else."""
        self.grace: float | None = None
        """Until when that is waited for."""


class Errand:
    """What a receiver knows of a fetch under way."""

    def __init__(self, fetch: Fetch, now: float) -> None:
        self.fetch = fetch
        self.keys = wire.image_key(fetch.image), wire.source_key(fetch.location)
        self.chunk = 0
        """0: it was not asked for anything yet."""
        self.requests: dict[int, Request] = {}
        self.due: float | None = now
        """When to ask for what is wanted; None: nothing is."""
        self.end: End | None = None
        """The last that the server said at the end of a pull."""
        self.had = 0
        self.failures = 0
        """Times in a row that nothing new came."""
        self.problem = ""
        self.restarted = False

    def pause(self, received: int) -> float:
        """How long to wait before asking again: longer each time that nothing came."""
        if received > self.had:
            self.had = received
            self.failures = 0
            return 0.0
        self.failures += 1
        return min(_FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10), _LONGEST_PAUSE)


def joined(ranges: list[Range]) -> tuple[Range, ...]:
    """Ranges in order; those that overlap or touch as one."""
    result: list[Range] = []
    for begin, end in sorted(ranges):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif begin < end:
            result.append((begin, end))
    return tuple(result)


def without(ranges: list[Range], taken: list[Range]) -> list[Range]:
    """What is left of ranges outside of others."""
    gone = joined(taken)
    return [left for begin, end in ranges for left in cut_gaps(gone, begin, end - begin)]
