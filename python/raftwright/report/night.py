"""The figures of a night, for its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from raftwright.report.availability import Availability, Interval, availability, observing
from raftwright.report.book import Book
from raftwright.report.incidents import Incident, incidents, troubles
from raftwright.report.latency import LATE, histogram, percentile
from raftwright.report.scorecard import Colour, Score, score, worst
from raftwright.report.times import now_tai

__all__ = ["Delivered", "ImageFigures", "NightFigures", "Stage", "night_figures"]

_MARGIN: Final = 3600.0
"""Seconds before and after the images in which events of services are told."""

_IMAGE: Final = (
    "id, obsid, instrument, state, reason, header_state, expected_detectors, begin_tai, end_tai,"
    " end_readout_tai, announced_tai, settled_tai, complete_tai, image_type, exposure_time"
)


@dataclass(slots=True)
class ImageFigures:
    """An image of the night."""

    id: int
    obsid: str
    instrument: str
    state: str
    reason: str
    header_state: str
    expected: int
    begin_tai: float | None
    zero_tai: float
    """End of readout; where that is not known, the announcement."""
    zero_known: bool
    announced_tai: float
    settled_tai: float | None
    complete_tai: float | None
    image_type: str
    exposure_time: float
    first_file_tai: float | None = None
    last_file_tai: float | None = None
    files: int = 0
    bytes: int = 0
    present: int = 0
    missing_pixels: int = 0
    delivered_tai: dict[str, float] = field(default_factory=dict)
    """When the last file arrived, for destinations that have all."""

    def late(self, at: float) -> bool:
        """Whether it was not settled ten seconds after the end of its readout."""
        return (at if self.settled_tai is None else self.settled_tai) - self.zero_tai > LATE


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How long a step took."""

    name: str
    number: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    most_s: float | None
    strange: int
    """Times below zero: two clocks do not agree. They are not in the other figures."""
    values: tuple[float, ...] = field(repr=False, default=())
    """From small to large."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A destination in this night."""

    name: str
    files: int
    delivered: int
    waiting: int
    failed: int
    conflict: int
    bytes: int
    """Delivered."""
    retries: int
    """Attempts beyond the first."""


@dataclass(frozen=True, kw_only=True)
class NightFigures:
    """Everything that the report tells."""

    dayobs: int
    ledger: str
    made_tai: float
    images: list[ImageFigures]
    instruments: dict[str, int]
    states: dict[str, int]
    types: dict[str, int]
    headers: dict[str, int]
    header_problems: dict[str, int]
    detectors: int
    present: int
    missing_pixels: int
    files: int
    bytes: int
    stages: list[Stage]
    buckets: dict[str, list[int]]
    """N07's bins of the latencies that the scripts of an observatory wait for."""
    losses: dict[str, int]
    """Detectors that are missing, by reason."""
    late: list[ImageFigures]
    open: list[ImageFigures]
    """Not complete."""
    destinations: list[Delivered]
    incidents: list[Incident]
    observed: list[Interval]
    availability: Availability
    scores: list[Score]

    @property
    def colour(self) -> Colour:
        """Of the night: that of its worst line."""
        return worst(self.scores)


def night_figures(book: Book, dayobs: int, *, now: float | None = None) -> NightFigures:
    """Asks the ledger for all of a night. A few seconds for a thousand images of 205 detectors."""
    at = now_tai() if now is None else now
    images = _images(book, dayobs)
    by_id = {image.id: image for image in images}
    _files(book, dayobs, by_id)
    losses, detectors = _detectors(book, dayobs, by_id)
    destinations = _deliveries(book, dayobs, by_id)
    late = [image for image in images if image.late(at)]
    unfinished = [image for image in images if image.state != "complete"]
    stages = _stages(images, [one.name for one in destinations])
    observed = observing(
        (image.zero_tai - image.exposure_time if image.begin_tai is None else image.begin_tai, image.zero_tai)
        for image in images
    )
    down = [(image.zero_tai + LATE, at if image.settled_tai is None else image.settled_tai) for image in late]
    up = availability(observed, down)
    begin, end = (observed[0][0], observed[-1][1]) if observed else (at, at)
    files = sum(image.files for image in images)
    return NightFigures(
        dayobs=dayobs,
        ledger=book.shown,
        made_tai=at,
        images=images,
        instruments=dict(Counter(image.instrument for image in images)),
        states=dict(Counter(image.state for image in images)),
        types=dict(Counter(image.image_type or "unknown" for image in images)),
        headers=dict(Counter(image.header_state for image in images)),
        header_problems=_header_problems(book, images),
        detectors=detectors,
        present=sum(image.present for image in images),
        missing_pixels=sum(image.missing_pixels for image in images),
        files=files,
        bytes=sum(image.bytes for image in images),
        stages=stages,
        buckets={
            stage.name: histogram(stage.values)
            for stage in stages
            if stage.name.startswith("end of readout")
            and not stage.name.endswith("file")
            and "," not in stage.name
        },
        losses=losses,
        late=late,
        open=unfinished,
        destinations=destinations,
        incidents=incidents(troubles(book, dayobs, begin - _MARGIN, end + _MARGIN)),
        observed=observed,
        availability=up,
        scores=_scores(images, late, detectors, destinations, up),
    )


def _images(book: Book, dayobs: int) -> list[ImageFigures]:
    found = []
    for row in book.rows(f"SELECT {_IMAGE} FROM image WHERE dayobs = ? ORDER BY id", dayobs):
        number, obsid, instrument, state, reason, header, expected, begin, _end, readout = row[:10]
        announced, settled, complete, kind, exposure = row[10:]
        found.append(
            ImageFigures(
                id=int(number),
                obsid=str(obsid),
                instrument=str(instrument),
                state=str(state),
                reason=str(reason),
                header_state=str(header),
                expected=int(expected),
                begin_tai=begin,
                zero_tai=float(announced if readout is None else readout),
                zero_known=readout is not None,
                announced_tai=float(announced),
                settled_tai=settled,
                complete_tai=complete,
                image_type=str(kind or ""),
                exposure_time=float(exposure or 0.0),
            )
        )
    return sorted(found, key=lambda image: image.zero_tai)


def _files(book: Book, dayobs: int, images: dict[int, ImageFigures]) -> None:
    for number, files, octets, first, last in book.rows(
        "SELECT file.image_id, count(*), sum(file.bytes), min(file.written_tai), max(file.written_tai)"
        " FROM image JOIN file ON file.image_id = image.id WHERE image.dayobs = ? AND file.kind = 'raw'"
        " AND file.status NOT IN ('conflict', 'lost', 'damaged') GROUP BY file.image_id",
        dayobs,
    ):
        image = images[number]
        image.files, image.bytes = int(files), int(octets)
        image.first_file_tai, image.last_file_tai = first, last


def _detectors(book: Book, dayobs: int, images: dict[int, ImageFigures]) -> tuple[dict[str, int], int]:
    losses: Counter[str] = Counter()
    detectors = 0
    for number, state, number_of, pixels in book.rows(
        "SELECT detector.image_id, detector.state, count(*), sum(detector.missing_pixels)"
        " FROM image JOIN detector ON detector.image_id = image.id WHERE image.dayobs = ?"
        " GROUP BY detector.image_id, detector.state",
        dayobs,
    ):
        detectors += int(number_of)
        images[number].missing_pixels += int(pixels or 0)
        if state == "present":
            images[number].present = int(number_of)
    for state, reason, number_of in book.rows(
        "SELECT detector.state, detector.reason, count(*)"
        " FROM image JOIN detector ON detector.image_id = image.id WHERE image.dayobs = ?"
        " AND detector.state <> 'present' GROUP BY detector.state, detector.reason",
        dayobs,
    ):
        losses[str(reason) or f"{state}, no reason yet"] += int(number_of)
    return dict(losses.most_common()), detectors


_DELIVERED: Final = (
    "SELECT delivery.image_id, delivery.destination, count(*),"
    " sum(CASE WHEN delivery.state = 'delivered' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN delivery.state = 'failed' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN delivery.state = 'conflict' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN delivery.state = 'delivered' THEN delivery.bytes ELSE 0 END),"
    " sum(CASE WHEN delivery.attempts > 1 THEN delivery.attempts - 1 ELSE 0 END),"
    " max(delivery.delivered_tai)"
    " FROM image JOIN delivery ON delivery.image_id = image.id WHERE image.dayobs = ?"
    " GROUP BY delivery.image_id, delivery.destination"
)
_BUTLER: Final = "butler:"
"""Before the name of a repository where destinations are told."""
_INGESTED: Final = (
    f"SELECT ingest.image_id, '{_BUTLER}' || ingest.repository, count(*),"
    " sum(CASE WHEN ingest.state IN ('ingested', 'leaving', 'removed') THEN 1 ELSE 0 END),"
    " sum(CASE WHEN ingest.state IN ('failed', 'unsupported') THEN 1 ELSE 0 END),"
    " sum(CASE WHEN ingest.state = 'conflict' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN ingest.state IN ('ingested', 'leaving', 'removed') THEN ingest.bytes ELSE 0 END),"
    " sum(CASE WHEN ingest.attempts > 1 THEN ingest.attempts - 1 ELSE 0 END),"
    " max(ingest.ingested_tai)"
    " FROM image JOIN ingest ON ingest.image_id = image.id WHERE image.dayobs = ?"
    " GROUP BY ingest.image_id, ingest.repository"
)


def _deliveries(book: Book, dayobs: int, images: dict[int, ImageFigures]) -> list[Delivered]:
    """Destinations, endpoints and Butler repositories alike: what each has to have, and has."""
    sums: dict[str, Counter[str]] = {}
    for row in (*book.rows(_DELIVERED, dayobs), *book.rows(_INGESTED, dayobs)):
        number, name, files, delivered, failed, conflict, octets, retries, last = row
        one = sums.setdefault(name, Counter())
        one.update(
            files=int(files),
            delivered=int(delivered),
            failed=int(failed),
            conflict=int(conflict),
            bytes=int(octets),
            retries=int(retries),
        )
        if delivered == files and last is not None:
            images[number].delivered_tai[name] = float(last)
    return [
        Delivered(
            name=name,
            files=one["files"],
            delivered=one["delivered"],
            waiting=one["files"] - one["delivered"] - one["failed"] - one["conflict"],
            failed=one["failed"],
            conflict=one["conflict"],
            bytes=one["bytes"],
            retries=one["retries"],
        )
        for name, one in sorted(sums.items())
    ]


def _header_problems(book: Book, images: Sequence[ImageFigures]) -> dict[str, int]:
    found: Counter[str] = Counter()
    partial = [image.obsid for image in images if image.header_state == "partial"]
    for obsid in partial:
        for (text,) in book.rows(
            "SELECT problems FROM header WHERE obsid = ? ORDER BY version DESC LIMIT 1", obsid
        ):
            try:
                said = json.loads(text)
            except (ValueError, RecursionError):
                said = [text]
            found.update(str(one)[:200] for one in said if isinstance(said, list))
    return dict(found.most_common(20))


def _stages(images: Sequence[ImageFigures], destinations: Iterable[str]) -> list[Stage]:
    known = [image for image in images if image.zero_known]
    steps: list[tuple[str, Sequence[ImageFigures], Callable[[ImageFigures], float | None]]] = [
        ("announced to first file", images, lambda image: _minus(image.first_file_tai, image.announced_tai)),
        ("end of readout to last file", known, lambda image: _minus(image.last_file_tai, image.zero_tai)),
        ("last file to complete", images, lambda image: _minus(image.complete_tai, image.last_file_tai)),
        ("end of readout to complete", known, _complete_after),
    ]
    instruments = sorted({image.instrument for image in images})
    if len(instruments) > 1:
        steps += [
            (
                f"end of readout to complete, {name}",
                [image for image in known if image.instrument == name],
                _complete_after,
            )
            for name in instruments
        ]
    for name in destinations:
        if not name.startswith(_BUTLER):  # which does not wait for the verdict
            steps.append((f"complete to {name}", images, _delivered_after(name, complete=True)))
        steps.append((f"end of readout to {name}", known, _delivered_after(name, complete=False)))
    return [_stage(name, [step(image) for image in some]) for name, some, step in steps]


def _complete_after(image: ImageFigures) -> float | None:
    return _minus(image.complete_tai, image.zero_tai)


def _delivered_after(name: str, *, complete: bool) -> Callable[[ImageFigures], float | None]:
    def seconds(image: ImageFigures) -> float | None:
        return _minus(image.delivered_tai.get(name), image.complete_tai if complete else image.zero_tai)

    return seconds


def _minus(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier


def _stage(name: str, values: Iterable[float | None]) -> Stage:
    """Negative times are counted and left out; nothing is cut off above."""
    known = [value for value in values if value is not None]
    sane = tuple(sorted(value for value in known if value >= 0))
    return Stage(
        name=name,
        number=len(sane),
        p50_s=percentile(sane, 0.5),
        p95_s=percentile(sane, 0.95),
        p99_s=percentile(sane, 0.99),
        most_s=sane[-1] if sane else None,
        strange=len(known) - len(sane),
        values=sane,
    )


def _scores(
    images: Sequence[ImageFigures],
    late: Sequence[ImageFigures],
    detectors: int,
    destinations: Sequence[Delivered],
    up: Availability,
) -> list[Score]:
    present = sum(image.present for image in images)
    whole = sum(1 for image in images if image.state == "complete")
    headers = sum(1 for image in images if image.header_state == "complete")
    return [
        score("images not complete", len(images) - whole, len(images), "images"),
        score("detectors missing", detectors - present, detectors, "detectors"),
        score(f"images later than {LATE:g} s", len(late), len(images), "images"),
        score("headers not complete", len(images) - headers, len(images), "images"),
        *(
            score(f"not delivered to {one.name}", one.files - one.delivered, one.files, "files")
            for one in destinations
        ),
        score("observing time not kept up with", up.down_s, up.observed_s, "s"),
    ]
