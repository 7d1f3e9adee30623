"""Raws of the archive: as the ledger comes to know them they become ingests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.ledger.rows import IngestPlan
from raftwright.rawfile.newest import sidecar_version
from raftwright.transfer.naming import priority

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import EventRow
    from raftwright.oods.settings import Settings
    from raftwright.service import Task

__all__ = ["Following"]

_log = logging.getLogger("raftwright.oods")

_AT_A_TIME: Final = 2000
_WANTED: Final = "file.kind = 'raw' AND file.status IN ('written', 'unchanged', 'kept')"
_MISSING: Final = (
    "SELECT file.id, file.image_id, file.path, file.detector, file.crc32c, file.bytes, image.camera,"
    " image.instrument FROM file JOIN image ON image.id = file.image_id"
    f" WHERE {_WANTED} AND file.replaced_by = '' AND {{where}} AND NOT EXISTS (SELECT 1 FROM ingest"
    " WHERE ingest.repository = ? AND ingest.path = file.path AND ingest.crc32c = file.crc32c)"
    " ORDER BY file.id LIMIT ?"
)


class Following:
    """`take` is for the chronicle of the ledger; `sweep` is a task that looks at all files once, and then at
    those that came since: what was not seen for any reason is found by it. `corrected` gets numbers of images
    whose headers came after their files."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        planned: Callable[[], None],
        corrected: Callable[[set[int]], None],
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._planned = planned
        self._corrected = corrected
        self._swept = 0
        self.seen = 0
        """Files that became ingests here."""
        self.trouble = ""

    def take(self, rows: list[EventRow]) -> None:
        """What changed in the ledger."""
        raws: set[int] = set()
        later: set[int] = set()
        for row in rows:
            if row.thing != "file" or row.image_id is None:
                continue
            kind = row.detail.get("kind")
            if kind == "raw":
                raws.add(row.image_id)
            elif kind == "sidecar" and sidecar_version(Path(row.subject)) > 1:
                later.add(row.image_id)
        if raws:
            self._plan_images(raws)
        if later:
            self._corrected(later)

    def forget(self) -> None:
        """The ledger is another than before: all of it is compared again."""
        self._swept = 0

    def sweep(self) -> bool:
        """Plans what lacks, some at a time; whether there may be more. Raises StorageError."""
        last = self._ledger.replicas.last_file()
        rows = self._ledger.read(
            _MISSING.format(where="file.id > ?"), (self._swept, self._settings.name, _AT_A_TIME)
        )
        self._plan(rows)
        if len(rows) == _AT_A_TIME:
            self._swept = rows[-1][0]
            return True
        # A file may get its number before one that is there already: the last ones are looked at again.
        self._swept = max(0, last - _AT_A_TIME)
        return False

    def _plan_images(self, images: Collection[int]) -> None:
        for image_id in sorted(images):
            rows = self._ledger.read(
                _MISSING.format(where="file.image_id = ?"), (image_id, self._settings.name, _AT_A_TIME)
            )
            self._plan(rows)

    def _plan(self, rows: Iterable[tuple[object, ...]]) -> None:
        wanted = self._settings
        plans = [
            IngestPlan(
                image_id=int(str(image_id)),
                repository=wanted.name,
                path=str(path),
                file_id=int(str(file_id)),
                detector=str(detector),
                crc32c=str(crc32c),
                bytes=int(str(size)),
                priority=priority(wanted.order, str(camera), str(detector)),
            )
            for file_id, image_id, path, detector, crc32c, size, camera, instrument in rows
            if not wanted.instruments or instrument in wanted.instruments
        ]
        if plans:
            self.seen += self._ledger.ingests.plan(plans)
            self._planned()

    def keep(self, task: Task, active: Callable[[], bool]) -> None:
        """Sweeps from time to time. The task."""
        while not task.stopping.is_set():
            try:
                while active() and not task.stopping.is_set() and self.sweep():
                    task.beat()
                self.trouble = ""
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("files cannot be looked for: %s", error)
                self.trouble = f"files cannot be looked for: {error}"
            task.beat()
            task.wait(self._settings.sweep)
