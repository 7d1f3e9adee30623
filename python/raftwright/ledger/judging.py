"""What an image is, from the rows of its sources, detectors and files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright.ledger.database import Row, Transaction

__all__ = ["Verdict", "judge_in"]

_PENDING: Final = frozenset({"expected", "claimed", "open"})
_OVER: Final = frozenset({"done", "gone", "conflict"})
_LISTED: Final = 8


class Verdict(msgspec.Struct, frozen=True):
    """What an image is found to be."""

    state: str
    reason: str
    detail: dict[str, Any]


def judge_in(
    transaction: Transaction, image_id: int, *, late: bool = False, verified: bool = False
) -> Verdict | None:
    """The verdict; None where work goes on that may change it. Raises NotFoundError."""
    row = transaction.one(f"SELECT state, camera FROM image WHERE id = ?{transaction.lock}", (image_id,))
    if row is None:
        raise NotFoundError(f"the ledger has no image of the number {image_id}")
    state, camera = row
    sources = transaction.rows(
        "SELECT location, state, reason FROM source WHERE image_id = ? ORDER BY location", (image_id,)
    )
    detectors = transaction.rows(
        "SELECT detector, location, state, missing_pixels, reason FROM detector WHERE image_id = ?"
        " ORDER BY detector",
        (image_id,),
    )
    present = {each[0] for each in detectors if each[2] == "present"}
    unchecked: set[str] = set()
    if verified and present:
        checked = {
            each[0]
            for each in transaction.rows(
                "SELECT detector FROM file WHERE image_id = ? AND kind = 'raw' AND verified_tai IS NOT NULL"
                " AND status NOT IN ('lost', 'damaged', 'conflict') AND replaced_by = ''",
                (image_id,),
            )
        }
        unchecked = present - checked
    if camera and detectors and len(present) == len(detectors) and not unchecked:
        return Verdict("complete", "", {"detectors": len(present)})
    pending = [each for each in sources if each[1] in _PENDING]
    absent = [each for each in detectors if each[0] not in present or each[0] in unchecked]
    if not camera or not detectors:
        return None if not late else Verdict("incomplete", "what it must have is not known yet", {})
    reason, detail = _reasons(sources, absent, unchecked)
    if (pending or unchecked) and not late:
        # What was complete and lacks something now is said at once.
        return Verdict("incomplete", reason, detail) if state in ("complete", "incomplete") else None
    if not unchecked and all(each[1] in _OVER for each in sources):
        return Verdict("lost", reason, detail)
    return Verdict("incomplete", reason, detail)


def _reasons(sources: list[Row], absent: list[Row], unchecked: set[str]) -> tuple[str, dict[str, Any]]:
    """One sentence for people, and what is missing for machines."""
    of_source = {location: (state, reason) for location, state, reason in sources}
    said: Counter[str] = Counter()
    for detector, location, state, _, reason in absent:
        source, why = of_source.get(location, ("unknown", ""))
        if detector in unchecked:
            said["not verified yet"] += 1
        elif state == "incomplete":
            said[
                f"pixels are missing, {source}: {why or reason}" if why or reason else "pixels are missing"
            ] += 1
        else:
            said[f"{source}: {why or reason}" if why or reason else source] += 1
    parts = [f"{count} x {what}" for what, count in said.most_common(3)]
    names = ", ".join(each[0] for each in absent[:_LISTED]) + (" .." if len(absent) > _LISTED else "")
    detail = {
        "missing": [each[0] for each in absent if each[2] != "incomplete"],
        "gaps": {each[0]: each[3] for each in absent if each[2] == "incomplete"},
    }
    return f"{len(absent)} detectors are not whole ({names}): {'; '.join(parts)}", detail
