"""Tonight at a glance, as text of 100 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raftwright.cli.figures import count, size
from raftwright.cli.lines import Lines, style_of
from raftwright.report.times import day, iso, span

if TYPE_CHECKING:
    from raftwright.report.tonight import Tonight

__all__ = ["at_a_glance"]

_MOST_LISTED: Final = 12


def at_a_glance(seen: Tonight) -> str:
    """The text of `raftwright status`."""
    lines = Lines()
    head = f"Night {day(seen.dayobs)}" + ("" if seen.current else ", the last one with images")
    lines.add((head, "bold"), f"   {iso(seen.at_tai)[:-4]} TAI")
    lines.text(seen.ledger, "faint")
    _images(lines, seen)
    _last(lines, seen)
    _open(lines, seen)
    _destinations(lines, seen)
    _services(lines, seen)
    lines.blank()
    if seen.problems:
        for problem in seen.problems:
            lines.text(f"problem: {problem}", "bold red")
    else:
        lines.add(("no problem", "green"))
    return str(lines)


def _images(lines: Lines, seen: Tonight) -> None:
    night, headers = seen.night, seen.headers
    if not night.images:
        lines.blank()
        lines.add("no image yet")
        return
    lines.table(
        (
            "images",
            "complete",
            "incomplete",
            "waiting",
            "lost",
            "late",
            "last hour",
            "headers",
            "partial",
            "missing",
        ),
        [
            (
                f"{night.images:,}",
                (f"{night.complete:,}", "green"),
                (f"{night.incomplete:,}", "yellow" if night.incomplete else ""),
                f"{night.waiting:,}",
                (f"{night.lost:,}", "bold red" if night.lost else ""),
                (f"{night.late:,}", "yellow" if night.late else ""),
                f"{night.last_hour:,}",
                f"{headers.complete:,}",
                (f"{headers.partial:,}", "yellow" if headers.partial else ""),
                (f"{headers.missing:,}", "yellow" if headers.missing else ""),
            )
        ],
        right=range(10),
    )
    lines.blank()
    if night.latency_p50_s is not None:
        middle, most = span(night.latency_p50_s), span(night.latency_p99_s)
        lines.add(f"end of readout to complete: median {middle}, 99 % {most}")
    rates = [f"one image every {span(night.cadence_s)}"] if night.cadence_s else []
    if night.bytes_per_image:
        rates.append(f"{size(night.bytes_per_image)} each")
        if night.cadence_s:
            rates.append(f"{size(night.bytes_per_image / night.cadence_s)}/s")
    if rates:
        lines.add(", ".join(rates))
    if len(seen.instruments) > 1:
        lines.add(", ".join(f"{name} {number:,}" for name, number in seen.instruments.items()))


def _last(lines: Lines, seen: Tonight) -> None:
    last = seen.last
    if last is None:
        return
    lines.add(
        "last: ",
        (last.obsid, "bold"),
        f", {span(last.age_s)} ago, {last.present} of {count(last.expected, 'CCD')}, ",
        (last.state, style_of(last.state)),
    )


def _open(lines: Lines, seen: Tonight) -> None:
    shown = seen.open_images[:_MOST_LISTED]
    rows: list[tuple[object, ...]] = [
        (
            image.obsid,
            (image.state, style_of(image.state)),
            span(image.age_s),
            f"{image.present}/{image.expected}",
            image.reason or "-",
        )
        for image in shown
    ]
    night = seen.night
    others = night.incomplete + night.waiting + night.lost - len(shown)
    if others > 0:
        rows.append((f"and {others:,} more", "", "", "", ""))
    lines.table(("not complete", "state", "since", "CCDs", "reason"), rows, right=(2, 3))


def _destinations(lines: Lines, seen: Tonight) -> None:
    lines.table(
        ("destination", "queued", "sending", "waiting", "oldest", "given up", "conflict", "last delivery"),
        [
            (
                one.name,
                f"{one.queued:,}",
                f"{one.sending:,}",
                size(one.waiting_bytes) if one.waiting_bytes else "-",
                span(one.oldest_s),
                (f"{one.failed:,}", "bold red" if one.failed else ""),
                (f"{one.conflict:,}", "bold red" if one.conflict else ""),
                "-" if one.last_delivered_s is None else f"{span(one.last_delivered_s)} ago",
            )
            for one in seen.destinations
        ],
        right=range(1, 8),
    )


def _services(lines: Lines, seen: Tonight) -> None:
    lines.table(
        ("service", "", "in hand", "roles"),
        [
            (
                service.owner,
                ("alive", "green") if service.alive else ("gone", "bold red"),
                f"{service.claimed:,}",
                ", ".join(service.roles) or "-",
            )
            # Who is gone and holds nothing is history.
            for service in seen.services
            if service.alive or service.roles or service.claimed
        ],
        right=(2,),
    )
