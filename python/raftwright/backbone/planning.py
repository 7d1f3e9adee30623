"""What goes where: files that are whole in the archive, and lack a replica at an endpoint.

Images of which there is news are looked at soon, and again until all of their files were found to hold in the
archive; all files are compared with all endpoints from time to time. Doing it twice changes nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from raftwright.errors import FormatError
from raftwright.ledger.rows import DeliveryPlan
from raftwright.transfer.naming import CLASSES, CONTAINER, RANKS, priority, target

if TYPE_CHECKING:
    from raftwright.backbone.settings import Endpoint
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import FileRow, ImageRow

__all__ = ["Planner"]

_log = logging.getLogger("raftwright.backbone")

_SOON: Final = 0.02
_LONGEST: Final = 5.0
_PATIENCE: Final = 300.0
"""Seconds for which an image with files that nobody found to hold is looked at; then the sweep does."""
_IMAGES: Final = 200
"""That are looked at in one go."""
_PAGE: Final = 2000
_STEP: Final = 20_000
"""Numbers of files that one query of the sweep goes through."""
_REMEMBERED: Final = 256
_UNVERIFIED: Final = (
    "SELECT DISTINCT image_id FROM file WHERE verified_tai IS NULL"
    " AND status IN ('written', 'unchanged', 'kept') AND image_id IN ({})"
)


class Planner:
    """Thread-safe, but for `sweep`, which belongs to one thread. Raises StorageError."""

    def __init__(self, ledger: Ledger, endpoints: Sequence[Endpoint], instrument: str = "") -> None:
        self._ledger = ledger
        self._endpoints = endpoints
        self._instrument = instrument
        self._news = threading.Condition()
        self._waiting: OrderedDict[int, tuple[float, float]] = OrderedDict()
        """Images to look at: from when on, and since when."""
        self._images: OrderedDict[int, ImageRow] = OrderedDict()
        self._lock = threading.Lock()
        self.refused: dict[str, str] = {}
        """Files that cannot have a name at an endpoint, and why."""
        self.unverified: set[int] = set()
        """Images with files that nobody has found to hold for long."""

    @property
    def waiting(self) -> int:
        """Images to look at."""
        return len(self._waiting)

    def overdue(self) -> float:
        """Whether some should have been looked at long ago."""
        with self._news:
            return float(any(time.monotonic() - due > 10.0 for due, _ in self._waiting.values()))

    def look_at(self, image_ids: Iterable[int]) -> None:
        """There is news of images."""
        now = time.monotonic()
        with self._news:
            for image_id in image_ids:
                self._waiting[image_id] = now + _SOON, now
            self._news.notify()

    def forget(self) -> None:
        """The ledger is another."""
        with self._news:
            self._waiting.clear()
            self.unverified.clear()
            self._news.notify()
        with self._lock:
            self._images.clear()

    def wake(self) -> None:
        """Ends the wait of `due`."""
        with self._news:
            self._news.notify()

    def due(self, patience: float) -> list[tuple[int, float]]:
        """Images whose time has come, with since when there is news of them; waits for one."""
        with self._news:
            now = time.monotonic()
            first = min((when for when, _ in self._waiting.values()), default=now + patience)
            if first > now:
                self._news.wait(min(first - now, patience))
                now = time.monotonic()
            found = [(one, since) for one, (when, since) in self._waiting.items() if when <= now][:_IMAGES]
            for image_id, _ in found:
                del self._waiting[image_id]
            return found

    def examine(self, some: Sequence[tuple[int, float]]) -> int:
        """Plans what images lack; how many deliveries are new. Those with files that nobody has found to hold
        yet are looked at again."""
        ids = [image_id for image_id, _ in some]
        marks = ", ".join("?" * len(ids))
        later = {row[0] for row in self._ledger.read(_UNVERIFIED.format(marks), ids)} if ids else set()
        new = self.plan(ids)
        now = time.monotonic()
        with self._news:
            for image_id, since in some:
                if image_id not in later:
                    self.unverified.discard(image_id)
                elif now - since < _PATIENCE:
                    pause = min(_LONGEST, max(0.1, (now - since) / 2))
                    self._waiting.setdefault(image_id, (now + pause, since))
                elif len(self.unverified) < _REMEMBERED:
                    self.unverified.add(image_id)
        return new

    def plan(self, image_ids: Collection[int]) -> int:
        """Plans what images lack at all endpoints; how many deliveries are new."""
        new = 0
        for endpoint in self._endpoints:
            after = 0
            while True:
                files = self._missing(endpoint, after, image_ids=image_ids)
                new += self._enter(endpoint, files)
                if len(files) < _PAGE:
                    break
                after = files[-1].id
        return new

    def sweep(self, going_on: Callable[[], bool]) -> int:
        """Plans what all files lack; how many deliveries are new. Ends early where it is not to go on."""
        new, after, last = 0, 0, self._ledger.replicas.last_file()
        while after < last and going_on():
            for endpoint in self._endpoints:
                begin = after
                while True:
                    files = self._missing(endpoint, begin, until_file_id=after + _STEP)
                    new += self._enter(endpoint, files)
                    if len(files) < _PAGE or not going_on():
                        break
                    begin = files[-1].id
            after += _STEP
        return new

    def lacking(self, limit: int) -> list[tuple[Endpoint, FileRow, str]]:
        """What would be planned, and its name there; nothing is written."""
        return [
            (endpoint, file, target(endpoint.layout, self._image(file), file.path, file.detector))
            for endpoint in self._endpoints
            for file in self._missing(endpoint, 0, limit=limit)
        ]

    def _missing(
        self,
        endpoint: Endpoint,
        after: int,
        *,
        image_ids: Collection[int] | None = None,
        until_file_id: int = 0,
        limit: int = _PAGE,
    ) -> list[FileRow]:
        instruments = endpoint.instruments
        if self._instrument:
            if instruments and self._instrument not in instruments:
                return []
            instruments = [self._instrument]
        return self._ledger.replicas.missing(
            endpoint.name,
            endpoint.what,
            limit,
            after,
            instruments,
            image_ids=image_ids,
            until_file_id=until_file_id,
        )

    def _enter(self, endpoint: Endpoint, files: Sequence[FileRow]) -> int:
        plans: list[DeliveryPlan] = []
        for file in files:
            image = self._image(file)
            try:
                name = target(endpoint.layout, image, file.path, file.detector)
            except FormatError as error:
                self._refuse(endpoint, file, error)
                continue
            plans.append(
                DeliveryPlan(
                    image_id=file.image_id,
                    destination=endpoint.name,
                    path=file.path,
                    target=name,
                    bytes=file.bytes,
                    crc32c=file.crc32c,
                    priority=(
                        1 + len(CLASSES)
                        if file.kind == CONTAINER
                        else priority(endpoint.order, image.camera, file.detector)
                    ),
                    rank=RANKS[file.kind],
                )
            )
        return self._ledger.replicas.plan(endpoint.name, plans)

    def _refuse(self, endpoint: Endpoint, file: FileRow, error: FormatError) -> None:
        key = f"{endpoint.name} {file.path}"
        if key not in self.refused and len(self.refused) < _REMEMBERED:
            self.refused[key] = str(error)
            _log.error("%s cannot be handed over to %s: %s", file.path, endpoint.name, error)

    def _image(self, file: FileRow) -> ImageRow:
        """What does not change of an image may be remembered. Raises NotFoundError, StorageError."""
        with self._lock:
            known = self._images.get(file.image_id)
        if known is None:
            known = self._ledger.images.by_id(file.image_id)
            with self._lock:
                self._images[known.id] = known
                while len(self._images) > _REMEMBERED:
                    self._images.popitem(last=False)
        return known
