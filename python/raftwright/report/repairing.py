"""Repairs of what the audit found: only what is safe, each an event in the ledger, nothing overwritten.

A file that is gone or damaged is marked, so that it is fetched again; a damaged one is moved aside, never
deleted. What a destination has not is queued again. Files that the ledger does not know are entered after
they were read. What somebody left unfinished an hour ago is removed. Everything else is said and left alone.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError, StorageError
from raftwright.ledger.database import Change
from raftwright.ledger.rows import FileRow
from raftwright.ledger.states import EDGES
from raftwright.report.verdicts import Finding, ImageAudit, What

if TYPE_CHECKING:
    from raftwright.ledger import Ledger

__all__ = ["Repair", "Repairer"]

_HELPLESS: Final = {
    What.UNDELIVERED: "it is in the queue; look whether the archiver runs",
    What.TAKEN: "look at both, and move away the one that is wrong",
    What.ASIDE: "look at both, and move one away",
    What.STRANGE: "move it away if it is not wanted there",
    What.NO_SIDECAR: "the sidecar is made anew with its raw file",
    What.UNREADABLE: "look at the disk or the destination",
    What.CONTAINER: "the hand-off makes it, and so does `raftwright handoff pack`",
    What.UNPLANNED: "the archiver plans it when its configuration has this destination",
}
"""What is said where nothing is done."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done, or what would be."""

    image: str
    action: str
    """`marked lost`, `marked damaged`, `moved aside`, `entered`, `found again`, `queued again`, `removed`,
    `judged`; `left alone`, `failed`."""
    subject: str
    reason: str
    destination: str = ""

    @property
    def done(self) -> bool:
        """Whether something is changed by it."""
        return self.action not in ("left alone", "failed")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "image": self.image,
            "action": self.action,
            "subject": self.subject,
            "reason": self.reason,
            **({"destination": self.destination} if self.destination else {}),
        }


class Repairer:
    """Repairs images one by one. With `dry_run` it says what it would do and does nothing."""

    def __init__(self, ledger: Ledger, *, dry_run: bool = False, stale: float = 3600.0) -> None:
        self._ledger = ledger
        self._dry_run = dry_run
        self._stale = stale

    def repair(self, image: ImageAudit) -> Iterator[Repair]:
        """Everything that can be done for an image. What goes wrong is one of them (`failed`) and holds up
        nothing else."""
        changed = False
        again: dict[tuple[str, str], list[Finding]] = {}
        for finding in image.findings:
            if finding.what in (What.LIES, What.GIVEN_UP):
                state = "delivered" if finding.what is What.LIES else "failed"
                again.setdefault((finding.destination, state), []).append(finding)
                continue
            try:
                for repair in self._one(image, finding):
                    changed = changed or (repair.done and repair.action != "removed")
                    yield repair
            except (RaftwrightError, OSError) as error:
                yield Repair(image.obsid, "failed", finding.subject, str(error), finding.destination)
        whats = {finding.what for finding in image.findings}
        if image.directory and whats & {What.UNKNOWN, What.NO_ROW}:
            try:
                for repair in self._enter(image):
                    changed = changed or repair.done
                    yield repair
            except (RaftwrightError, OSError) as error:
                yield Repair(image.obsid, "failed", image.directory, str(error))
        for (destination, state), findings in again.items():
            try:
                yield self._again(image, destination, state, findings)
            except RaftwrightError as error:
                yield Repair(image.obsid, "failed", "", str(error), destination)
        if image.image_id and (changed or What.STATE in whats):
            try:
                yield from self._judge(image)
            except RaftwrightError as error:
                yield Repair(image.obsid, "failed", "", str(error))

    def _one(self, image: ImageAudit, finding: Finding) -> Iterator[Repair]:
        what, subject, reason = finding.what, finding.subject, finding.reason
        if what is What.GONE:
            if self._dry_run or self._ledger.files.lost(subject, "the audit: it is not on the disk"):
                yield Repair(image.obsid, "marked lost", subject, "so that it is fetched again")
        elif what in (What.SIZE, What.SUM):
            yield from self._damaged(image, subject, reason)
        elif what is What.BACK:
            yield self._back(image, subject)
        elif what is What.TEMPORARY:
            yield self._remove(image, subject)
        elif what in _HELPLESS:
            yield Repair(
                image.obsid, "left alone", subject, f"{reason}; {_HELPLESS[what]}", finding.destination
            )

    # -- files

    def _place(self, image: ImageAudit, path: str) -> str:
        """Where a file of the ledger is on this disk."""
        return path if os.path.isabs(path) else os.path.join(image.directory, os.path.basename(path))

    def _damaged(self, image: ImageAudit, path: str, reason: str) -> Iterator[Repair]:
        place = self._place(image, path)
        aside = ""
        if not self._dry_run:
            aside = _move_aside(place)
            self._ledger.files.verified(path, False, f"the audit: it {reason}")
        else:
            aside = f"{place}.damaged-..."
        yield Repair(image.obsid, "moved aside", path, f"it {reason}; it is {os.path.basename(aside)} now")
        yield Repair(image.obsid, "marked damaged", path, "so that it is fetched again")

    def _back(self, image: ImageAudit, path: str) -> Repair:
        row = self._ledger.files.by_path(path)
        if row is None:
            return Repair(image.obsid, "left alone", path, "the ledger does not know it any more")
        found = _digest(self._place(image, path))
        if found != (row.bytes, row.crc32c):
            return Repair(image.obsid, "left alone", path, "its sum is not that of the ledger; move it away")
        if not self._dry_run:
            self._ledger.files.enter([_with(row, status="unchanged")])
            self._ledger.files.verified(path)
        return Repair(image.obsid, "found again", path, "its sum is that of the ledger")

    def _enter(self, image: ImageAudit) -> Iterator[Repair]:
        """All that is in its directory and not in the ledger: read, summed, entered."""
        from raftwright.ledger.rebuilding import rebuild_image

        found = rebuild_image(self._ledger, image.directory, dry_run=self._dry_run)
        if found.new_images:
            yield Repair(image.obsid, "entered", image.directory, "the image")
        if found.new_files:
            files = f"{found.new_files} file{'' if found.new_files == 1 else 's'}"
            yield Repair(image.obsid, "entered", files, f"of {image.directory}")
        for path, reason in found.listed:
            yield Repair(image.obsid, "left alone", path, f"it cannot be entered: {reason}")

    def _remove(self, image: ImageAudit, path: str) -> Repair:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < self._stale:
            return Repair(image.obsid, "left alone", path, "somebody works on it")
        if not self._dry_run:
            os.unlink(path)
            self._note(image, "file", path, "temporary", "removed", {"bytes": status.st_size})
        return Repair(image.obsid, "removed", path, f"left unfinished, {status.st_size:,} bytes")

    # -- deliveries

    def _again(self, image: ImageAudit, destination: str, state: str, findings: list[Finding]) -> Repair:
        ids = [finding.row for finding in findings if finding.row]
        why = "the audit: it is not there" if state == "delivered" else "the audit: asked for again"
        number = len(ids)
        if not self._dry_run:
            number = self._ledger.deliveries.again(destination, image.image_id, (state,), why, ids)
        files = f"{number} file{'' if number == 1 else 's'}"
        return Repair(image.obsid, "queued again", files, findings[0].reason, destination)

    # -- the image

    def _judge(self, image: ImageAudit) -> Iterator[Repair]:
        if self._dry_run:
            yield Repair(image.obsid, "judged", image.obsid, f"is {image.state}; to be judged anew")
            return
        # A detector whose file is known and whose state is not that of the file is moved by this.
        files = [
            row
            for row in self._ledger.files.of(image.image_id, "raw")
            if row.status not in ("lost", "damaged", "removed")
        ]
        if any(finding.what is What.STATE for finding in image.findings):
            self._ledger.files.enter(files)
        row = self._ledger.images.judge(image.image_id)
        if row.state != image.state:
            yield Repair(
                image.obsid, "judged", image.obsid, f"was {image.state}, is {row.state} {row.reason}".strip()
            )

    def _note(
        self, image: ImageAudit, thing: str, subject: str, old: str, new: str, detail: dict[str, Any]
    ) -> None:
        assert thing not in EDGES  # these have states of their own
        self._ledger.database.change(
            lambda transaction: transaction.note(
                Change(thing, subject, old, new, image.image_id or None, image.obsid, image.dayobs, detail)
            )
        )


def _move_aside(path: str) -> str:
    """Gives a file the name `<path>.damaged-<crc32c>`; the name it has now. Replaces nothing."""
    try:
        _, crc = _digest(path)
    except StorageError:
        crc = "00000000"  # it cannot be read: the name says so
    for number in range(100):
        aside = f"{path}.damaged-{crc}" + (f"-{number}" if number else "")
        try:
            os.link(path, aside, follow_symlinks=False)
        except FileExistsError:
            continue
        os.unlink(path)
        return aside
    raise StorageError(17, "has a hundred damaged files beside it; look at them", path)


def _digest(path: str) -> tuple[int, str]:
    from raftwright.rawfile.standing import digest

    sums = digest(Path(path))
    return sums.bytes, sums.crc32c


def _with(row: FileRow, **changes: Any) -> FileRow:
    return FileRow(**{**{name: getattr(row, name) for name in row.__struct_fields__}, **changes})
