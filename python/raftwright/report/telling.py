"""What the report of a night says: headings, sentences, tables. Markdown and HTML are made of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from raftwright.report.latency import BUCKETS, LATE
from raftwright.report.night import ImageFigures, NightFigures
from raftwright.report.times import clock, day, iso, span

__all__ = ["Part", "Table", "markup", "parts", "title"]

_MOST_ROWS: Final = 50


@dataclass(frozen=True, kw_only=True)
class Table:
    """Heads and rows; columns in `right` are numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()
    colours: Sequence[str] = ()
    """Of each row, where they have any."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the report."""

    name: str
    """For whoever puts a plot beside it."""
    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = field(default_factory=tuple)


def parts(figures: NightFigures) -> Iterator[Part]:
    """All parts in their order."""
    yield _summary(figures)
    yield _scorecard(figures)
    yield _latencies(figures)
    yield _late(figures)
    yield _losses(figures)
    yield _headers(figures)
    yield _destinations(figures)
    yield _incidents(figures)
    yield _available(figures)


def _summary(figures: NightFigures) -> Part:
    images = figures.images
    if not images:
        return Part(name="summary", title="Summary", lines=["The ledger has no image of this night."])
    instruments = ", ".join(f"{name} {number:,}" for name, number in sorted(figures.instruments.items()))
    types = ", ".join(f"{name} {number:,}" for name, number in sorted(figures.types.items()))
    states = ("complete", "incomplete", "lost", "announced", "capturing")
    rows = [[state, f"{figures.states.get(state, 0):,}"] for state in states if figures.states.get(state)]
    first, last = iso(images[0].zero_tai), iso(images[-1].zero_tai)
    whole = f"{figures.present:,} of {figures.detectors:,} detectors are there with every pixel"
    if figures.missing_pixels:
        whole += f"; {figures.missing_pixels:,} pixels are missing in others"
    lines = [
        f"{_count(len(images), 'image')} ({instruments}), read out from {first} to {last} TAI.",
        f"Image types: {types}.",
        f"{whole}. {_count(figures.files, 'raw file')}, {_size(figures.bytes)}.",
    ]
    table = Table(heads=("State", "Images"), rows=rows, right=frozenset({1}))
    return Part(name="summary", title="Summary", lines=lines, tables=[table])


def _scorecard(figures: NightFigures) -> Part:
    rows, colours = [], []
    for one in figures.scores:
        share = "-" if one.share is None else f"{100 * one.share:.2f} %"
        rows.append([one.colour.value, one.name, share, f"{one.bad:,.0f} of {one.of:,.0f} {one.unit}"])
        colours.append(one.colour.value)
    table = Table(
        heads=("", "Problem", "Share", "Counted"), rows=rows, right=frozenset({2, 3}), colours=colours
    )
    lines = ["Green up to 1 % of problems, yellow up to 2 %, red above."]
    return Part(name="scorecard", title="Scorecard", lines=lines, tables=[table])


def _latencies(figures: NightFigures) -> Part:
    rows = [
        [
            stage.name,
            f"{stage.number:,}",
            *(_s(v) for v in (stage.p50_s, stage.p95_s, stage.p99_s, stage.most_s)),
        ]
        for stage in figures.stages
    ]
    strange = sum(stage.strange for stage in figures.stages)
    lines = []
    unknown = sum(1 for image in figures.images if not image.zero_known)
    if unknown:
        of = _count(unknown, "image")
        lines.append(f"Of {of} the end of readout is not known: they are not in what begins with it.")
    if strange:
        lines.append(
            f"{_count(strange, 'time')} below zero are left out: clocks do not agree; look after their "
            "synchronisation and at who writes UTC for TAI."
        )
    heads = ("Step", "Images", "50 %", "95 %", "99 %", "longest")
    tables = [Table(heads=heads, rows=rows, right=frozenset(range(1, 6)))]
    if figures.buckets:
        bins = [f"≤ {end}" for end in BUCKETS] + [f"> {BUCKETS[-1]}"]
        names = list(figures.buckets)
        tables.append(
            Table(
                heads=("Seconds after readout", *(after_readout(name) for name in names)),
                rows=[
                    [told, *(f"{figures.buckets[name][n]:,}" for name in names)]
                    for n, told in enumerate(bins)
                    if any(figures.buckets[name][n] for name in names)
                ],
                right=frozenset(range(1, len(names) + 1)),
            )
        )
    return Part(name="latencies", title="Latencies", lines=lines, tables=tables)


def after_readout(stage: str) -> str:
    """Name of a stage that begins with the end of readout, where that is said already."""
    return stage.removeprefix("end of readout to ")


def _late(figures: NightFigures) -> Part:
    title = f"Later than {LATE:g} s"
    if not figures.late:
        return Part(name="late", title=title, lines=["None."])
    rows = [
        [
            image.obsid,
            clock(image.zero_tai),
            image.state,
            span((figures.made_tai if image.settled_tai is None else image.settled_tai) - image.zero_tai),
            _reason(image),
        ]
        for image in figures.late[:_MOST_ROWS]
    ]
    heads = ("Image", "End of readout", "State", "After", "Reason")
    table = Table(heads=heads, rows=rows, right=frozenset({3}))
    return Part(name="late", title=title, lines=_more(len(figures.late)), tables=[table])


def _losses(figures: NightFigures) -> Part:
    if not figures.open:
        return Part(name="losses", title="Not complete", lines=["Every image is complete."])
    images = Table(
        heads=("Image", "State", "Detectors", "Reason"),
        rows=[
            [image.obsid, image.state, f"{image.present} of {image.expected}", _reason(image)]
            for image in figures.open[:_MOST_ROWS]
        ],
        right=frozenset({2}),
    )
    reasons = Table(
        heads=("Detectors", "Reason"),
        rows=[[f"{number:,}", reason] for reason, number in list(figures.losses.items())[:_MOST_ROWS]],
        right=frozenset({0}),
    )
    return Part(name="losses", title="Not complete", lines=_more(len(figures.open)), tables=[images, reasons])


def _headers(figures: NightFigures) -> Part:
    words = {
        "complete": "complete",
        "partial": "without something mandatory",
        "missing": "missing: the files were written with what was known",
        "expected": "not there yet",
    }
    total = sum(figures.headers.values())
    lines = [
        "; ".join(
            f"{figures.headers[state]:,} of {total:,} {word}"
            for state, word in words.items()
            if figures.headers.get(state)
        )
        + "."
        if total
        else "None."
    ]
    tables = []
    if figures.header_problems:
        rows = [[problem, f"{number:,}"] for problem, number in figures.header_problems.items()]
        tables.append(Table(heads=("Problem", "Headers"), rows=rows, right=frozenset({1})))
    return Part(name="headers", title="Headers", lines=lines, tables=tables)


def _destinations(figures: NightFigures) -> Part:
    if not figures.destinations:
        return Part(name="deliveries", title="Deliveries", lines=["There are no destinations."])
    rows = [
        [
            one.name,
            f"{one.delivered:,} of {one.files:,}",
            _size(one.bytes),
            f"{one.waiting:,}",
            f"{one.failed:,}",
            f"{one.conflict:,}",
            f"{one.retries:,}",
        ]
        for one in figures.destinations
    ]
    colours = ["red" if one.failed or one.conflict else "" for one in figures.destinations]
    heads = ("Destination", "Delivered", "Bytes", "Waiting", "Given up", "Conflicts", "Retries")
    table = Table(heads=heads, rows=rows, right=frozenset(range(1, 7)), colours=colours)
    return Part(name="deliveries", title="Deliveries", tables=[table])


def _incidents(figures: NightFigures) -> Part:
    if not figures.incidents:
        return Part(name="incidents", title="Incidents", lines=["None."])
    rows = []
    for one in figures.incidents[: 2 * _MOST_ROWS]:
        begin, end = clock(one.begin_tai)[:8], clock(one.end_tai)[:8]
        images = sorted(one.images)
        told = images[0] if len(images) == 1 else f"{len(images):,} images" if images else "-"
        rows.append(
            [
                begin if one.end_tai - one.begin_tai < 1 else f"{begin} to {end}",
                one.kind,
                _cut(one.where, 60) or "-",
                f"{one.times:,}",
                told,
                _cut(one.reason, 200) or "-",
            ]
        )
    heads = ("Time (TAI)", "What", "Where", "Times", "Images", "Reason")
    table = Table(heads=heads, rows=rows, right=frozenset({3}))
    lines = ["Events of one kind, at one place and for like reasons, no more than five minutes apart."]
    if len(figures.incidents) > 2 * _MOST_ROWS:
        lines.append(f"The first {2 * _MOST_ROWS} of {len(figures.incidents):,}.")
    return Part(name="incidents", title="Incidents", lines=lines, tables=[table])


def _available(figures: NightFigures) -> Part:
    up = figures.availability
    if up.share is None:
        return Part(name="availability", title="Availability", lines=["Nobody observed."])
    told = f"{100 * up.share:.3f} % of {span(up.observed_s)} in which images were taken"
    lines = [f"{told}: in the rest an image was not settled {LATE:g} s after the end of its readout."]
    if up.outages:
        lines.append(f"{_count(len(up.outages), 'outage')}, the longest {span(up.longest_down_s)}.")
    return Part(name="availability", title="Availability", lines=lines)


def _size(octets: float) -> str:
    """`382 MB`."""
    for step, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if octets >= step:
            return f"{octets / step:.3g} {unit}"
    return f"{octets:.0f} B"


def title(figures: NightFigures) -> str:
    """Of the report."""
    return f"Night of {day(figures.dayobs)}"


def markup(text: str) -> str:
    """What came from files and services as HTML: no tags, no controls."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def _reason(image: ImageFigures) -> str:
    return _cut(image.reason, 300) or "-"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _more(number: int) -> list[str]:
    return [f"The first {_MOST_ROWS} of {number:,}."] if number > _MOST_ROWS else []


def _s(seconds: float | None) -> str:
    return span(seconds)


def _count(number: int, singular: str) -> str:
    return f"{number:,} {singular if number == 1 else singular + 's'}"
