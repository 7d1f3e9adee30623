"""The whole story of an image: all that the ledger knows of it, in the order in which it happened."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from raftwright.errors import NotFoundError
from raftwright.report.book import Book
from raftwright.report.times import seconds_of

__all__ = ["Story", "find_images", "story"]

_NAME = re.compile(r"([A-Z]{2})_([A-Z])_([0-9]{8})_([0-9]{1,6})\Z")
_EXPOSURE = re.compile(r"([0-9]{8})([0-9]{5})\Z")
_NEAR: Final = 5

_IMAGE: Final = (
    *("id", "obsid", "daq_id", "camera", "instrument", "folder", "dayobs", "seqnum", "controller"),
    *("exposure_id", "state", "reason", "header_state", "expected_sources", "expected_detectors"),
    *("trigger_tai", "begin_tai", "end_tai", "end_readout_tai", "announced_tai", "settled_tai"),
    *("complete_tai", "image_type", "exposure_time", "physical_filter", "target", "group_id", "ra", "dec"),
)
_SOURCE: Final = (
    *("location", "kind", "state", "reason", "expected", "received", "attempts", "owner", "next_try"),
)
_DETECTOR: Final = ("detector", "location", "purpose", "state", "reason", "missing_pixels")
_FILE: Final = (
    *("kind", "detector", "location", "version", "path", "bytes", "adler32", "crc32c", "missing", "status"),
    *("replaces", "replaced_by", "written_tai", "verified_tai"),
)
_HEADER: Final = ("version", "state", "path", "bytes", "crc32c", "md5", "problems", "made_tai")
_DELIVERY: Final = (
    *("destination", "path", "target", "bytes", "priority", "rank", "state", "reason", "attempts", "owner"),
    *("queued_tai", "delivered_tai"),
)
_ATTEMPT: Final = (
    *("thing", "subject", "number", "owner", "began_tai", "ended_tai", "outcome", "reason", "bytes"),
)
_EVENT: Final = ("number", "at_tai", "thing", "subject", "old", "new", "owner", "detail")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Story:
    """An image of one name and one id of the DAQ. Rows have the names of the ledger's columns."""

    image: Row
    sources: list[Row]
    detectors: list[Row]
    files: list[Row]
    headers: list[Row]
    deliveries: list[Row]
    attempts: list[Row]
    events: list[Row]

    @property
    def latencies(self) -> dict[str, float | None]:
        """Seconds after the end of readout, where that is known, else after the announcement."""
        image = self.image
        zero = image["end_readout_tai"] if image["end_readout_tai"] is not None else image["announced_tai"]
        written = [row["written_tai"] for row in self.files if row["kind"] == "raw"]
        delivered = [row["delivered_tai"] for row in self.deliveries]
        last = max(delivered) if delivered and None not in delivered else None
        return {
            "announced": seconds_of(image["announced_tai"], zero),
            "first_file": seconds_of(min(written, default=None), zero),
            "last_file": seconds_of(max(written, default=None), zero),
            "complete": seconds_of(image["complete_tai"], zero),
            "delivered": seconds_of(last, zero),
        }


def story(book: Book, image_id: int) -> Story:
    """Everything about an image."""
    image = _table(book, "image", _IMAGE, "id = ?", image_id)[0]
    headers = _table(book, "header", _HEADER, "obsid = ? ORDER BY version", image["obsid"])
    for row in headers:
        row["problems"] = _loaded(row["problems"], [])
    events = _table(book, "event", _EVENT, "image_id = ?", image_id)
    # What was told under the name before the DAQ told of the image.
    events += _table(
        book,
        "event",
        _EVENT,
        "dayobs = ? AND thing = 'header' AND image_id IS NULL AND obsid = ?",
        image["dayobs"],
        image["obsid"],
    )
    events.sort(key=lambda row: int(row["number"]))
    for row in events:
        row["detail"] = _loaded(row["detail"], {})
    return Story(
        image=image,
        sources=_table(book, "source", _SOURCE, "image_id = ? ORDER BY location", image_id),
        detectors=_table(book, "detector", _DETECTOR, "image_id = ? ORDER BY detector", image_id),
        files=_table(book, "file", _FILE, "image_id = ? ORDER BY path", image_id),
        headers=headers,
        deliveries=_table(
            book, "delivery", _DELIVERY, "image_id = ? ORDER BY destination, rank, path", image_id
        ),
        attempts=_table(book, "attempt", _ATTEMPT, "image_id = ? ORDER BY began_tai, id", image_id),
        events=events,
    )


def _table(book: Book, name: str, columns: tuple[str, ...], where: str, *values: object) -> list[Row]:
    statement = f"SELECT {', '.join(columns)} FROM {name} WHERE {where}"
    return [dict(zip(columns, row, strict=True)) for row in book.rows(statement, *values)]


def _loaded(text: object, empty: Any) -> Any:
    """JSON that a service wrote; what is none is shown as it stands."""
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):
        return text or empty


def find_images(book: Book, name: str) -> list[int]:
    """Numbers of the images of a name: one, or several where the DAQ gave the name more than one id.

    The name may be an exposure id (YYYYMMDDnnnnn), have its letters small or zeros left out. Raises
    NotFoundError that says which names are near.
    """
    wanted = name.strip().upper()
    match = _NAME.match(wanted)
    if match is not None:
        wanted = f"{match[1]}_{match[2]}_{match[3]}_{int(match[4]):06d}"
    found = [int(row[0]) for row in book.rows("SELECT id FROM image WHERE obsid = ? ORDER BY id", wanted)]
    exposure = _EXPOSURE.match(wanted)
    if not found and exposure is not None:
        found = [
            int(row[0])
            for row in book.rows(
                "SELECT id FROM image WHERE dayobs = ? AND exposure_id = ? ORDER BY id",
                int(exposure[1]),
                int(wanted),
            )
        ]
    if found:
        return found
    near = _near(book, wanted, match, exposure)
    said = f"the nearest are {', '.join(near)}" if near else "it has no images yet"
    raise NotFoundError(f"{name[:80]!r} is no image of the ledger {book.shown}; {said}")


def _near(book: Book, wanted: str, match: re.Match[str] | None, exposure: re.Match[str] | None) -> list[str]:
    """Names like it: of the same night the nearest numbers, else of the last night the most alike."""
    parts = (match[3], match[4]) if match else exposure.groups() if exposure else None
    if parts is not None:
        night = book.all("SELECT obsid, seqnum FROM image WHERE dayobs = ?", int(parts[0]))
        number = int(parts[1])
        night.sort(key=lambda row: (abs(int(row[1]) - number), str(row[0])))
        if night:
            return sorted(str(row[0]) for row in night[:_NEAR])
    digits = re.sub(r"[^0-9]", "", wanted)
    last = book.value("SELECT max(dayobs) FROM image")
    if last is None:
        return []
    names = [str(row[0]) for row in book.rows("SELECT obsid FROM image WHERE dayobs = ? ORDER BY id", last)]
    if 0 < len(digits) <= 6:
        ending = [one for one in names if one.endswith(f"_{int(digits):06d}")]
        if ending:
            return ending[:_NEAR]
    return difflib.get_close_matches(wanted, names, _NEAR, 0.6) or names[-_NEAR:]


def to_dict(told: Story) -> Mapping[str, Any]:
    """For JSON."""
    return {
        "image": told.image,
        "latencies_s": told.latencies,
        "sources": told.sources,
        "detectors": told.detectors,
        "files": told.files,
        "headers": told.headers,
        "deliveries": told.deliveries,
        "attempts": told.attempts,
        "events": told.events,
    }
