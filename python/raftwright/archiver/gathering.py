"""Files of an image as they come: looked at, entered, planned to be delivered; and what the image is with
them.

Whoever wakes this up only makes it fast. `examine` compares ledger and disk and does what is left to do, as
often as it is called. Plans are written before the verdict: an image that is complete in the ledger has all
its deliveries in the queue."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.archiver.layout import manifest_of
from raftwright.errors import RaftwrightError
from raftwright.ledger.clock import tai
from raftwright.ledger.rows import FileRow
from raftwright.rawfile.names import ImageName, image_directory, sidecar_path
from raftwright.service import bound

if TYPE_CHECKING:
    from raftwright.archiver.planning import Planner
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import DeliveryPlan, ImageRow
    from raftwright.metrics import Metrics
    from raftwright.rawfile.standing import Digest
    from raftwright.transfer.digests import Digests

__all__ = ["Gatherer"]

_log = logging.getLogger("raftwright.archiver")

_GONE: Final = frozenset({"lost", "damaged", "conflict"})
_SETTLED: Final = frozenset({"complete", "incomplete", "lost"})
_PENDING: Final = frozenset({"expected", "claimed", "open"})
_HAVE: Final = frozenset({"partial", "complete"})
_REMEMBERED: Final = 1000
_SEARCH: Final = 60.0
"""Seconds between two searches of the directory of an image that is late."""
_PATIENCE: Final = 3.0
"""Seconds between two verdicts on an image that stays incomplete."""


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
            files = self._look(image, known)
            new = self._plan(image_id, self._planner.files(image, files))
            again = self._pause(image)
            if not again:
                image = self._ledger.images.judge(image_id, late=late, verified=True)
                self._judged[image_id] = time.monotonic()
                while len(self._judged) > _REMEMBERED:
                    self._judged.popitem(last=False)
            if image.state in _SETTLED and not self._is_pending(image):
                new += self._plan(image_id, self._planner.image(image, self.directory(image)))
        return image, new, again

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

    def _look(self, image: ImageRow, files: list[FileRow]) -> list[FileRow]:
        """Those that are whole; what is new of them is entered."""
        known = {file.path: file for file in files}
        whole: list[FileRow] = []
        checked: list[str] = []
        beside: list[FileRow] = []
        for file in files:
            if file.status in _GONE:
                continue
            if file.verified is None:
                if not self._holds(file):
                    continue
                checked.append(file.path)
            whole.append(file)
            if file.kind == "raw":
                beside += self._beside(image, file, known)
        if image.header_state in _HAVE:
            beside += self._headers(image, known)
        if checked:
            self._ledger.files.all_verified(checked)
            self._checked.add(len(checked))
        if beside:
            self._ledger.files.enter(beside)
        # A raw file goes nowhere before there is its sidecar.
        there = {file.path for file in (*whole, *beside)}
        return [
            file
            for file in (*whole, *beside)
            if file.kind != "raw" or str(sidecar_path(Path(file.path))) in there
        ]

    def _holds(self, file: FileRow) -> bool:
        """Whether a file is what the ledger says; the ledger is told where it is not."""
        found = self._digests.of(file.path)
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
            if str(path) in known:
                continue
            try:
                found = self._digests.of(path)
            except RaftwrightError as error:
                _log.error("%s", error)
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
            found = self._digests.of(header.path)
            if found is None or found.crc32c != header.crc32c:
                _log.error("%s: is not the header that the ledger knows; see the audit", header.path)
                continue
            rows.append(_row(image, "header", Path(header.path), found, None, header.version))
        return rows

    # -- plans

    def _plan(self, image_id: int, plans: list[DeliveryPlan]) -> int:
        """Enters deliveries that are not in the queue yet; how many those are."""
        done = self._planned.setdefault(image_id, set())
        self._planned.move_to_end(image_id)
        while len(self._planned) > _REMEMBERED:
            self._planned.popitem(last=False)
        new = [plan for plan in plans if (plan.destination, plan.path, plan.crc32c) not in done]
        if not new:
            return 0
        count = self._ledger.deliveries.plan(new)
        done.update((plan.destination, plan.path, plan.crc32c) for plan in new)
        return count


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
