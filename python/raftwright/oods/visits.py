"""What the registry knows beyond files: visits of what was ingested, tried until they are there, and headers
that came late. Visits that nobody lived to define are found again by comparing ledger and repository, from
the newest image back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.butler import Ingester
    from raftwright.ledger import Ledger
    from raftwright.service import Task

__all__ = ["Visits"]

_log = logging.getLogger("raftwright.oods")

_PAGE: Final = 500
"""Images that are looked at together; back to a page of which all have their visits."""
_PAUSE: Final = 2.0

_Exposures = set[tuple[str, int]]


class Visits:
    """`keep` is its task; all else may be called by any thread."""

    def __init__(
        self, ledger: Ledger, name: str, open_ingester: Callable[[], Ingester], *, define: bool = True
    ) -> None:
        self._define_any = define
        self._ledger = ledger
        self._name = name
        self._open = open_ingester
        self._wanted: _Exposures = set()
        self._in_hand: _Exposures = set()
        self._late: set[int] = set()
        self._compare = False
        self._news = threading.Condition()
        self.trouble = ""

    @property
    def waiting(self) -> bool:
        """Whether some are to be defined."""
        with self._news:
            return bool(self._wanted or self._in_hand or self._late or self._compare)

    @property
    def correcting(self) -> bool:
        """Whether late headers are still to be read."""
        with self._news:
            return bool(self._late)

    def correct(self, images: set[int]) -> None:
        """Numbers of images whose headers came after their files."""
        with self._news:
            self._late |= images
            self._news.notify()

    def want(self, exposures: _Exposures) -> None:
        """(instrument, exposure) of what was ingested."""
        with self._news:
            self._wanted |= exposures if self._define_any else set()
            self._news.notify()

    def compare(self) -> None:
        """Look for those that somebody else left."""
        with self._news:
            self._compare = self._define_any
            self._news.notify()

    def wake(self) -> None:
        """See whether it is over."""
        with self._news:
            self._news.notify()

    def keep(self, task: Task, active: Callable[[], bool]) -> None:
        """Defines them. The task."""
        ingester: Ingester | None = None
        self._put_back(self._in_hand)  # of the task that died
        try:
            while not task.stopping.is_set():
                with self._news:
                    if not (self._wanted or self._late or self._compare):
                        self._news.wait(1.0)
                    self._in_hand, self._wanted = self._wanted, set()
                    late, compare = set(self._late), self._compare
                task.beat()
                if not (self._in_hand or late or compare) or not active():
                    self._put_back(self._in_hand)
                    task.wait(0.0 if active() else 1.0)
                    continue
                left = set(self._in_hand)
                try:
                    ingester = ingester or self._open()
                    for image_id in sorted(late):
                        left |= self._correct(ingester, image_id)
                    if compare:
                        self._look_back(ingester)
                    left, reason = self._define(ingester, left)
                    if reason:
                        self._say(reason)
                    else:
                        self.trouble = ""
                except RaftwrightError as error:
                    self._say(str(error))
                    if ingester is not None:
                        ingester.close()
                        ingester = None
                self._put_back(left)
                if self.trouble:
                    task.wait(_PAUSE)
        finally:
            if ingester is not None:
                ingester.close()

    def _put_back(self, left: _Exposures) -> None:
        with self._news:
            self._wanted |= left
            self._in_hand = set()

    def _define(self, ingester: Ingester, wanted: _Exposures) -> tuple[_Exposures, str]:
        """Gives those that want another try, and why."""
        if not wanted or not self._define_any:
            return set(), ""
        failed = [one for one in ingester.define_visits(sorted(wanted)) if one.state == "failed"]
        reason = f"exposure {failed[0].exposure}: {failed[0].reason}" if failed else ""
        return {(one.instrument, one.exposure) for one in failed}, reason

    def _correct(self, ingester: Ingester, image_id: int) -> _Exposures:
        """What is known of an exposure, from the sidecars that stand beside its files now."""
        from raftwright.butler import Incoming

        files = [
            Incoming(path=row.path, obsid=row.obsid, detector=row.detector)
            for row in self._ledger.ingests.of(image_id, self._name)
            if row.kind == "raw" and row.state == "ingested"
        ]
        corrected = ingester.correct(files) if files else set()
        with self._news:
            self._late.discard(image_id)
        return corrected

    def _look_back(self, ingester: Ingester) -> None:
        """Raises StorageError; then it is tried again."""
        with self._news:
            self._compare = False
        before = 1 << 62
        try:
            while True:
                rows = self._ledger.read(
                    "SELECT image.id, image.instrument, image.exposure_id FROM image WHERE image.id < ?"
                    " AND image.exposure_id > 0 AND EXISTS (SELECT 1 FROM ingest"
                    " WHERE ingest.image_id = image.id AND ingest.repository = ?"
                    " AND ingest.kind = 'raw' AND ingest.state = 'ingested')"
                    " ORDER BY image.id DESC LIMIT ?",
                    (before, self._name, _PAGE),
                )
                lacking = ingester.without_visits((str(row[1]), int(row[2])) for row in rows)
                with self._news:
                    self._wanted |= lacking
                if not lacking or len(rows) < _PAGE:
                    return
                before = rows[-1][0]
        except BaseException:
            self.compare()
            raise

    def _say(self, reason: str) -> None:
        if not self.trouble:
            _log.error("visits cannot be defined: %s", reason)
        self.trouble = f"visits cannot be defined: {reason}"
