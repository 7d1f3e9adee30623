"""Incidents of a night: events that were troubles, those of one kind that are near in time taken together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from raftwright.report.book import Book

__all__ = ["Incident", "detail_of", "incidents", "troubles"]

_NEAR: Final = 300.0
"""Seconds between two troubles of one incident."""
_MOST_IMAGES: Final = 5
_NUMBERS: Final = re.compile(r"[0-9]+(?:[.,:/][0-9]+)*")
_NAMES: Final = re.compile(r"[A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6}\S*|R[0-9X]{2}_S\w\w|/\S+")


@dataclass(frozen=True, slots=True)
class Trouble:
    """An event that was one."""

    at_tai: float
    kind: str
    """E.g. `source failed`, `delivery retried`, `service gone`."""
    where: str
    """A location, a destination, a role."""
    obsid: str
    reason: str


@dataclass(slots=True)
class Incident:
    """Troubles of one kind, at one place, for one reason."""

    kind: str
    where: str
    begin_tai: float
    end_tai: float
    reason: str
    """That of the first."""
    times: int = 0
    images: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "where": self.where,
            "begin_tai": self.begin_tai,
            "end_tai": self.end_tai,
            "times": self.times,
            "images": len(self.images),
            "first_images": sorted(self.images)[:_MOST_IMAGES],
            "reason": self.reason,
        }


def troubles(book: Book, dayobs: int, begin_tai: float, end_tai: float) -> Iterator[Trouble]:
    """Events of a night that were troubles; those of services, which belong to no night, by their time."""
    columns = "at_tai, thing, subject, old, new, obsid, detail"
    of_images, of_services = ("source", "file", "image", "delivery"), ("role", "quarantine", "input")
    for things, night in ((of_images, dayobs), (of_services, 0)):
        for thing in things:
            for row in book.rows(
                f"SELECT {columns} FROM event WHERE dayobs = ? AND thing = ? AND {_WHERE[thing]}"
                " ORDER BY number",
                night,
                thing,
            ):
                if night or begin_tai <= row[0] <= end_tai:
                    found = _trouble(*row)
                    if found is not None:
                        yield found


_WHERE: Final = {
    "source": "(new IN ('failed', 'incomplete', 'conflict', 'gone', 'open') OR old = new)",
    "file": "new IN ('conflict', 'lost', 'damaged')",
    "image": "new IN ('incomplete', 'lost')",
    "delivery": "(new IN ('failed', 'conflict') OR (new = 'queued' AND old <> ''))",
    "role": "old <> ''",
    "quarantine": "new NOT IN ('again', 'settled')",
    "input": "new = 'silent'",
}


def _trouble(
    at: float, thing: str, subject: str, old: str, new: str, obsid: str, text: str
) -> Trouble | None:
    detail = detail_of(text)
    reason = str(detail.get("reason", ""))
    if thing == "source":
        if new == "claimed" or old == new:
            if "from" not in detail:
                return None
            return Trouble(at, "work taken over", "", obsid, f"from {_host(str(detail['from']))}")
        if new == "open" and reason == "given back":
            return None  # a graceful end is no trouble
        return Trouble(at, f"source {new}", subject, obsid, reason)
    if thing == "delivery":
        destination = str(detail.get("destination") or subject.partition(" ")[0])
        kind = {"failed": "delivery given up", "conflict": "delivery conflict"}.get(new, "delivery retried")
        if kind == "delivery retried" and reason == "given back":
            return None
        return Trouble(at, kind, destination, obsid, reason)
    if thing == "role":
        if not new:
            return None  # it was given up
        return Trouble(
            at, "service gone", subject, "", f"{_host(old)} went without a word; {_host(new)} took over"
        )
    if thing == "quarantine":
        return Trouble(
            at, "set aside", str(detail.get("what", "")), "", f"{subject}: {reason}" if reason else subject
        )
    if thing == "input":
        return Trouble(at, "notifications silent", subject, "", reason)
    if thing == "file":
        return Trouble(at, f"file {new}", str(detail.get("detector", "")), obsid, reason)
    return Trouble(at, f"image {new}", "", obsid, reason)


def incidents(found: Iterable[Trouble], near: float = _NEAR) -> list[Incident]:
    """Troubles taken together where kind, place and reason are alike and no more than five minutes lie
    between them; in the order of their begin."""
    done: list[Incident] = []
    running: dict[tuple[str, str, str], Incident] = {}
    for one in sorted(found, key=lambda trouble: trouble.at_tai):
        place = one.where if one.kind.startswith(("delivery", "service", "set", "notifications")) else ""
        key = one.kind, place, _alike(one.reason)
        incident = running.get(key)
        if incident is None or one.at_tai - incident.end_tai > near:
            incident = Incident(one.kind, one.where, one.at_tai, one.at_tai, one.reason)
            running[key] = incident
            done.append(incident)
        if one.where and one.where not in incident.where.split(", "):
            incident.where = f"{incident.where}, {one.where}" if incident.where else one.where
        incident.end_tai = one.at_tai
        incident.times += 1
        if one.obsid:
            incident.images.add(one.obsid)
    return sorted(done, key=lambda incident: incident.begin_tai)


def _alike(reason: str) -> str:
    """A reason without what differs from case to case: names, paths, numbers."""
    return _NUMBERS.sub("#", _NAMES.sub("*", reason))[:200]


def _host(owner: str) -> str:
    return ":".join(owner.split(":")[:2])


def detail_of(text: str) -> dict[str, Any]:
    """What stands with an event; empty where that is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
