"""Header documents that came after the files: later sidecars beside them, entered in the ledger and
delivered.

It is found by comparing: which document the newest sidecar of a file was made with, and which one there is.
An image whose header came in time costs a look at its sidecars."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.ledger.clock import tai
from raftwright.ledger.rows import FileRow
from raftwright.rawfile.newest import newest_sidecar
from raftwright.rawfile.sidecar import LATER, read_json
from raftwright.service import bound

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import HeaderRow, ImageRow
    from raftwright.metrics import Metrics
    from raftwright.rawfile.document import HeaderDocument
    from raftwright.service import Task
    from raftwright.transfer.digests import Digests

__all__ = ["LateHeaders"]

_log = logging.getLogger("raftwright.archiver")

_GONE: Final = frozenset({"lost", "damaged", "conflict", "removed"})
_AGAIN: Final = 5.0
"""Seconds until something that failed is tried again; longer each time."""
_LONGEST: Final = 600.0


class LateHeaders:
    """A task, `work`. `written` is told the number of an image that has new sidecars."""

    def __init__(
        self,
        ledger: Ledger,
        digests: Digests,
        metrics: Metrics,
        *,
        active: Callable[[], bool],
        written: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._digests = digests
        self._active = active
        self._written = written
        self._news = threading.Condition()
        self._waiting: OrderedDict[int, float] = OrderedDict()
        """Images to look at, and from when on."""
        self._looking = False
        """Whether one is being looked at, which is none of those."""
        self._failed: dict[int, float] = {}
        """Those that wait for another try, and how long."""
        self._sidecars = metrics.counter("later_sidecars", "Sidecars written for headers that came late")

    @property
    def waiting(self) -> int:
        """Images to look at, with the one that is looked at now."""
        with self._news:
            return len(self._waiting) + self._looking

    def look_at(self, image_id: int) -> None:
        """Wants an image to be looked at."""
        with self._news:
            self._waiting[image_id] = 0.0
            self._news.notify()

    def wake(self) -> None:
        """Wakes the task, to end."""
        with self._news:
            self._news.notify_all()

    def work(self, task: Task) -> None:
        """The task."""
        while not task.stopping.is_set():
            image_id = self._next()
            if image_id is not None:
                again = True
                try:
                    again = not self._look(image_id)
                except (NotFoundError, FormatError) as error:
                    again = False  # until there is news of it
                    _log.error("%s", error)
                except RaftwrightError as error:
                    _log.error("the header of image %d: %s; tried again", image_id, error)
                finally:
                    self._looked(image_id, again=again)
            elif self._waiting:
                task.wait(0.2)
            task.beat()

    def _next(self) -> int | None:
        """The first image whose time has come, where it is us that work; waits for news."""
        with self._news:
            if not self._waiting:
                self._news.wait(0.5)
            if not self._active():
                return None
            now = time.monotonic()
            image_id = next((one for one, due in self._waiting.items() if due <= now), None)
            if image_id is not None:
                del self._waiting[image_id]
                self._looking = True
            return image_id

    def _looked(self, image_id: int, *, again: bool) -> None:
        """What failed is tried again later, and holds no other image meanwhile."""
        with self._news:
            self._looking = False
            if again:
                pause = min(2 * self._failed.get(image_id, _AGAIN / 2), _LONGEST)
                self._failed[image_id] = pause
                self._waiting.setdefault(image_id, time.monotonic() + pause)
            else:
                self._failed.pop(image_id, None)

    def _look(self, image_id: int) -> bool:
        """Writes what is to be written; whether all of it could be."""
        image = self._ledger.images.by_id(image_id)
        headers = self._ledger.headers.of(image.obsid)
        if not headers:
            return True
        with bound(obsid=image.obsid):
            stale = [
                file
                for file in self._ledger.files.of(image_id, "raw")
                if file.status not in _GONE and self._is_stale(Path(file.path), headers)
            ]
            if not stale:
                return True
            newest = headers[-1]
            document = self._document(image, newest)
            rows: list[FileRow] = []
            whole = True
            for file in stale:
                try:
                    row = self._write(file, document, Path(newest.path))
                except RaftwrightError as error:
                    _log.error("%s: no later sidecar can be written: %s", file.path, error)
                    whole = whole and not isinstance(error, StorageError)
                else:
                    rows += [] if row is None else [row]
            if rows:
                self._ledger.files.enter(rows)
                self._sidecars.add(len(rows))
                _log.info(
                    "header %d came after %d files; they have later sidecars", newest.version, len(rows)
                )
                self._written(image_id)
        return whole

    @staticmethod
    def _is_stale(raw: Path, headers: list[HeaderRow]) -> bool:
        """Whether a file has another header than the newest, as far as that is quickly known."""
        version, path = newest_sidecar(raw)
        if not os.path.lexists(path):
            return False
        content = read_json(path)
        later = content.get(LATER)
        if isinstance(later, dict):
            made = later.get("header")
            return not isinstance(made, dict) or made.get("crc32c") != headers[-1].crc32c
        told = content.get("HDRVERS")
        if isinstance(told, int) and not isinstance(told, bool):
            return told < headers[-1].version
        return version == 1

    def _document(self, image: ImageRow, header: HeaderRow) -> HeaderDocument:
        """Raises StorageError, FormatError, and NotFoundError where it is not what the ledger says."""
        from raftwright.rawfile.document import read_header_document

        found = self._digests.of(header.path)
        if found is None or found.crc32c != header.crc32c:
            raise NotFoundError(
                f"{image.obsid}: header {header.version} is not what stands in {header.path}; see the audit"
            )
        return read_header_document(header.path)

    def _write(self, file: FileRow, document: HeaderDocument, source: Path) -> FileRow | None:
        """The row of a new sidecar, or of one that another wrote and did not enter. Raises StorageError, and
        FormatError where what stands there is none."""
        from raftwright.rawfile.later import write_later_sidecar

        write_later_sidecar(Path(file.path), document, source)
        version, path = newest_sidecar(Path(file.path))
        found = self._digests.of(path)
        if version == 1 or found is None:
            return None
        return FileRow(
            image=file.image,
            daq_id=file.daq_id,
            location=file.location,
            detector=file.detector,
            version=file.version,
            path=str(path),
            bytes=found.bytes,
            adler32=found.adler32,
            crc32c=found.crc32c,
            status="written",
            kind="sidecar",
            verified=tai(),
        )
