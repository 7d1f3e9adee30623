"""The present night in figures: what `raftwright status` shows of a ledger.

Every question here is answered by an index: the time does not grow with the number of nights in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from raftwright.report.book import Book
from raftwright.report.incidents import detail_of
from raftwright.report.latency import LATE, percentile
from raftwright.report.times import dayobs_of, now_tai, seconds_of, span

__all__ = ["Destination", "Headers", "Image", "Night", "Service", "Tonight", "tonight"]

_RECENT: Final = 10
"""Images whose files and deliveries are looked at for rates."""
_MOST_LISTED: Final = 20
_STALLED: Final = 60.0
"""Seconds without a step after which waiting is a problem."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that is worth a line."""

    obsid: str
    state: str
    reason: str
    age_s: float | None
    """Since its readout ended; since the DAQ announced it where that is not known."""
    present: int
    expected: int
    """Detectors."""


@dataclass(frozen=True, kw_only=True)
class Night:
    """The images of a night."""

    images: int
    complete: int
    incomplete: int
    waiting: int
    """Announced or being captured."""
    lost: int
    late: int
    """Settled later than 10 s after the end of readout, or not settled by then."""
    latency_p50_s: float | None
    latency_p99_s: float | None
    """End of readout to complete."""
    last_hour: int
    """Images announced within an hour."""
    cadence_s: float | None
    """Median time between the last images."""
    bytes_per_image: float | None
    """Of the last images, in the archive."""


@dataclass(frozen=True, kw_only=True)
class Headers:
    """Header documents of a night's images."""

    complete: int
    partial: int
    missing: int
    expected: int


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The queue of a destination."""

    name: str
    queued: int
    sending: int
    failed: int
    conflict: int
    waiting_bytes: int
    oldest_s: float | None
    """How long the oldest has been in the queue."""
    last_delivered_s: float | None
    """Since the last delivery of one of the last images."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Somebody who works with the ledger."""

    owner: str
    host: str
    pid: int
    alive: bool
    roles: tuple[str, ...]
    claimed: int
    """Sources and deliveries that it has in hand."""


@dataclass(frozen=True, kw_only=True)
class Tonight:
    """What there is to know at a glance."""

    ledger: str
    dayobs: int
    current: bool
    """Whether that is the observing day of this moment."""
    at_tai: float
    night: Night
    instruments: dict[str, int]
    last: Image | None
    headers: Headers
    destinations: tuple[Destination, ...]
    services: tuple[Service, ...]
    open_images: tuple[Image, ...]
    """Images that wait, are incomplete or lost; the newest, twenty at most."""
    earlier: dict[str, int]
    """Images of other nights that are not settled, by state."""
    quarantined: int
    problems: tuple[str, ...]
    """Sentences."""


def tonight(book: Book, *, dayobs: int | None = None, now: float | None = None) -> Tonight:
    """Figures of a night; the last one that has images by default. `now` is TAI."""
    at = now_tai() if now is None else now
    if dayobs is None:
        last_night = book.value("SELECT max(dayobs) FROM image")
        dayobs = dayobs_of(at) if last_night is None else int(last_night)
    rows = book.all(
        "SELECT id, obsid, instrument, state, reason, header_state, expected_detectors, announced_tai,"
        " end_readout_tai, settled_tai, complete_tai FROM image WHERE dayobs = ? ORDER BY id",
        dayobs,
    )
    recent = [row[0] for row in rows[-_RECENT:]]
    images = _images(book, rows, at)
    destinations = _destinations(book, recent, at)
    services = _services(book)
    headers = _headers(rows)
    earlier = dict(
        book.all(
            "SELECT state, count(*) FROM image WHERE state IN ('announced', 'capturing', 'incomplete')"
            " AND dayobs <> ? GROUP BY state",
            dayobs,
        )
    )
    quarantined = int(book.value("SELECT count(*) FROM quarantine WHERE standing <> 'settled'") or 0)
    night = _night(book, rows, recent, at)
    last = rows[-1] if rows else None
    return Tonight(
        ledger=book.shown,
        dayobs=dayobs,
        current=dayobs == dayobs_of(at),
        at_tai=at,
        night=night,
        instruments=_tally(str(row[2]) for row in rows),
        last=None if last is None else _image(book, last, at),
        headers=headers,
        destinations=destinations,
        services=services,
        open_images=images,
        earlier={str(state): int(number) for state, number in earlier.items()},
        quarantined=quarantined,
        problems=(
            *_problems(night, images, headers, destinations, services, earlier, quarantined),
            *_silent(book),
        ),
    )


def _tally(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _zero(row: Sequence[Any]) -> float:
    """From when on an image's time counts: the end of its readout, else when it was announced."""
    return float(row[7] if row[8] is None else row[8])


def _night(book: Book, rows: Sequence[Sequence[Any]], recent: Sequence[int], at: float) -> Night:
    states = _tally(str(row[3]) for row in rows)
    took = [float(row[10]) - _zero(row) for row in rows if row[10] is not None]
    # A time before the end of readout is one of two clocks gone wrong; it is no latency.
    took = sorted(seconds for seconds in took if seconds >= 0)
    late = sum(1 for row in rows if (at if row[9] is None else float(row[9])) - _zero(row) > LATE)
    last = [float(row[7]) for row in rows[-_RECENT - 1 :]]
    steps = sorted(b - a for a, b in pairwise(last))
    octets = None
    if recent:
        total = book.value(
            f"SELECT sum(bytes) FROM file WHERE image_id IN ({_marks(recent)}) AND kind = 'raw'", *recent
        )
        octets = None if total is None else float(total) / len(recent)
    return Night(
        images=len(rows),
        complete=states.get("complete", 0),
        incomplete=states.get("incomplete", 0),
        waiting=states.get("announced", 0) + states.get("capturing", 0),
        lost=states.get("lost", 0),
        late=late,
        latency_p50_s=percentile(took, 0.5),
        latency_p99_s=percentile(took, 0.99),
        last_hour=sum(1 for row in rows if 0 <= at - float(row[7]) <= 3600),
        cadence_s=percentile(steps, 0.5),
        bytes_per_image=octets,
    )


def _headers(rows: Sequence[Sequence[Any]]) -> Headers:
    counts = _tally(str(row[5]) for row in rows)
    return Headers(
        **{state: counts.get(state, 0) for state in ("complete", "partial", "missing", "expected")}
    )


def _images(book: Book, rows: Sequence[Sequence[Any]], at: float) -> tuple[Image, ...]:
    unsettled = [row for row in rows if row[3] != "complete"]
    return tuple(_image(book, row, at) for row in unsettled[: -_MOST_LISTED - 1 : -1])


def _image(book: Book, row: Sequence[Any], at: float) -> Image:
    present = book.value("SELECT count(*) FROM detector WHERE image_id = ? AND state = 'present'", row[0])
    return Image(
        obsid=str(row[1]),
        state=str(row[3]),
        reason=str(row[4]),
        age_s=seconds_of(at, _zero(row)),
        present=int(present or 0),
        expected=int(row[6]),
    )


_AS_DELIVERY: Final = (
    "CASE state WHEN 'conflict' THEN 'conflict' WHEN 'queued' THEN 'queued' WHEN 'failed' THEN 'failed'"
    " WHEN 'unsupported' THEN 'failed' ELSE 'sending' END"
)
"""State of an ingest, in the words of deliveries."""


def _destinations(book: Book, recent: Sequence[int], at: float) -> tuple[Destination, ...]:
    # Of the images that had deliveries last: the whole table would have to be read for all names.
    newest = int(book.value("SELECT max(image_id) FROM delivery") or 0)
    some = sorted({newest, *recent, *range(newest - _RECENT + 1, newest)})
    names = book.all(
        f"SELECT DISTINCT destination FROM delivery WHERE image_id IN ({_marks(some)}) ORDER BY 1", *some
    )
    waiting: dict[str, dict[str, tuple[int, int, float]]] = {str(row[0]): {} for row in names}
    for name, state, number, octets, oldest in book.all(
        "SELECT destination, state, count(*), sum(bytes), min(queued_tai) FROM delivery"
        " WHERE state <> 'delivered' GROUP BY destination, state"
    ):
        waiting.setdefault(name, {})[state] = (int(number), int(octets or 0), float(oldest))
    for name, state, number, octets, oldest in book.all(
        f"SELECT 'butler:' || repository, {_AS_DELIVERY}, count(*), sum(bytes), min(queued_tai) FROM ingest"
        " WHERE state NOT IN ('ingested', 'removed') GROUP BY 1, 2"
    ):
        waiting.setdefault(name, {})[state] = (int(number), int(octets or 0), float(oldest))
    last: dict[str, float] = {}
    if recent and names:
        last = dict(
            book.all(
                f"SELECT destination, max(delivered_tai) FROM delivery WHERE image_id IN ({_marks(recent)})"
                " AND state = 'delivered' GROUP BY destination",
                *recent,
            )
        )
    if recent:
        for name, moment in book.all(
            "SELECT 'butler:' || repository, max(ingested_tai) FROM ingest"
            f" WHERE image_id IN ({_marks(recent)}) AND state = 'ingested' GROUP BY 1",
            *recent,
        ):
            last[name] = moment
            waiting.setdefault(name, {})
    found = []
    for name, states in waiting.items():
        moving = [states[state] for state in ("queued", "sending") if state in states]
        found.append(
            Destination(
                name=name,
                **{
                    state: states.get(state, (0, 0, 0.0))[0]
                    for state in ("queued", "sending", "failed", "conflict")
                },
                waiting_bytes=sum(octets for _, octets, _ in moving),
                oldest_s=at - min(oldest for _, _, oldest in moving) if moving else None,
                last_delivered_s=seconds_of(at, last.get(name)),
            )
        )
    return tuple(found)


def _services(book: Book) -> tuple[Service, ...]:
    owners = book.owners()
    if not owners:
        return ()
    roles: dict[str, list[str]] = {}
    for name, owner in book.all("SELECT name, owner FROM role ORDER BY name"):
        roles.setdefault(owner, []).append(name)
    claimed = dict(book.all("SELECT owner, count(*) FROM source WHERE state = 'claimed' GROUP BY owner"))
    for owner, number in book.all(
        "SELECT owner, count(*) FROM delivery WHERE state = 'sending' AND state <> 'delivered' GROUP BY owner"
    ):
        claimed[owner] = claimed.get(owner, 0) + number
    return tuple(
        Service(
            owner=owner.name,
            host=owner.host,
            pid=owner.pid,
            alive=owner.alive,
            roles=tuple(roles.get(owner.name, ())),
            claimed=int(claimed.get(owner.name, 0)),
        )
        for owner in owners
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _problems(
    night: Night,
    images: Sequence[Image],
    headers: Headers,
    destinations: Sequence[Destination],
    services: Sequence[Service],
    earlier: dict[str, int],
    quarantined: int,
) -> list[str]:
    found = []
    if night.lost:
        found.append(f"{_count(night.lost, 'image')} of this night cannot be had any more")
    stalled = [
        image
        for image in images
        if image.state in ("announced", "capturing") and (image.age_s or 0.0) > _STALLED
    ]
    if stalled:
        longest = max(image.age_s or 0.0 for image in stalled)
        found.append(f"{_count(len(stalled), 'image')} without an end, for {span(longest)} now")
    if night.incomplete:
        found.append(f"{_count(night.incomplete, 'image')} of this night incomplete")
    for one in destinations:
        if one.failed:
            found.append(f"{one.name}: {_count(one.failed, 'delivery', 'deliveries')} given up")
        if one.conflict:
            found.append(f"{one.name}: {_count(one.conflict, 'name')} taken by another content")
        if one.oldest_s is not None and one.oldest_s > _STALLED:
            found.append(
                f"{one.name}: {_count(one.queued + one.sending, 'delivery', 'deliveries')} in the queue, the "
                f"oldest for {span(one.oldest_s)}"
            )
    for service in services:
        if not service.alive and (service.roles or service.claimed):
            held = ", ".join(service.roles) or f"{service.claimed} claimed"
            found.append(f"{service.owner} does not live any more and holds {held}")
    if night.waiting and services and not any(service.alive for service in services):
        found.append("images wait and no service lives")
    if headers.missing:
        found.append(f"{_count(headers.missing, 'image')} without a header document")
    if headers.partial:
        found.append(f"{_count(headers.partial, 'header document')} without all that is mandatory")
    if sum(earlier.values()):
        found.append(f"{_count(sum(earlier.values()), 'image')} of earlier nights not complete")
    if quarantined:
        found.append(f"{_count(quarantined, 'thing')} in quarantine")
    return found


def _silent(book: Book) -> list[str]:
    """Inputs of which nothing is heard, though there is something: what was said of each last."""
    rows = book.all(
        "SELECT subject, detail FROM event WHERE number IN (SELECT max(number) FROM event WHERE dayobs = 0"
        " AND thing = 'input' GROUP BY subject) AND new = 'silent' ORDER BY subject"
    )
    return [f"{subject}: {detail_of(str(detail)).get('reason', '')}" for subject, detail in rows]


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
