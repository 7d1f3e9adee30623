"""Containers as the audit sees them: whether an image has one where it should, with all of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from raftwright.report.book import Book
from raftwright.report.places import Place
from raftwright.report.verdicts import ImageAudit, What

__all__ = ["look_at_container", "unpacked"]

_IN_NO_CONTAINER: Final = (
    "SELECT file.image_id, count(*) FROM file WHERE file.image_id IN ({}) AND file.kind <> 'container'"
    " AND file.status IN ('written', 'unchanged', 'kept') AND NOT EXISTS"
    " (SELECT 1 FROM member JOIN file AS box ON box.id = member.container_id"
    " WHERE member.file_id = file.id AND member.crc32c = file.crc32c AND member.bytes = file.bytes"
    " AND box.replaced_by = '') GROUP BY file.image_id"
)
_GONE: Final = frozenset({"lost", "damaged", "conflict", "removed"})


def unpacked(book: Book, image_ids: Sequence[int]) -> dict[int, int]:
    """Of images, by number: how many of their files are not in the newest container as they are now."""
    marks = ", ".join("?" * len(image_ids))
    return {int(row[0]): int(row[1]) for row in book.rows(_IN_NO_CONTAINER.format(marks), *image_ids)}


def look_at_container(
    image: ImageAudit,
    files: Sequence[tuple[Any, ...]],
    places: Iterable[Place],
    instrument: str,
    lacking: Mapping[int, int],
) -> None:
    """Adds what is wrong with the container of an image. Of its files the path, the kind and the status
    count: columns 1, 2 and 6. There is to be one where a place that is audited takes containers, or one is
    known."""
    boxes = [row for row in files if row[2] == "container"]
    takers = [
        place.name
        for place in places
        if place.takes_containers() and (not place.instruments() or instrument in place.instruments())
    ]
    raws = any(row[2] == "raw" and row[6] not in _GONE for row in files)
    if not raws or not (boxes or takers):
        return
    if not boxes:
        image.add(What.CONTAINER, image.obsid, "has no container", takers[0])
        return
    path, status, number = boxes[-1][1], boxes[-1][6], lacking.get(image.image_id, 0)
    if number:
        files_are = "file is" if number == 1 else "files are"
        image.add(What.CONTAINER, path, f"is older than the image: {number} {files_are} not in it")
    elif status in ("lost", "damaged"):
        image.add(What.CONTAINER, path, f"is {status}")
