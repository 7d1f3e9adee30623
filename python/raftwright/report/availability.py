"""Availability: what part of the time in which images were taken the archive kept up.

The denominator is observing time. Who is down while nobody observes costs nothing; who is up and does not
keep up costs as much as who is down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Availability", "Interval", "availability", "merged", "observing"]

Interval: TypeAlias = tuple[float, float]
"""Begin and end, in seconds of one scale."""

PAUSE: Final = 600.0
"""Seconds without an image after which nobody observes."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Of a night, or of any time."""

    observed_s: float
    down_s: float
    """Of the observed time."""
    longest_down_s: float
    outages: tuple[Interval, ...]

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where nobody observed."""
        return None if self.observed_s <= 0 else 1.0 - self.down_s / self.observed_s


def merged(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """The same time in intervals that neither touch nor overlap, nor are nearer than `gap`."""
    found: list[Interval] = []
    for begin, end in sorted(one for one in intervals if one[1] >= one[0]):
        if found and begin - found[-1][1] <= gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def observing(images: Iterable[Interval], pause: float = PAUSE) -> list[Interval]:
    """When images were taken: from the begin of each to its end of readout, pauses of less than ten minutes
    included."""
    return merged(images, pause)


def availability(observed: Iterable[Interval], down: Iterable[Interval]) -> Availability:
    """What part of the observed time was not down."""
    times = merged(observed)
    cut = [
        (max(begin, first), min(end, last))
        for begin, end in merged(down)
        for first, last in times
        if min(end, last) > max(begin, first)
    ]
    cut = merged(cut)
    return Availability(
        observed_s=sum(end - begin for begin, end in times),
        down_s=sum(end - begin for begin, end in cut),
        longest_down_s=max((end - begin for begin, end in cut), default=0.0),
        outages=tuple(cut),
    )
