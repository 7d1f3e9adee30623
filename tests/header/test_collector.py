"""Images under way: events in any order, twice, late, never; bounded in memory."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observatory import BEGIN, Observatory, feed_telemetry, name_of, values_of

from raftwright.header import build_header
from raftwright.header.collector import Collector, Limits

COMCAM = Observatory()
EXPOSURE = COMCAM.exposure(1)
EVENTS = COMCAM.events(EXPOSURE)
KINDS = ("startIntegration", "startReadout", "endReadout", "endOfImageTelemetry")
OBSID = str(EXPOSURE.name)


def document(collector: Collector, obsid: str = OBSID) -> bytes:
    return build_header(COMCAM.spec, collector.snapshot(obsid), created=1_800_000_000_000_000_000).data


def finish(collector: Collector, obsid: str = OBSID, now: float = 0.0) -> None:
    """As the service does."""
    collector.built(obsid, collector.snapshot(obsid).complete, now)


def test_a_usual_image() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for n, kind in enumerate(KINDS):
        assert collector.due(float(n)) == []
        assert collector.event(kind, EVENTS[kind], float(n)) is None
    assert collector.due(3.0) == [OBSID]
    assert collector.due(3.0) == []
    collector.built(OBSID, True, 3.1)
    assert [tracked.state for tracked in collector.under_way()] == ["complete"]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(KINDS)), ids=lambda o: "-".join(k[3:6] for k in o)
)
def test_all_orders_give_the_same_document(order: tuple[str, ...]) -> None:
    """D012; F22 for telemetry."""
    usual = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        usual.event(kind, EVENTS[kind], 0.0)
    mixed = COMCAM.collector()
    for kind in order[:2]:
        mixed.event(kind, EVENTS[kind], 0.0)
    samples = list(COMCAM.simulated.telemetry(EXPOSURE))
    random.Random(str(order)).shuffle(samples)
    feed_telemetry(mixed, samples)
    for kind in order[2:]:
        mixed.event(kind, EVENTS[kind], 0.0)
    assert mixed.due(1.0) == [OBSID]
    first, second = mixed.snapshot(OBSID), usual.snapshot(OBSID)
    first.notes, second.notes = [], []
    built = [build_header(COMCAM.spec, image, created=1_800_000_000_000_000_000) for image in (first, second)]
    assert built[0].data == built[1].data
    assert built[0].state == "complete"


def test_an_end_without_a_start_is_ignored_and_counted() -> None:
    collector = Collector(COMCAM.spec)
    assert collector.event("endOfImageTelemetry", EVENTS["endOfImageTelemetry"], 0.0) is None
    assert collector.due(29.0) == []
    assert len(collector) == 1
    assert collector.due(31.0) == []
    assert len(collector) == 0
    assert collector.counts["end_without_start"] == 1


def test_ten_thousand_images_leave_nothing_behind() -> None:
    """D065: a night's memory is that of its first hundred images, whatever becomes of them."""
    import tracemalloc

    collector = Collector(COMCAM.spec, Limits(images=64, samples=64))
    fields = {kind: dict(EVENTS[kind]) for kind in KINDS}
    sizes = []
    tracemalloc.start()
    try:
        for number in range(1, 10_001):
            obsid, now = f"CC_O_20261122_{number:06}", 10.0 * number
            collector.daq(obsid, TRIGGERED, now)
            for kind in KINDS[: number % 5]:
                collector.event(kind, {**fields[kind], "imageName": obsid}, now)
            for due in collector.due(now):
                finish(collector, due, now)
            assert len(collector) <= 64
            if number in (1000, 10_000):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] < 1.2 * sizes[0] + 50_000
    assert collector.counts["dropped"] == 0


TRIGGERED = {"id": "00ab", "timestamp": "2026-11-23T01:03:18.789", "sources": {}}


def test_an_image_of_which_nothing_is_told_has_a_document_of_the_daq() -> None:
    """D104: partial, at the deadline; telemetry is that of the trigger, not of when it was written."""
    collector = COMCAM.collector([EXPOSURE, COMCAM.exposure(2)])
    collector.daq(OBSID, TRIGGERED)
    assert len(collector) == 0, "what the DAQ has since long is no new image"
    collector.daq(OBSID, TRIGGERED, 0.0)
    collector.daq("MC_O_20261122_000001", TRIGGERED, 0.0)
    collector.daq("focus sweep #3", TRIGGERED, 0.0)
    assert (collector.counts["other_camera"], collector.counts["strange_name"]) == (1, 1)
    assert collector.due(29.9) == []
    assert collector.next_due(29.9) == pytest.approx(0.1)
    assert collector.due(30.0) == [OBSID]
    values = values_of(document(collector))
    assert (values["OBSID"], values["HDRSTATE"], values["IMAGETAG"]) == (OBSID, "partial", "00ab")
    assert values["DATE-TRG"] == "2026-11-23T01:03:18.789"
    assert values.get("EXPTIME") is None
    assert (values["RASTART"], values["AZSTART"]) == (values["RAEND"], values["AZEND"])
    told = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        told.event(kind, EVENTS[kind], 0.0)
    assert values["AZEND"] == pytest.approx(values_of(document(told))["AZEND"], abs=1e-3)
    problems = build_header(COMCAM.spec, collector.snapshot(OBSID)).problems
    assert "known from the DAQ alone" in " ".join(map(str, problems))
    finish(collector, now=30.0)
    for kind in KINDS:  # they come after all
        collector.event(kind, EVENTS[kind], 40.0)
    assert collector.due(41.0) == [OBSID]
    whole = build_header(COMCAM.spec, collector.snapshot(OBSID))
    assert whole.state == "complete"
    assert "DAQ alone" not in " ".join(map(str, whole.problems))


def test_an_end_without_a_start_counts_where_the_daq_has_the_image() -> None:
    for first in (True, False):
        collector = COMCAM.collector([EXPOSURE])
        if first:
            collector.daq(OBSID, TRIGGERED, 0.0)
        collector.event(KINDS[3], EVENTS[KINDS[3]], 0.0)
        assert collector.due(0.05) == []
        if not first:
            collector.daq(OBSID, TRIGGERED, 0.1)
        assert collector.due(0.3) == [OBSID]
        assert build_header(COMCAM.spec, collector.snapshot(OBSID)).state == "complete"


def test_a_partial_document_that_cannot_be_stored_is_tried_again_after_its_pause() -> None:
    """Not at once and again and again, though its deadline is over."""
    collector = COMCAM.collector([EXPOSURE])
    collector.event(KINDS[2], EVENTS[KINDS[2]], 0.0)
    assert collector.due(30.0) == [OBSID]
    collector.failed(OBSID, 30.0, 8.0)
    assert collector.due(30.1) == []
    assert collector.next_due(37.5) == pytest.approx(0.5)
    assert collector.due(38.0) == [OBSID]


@pytest.mark.parametrize("lost", KINDS[:3])
def test_one_lost_event_costs_no_header(lost: str) -> None:
    """Also where the start itself is lost: the others have what it says."""
    collector = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        if kind != lost:
            collector.event(kind, EVENTS[kind], 0.0)
    assert collector.due(0.05) == []
    assert collector.due(0.2) == [OBSID]
    built = build_header(COMCAM.spec, collector.snapshot(OBSID))
    assert built.lacking == ()
    assert built.values["EXPTIME"] == 15.0


def test_any_number_of_images_overlap() -> None:
    collector = Collector(COMCAM.spec)
    exposures = [COMCAM.exposure(n) for n in range(1, 21)]
    steps = [(kind, exposure) for exposure in exposures for kind in KINDS]
    steps.sort(key=lambda step: (step[1].name.seqnum + 5 * KINDS.index(step[0]), step[1].name.seqnum))
    for exposure in exposures:
        feed_telemetry(collector, COMCAM.simulated.telemetry(exposure))
    for kind, exposure in steps:
        assert collector.event(kind, COMCAM.events(exposure)[kind], 1.0) is None
    assert sorted(collector.due(1.0)) == [str(e.name) for e in exposures]
    for exposure in exposures:
        values = values_of(document(collector, str(exposure.name)))
        assert values["OBSID"] == str(exposure.name)
        assert values["OBJECT"] == f"Field {exposure.name.seqnum % 7}"


def test_doubled_events_change_nothing() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        collector.event(kind, EVENTS[kind], 0.0)
        collector.event(kind, dict(EVENTS[kind]), 0.0)
    assert collector.counts["doubled"] == 4
    assert collector.due(0.0) == [OBSID]
    finish(collector)
    for kind in KINDS:
        collector.event(kind, EVENTS[kind], 1.0)
    assert collector.due(100.0) == []


def test_the_same_event_with_another_content_is_told_and_makes_it_be_built_again() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        collector.event(kind, EVENTS[kind], 0.0)
    assert collector.due(0.0) == [OBSID]
    finish(collector)
    collector.event(KINDS[3], {**EVENTS[KINDS[3]], "darkTime": 15.5}, 1.0)
    assert collector.counts["contradicting"] == 1
    assert collector.due(1.6) == [OBSID]
    image = collector.snapshot(OBSID)
    assert image.notes == ["endOfImageTelemetry came twice and differs in darkTime; the later counts"]
    assert values_of(build_header(COMCAM.spec, image).data)["DARKTIME"] == 15.5


@pytest.mark.parametrize(
    ("end", "states"),
    [(0.3, ["complete"]), (10.0, ["complete"]), (31.0, ["partial", "complete"]), (None, ["partial"])],
)
def test_the_end_at_0_3_10_31_s_and_never(end: float | None, states: list[str]) -> None:
    """N38: the deadline is 30 s after the end of readout. D104."""
    collector = COMCAM.collector([EXPOSURE])
    for kind, moment in zip(KINDS[:3], (0.0, 15.0, 17.0), strict=True):
        collector.event(kind, EVENTS[kind], moment)
    found = []
    for step in range(1200):
        now = 17.0 + step / 10
        if end is not None and abs(now - 17.0 - end) < 0.01:
            collector.event(KINDS[3], EVENTS[KINDS[3]], now)
        for obsid in collector.due(now):
            image = collector.snapshot(obsid)
            found.append("complete" if image.complete else "partial")
            if not image.complete:
                assert 46.95 <= now <= 47.15
            collector.built(obsid, image.complete, now)
    assert found == states


def test_a_start_and_nothing_else() -> None:
    """The camera's own timeout, then the deadline."""
    collector = Collector(COMCAM.spec)
    collector.event("startIntegration", {**EVENTS["startIntegration"], "timeout": 100.0}, 0.0)
    assert collector.due(129.9) == []
    assert collector.due(130.1) == [OBSID]
    finish(collector, now=130.1)
    collector.event("endReadout", EVENTS["endReadout"], 140.0)
    assert collector.due(169.0) == []
    assert collector.due(170.1) == [OBSID]


@pytest.mark.parametrize("timeout", [float("nan"), -5.0, 1e300, "long", None])
def test_timeouts_that_cannot_be(timeout: Any) -> None:
    collector = Collector(COMCAM.spec)
    collector.event("startIntegration", {**EVENTS["startIntegration"], "timeout": timeout}, 0.0)
    assert collector.due(44.0) == []
    assert collector.due(46.0) == [OBSID]


@pytest.mark.parametrize(
    "name", ["", "CC_O_20261122", "../../etc/passwd", "CC_O_20261399_000001", "x" * 9999, 7, None]
)
def test_names_that_are_none_are_refused(name: Any) -> None:
    collector = Collector(COMCAM.spec)
    assert "is not an image name" in str(collector.event(KINDS[0], {"imageName": name}, 0.0))
    assert collector.counts["strange_name"] == 1
    assert len(collector) == 0


def test_other_cameras_and_kinds() -> None:
    collector = Collector(COMCAM.spec)
    assert "of another camera" in str(collector.event(KINDS[0], {"imageName": name_of(1, "LATISS")}, 0.0))
    assert collector.event("imageStored", {"imageName": OBSID}, 0.0) is not None
    assert (collector.counts["other_camera"], collector.counts["unknown_kind"]) == (1, 1)


def test_the_number_of_images_is_bounded_and_none_is_lost_in_silence() -> None:
    collector = Collector(COMCAM.spec, Limits(images=10))
    built = []
    for n in range(1, 101):
        collector.event(KINDS[0], COMCAM.events(COMCAM.exposure(n))[KINDS[0]], float(n) / 1000)
        for obsid in collector.due(float(n) / 1000):
            built.append(obsid)
            finish(collector, obsid, float(n) / 1000)
        assert len(collector) <= 20
    assert collector.counts["forced"] == len(built) == 90
    assert collector.counts["dropped"] == 0
    for n in range(200, 300):  # ends of images that nobody began displace no image
        collector.event(KINDS[3], {**EVENTS[KINDS[3]], "imageName": name_of(n)}, 1.0)
    open_now = {str(t.image.name) for t in collector.under_way() if t.state == "open"}
    assert open_now
    assert all(int(name[-6:]) <= 100 for name in open_now)
    assert len(collector) <= 20


def test_finished_images_are_forgotten_after_a_while() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        collector.event(kind, EVENTS[kind], 0.0)
    collector.due(0.0)
    finish(collector)
    collector.due(599.0)
    assert len(collector) == 1
    collector.due(601.0)
    assert len(collector) == 0


def test_an_image_that_cannot_be_stored_is_tried_again() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for kind in KINDS:
        collector.event(kind, EVENTS[kind], 0.0)
    assert collector.due(0.0) == [OBSID]
    collector.failed(OBSID, 0.0, 2.0)
    assert collector.next_due(0.0) == 1.0
    assert collector.due(1.9) == []
    assert collector.due(2.0) == [OBSID]


def test_what_comes_while_it_is_built_is_not_lost() -> None:
    collector = COMCAM.collector([EXPOSURE])
    for kind in (KINDS[0], KINDS[2], KINDS[3]):
        collector.event(kind, EVENTS[kind], 0.0)
    assert collector.due(0.2) == [OBSID]
    collector.snapshot(OBSID)
    collector.event(KINDS[1], EVENTS[KINDS[1]], 0.3)
    assert collector.due(5.0) == []
    collector.built(OBSID, True, 5.0)
    assert collector.due(6.0) == [OBSID]


def test_losses_that_are_known_are_said_in_the_documents() -> None:
    collector = COMCAM.collector([EXPOSURE])
    collector.event(KINDS[0], EVENTS[KINDS[0]], 0.0)
    collector.missed(3)
    assert collector.snapshot(OBSID).notes == ["events were lost while it was collected"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(1, 4),
        st.sampled_from(["usual", "other", "odd"]),
        st.floats(0, 40),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=40)
def test_nothing_that_comes_can_break_it(steps: list[tuple[str, int, str, float]]) -> None:
    """Every image that was begun is built, whatever else comes."""
    collector = Collector(COMCAM.spec, Limits(images=3))
    now, begun, built = 0.0, set(), set()
    for kind, number, how, pause in steps:
        now += pause
        exposure = COMCAM.exposure(number)
        fields: dict[str, Any] = COMCAM.events(exposure)[kind]
        if how == "other":
            fields = {**fields, "darkTime": 99.0}
        if how == "odd":
            fields = {
                "imageName": str(exposure.name),
                "exposureTime": "NaN",
                "additionalKeys": 7,
                "timeout": [],
            }
        collector.event(kind, fields, now, BEGIN)
        if kind != KINDS[3]:
            begun.add(str(exposure.name))
        for obsid in collector.due(now):
            built.add(obsid)
            built_header = build_header(COMCAM.spec, collector.snapshot(obsid))
            assert built_header.values["OBSID"] == obsid
            collector.built(obsid, built_header.state == "complete", now)
    for obsid in collector.due(now + 1e6):
        built.add(obsid)
    assert begun <= built
