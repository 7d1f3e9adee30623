"""Files of an image as they come: looked at, entered, planned to be delivered; and what the image is with
them.

Whoever wakes this up only makes it fast. `examine` compares ledger and disk and does what is left to do, as
often as it is called. Plans are written with the verdict: an image that is complete in the ledger has all
its deliveries in the queue."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from raftwright.errors import StorageError
from raftwright.ledger.clock import tai
from raftwright.ledger.rows import FileRow
from raftwright.rawfile.names import ImageName, image_directory, sidecar_path
from raftwright.service import bound
from raftwright.transfer.naming import manifest_of

if TYPE_CHECKING:
    from raftwright.archiver.planning import Planner
    from raftwright.ledger import Ledger
    from raftwright.ledger.database import Transaction
    from raftwright.ledger.rows import DeliveryPlan, ImageRow
    from raftwright.metrics import Metrics
    from raftwright.rawfile.standing import Digest
    from raftwright.transfer.digests import Digests

__all__ = ["Gatherer"]

_log = logging.getLogger("raftwright.archiver")

_GONE: Final = frozenset({"lost", "damaged", "conflict", "removed"})
_SPOILT: Final = frozenset({"lost", "damaged"})
_SETTLED: Final = frozenset({"complete", "incomplete", "lost"})
_PENDING: Final = frozenset({"expected", "claimed", "open"})
_HAVE: Final = frozenset({"partial", "complete"})
_REMEMBERED: Final = 1000
_SEARCH: Final = 60.0
"""Seconds between two searches of the directory of an image that is late."""
_PATIENCE: Final = 3.0
"""Seconds between two verdicts on an image that stays incomplete."""
_UNREADABLE: Final = 5.0
"""Seconds until a file that could not be read is read again."""


class _Found(NamedTuple):
    """What a look at the files of an image gave."""

    whole: list[FileRow]
    """Those that may go out."""
    checked: list[str]
    """Those whose sums were found to hold just now."""
    new: list[FileRow]
    """Those that the ledger does not know."""
    again: float
    """In how many seconds to look again; 0: not before there is news."""


class Gatherer:
    """Belongs to one thread, but for `forget`."""

    def __init__(
        self, ledger: Ledger, archive: Path, planner: Planner, digests: Digests, metrics: Metrics
    ) -> None:
        self._ledger = ledger
        self._archive = archive
        self._planner = planner
        self._digests = digests
        self._planned: OrderedDict[int, set[tuple[str, str, str]]] = OrderedDict()
        self._searched: OrderedDict[int, float] = OrderedDict()
        self._judged: OrderedDict[int, float] = OrderedDict()
        self._unreadable: OrderedDict[str, str] = OrderedDict()
        """Files that cannot be read, and what was said of it."""
        self._checked = metrics.counter("files_verified", "Files whose sums hold")
        self._bad = metrics.counter("files_bad", "Files that are gone or whose sums do not hold")

    def forget(self) -> None:
        """What was planned is looked up again."""
        self._planned, self._judged, self._searched = OrderedDict(), OrderedDict(), OrderedDict()

    def examine(self, image_id: int, *, late: bool = False) -> tuple[ImageRow, int, float]:
        """Looks at an image; what it is now, how many deliveries are new, and in how many seconds it should
        be looked at again (0: not before there is news).

        Raises NotFoundError, StorageError.
        """
        image = self._ledger.images.by_id(image_id)
        with bound(obsid=image.obsid):
            known = self._ledger.files.of(image_id)
            if late and self._enter_found(image, known):
                known = self._ledger.files.of(image_id)
            found = self._look(image, known)
            pause = self._pause(image)
            new = self._write(image, found, late=late, judge=not pause)
            if not pause:
                image = self._ledger.images.by_id(image_id)
                self._judged[image_id] = time.monotonic()
                while len(self._judged) > _REMEMBERED:
                    self._judged.popitem(last=False)
            if image.state in _SETTLED and not self._is_pending(image):
                plans = self._unplanned(image_id, self._planner.image(image, self.directory(image)))
                if plans:
                    new += self._ledger.deliveries.plan(plans)
                    self._planned_now(image_id, plans)
        return image, new, max(pause, found.again)

    def _write(self, image: ImageRow, found: _Found, *, late: bool, judge: bool) -> int:
        """What was found, plans and verdict, in one commit; how many deliveries are new."""
        plans = self._unplanned(image.id, self._planner.files(image, found.whole))
        if not (found.checked or found.new or plans or judge):
            return 0

        def work(transaction: Transaction) -> int:
            self._ledger.files.all_verified_in(transaction, found.checked)
            if found.new:
                self._ledger.files.enter_in(transaction, image.id, image.obsid, image.dayobs, found.new)
            new = self._ledger.deliveries.plan_in(transaction, plans)
            if judge:
                self._ledger.images.judge_in(transaction, image.id, late=late, verified=True)
            return new

        count = self._ledger.database.change(work)
        self._planned_now(image.id, plans)
        self._checked.add(len(found.checked))
        return count

    def _pause(self, image: ImageRow) -> float:
        """Seconds until an image may be judged: what was found to lack much, and gets it bit by bit, is not
        told to lack a little less each time."""
        before = self._judged.get(image.id)
        if image.state != "incomplete" or before is None:
            return 0.0
        left = before + _PATIENCE - time.monotonic()
        if left <= 0 or all(one.state == "present" for one in self._ledger.images.detectors(image.id)):
            return 0.0
        return left

    def _is_pending(self, image: ImageRow) -> bool:
        """Whether somebody works on a source of an image, or should."""
        if image.state != "incomplete":
            return False
        return any(source.state in _PENDING for source in self._ledger.images.sources(image.id))

    def _enter_found(self, image: ImageRow, known: list[FileRow]) -> bool:
        """Enters raw files that are on the disk and not in the ledger: whoever named them died before he
        could. Looked for where an image is late; whether there were any."""
        names = {os.path.basename(file.path) for file in known}
        directory = self.directory(image)
        try:
            unknown = [name for name in os.listdir(directory) if name.endswith(".fits") and name not in names]
        except OSError:
            return False
        now = time.monotonic()
        if not unknown or now - self._searched.get(image.id, -_SEARCH) < _SEARCH:
            return False
        self._searched[image.id] = now
        while len(self._searched) > _REMEMBERED:
            self._searched.popitem(last=False)
        from raftwright.ledger.rebuilding import rebuild_image

        _log.warning("%d files are on the disk and not in the ledger; they are entered", len(unknown))
        rebuild_image(self._ledger, directory)
        return True

    def directory(self, image: ImageRow) -> Path:
        """Where its files are."""
        return image_directory(self._archive, ImageName.parse(image.obsid))

    # -- files

    def _look(self, image: ImageRow, files: list[FileRow]) -> _Found:
        """Which are whole, and which of them are news."""
        known = {file.path: file for file in files}
        whole: list[FileRow] = []
        checked: list[str] = []
        beside: list[FileRow] = []
        again = 0.0
        for file in files:
            if file.status in _GONE or file.kind == "container":
                continue
            try:
                if file.verified is None:
                    if not self._holds(file):
                        continue
                    checked.append(file.path)
                whole.append(file)
                if file.kind == "raw":
                    beside += self._beside(image, file, known)
            except _UnreadableError as error:
                again = self._cannot_read(error)
        if image.header_state in _HAVE:
            try:
                beside += self._headers(image, known)
            except _UnreadableError as error:
                again = self._cannot_read(error)
        # A raw file goes nowhere before there is its sidecar.
        there = {file.path for file in (*whole, *beside)}
        ready = [
            file
            for file in (*whole, *beside)
            if file.kind != "raw" or str(sidecar_path(Path(file.path))) in there
        ]
        return _Found(ready, checked, beside, again)

    def _digest(self, path: str | Path) -> Digest | None:
        """Raises _UnreadableError: this file cannot be read, and nothing is said of the others."""
        try:
            found = self._digests.of(path)
        except StorageError as error:
            raise _UnreadableError(str(path), str(error)) from error
        self._unreadable.pop(str(path), None)
        return found

    def _cannot_read(self, error: _UnreadableError) -> float:
        """Said once for each file."""
        if self._unreadable.get(error.path) != error.said:
            _log.error("%s; it is looked at again", error.said)
        self._unreadable[error.path] = error.said
        while len(self._unreadable) > _REMEMBERED:
            self._unreadable.popitem(last=False)
        return _UNREADABLE

    def _holds(self, file: FileRow) -> bool:
        """Whether a file is what the ledger says; the ledger is told where it is not."""
        found = self._digest(file.path)
        if found is None:
            self._bad.add()
            _log.error("%s is in the ledger and not on the disk", file.path)
            self._ledger.files.lost(file.path, "it is not on the disk any more")
            return False
        if (found.bytes, found.crc32c) == (file.bytes, file.crc32c):
            return True
        self._bad.add()
        said = (
            f"has {found.bytes} bytes and CRC-32C {found.crc32c}, written were {file.bytes} and {file.crc32c}"
        )
        _log.error("%s %s", file.path, said)
        self._ledger.files.verified(file.path, ok=False, reason=said)
        return False

    def _beside(self, image: ImageRow, raw: FileRow, known: dict[str, FileRow]) -> list[FileRow]:
        """Sidecar and list of sensors of a raw file, where the ledger does not know them yet."""
        rows = []
        for kind, path, detector in (
            ("sidecar", sidecar_path(Path(raw.path)), raw.detector),
            ("manifest", manifest_of(image, raw.path), ""),
        ):
            before = known.get(str(path))
            if before is not None and before.status not in _SPOILT:
                continue
            found = self._digest(path)
            if before is not None and (found is None or not _is_back(before, found)):
                continue
            if found is None:
                _log.error("%s: not there; %s waits for it", path, Path(raw.path).name)
                continue
            row = _row(image, kind, path, found, raw if detector else None)
            known[str(path)] = row
            rows.append(row)
        return rows

    def _headers(self, image: ImageRow, known: dict[str, FileRow]) -> list[FileRow]:
        """Header documents of an image that the ledger does not know as files yet."""
        rows = []
        for header in self._ledger.headers.of(image.obsid):
            if header.path in known:
                continue
            found = self._digest(header.path)
            if found is None or found.crc32c != header.crc32c:
                _log.error("%s: is not the header that the ledger knows; see the audit", header.path)
                continue
            rows.append(_row(image, "header", Path(header.path), found, None, header.version))
        return rows

    # -- plans

    def _unplanned(self, image_id: int, plans: list[DeliveryPlan]) -> list[DeliveryPlan]:
        """Those that are not known to be in the queue yet."""
        done = self._planned.get(image_id, ())
        return [plan for plan in plans if (plan.destination, plan.path, plan.crc32c) not in done]

    def _planned_now(self, image_id: int, plans: list[DeliveryPlan]) -> None:
        planned = self._planned  # `forget` puts another in its place
        planned.setdefault(image_id, set()).update((one.destination, one.path, one.crc32c) for one in plans)
        planned.move_to_end(image_id)
        while len(planned) > _REMEMBERED:
            planned.popitem(last=False)


class _UnreadableError(Exception):
    """A file that cannot be read now."""

    def __init__(self, path: str, said: str) -> None:
        super().__init__(said)
        self.path = path
        self.said = said


def _is_back(before: FileRow, found: Digest) -> bool:
    """Whether what stands under the name of a file that was lost or damaged is that file. One that was lost
    is written anew; a damaged one may still be the damaged one."""
    return before.status == "lost" or (found.bytes, found.crc32c) == (before.bytes, before.crc32c)


def _row(
    image: ImageRow, kind: str, path: Path, found: Digest, raw: FileRow | None, version: int = 1
) -> FileRow:
    """A file beside the raws; `raw` is the one that it belongs to, where it belongs to one."""
    return FileRow(
        image=image.obsid,
        daq_id=image.daq_id,
        location="" if raw is None else raw.location,
        detector="" if raw is None else raw.detector,
        version=version if raw is None else raw.version,
        path=str(path),
        bytes=found.bytes,
        adler32=found.adler32,
        crc32c=found.crc32c,
        status="written",
        kind=kind,
        verified=tai(),
    )
