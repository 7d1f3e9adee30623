"""Telemetry as it came: of each topic the last samples, and what they say of an exposure."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from raftwright.header.spec import Source

__all__ = ["Sample", "Samples", "Taken", "standing", "take"]

MOST: Final = 2048
"""Samples of one topic that are kept: half an hour at one a second."""
_MOST_VALUES: Final = 64
"""Times as many values of one topic: those with long lists are fewer."""
_AFTER: Final = 10.0
"""Seconds after the end in which a sample still says how it was at the end, where there is none before."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of a topic. Times are seconds since 1970-01-01T00:00:00 TAI."""

    time: float
    values: Mapping[str, Any]
    expires: float | None = None


Taken: TypeAlias = "tuple[Any, str]"
"""A value, and where there is none why: `missing`, `stale`, `nan`."""


class Samples:
    """The last samples of the topics that are asked for. It belongs to one thread."""

    def __init__(self, fields: Mapping[str, frozenset[str]], most: int = MOST) -> None:
        self._fields = fields
        self._most = most
        self._topics: dict[str, list[Sample]] = {}
        self._weights: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        """`samples`, `unknown_topic`, `doubled`, `evicted`, `strange`."""

    def add(self, topic: str, time: float, values: Mapping[str, Any], expires: float | None = None) -> bool:
        """Takes a sample; False where nobody asks for it, or it is there already."""
        wanted = self._fields.get(topic)
        if wanted is None:
            self.counts["unknown_topic"] += 1
            return False
        if not math.isfinite(time) or (expires is not None and not math.isfinite(expires)):
            self.counts["strange"] += 1
            return False
        sample = Sample(time, {name: values[name] for name in wanted if name in values}, expires)
        kept = self._topics.setdefault(topic, [])
        if not kept or time > kept[-1].time:
            kept.append(sample)
        else:
            at = bisect.bisect_left(kept, time, key=lambda s: s.time)
            if at < len(kept) and kept[at].time == time:
                if kept[at] == sample:
                    self.counts["doubled"] += 1
                    return False
                self._weights[topic] -= _weight(kept[at])
                kept[at] = sample
            elif len(kept) >= self._most and at == 0:
                self.counts["evicted"] += 1
                return False
            else:
                kept.insert(at, sample)
        self._weights[topic] += _weight(sample)
        while len(kept) > self._most or (len(kept) > 1 and self._weights[topic] > _MOST_VALUES * self._most):
            self._weights[topic] -= _weight(kept[0])
            del kept[0]
            self.counts["evicted"] += 1
        self.counts["samples"] += 1
        return True

    def cut(self, begin: float | None, end: float | None) -> dict[str, list[Sample]]:
        """What counts for an exposure: of each topic the last sample before it, all within, the first
        after."""
        found = {}
        for topic, kept in self._topics.items():
            first = 0 if begin is None else max(0, bisect.bisect_right(kept, begin, key=_time) - 1)
            last = len(kept) if end is None else bisect.bisect_right(kept, end, key=_time) + 1
            found[topic] = kept[first:last]
        return found

    def latest(self) -> dict[str, Sample]:
        """The last sample of each topic."""
        return {topic: kept[-1] for topic, kept in self._topics.items()}

    def since(self, moment: float | None) -> list[tuple[str, Sample]]:
        """All samples that count for what began at a moment or later (None: for nothing but what comes)."""
        if moment is None:
            return list(self.latest().items())
        cut = self.cut(moment, None)
        return [(topic, sample) for topic, kept in cut.items() for sample in kept]

    def __len__(self) -> int:
        return sum(map(len, self._topics.values()))


def _time(sample: Sample) -> float:
    return sample.time


def _weight(sample: Sample) -> int:
    """Values in it; a text counts by its length."""
    weight = 1
    for value in sample.values.values():
        weight += len(value) if isinstance(value, list | tuple) else 1
        weight += len(value) // 16 if isinstance(value, str) else 0
    return weight


def standing(
    kept: Sequence[Sample], moment: float | None, until: float | None, max_age: float | None
) -> tuple[Sample | None, str]:
    """The sample that says how it was at a moment: the last one before, if it had not expired and was not
    too old; else the first one after, up to `until`."""
    if not kept:
        return None, "missing"
    if moment is None:
        return kept[-1], ""
    at = bisect.bisect_right(kept, moment, key=_time)
    reason = "missing"
    if at:
        sample = kept[at - 1]
        fresh = max_age is None or moment - sample.time <= max_age
        if fresh and (sample.expires is None or sample.expires >= moment):
            return sample, ""
        reason = "stale"
    if at < len(kept) and (until is None or kept[at].time <= until):
        return kept[at], ""
    return None, reason


def take(source: Source, kept: Sequence[Sample], begin: float | None, end: float | None) -> Taken:
    """What a topic says to a source, of the exposure from `begin` to `end`; lists as they are."""
    if source.over == "end":
        until = None if end is None else end + _AFTER
        sample, reason = standing(kept, end, until, source.max_age)
        return (None, reason) if sample is None else (sample.values.get(source.field), "")
    sample, reason = standing(kept, begin, end, source.max_age)
    if source.over == "start" or begin is None:
        return (None, reason) if sample is None else (sample.values.get(source.field), "")
    within = [s for s in kept if begin <= s.time and (end is None or s.time <= end)]
    if sample is not None and sample not in within and not (within and source.rule == "mean"):
        within.insert(0, sample)
    values = [s.values[source.field] for s in within if s.values.get(source.field) is not None]
    if not values:
        return None, reason or "missing"
    return _ruled(source, values)


def _ruled(source: Source, values: list[Any]) -> Taken:
    if source.rule == "first":
        return values[0], ""
    if source.rule == "last":
        return values[-1], ""
    if source.index is not None:
        values = [v[source.index] for v in values if isinstance(v, list | tuple) and source.index < len(v)]
    numbers = [v for v in values if isinstance(v, int | float)]
    finite = [v for v in numbers if math.isfinite(v)]
    if not finite:
        return None, "nan" if numbers else "missing"
    if source.rule == "mean":
        return math.fsum(finite) / len(finite), ""
    return (min if source.rule == "min" else max)(finite), ""
