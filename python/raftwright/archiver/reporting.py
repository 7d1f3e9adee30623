"""What came of images and deliveries, told with the observatory's own messages; counts come from the ledger.

A summary counts each file once, by what it is, however often it was sent.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.archiver.commands import CommandError
from raftwright.archiver.fullness import percent_used
from raftwright.archiver.settings import Command
from raftwright.archiver.telling import HOST, parts_of
from raftwright.errors import RaftwrightError, UsageError
from raftwright.ledger.clock import tai
from raftwright.rawfile.names import FileName
from raftwright.transfer.naming import kind_of

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination, Settings
    from raftwright.archiver.telling import Teller
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import DeliveryRow, EventRow, ImageRow
    from raftwright.transfer.lane import Ended

__all__ = ["Reporter"]

_log = logging.getLogger("raftwright.archiver")

_REMEMBERED: Final = 4096
_DAY: Final = re.compile(r"[12][0-9]{7}\Z")
_OPEN: Final = frozenset({"queued", "sending"})
_SETTLED: Final = frozenset({"complete", "incomplete", "lost"})
_OLD: Final = 86_400.0
"""Seconds after which it is no news what an image is: who begins with an old ledger does not tell all of
it."""
_AFTER_ROLLOVER: Final = 600.0
"""Seconds after the end of a night at which it is summed up."""


class Reporter:
    """Thread-safe. `work` is called once a second by one thread."""

    def __init__(
        self,
        ledger: Ledger,
        archive: Path,
        settings: Settings,
        teller: Teller,
        image_of: Callable[[int], ImageRow],
        settled: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._settled = settled
        self._ledger = ledger
        self._archive = archive
        self._sites = {one.name: one.label for one in settings.destinations}
        self._teller = teller
        self._image_of = image_of
        self._lock = threading.Lock()
        self._touched: set[int] = set()
        """Images of which a delivery ended."""
        self._told: OrderedDict[tuple[int, str], tuple[int, ...]] = OrderedDict()
        """Image and destination: the counts that were told last."""
        self._late: OrderedDict[tuple[int, str], str] = OrderedDict()
        self._night = _dayobs(time.time() - _AFTER_ROLLOVER)

    # -- images

    def dead(self, image: ImageRow, location: str, reason: str) -> None:
        """A source comes no more. Each is told once."""
        with self._lock:
            if (image.id, location) in self._late:
                return
            self._late[image.id, location] = reason
            while len(self._late) > _REMEMBERED:
                self._late.popitem(last=False)
        missing, raft = 0, "NR"
        for source in self._ledger.images.sources(image.id):
            if source.location == location:
                missing = max(0, source.expected - source.received)
        for detector in self._ledger.images.detectors(image.id):
            if detector.location == location:
                raft = parts_of(detector.detector)[0]
        self._teller.of_image(
            "imageIncomplete", image, raft=raft, location=location, missing_bytes=missing, reason=reason
        )

    def image(self, row: EventRow) -> None:
        """An image has another state."""
        if row.new not in _SETTLED or row.image_id is None or tai() - row.at_tai > _OLD:
            return
        image = self._ledger.images.by_id(row.image_id)
        if image.state not in _SETTLED:
            return  # it goes on, and there is another row
        detectors = self._ledger.images.detectors(image.id)
        absent = [one for one in detectors if one.state != "present"]
        if image.state != "complete":
            sources = {one.location: one for one in self._ledger.images.sources(image.id)}
            for location in sorted({one.location for one in absent}):
                source = sources.get(location)
                why = image.reason if source is None else source.reason or f"its source is {source.state}"
                self.dead(image, location, why)
        missing = {
            one.detector: (one.reason or f"{one.missing_pixels} pixels are missing, {one.state}")[:200]
            for one in absent[:400]
        }
        self._teller.of_image(
            "imageComplete",
            image,
            expected=len(detectors),
            present=len(detectors) - len(absent),
            state="complete" if image.state == "complete" else "incomplete",
            missing=missing,
        )
        self._written(image)
        self._settled(
            {
                "obsid": image.obsid,
                "instrument": image.instrument,
                "state": image.state,
                "reason": image.reason,
                "expected": len(detectors),
                "present": len(detectors) - len(absent),
                "latency_s": _latency(image),
            }
        )
        with self._lock:
            self._touched.add(image.id)

    def _written(self, image: ImageRow) -> None:
        files = [
            file.path
            for file in self._ledger.files.of(image.id, "raw")
            if file.status not in ("lost", "damaged", "conflict") and not file.replaced_by
        ]
        if not files:
            return
        relative = [os.path.relpath(path, self._archive) for path in files]
        self._teller.tell(
            "fitsFilesWritten",
            instrument=image.instrument or "unknown",
            imageName=image.obsid,
            timestampFilesWritten=tai(),
            rootFileName=str(self._archive),
            relativeFileNames=relative,
            fileNode=[HOST] * len(files),
        )

    # -- deliveries

    def delivery(self, row: EventRow) -> None:
        """A delivery has another state."""
        if row.image_id is not None and row.new not in _OPEN:
            with self._lock:
                self._touched.add(row.image_id)

    def ended(self, what: Destination | Command, ended: Ended) -> None:
        """A try ended. Called by a lane."""
        image = self._image_of(ended.row.image_id)
        if isinstance(what, Command):
            self._command(what, image, ended)
            return
        row = ended.row
        raft, sensor = self._parts(row)
        common: dict[str, Any] = {
            "raft": raft,
            "sensor": sensor,
            "destination": what.name,
            "name": row.target,
        }
        if ended.state == "delivered":
            self._teller.of_image(
                "delivered",
                image,
                **common,
                bytes=row.bytes,
                attempt=row.attempts,
                seconds=round(ended.seconds, 4),
            )
            return
        final = ended.state != "queued"
        self._teller.of_image(
            "deliveryFailed",
            image,
            **common,
            attempt=row.attempts,
            reason=ended.reason or "unknown",
            final=final,
        )
        self._teller.tell(
            "fileTransfer",
            instrument=image.instrument or "unknown",
            obsid=image.obsid,
            site=what.label,
            dayObs=f"{image.dayobs:08d}",
            resendCount=max(0, row.attempts - 1),
            raft=raft,
            sensor=sensor,
            fileType=_kind(row.path),
            operation="put" if what.kind == "s3" else "copy",
            rc=getattr(ended.error, "errno", None) or 1,
            writeHost=HOST,
            fileName=row.path,
            reason=(ended.reason or "unknown")[:2000],
            timestamp=tai(),
            duration=round(ended.seconds, 4),
        )

    def _command(self, command: Command, image: ImageRow, ended: Ended) -> None:
        error = ended.error
        rc = 0 if error is None else error.rc if isinstance(error, CommandError) else 1
        said = " ".join(command.run) if ended.sent is None else ended.sent.place
        raft, sensor = parts_of(ended.row.target)
        self._teller.tell(
            "fileCommandExecution",
            instrument=image.instrument or "unknown",
            imageName=image.obsid,
            timestampCommandComplete=tai(),
            command=said[:8000],
            rc=rc,
        )
        self._teller.of_image(
            "commandRun",
            image,
            command=said[:8000],
            rc=rc,
            raft=raft,
            sensor=sensor,
            path=ended.row.path,
            seconds=round(ended.seconds, 4),
            output=error.output if isinstance(error, CommandError) else ended.reason,
        )

    @staticmethod
    def _parts(row: DeliveryRow) -> tuple[str, str]:
        try:
            name = FileName.parse(str(Path(row.path).with_suffix(".fits")))
        except RaftwrightError:
            return parts_of("")
        return name.raft, name.slot

    # -- summaries

    def work(self) -> None:
        """Tells what there is to tell now."""
        with self._lock:
            touched, self._touched = self._touched, set()
        for image_id in touched:
            try:
                self._summaries(image_id)
            except RaftwrightError as error:
                _log.error("%s", error)
                with self._lock:
                    self._touched.add(image_id)
        night = _dayobs(time.time() - _AFTER_ROLLOVER)
        if night != self._night:
            before, self._night = self._night, night
            try:
                self.night(f"{before:08d}")
            except RaftwrightError as error:
                _log.error("the night %d cannot be summed up: %s", before, error)

    def _summaries(self, image_id: int) -> None:
        """Of an image at each site where nothing of it is on its way any more."""
        image = self._ledger.images.by_id(image_id)
        if image.state not in _SETTLED:
            return
        rows: dict[str, list[DeliveryRow]] = {}
        for row in self._ledger.deliveries.of(image_id):
            rows.setdefault(row.destination, []).append(row)
        for destination, some in rows.items():
            if destination not in self._sites or any(row.state in _OPEN for row in some):
                continue
            counts = self._counts(image, some)
            with self._lock:
                if self._told.get((image_id, destination)) == tuple(counts.values()):
                    continue
                self._told[image_id, destination] = tuple(counts.values())
                while len(self._told) > _REMEMBERED:
                    self._told.popitem(last=False)
            failed = {
                row.path: f"{row.state}: {row.reason}"[:300] for row in some if row.state != "delivered"
            }
            self._teller.tell(
                "fileTransferPerImageSummary",
                instrument=image.instrument or "unknown",
                site=self._sites[destination],
                dayObs=f"{image.dayobs:08d}",
                obsId=image.obsid,
                **counts,
                metaData=msgspec.json.encode({"notDelivered": dict(list(failed.items())[:100])}).decode(),
            )

    def _counts(self, image: ImageRow, rows: list[DeliveryRow]) -> dict[str, int]:
        """CCDs of an image at a site: each counts once, whatever versions of its file there are."""
        written: set[str] = set()
        first: set[str] = set()
        there: set[str] = set()
        resent = 0
        for row in rows:
            if _kind(row.path) != "raw":
                continue
            name = FileName.parse(row.path)
            ccd = f"{name.raft}_{name.slot}"
            written.add(ccd)
            resent += max(0, row.attempts - 1)
            if row.state == "delivered":
                there.add(ccd)
                if row.attempts <= 1:
                    first.add(ccd)
        return {
            "expected": max(image.expected_detectors, len(written)),
            "written": len(written),
            "transferredBeforeResend": len(first),
            "missingBeforeResend": len(written - first),
            "resendCount": resent,
            "transferredAfterResend": len(there),
            "missingAfterResend": len(written - there),
        }

    def night(self, day: str) -> Mapping[str, Any]:
        """Sums a night up and tells it, for each site; what was told. Raises UsageError, StorageError."""
        if not _DAY.match(day):
            raise UsageError(f"{day[:40]!a} is no night; give dayobs as YYYYMMDD")
        dayobs = int(day)
        sums: dict[tuple[str, str], dict[str, int]] = {}
        after = 0
        while rows := self._ledger.images.select(dayobs=dayobs, after_id=after, limit=500):
            for image in rows:
                of: dict[str, list[DeliveryRow]] = {name: [] for name in self._sites}
                for row in self._ledger.deliveries.of(image.id):
                    if row.destination in of:
                        of[row.destination].append(row)
                for destination, some in of.items():
                    total = sums.setdefault((image.instrument or "unknown", destination), {})
                    for key, count in self._counts(image, some).items():
                        total[key] = total.get(key, 0) + count
            after = rows[-1].id
        full = percent_used(self._archive)
        for (instrument, destination), counts in sums.items():
            self._teller.tell(
                "fileTransferNightlySummary",
                instrument=instrument,
                site=self._sites[destination],
                dayObs=f"{dayobs:08d}",
                **counts,
                maxFullDiskNode=HOST,
                maxFullDiskPercent=full,
            )
        return {"dayobs": dayobs, "sites": {self._sites[name]: counts for (_, name), counts in sums.items()}}


def _latency(image: ImageRow) -> float | None:
    """Seconds from the end of the readout, where that is known."""
    if image.end_readout_tai is None or image.settled_tai is None:
        return None
    return round(image.settled_tai - image.end_readout_tai, 4)


def _kind(path: str) -> str:
    try:
        return kind_of(path)
    except RaftwrightError:
        return "other"


def _dayobs(unix: float) -> int:
    """The observing day of a moment: it begins at 12:00 UTC."""
    moment = datetime.datetime.fromtimestamp(unix, datetime.UTC) - datetime.timedelta(hours=12)
    return int(moment.strftime("%Y%m%d"))
