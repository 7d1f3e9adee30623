"""Latencies: the limits they are judged by, and what is said about many of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["BUCKETS", "LATE", "histogram", "percentile"]

LATE: Final = 10.0
"""Seconds after the end of readout; what is not settled then is late."""

BUCKETS: Final = (3, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 45, 60)
"""Upper ends in seconds of the bins that late files are counted in; a last bin has what is above."""


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share is not above; None of nothing. `ordered` from small to
    large."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def histogram(values: Iterable[float], ends: Sequence[float] = BUCKETS) -> list[int]:
    """How many lie in each bin (below, end]; the last is above all ends."""
    from bisect import bisect_left

    counts = [0] * (len(ends) + 1)
    for value in values:
        counts[bisect_left(ends, value)] += 1
    return counts
