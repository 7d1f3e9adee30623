"""Plots of a night as SVG, drawn by hand: lines, dots and text, coloured by classes of the page's style.

A plot is as wide as 920 units; the page scales it. Nothing in it is loaded from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from raftwright.report.latency import BUCKETS, LATE, percentile
from raftwright.report.night import ImageFigures, NightFigures, Stage
from raftwright.report.telling import after_readout, markup
from raftwright.report.times import clock

__all__ = ["bucket_plot", "histogram_plot", "night_plot", "stage_plot"]

WIDTH: Final = 920
_LEFT: Final = 62
_RIGHT: Final = 18
_DECADES: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
_SERIES: Final = 8
"""Colours of the style, in turn."""
_ROW: Final = 20
"""Height of a row of a legend."""
_LETTER: Final = 7.5
"""Width of a letter of a caption, rather too much."""
_STEPS: Final = (60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600)


class _Paper:
    """Elements of a plot, in their order."""

    def __init__(self, height: int, title: str) -> None:
        self.height = height
        self._parts = [
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{markup(title)}" class="plot">'
        ]

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, said: str = "") -> None:
        told = f"<title>{markup(said)}</title>" if said else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
            f' class="{kind}">{told}</rect>'
        )

    def dot(self, x: float, y: float, kind: str, said: str = "", radius: float = 2.6) -> None:
        told = f"<title>{markup(said)}</title>" if said else ""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}">{told}</circle>')

    def text(self, x: float, y: float, text: str, kind: str = "label", anchor: str = "middle") -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{markup(text)}</text>'
        )

    def __str__(self) -> str:
        return "".join([*self._parts, "</svg>"])


def seconds_text(value: float) -> str:
    """`0.3 s`, `10 s`, `5 min`, `3 h`."""
    for unit, word in ((3600, "h"), (60, "min")):
        if value >= unit and value % unit == 0:
            return f"{value / unit:g} {word}"
    return f"{value:g} s"


def _log(low: float, high: float, begin: float, end: float, value: float) -> float:
    share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
    return begin + min(share, 1.0) * (end - begin)


def _limits(values: Iterable[float], low: float = 0.1, high: float = 30.0) -> tuple[float, float]:
    """Decades that hold all values."""
    known = [value for value in values if value > 0]
    if known:
        low, high = min(low, min(known)), max(high, max(known))
    low = max((tick for tick in _DECADES if tick <= low), default=_DECADES[0])
    high = min((tick for tick in _DECADES if tick >= high), default=high)
    return low, high


def night_plot(figures: NightFigures) -> str:
    """Each image: when its readout ended, and how long after that it was complete; incidents as bands."""
    images = figures.images
    height, top, bottom = 330, 40, 292
    paper = _Paper(height, "latency of each image over the night")
    if not images:
        return ""
    begin, end = images[0].zero_tai, images[-1].zero_tai
    margin = max(60.0, 0.01 * (end - begin))
    begin, end = begin - margin, end + margin
    right = WIDTH - _RIGHT
    took = {
        image.id: image.complete_tai - image.zero_tai for image in images if image.complete_tai is not None
    }
    low, high = _limits([value for value in took.values() if value > 0] or [1.0])

    def x(tai: float) -> float:
        return _LEFT + (min(max(tai, begin), end) - begin) / (end - begin) * (right - _LEFT)

    def y(seconds: float) -> float:
        return _log(low, high, bottom, top, seconds)

    for first, last in _pauses(figures, begin, end):
        paper.box(x(first), top, x(last) - x(first), bottom - top, "pause", "no image was taken")
    for incident in figures.incidents:
        if incident.end_tai >= begin and incident.begin_tai <= end:
            width = max(3.0, x(incident.end_tai) - x(incident.begin_tai))
            said = f"{incident.kind}, {incident.times} times: {incident.reason}"
            paper.box(x(incident.begin_tai) - 1.5, top, width, bottom - top, "incident", said)
    _time_axis(paper, begin, end, x, top, bottom)
    for tick in _DECADES:
        if low <= tick <= high:
            paper.line(_LEFT, y(tick), right, y(tick), "grid")
            paper.text(_LEFT - 7, y(tick) + 4, seconds_text(tick), anchor="end")
    paper.line(_LEFT, y(LATE), right, y(LATE), "limit")
    paper.text(right, y(LATE) - 5, f"late: {LATE:g} s", "label limit-text", "end")
    for image in images:
        _mark(paper, image, took.get(image.id), x, y, top)
    paper.text(_LEFT, 14, "seconds from end of readout to complete, one dot an image", "caption", "start")
    paper.text(right, 14, "above: not complete", "caption bad-text", "end")
    return str(paper)


def _mark(paper: _Paper, image: ImageFigures, took: float | None, x, y, top: float) -> None:  # type: ignore[no-untyped-def]
    at = x(image.zero_tai)
    if image.state != "complete":
        kind = "bad" if image.state in ("incomplete", "lost") else "open"
        said = f"{image.obsid}: {image.state} {image.reason}"
        paper.box(at - 2.5, top - 16, 5, 11, kind, said)
    elif took is not None and took > 0:
        paper.dot(at, y(took), "slow" if took > LATE else "good", f"{image.obsid}: {took:.2f} s")


def _pauses(figures: NightFigures, begin: float, end: float) -> list[tuple[float, float]]:
    pauses = [(one[1], other[0]) for one, other in pairwise(figures.observed)]
    return [(first, last) for first, last in pauses if last - first > 0.002 * (end - begin)]


def _time_axis(paper: _Paper, begin: float, end: float, x, top: float, bottom: float) -> None:  # type: ignore[no-untyped-def]
    step = next((step for step in _STEPS if (end - begin) / step <= 10), _STEPS[-1])
    tick = math.ceil(begin / step) * step
    while tick <= end:
        paper.line(x(tick), top, x(tick), bottom, "grid")
        paper.text(x(tick), bottom + 17, clock(tick)[:5])
        tick += step
    paper.line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis")
    paper.text((_LEFT + WIDTH - _RIGHT) / 2, bottom + 35, "time (TAI)", "caption")


def histogram_plot(stage: Stage) -> str:
    """How often which time occurred; what is far above the bulk is counted."""
    if not stage.values:
        return ""
    height, top, bottom = 212, 34, 186
    paper = _Paper(height, f"histogram: {stage.name}")
    right = WIDTH - _RIGHT
    upper = min(percentile(stage.values, 0.995) or 0.0, 1.8 * (stage.p95_s or 0.0))
    width = _nice(max(upper, 0.01) / 50)
    bins = max(1, math.ceil(upper / width + 1e-9))
    counts = [0] * bins
    beyond = 0
    for value in stage.values:
        number = int(value / width)
        if number < bins:
            counts[number] += 1
        else:
            beyond += 1
    most = max(counts)
    scale = (right - _LEFT) / (bins * width)
    for number, count in enumerate(counts):
        if count:
            tall = (bottom - top) * count / most
            left = _LEFT + number * width * scale
            said = f"{number * width:.3g} to {(number + 1) * width:.3g} s: {count}"
            paper.box(left + 0.5, bottom - tall, width * scale - 1, tall, "good", said)
    ticks = _nice(bins * width / 8)
    tick = 0.0
    while tick <= bins * width + 1e-9:
        at = _LEFT + tick * scale
        paper.line(at, bottom, at, bottom + 4, "axis")
        paper.text(at, bottom + 17, seconds_text(round(tick, 6)))
        tick += ticks
    points = [("50 %", stage.p50_s or 0.0), ("95 %", stage.p95_s or 0.0), ("99 %", stage.p99_s or 0.0)]
    for _, point in points:
        if point <= bins * width:
            paper.line(_LEFT + point * scale, top - 4, _LEFT + point * scale, bottom, "mark")
    paper.line(_LEFT, bottom, right, bottom, "axis")
    paper.text(_LEFT - 7, top + 8, f"{most:,}", anchor="end")
    paper.text(_LEFT - 7, bottom, "0", anchor="end")
    marks = ", ".join(f"{share} {point:.2f} s" for share, point in points)
    paper.text(_LEFT, 14, f"{stage.name}: {stage.number:,} images; lines at {marks}", "caption", "start")
    if beyond:
        paper.text(right, 14, f"{beyond:,} beyond", "caption limit-text", "end")
    return str(paper)


def bucket_plot(buckets: dict[str, list[int]]) -> str:
    """The bins of late files, side by side for each thing that is waited for; heights are logarithmic."""
    names = [name for name, counts in buckets.items() if sum(counts)]
    if not names:
        return ""
    legend = _rows([after_readout(name) for name in names], WIDTH - _LEFT - _RIGHT)
    top = 32 + _ROW * len(legend)
    bottom = top + 160
    height = bottom + 50
    paper = _Paper(height, "latencies in the bins of late files")
    right = WIDTH - _RIGHT
    bins = len(BUCKETS) + 1
    room = (right - _LEFT) / bins
    most = max(max(buckets[name]) for name in names)
    bar = (room - 6) / len(names)
    for number in range(bins):
        left = _LEFT + number * room + 3
        for n, name in enumerate(names):
            count = buckets[name][number]
            if not count:
                continue
            tall = (bottom - top) * math.log(1 + count) / math.log(1 + most)
            tall = max(tall, 2.0)
            kind = f"series{n % _SERIES}"
            paper.box(left + n * bar, bottom - tall, bar - 1, tall, kind, f"{name}: {count}")
            if 6.2 * len(f"{count:,}") <= bar - 3:
                paper.text(left + (n + 0.5) * bar, bottom - tall - 3, f"{count:,}", "small")
        told = f"≤ {BUCKETS[number]}" if number < len(BUCKETS) else f"> {BUCKETS[-1]}"
        paper.text(left + room / 2 - 3, bottom + 16, told, "label")
        if number and BUCKETS[number - 1] == LATE:
            paper.line(_LEFT + number * room, top - 8, _LEFT + number * room, bottom, "limit")
            paper.text(_LEFT + number * room + 5, top, "late", "label limit-text", "start")
    paper.line(_LEFT, bottom, right, bottom, "axis")
    paper.text(
        (_LEFT + right) / 2, bottom + 36, "seconds after end of readout; heights are logarithmic", "caption"
    )
    number = 0
    for row, entries in enumerate(legend):
        for at, name in entries:
            paper.box(_LEFT + at, 6 + _ROW * row, 10, 10, f"series{number % _SERIES}")
            paper.text(_LEFT + at + 15, 15 + _ROW * row, name, "caption", "start")
            number += 1
    return str(paper)


def _rows(names: Sequence[str], width: float) -> list[list[tuple[float, str]]]:
    """A legend: names with where they begin, as many in a row as fit."""
    rows: list[list[tuple[float, str]]] = [[]]
    at = 0.0
    for name in names:
        wide = 35 + _LETTER * len(name)
        if rows[-1] and at + wide > width:
            rows.append([])
            at = 0.0
        rows[-1].append((at, name))
        at += wide
    return rows


def stage_plot(stages: Sequence[Stage]) -> str:
    """Each step: the range from the median to the 99 % point, on one logarithmic axis."""
    known = [
        stage for stage in stages if stage.number and stage.p50_s is not None and stage.most_s is not None
    ]
    if not known:
        return ""
    step, top, left = 26, 30, 250
    bottom = top + step * len(known)
    paper = _Paper(bottom + 28, "times of each step")
    right = WIDTH - 150
    values = [value for stage in known for value in (stage.p50_s or 0.0, stage.most_s or 0.0)]
    low, high = _limits(values, 0.1, 10.0)

    def x(seconds: float) -> float:
        return _log(low, high, left, right, seconds)

    for tick in _DECADES:
        if low <= tick <= high:
            paper.line(x(tick), top - 6, x(tick), bottom, "grid")
            paper.text(x(tick), bottom + 17, seconds_text(tick))
    for n, stage in enumerate(known):
        middle = top + step * n + step / 2 - 3
        p50, p95, p99 = stage.p50_s or low, stage.p95_s or low, stage.p99_s or low
        paper.text(left - 10, middle + 4, stage.name, "label", "end")
        paper.line(x(p50), middle, x(stage.most_s or low), middle, "whisker")
        paper.box(x(p50), middle - 5, x(p95) - x(p50), 10, "range", f"50 % {p50:.2f} s, 95 % {p95:.2f} s")
        paper.dot(x(p99), middle, "p99", f"99 % {p99:.2f} s", 4)
        paper.line(x(p50), middle - 8, x(p50), middle + 8, "mark")
        paper.text(
            right + 12, middle + 4, f"{_short(p50)} / {_short(p95)} / {_short(p99)} s", "label", "start"
        )
    said = "| median, box to 95 %, dot 99 %, line to the longest"
    paper.text(left, 14, said, "caption", "start")
    paper.text(right + 12, 14, "50 / 95 / 99 %", "caption", "start")
    paper.line(left, bottom, right, bottom, "axis")
    return str(paper)


def _short(value: float) -> str:
    """Three digits at least, none too many."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.9999)
