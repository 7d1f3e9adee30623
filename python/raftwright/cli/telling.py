"""The story of an image as text of 100 columns."""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from raftwright.cli.figures import count, size
from raftwright.cli.lines import Lines, style_of
from raftwright.report.focal_plane import draw_plane
from raftwright.report.times import clock, day, iso, span

if TYPE_CHECKING:
    from raftwright.report.story import Row, Story

__all__ = ["told"]

_MANY: Final = 12
"""More rows than that are told in sums, unless all are asked for."""

_TELLING: Final = frozenset(
    {"reason", "attempt", "version", "from", "late", "outcome", "replaces", "problems"}
)
"""What of the detail of events is worth a place in the table."""

_MARKS: Final = {"present": "#", "incomplete": "+", "expected": ".", "missing": "x"}


def told(one: Story, *, everything: bool = False) -> str:
    """The text of `raftwright image`."""
    lines = Lines()
    image = one.image
    lines.add((image["obsid"], "bold"), "   ", (image["state"], style_of(image["state"])))
    if image["reason"]:
        lines.text(image["reason"], style_of(image["state"]), indent=2)
    _facts(lines, one)
    _times(lines, one)
    _detectors(lines, one)
    _sources(lines, one.sources, everything)
    _files(lines, image["obsid"], one.files, everything)
    _headers(lines, one)
    _deliveries(lines, one.deliveries, everything)
    _attempts(lines, one.attempts, everything)
    _events(lines, image["obsid"], one.events, everything)
    return str(lines)


def _facts(lines: Lines, one: Story) -> None:
    image = one.image
    night = f"night {day(image['dayobs'])}, number {image['seqnum']}, exposure {image['exposure_id']}"
    lines.add(f"{image['instrument']}, {night}", indent=2)
    daq = f"DAQ: id {image['daq_id']}, {count(image['expected_sources'], 'source')}, "
    daq += count(image["expected_detectors"], "detector")
    lines.add(daq + (f", folder {image['folder']}" if image["folder"] else ""), indent=2)
    known = [
        image["image_type"] or "",
        "" if image["exposure_time"] is None else f"{image['exposure_time']:g} s",
        image["physical_filter"] or "",
        image["target"] or "",
        "" if image["ra"] is None or image["dec"] is None else f"at {image['ra']:.5f} {image['dec']:+.5f}",
        f"group {image['group_id']}" if image["group_id"] else "",
    ]
    if any(known):
        lines.text("exposure: " + ", ".join(fact for fact in known if fact), indent=2)


def _times(lines: Lines, one: Story) -> None:
    image, after = one.image, one.latencies
    zero = "end of readout" if image["end_readout_tai"] is not None else "announced"
    written = [row["written_tai"] for row in one.files if row["kind"] == "raw"]
    delivered = [row["delivered_tai"] for row in one.deliveries if row["delivered_tai"] is not None]
    whole = delivered and len(delivered) == len(one.deliveries)
    rows = [
        ("trigger", image["trigger_tai"], None),
        ("exposure begins", image["begin_tai"], None),
        ("exposure ends", image["end_tai"], None),
        ("end of readout", image["end_readout_tai"], None),
        ("announced by the DAQ", image["announced_tai"], after["announced"]),
        ("first raw file", min(written, default=None), after["first_file"]),
        ("last raw file", max(written, default=None), after["last_file"]),
        ("complete", image["complete_tai"], after["complete"]),
        ("delivered everywhere", max(delivered) if whole else None, after["delivered"]),
    ]
    lines.table(
        ("time (TAI)", "", f"after {zero}"),
        [
            (name, iso(moment), "" if name == zero or seconds is None else f"{seconds:+.2f} s")
            for name, moment, seconds in rows
            if moment is not None
        ],
        right=(2,),
        indent=2,
    )


def _detectors(lines: Lines, one: Story) -> None:
    if not one.detectors:
        return
    states = {row["detector"]: row["state"] for row in one.detectors}
    numbers = {state: sum(1 for one in states.values() if one == state) for state in _MARKS}
    lines.blank()
    sums = (f"{number} {state} {_MARKS[state]}" for state, number in numbers.items() if number)
    lines.add("detectors: " + ", ".join(sums), indent=2)
    lines.blank()
    for line in draw_plane({name: _MARKS.get(state, "?") for name, state in states.items()}):
        lines.add(line, indent=4)
    lines.table(
        ("detector", "source", "state", "pixels missing", "reason"),
        [
            (
                row["detector"],
                row["location"],
                (row["state"], style_of(row["state"])),
                f"{row['missing_pixels']:,}" if row["missing_pixels"] else "-",
                row["reason"] or "-",
            )
            for row in one.detectors
            if row["state"] != "present"
        ][: 3 * _MANY],
        right=(3,),
        indent=2,
    )


def _sources(lines: Lines, sources: Sequence[Row], everything: bool) -> None:
    odd = [row for row in sources if row["state"] != "done" or row["attempts"] > 1]
    shown = sources if everything or len(sources) <= _MANY else odd[: 3 * _MANY]
    lines.table(
        ("source", "kind", "state", "bytes", "of", "attempts", "reason"),
        [
            (
                row["location"],
                row["kind"] or "-",
                (row["state"], style_of(row["state"])),
                size(row["received"]),
                size(row["expected"]),
                row["attempts"],
                row["reason"] or "-",
            )
            for row in shown
        ],
        right=(3, 4, 5),
        indent=2,
    )
    if len(shown) < len(sources):
        lines.add(f"and {count(len(sources) - len(shown), 'source')} done at the first attempt", indent=2)


def _files(lines: Lines, obsid: str, files: Sequence[Row], everything: bool) -> None:
    if not files:
        return
    directories = sorted({os.path.dirname(row["path"]) for row in files})
    prefix = f"{obsid}_"
    if everything or len(files) <= 3 * _MANY:
        lines.table(
            ("file", "version", "bytes", "crc32c", "pixels missing", "written", "status"),
            [
                (
                    os.path.basename(row["path"]).removeprefix(prefix),
                    row["version"],
                    f"{row['bytes']:,}",
                    row["crc32c"],
                    f"{row['missing']:,}" if row["missing"] else "-",
                    clock(row["written_tai"]),
                    row["status"] + _replaced(row["replaced_by"], prefix),
                )
                for row in files
            ],
            right=(1, 2, 4),
            indent=2,
        )
    else:
        kinds = sorted({row["kind"] for row in files})
        lines.table(
            ("files", "number", "bytes", "versions", "pixels missing", "written"),
            [
                (
                    kind,
                    len(of_kind),
                    size(sum(row["bytes"] for row in of_kind)),
                    max(row["version"] for row in of_kind),
                    f"{sum(row['missing'] for row in of_kind if not row['replaced_by']):,}",
                    _from_to(row["written_tai"] for row in of_kind),
                )
                for kind in kinds
                for of_kind in [[row for row in files if row["kind"] == kind]]
            ],
            right=(1, 2, 3, 4),
            indent=2,
        )
    for directory in directories[:_MANY]:
        lines.text(f"in {directory}/{prefix}...", indent=2)


def _from_to(moments: Iterable[float]) -> str:
    ordered = sorted(moments)
    return f"{clock(ordered[0])} to {clock(ordered[-1])}"


def _replaced(path: str, prefix: str) -> str:
    return f", replaced by {os.path.basename(path).removeprefix(prefix)}" if path else ""


def _headers(lines: Lines, one: Story) -> None:
    if not one.headers:
        lines.blank()
        lines.add("header: ", (one.image["header_state"], style_of(one.image["header_state"])), indent=2)
        return
    lines.table(
        ("header", "state", "bytes", "crc32c", "made", "file"),
        [
            (
                f"version {row['version']}",
                (row["state"], style_of(row["state"])),
                f"{row['bytes']:,}",
                row["crc32c"],
                clock(row["made_tai"]),
                os.path.basename(row["path"]),
            )
            for row in one.headers
        ],
        right=(2,),
        indent=2,
    )
    for row in one.headers:
        for problem in row["problems"][:_MANY] if isinstance(row["problems"], list) else ():
            lines.text(f"version {row['version']}: {problem}", "yellow", indent=4)


def _deliveries(lines: Lines, deliveries: Sequence[Row], everything: bool) -> None:
    by_name = groupby(deliveries, key=lambda row: str(row["destination"]))
    rows = []
    for name, group in by_name:
        of_it = list(group)
        ends = [row["delivered_tai"] for row in of_it if row["delivered_tai"] is not None]
        rows.append(
            (
                name,
                f"{len(ends)}/{len(of_it)}",
                size(sum(row["bytes"] for row in of_it)),
                sum(row["attempts"] for row in of_it),
                clock(min(row["queued_tai"] for row in of_it)),
                clock(max(ends, default=None)),
                _sums(row["state"] for row in of_it),
            )
        )
    heads = ("destination", "delivered", "bytes", "attempts", "queued", "last", "states")
    lines.table(heads, rows, right=(1, 2, 3), indent=2)
    odd = [row for row in deliveries if row["state"] in ("failed", "conflict") or row["reason"]]
    shown = deliveries if everything else odd[:_MANY]
    lines.table(
        ("delivery", "file", "state", "attempts", "reason"),
        [
            (
                row["destination"],
                os.path.basename(row["path"]),
                (row["state"], style_of(row["state"])),
                row["attempts"],
                row["reason"] or "-",
            )
            for row in shown
        ],
        right=(3,),
        indent=2,
    )
    if not everything and len(odd) > _MANY:
        lines.add(f"and {len(odd) - _MANY:,} more; --all shows them", indent=2)


def _attempts(lines: Lines, attempts: Sequence[Row], everything: bool) -> None:
    odd = [row for row in attempts if row["number"] > 1 or row["outcome"] not in ("done", "delivered")]
    shown = attempts if everything or len(attempts) <= 2 * _MANY else odd[: 2 * _MANY]
    lines.table(
        ("attempt", "at", "began", "took", "outcome", "owner", "reason"),
        [
            (
                row["number"],
                _subject(row["subject"]),
                clock(row["began_tai"]),
                span(None if row["ended_tai"] is None else row["ended_tai"] - row["began_tai"]),
                (row["outcome"] or "-", style_of(row["outcome"])),
                _short(row["owner"]),
                row["reason"] or "-",
            )
            for row in shown
        ],
        right=(0, 3),
        indent=2,
    )
    if len(shown) < len(attempts):
        lines.add(f"and {count(len(attempts) - len(shown), 'attempt')} more; --all shows them", indent=2)


def _events(lines: Lines, obsid: str, events: Sequence[Row], everything: bool) -> None:
    rows: list[tuple[object, ...]] = []

    def key(row: Row) -> tuple[object, ...]:
        return row["thing"], row["old"], row["new"], row["owner"], _kind_of(row)

    for _, group in groupby(events, key=key if not everything else lambda row: row["number"]):
        same = list(group)
        first = same[0]
        subject = f"{len(same)} of them" if len(same) > 1 else "-"
        if len(same) == 1 and first["subject"] != obsid:
            subject = _subject(first["subject"]).replace(f"{obsid}_", "")
        step = f"{first['old']} -> {first['new']}" if first["old"] else first["new"]
        rows.append(
            (
                iso(first["at_tai"])[5:],
                first["thing"],
                subject,
                (step, style_of(first["new"])),
                _short(first["owner"]),
                _detail(first["detail"]) if len(same) == 1 else "",
            )
        )
    lines.table(("event (TAI)", "of", "which", "what", "by", "detail"), rows, indent=2)


def _kind_of(row: Row) -> str:
    """What tells events of one kind of thing apart: the destination, for a delivery."""
    return str(row["subject"]).partition(" ")[0] if row["thing"] == "delivery" else ""


def _subject(text: str) -> str:
    """A subject with the name of a file in place of its path."""
    return (
        " ".join(os.path.basename(word) if word[:1] == "/" else word for word in str(text).split(" ")) or "-"
    )


def _short(owner: str) -> str:
    """An owner without its random part."""
    return ":".join(str(owner).split(":")[:2]) or "-"


def _detail(detail: Any) -> str:
    """What an event says beyond its step and beyond the tables above; --json has all of it."""
    if not isinstance(detail, Mapping):
        return str(detail)
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in detail.items()
        if value not in (None, "", {}, [])
        and key in _TELLING
        and (key, value) not in (("attempt", 1), ("version", 1))
    )


def _sums(states: Iterable[str]) -> str:
    numbers: dict[str, int] = {}
    for state in states:
        numbers[state] = numbers.get(state, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in numbers.items())
