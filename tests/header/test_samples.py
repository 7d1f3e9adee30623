"""Telemetry of an exposure: which sample says how it was."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.header.samples import Sample, Samples, take
from raftwright.header.spec import Source

FIELDS = {"A.b": frozenset({"x"})}


def of(*samples: tuple[float, Any] | tuple[float, Any, float], most: int = 2048) -> Samples:
    kept = Samples(FIELDS, most)
    for sample in samples:
        kept.add("A.b", sample[0], {"x": sample[1], "y": 1}, sample[2] if len(sample) > 2 else None)
    return kept


def say(samples: Samples, begin: float | None = 100.0, end: float | None = 110.0, **source: Any) -> Any:
    return take(Source("telemetry", "A.b", "x", **source), samples.cut(begin, end).get("A.b", ()), begin, end)


def test_start_end_and_between() -> None:
    samples = of((90.0, 1), (99.0, 2), (103.0, 5), (107.0, 3), (111.0, 9), (120.0, 10))
    assert say(samples) == (2, "")
    assert say(samples, over="end") == (3, "")
    assert say(samples, over="exposure", rule="first") == (2, "")
    assert say(samples, over="exposure", rule="last") == (3, "")
    assert say(samples, over="exposure", rule="max") == (5, "")
    assert say(samples, over="exposure", rule="min") == (2, "")
    assert say(samples, over="exposure", rule="mean") == (4.0, "")


def test_what_holds_before_the_exposure_counts_where_nothing_comes_within() -> None:
    samples = of((50.0, 7))
    assert say(samples, over="exposure", rule="mean") == (7.0, "")
    assert say(samples, over="end") == (7, "")


def test_the_first_after_the_start_serves_where_none_is_before() -> None:
    samples = of((101.0, 7), (108.0, 8))
    assert say(samples) == (7, "")
    assert say(of((111.0, 7))) == (None, "missing")
    assert say(of((111.0, 7)), over="end") == (7, "")
    assert say(of((130.0, 7)), over="end") == (None, "missing")


def test_stale_telemetry_does_not_count() -> None:
    """§6: a sample whose expiresAt is past at the moment, or that is too old, is no value."""
    assert say(of((99.0, 1, 99.5))) == (None, "stale")
    assert say(of((99.0, 1, 100.5))) == (1, "")
    assert say(of((60.0, 1)), max_age=30.0) == (None, "stale")
    assert say(of((60.0, 1)), max_age=None) == (1, "")
    assert say(of((60.0, 1), (104.0, 2)), max_age=30.0) == (2, "")
    assert say(of((99.0, 1, 99.5)), over="exposure", rule="max") == (None, "stale")


def test_numbers_that_are_not_finite_do_not_spoil_the_others() -> None:
    samples = of((101.0, math.nan), (102.0, 4.0), (103.0, math.inf))
    assert say(samples, over="exposure", rule="max") == (4.0, "")
    assert say(of((101.0, math.nan)), over="exposure", rule="mean") == (None, "nan")
    assert say(of((101.0, "text")), over="exposure", rule="mean") == (None, "missing")


def test_without_a_begin_the_last_one_serves() -> None:
    assert say(of((5.0, 1), (6.0, 2)), None, None) == (2, "")


def test_doubled_and_late_samples() -> None:
    samples = of((90.0, 1), (99.0, 2), (95.0, 3), (99.0, 2), (99.0, 4))
    assert [s.time for s in samples.cut(None, None)["A.b"]] == [90.0, 95.0, 99.0]
    assert samples.counts["doubled"] == 1
    assert say(samples) == (4, "")
    assert samples.cut(None, None)["A.b"][0] == Sample(90.0, {"x": 1})


def test_unknown_topics_and_odd_times_are_counted() -> None:
    samples = of((90.0, 1))
    assert not samples.add("C.d", 90.0, {"x": 1})
    assert not samples.add("A.b", math.nan, {"x": 1})
    assert not samples.add("A.b", 91.0, {"x": 1}, math.inf)
    assert (samples.counts["unknown_topic"], samples.counts["strange"]) == (1, 2)
    assert len(samples) == 1


def test_memory_is_bounded_in_number_and_in_values() -> None:
    samples = of(*((float(t), t) for t in range(1000)), most=100)
    assert len(samples) == 100
    assert samples.counts["evicted"] == 900
    assert not samples.add("A.b", -1.0, {"x": 1})
    big = Samples(FIELDS, 100)
    for t in range(500):
        big.add("A.b", float(t), {"x": [0.0] * 1000})
    assert sum(len(s.values["x"]) for s in big.cut(None, None)["A.b"]) <= 6400
    assert big.cut(None, None)["A.b"][-1].time == 499.0


@given(
    st.lists(st.tuples(st.integers(80, 130), st.integers(0, 9)), max_size=30, unique_by=lambda s: s[0]),
    st.randoms(use_true_random=False),
)
def test_the_order_of_arrival_changes_nothing(samples: list[tuple[int, int]], order: random.Random) -> None:
    """D012."""
    shuffled = samples[:]
    order.shuffle(shuffled)
    first, second = of(*sorted(samples)), of(*shuffled)
    assert first.cut(None, None) == second.cut(None, None)
    for over in ("start", "end", "exposure"):
        assert say(first, over=over, rule="max") == say(second, over=over, rule="max")


@pytest.mark.parametrize("begin", [None, 100.0])
def test_what_is_kept_for_later(begin: float | None) -> None:
    samples = of((90.0, 1), (99.0, 2), (104.0, 3))
    kept = [sample.time for _, sample in samples.since(begin)]
    assert kept == ([104.0] if begin is None else [99.0, 104.0])
