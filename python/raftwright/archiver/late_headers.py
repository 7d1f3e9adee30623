"""Header documents that came after the files: later sidecars beside them, entered in the ledger and
delivered.

It is found by comparing: which document the newest sidecar of a file was made with, and which one there is.
An image whose header came in time costs a look at its sidecars."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import FormatError, NotFoundError, RaftwrightError
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

_GONE: Final = frozenset({"lost", "damaged", "conflict"})
_AGAIN: Final = 5.0
"""Seconds until something that failed is tried again."""


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
        self._waiting: dict[int, None] = {}
        self._sidecars = metrics.counter("later_sidecars", "Sidecars written for headers that came late")

    @property
    def waiting(self) -> int:
        """Images to look at."""
        return len(self._waiting)

    def look_at(self, image_id: int) -> None:
        """Wants an image to be looked at."""
        with self._news:
            self._waiting[image_id] = None
            self._news.notify()

    def wake(self) -> None:
        """Wakes the task, to end."""
        with self._news:
            self._news.notify_all()

    def work(self, task: Task) -> None:
        """The task."""
        while not task.stopping.is_set():
            with self._news:
                if not self._waiting:
                    self._news.wait(0.5)
                image_id = next(iter(self._waiting), None)
            if image_id is None or not self._active():
                if image_id is not None:
                    task.wait(0.2)
                task.beat()
                continue
            try:
                self._look(image_id)
            except (NotFoundError, FormatError) as error:
                _log.error("%s", error)  # until there is news of it
            except RaftwrightError as error:
                _log.error("the header of image %d: %s; tried again", image_id, error)
                task.wait(_AGAIN)
                task.beat()
                continue
            with self._news:
                self._waiting.pop(image_id, None)
            task.beat()

    def _look(self, image_id: int) -> None:
        image = self._ledger.images.by_id(image_id)
        headers = self._ledger.headers.of(image.obsid)
        if not headers:
            return
        with bound(obsid=image.obsid):
            stale = [
                file
                for file in self._ledger.files.of(image_id, "raw")
                if file.status not in _GONE and self._is_stale(Path(file.path), headers)
            ]
            if not stale:
                return
            newest = headers[-1]
            document = self._document(image, newest)
            rows = [
                row for file in stale if (row := self._write(file, document, Path(newest.path))) is not None
            ]
            if rows:
                self._ledger.files.enter(rows)
                self._sidecars.add(len(rows))
                _log.info(
                    "header %d came after %d files; they have later sidecars", newest.version, len(rows)
                )
                self._written(image_id)

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
        """The row of a new sidecar, or of one that another wrote and did not enter."""
        from raftwright.rawfile.later import write_later_sidecar

        try:
            write_later_sidecar(Path(file.path), document, source)
        except RaftwrightError as error:
            _log.error("%s: no later sidecar can be written: %s", file.path, error)
            return None
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
