"""The audit: ledger against disk, against destinations, against the DAQ. It changes nothing.

It goes image by image, some at a time: memory does not grow with the ledger.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raftwright.errors import RaftwrightError, StorageError
from raftwright.ledger.replicas import ENDPOINT
from raftwright.report.beyond import catalogue_of, compare_daq, not_taken, only_in_daq, split, strangers
from raftwright.report.book import Book
from raftwright.report.containers import look_at_container, unpacked
from raftwright.report.disk import OnDisk, list_directory, what_is
from raftwright.report.places import Looked, Place, Watched, vanished
from raftwright.report.times import now_tai, span
from raftwright.report.verdicts import ImageAudit, Verdict, What
from raftwright.timescale import TAI_MINUS_UTC

__all__ = ["Options", "audit"]

_PAGE: Final = 50
"""Images of which rows are in memory at a time."""
_FRESH: Final = 60.0
"""Seconds within which whoever wrote a raw file enters it."""
_BAD: Final = frozenset({"lost", "damaged"})
_LOOKED_FOR: Final = frozenset({"raw", "container"})
"""Kinds of which one that the ledger does not have is told in any case."""
_DONE: Final = frozenset({"complete", "incomplete", "lost"})
_WHOLE: Final = frozenset({"present", "incomplete"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is audited and how closely."""

    archive: Path | None = None
    """Root of the raw files; where it is known, images are found that the ledger does not have."""
    dayobs: int | None = None
    since_tai: float | None = None
    obsid: str | None = None
    digests: bool = False
    """Read every file and compare its sum; else sizes alone."""
    places: Sequence[Place] = ()
    daq: Any = None
    """A `raftwright.daq.Store`."""
    settle: float = 600.0
    """Seconds that an image, and a delivery, may take before it is looked at as late."""
    stale: float = 3600.0
    """Age in seconds from which on a temporary file is one that somebody left."""
    threads: int = 2


def audit(book: Book, options: Options, *, now: float | None = None) -> Iterator[ImageAudit]:
    """Every image, in the order of the ledger; then those that the ledger does not know, and the numbers that
    were not taken. Raises StorageError where ledger or archive cannot be read."""
    at = now_tai() if now is None else now
    known: dict[int, dict[tuple[str, str], set[int]]] = {}
    catalogue = catalogue_of(options)
    places = {place.name: Watched(place, vanished(book, place)) for place in options.places}
    with ThreadPoolExecutor(options.threads) as pool:
        for page in _pages(book, options):
            for image in _Auditor(book, options, at, page, pool, places).look():
                if catalogue is not None:
                    compare_daq(image, catalogue)
                name = split(image.obsid)
                if name is not None:
                    known.setdefault(image.dayobs, {}).setdefault(name[:2], set()).add(name[2])
                yield image
    if options.obsid is not None:
        return
    others = strangers(book, options, known) if options.archive is not None else []
    for image in others:
        name = split(image.obsid)
        if name is not None:
            known.setdefault(image.dayobs, {}).setdefault(name[:2], set()).add(name[2])
        yield image
    if catalogue is not None:
        yield from only_in_daq(catalogue, known, options)
    yield from not_taken(known)


# --- one image
# ------------------------------------------------------------------------------------------------


class _Auditor:
    """Looks at a page of images."""

    def __init__(
        self,
        book: Book,
        options: Options,
        at: float,
        page: Sequence[tuple[Any, ...]],
        pool: ThreadPoolExecutor,
        places: Mapping[str, Watched],
    ) -> None:
        self._options = options
        self._at = at
        self._page = page
        self._pool = pool
        self._places = places
        ids = [row[0] for row in page]
        marks = ", ".join("?" * len(ids))
        self._files = _grouped(
            book.rows(
                "SELECT image_id, path, kind, detector, bytes, crc32c, status, replaced_by, missing FROM file"
                f" WHERE image_id IN ({marks}) ORDER BY id",
                *ids,
            )
        )
        self._detectors = _grouped(
            book.rows(
                "SELECT image_id, detector, state, reason, missing_pixels FROM detector"
                f" WHERE image_id IN ({marks}) ORDER BY detector",
                *ids,
            )
        )
        self._sources = _grouped(
            book.rows(
                f"SELECT image_id, location, state, reason FROM source WHERE image_id IN ({marks})"
                " AND state <> 'done' ORDER BY location",
                *ids,
            )
        )
        self._deliveries = _grouped(
            book.rows(
                "SELECT image_id, id, destination, path, target, bytes, crc32c, state, reason, queued_tai"
                f" FROM delivery WHERE image_id IN ({marks}) ORDER BY id",
                *ids,
            )
        )

        self._replicas = {
            (row[0], ENDPOINT + row[1], row[2]): (row[3], row[4])
            for row in book.rows(
                "SELECT image_id, endpoint, target, state, reason FROM replica"
                f" WHERE image_id IN ({marks}) AND state <> 'verified'",
                *ids,
            )
        }

        self._unpacked = unpacked(book, ids)

    def look(self) -> Iterator[ImageAudit]:
        """All images of the page."""
        for row in self._page:
            yield self._image(row)

    def _image(self, row: tuple[Any, ...]) -> ImageAudit:
        number, obsid, dayobs, daq_id, state, expected, announced, reason, instrument = row
        image = ImageAudit(
            obsid=str(obsid),
            dayobs=int(dayobs),
            image_id=int(number),
            daq_id=str(daq_id),
            state=str(state),
            expected=int(expected),
        )
        files = self._files.get(number, ())
        image.directory = self._directory(image, files)
        whole = self._disk(image, files)
        denied = self._states(image, self._detectors.get(number, ()), whole, str(reason))
        self._came(image, self._sources.get(number, ()))
        young = self._at - float(announced) < self._options.settle
        self._delivered(image, self._deliveries.get(number, ()), str(instrument), young)
        if not young and image.state in _DONE:
            places = [watched.place for watched in self._places.values()]
            look_at_container(image, files, places, str(instrument), self._unpacked)
        image.verdict = _verdict(image, denied=denied, young=young)
        return image

    def _directory(self, image: ImageAudit, files: Iterable[tuple[Any, ...]]) -> str:
        if self._options.archive is not None:
            return str(self._options.archive / str(image.dayobs) / image.obsid)
        return next((os.path.dirname(row[1]) for row in files if os.path.isabs(row[1])), "")

    # -- the disk

    def _disk(self, image: ImageAudit, files: Sequence[tuple[Any, ...]]) -> set[str]:
        """Compares files; the detectors that have a whole one."""
        listings: dict[str, dict[str, OnDisk]] = {}
        if image.directory:
            listings[image.directory] = self._listed(image, image.directory)
        known: dict[str, set[str]] = {}
        kinds: set[str] = set()
        whole: set[str] = set()
        to_read: list[tuple[str, str, str, str]] = []
        for _, path, kind, detector, octets, crc, status, replaced_by, missing in files:
            folder, name = os.path.split(path)
            if not os.path.isabs(folder):
                folder = image.directory or folder
            if folder not in listings:
                listings[folder] = self._listed(image, folder)
            known.setdefault(folder, set()).add(name)
            kinds.add(kind)
            there = listings[folder].get(name)
            if status == "removed":
                if there is not None:
                    image.add(What.BACK, path, "is there; the ledger says that it was taken away")
                elif kind == "raw" and not replaced_by and not missing:
                    whole.add(detector)
                continue
            if there is None:
                if status not in _BAD:
                    image.add(What.GONE, path, "is in the ledger and not on the disk")
                continue
            if not there.regular or there.bytes != octets:
                if status not in _BAD:
                    image.add(What.SIZE, path, f"has {there.bytes:,} bytes, the ledger says {octets:,}")
                continue
            if status in _BAD:
                image.add(What.BACK, path, f"is there with its size; the ledger calls it {status}")
                continue
            if self._options.digests:
                to_read.append((os.path.join(folder, name), path, crc, detector if kind == "raw" else ""))
            if kind == "raw" and status != "conflict" and not replaced_by and not missing:
                whole.add(detector)
        whole -= self._sums(image, to_read)
        self._others(image, listings, known, kinds)
        self._sidecars(image, files, listings)
        image.found = len(whole)
        return whole

    def _listed(self, image: ImageAudit, folder: str) -> dict[str, OnDisk]:
        try:
            return list_directory(folder) or {}
        except StorageError as error:
            image.add(What.UNREADABLE, folder, str(error))
            return {}

    def _sums(self, image: ImageAudit, to_read: Sequence[tuple[str, str, str, str]]) -> set[str]:
        """Reads files; the detectors of those whose sums do not hold."""
        wrong: set[str] = set()
        if not to_read:
            return wrong
        from raftwright.rawfile.standing import digest

        futures = [self._pool.submit(digest, Path(place)) for place, *_ in to_read]
        for (_, path, crc, detector), future in zip(to_read, futures, strict=True):
            try:
                found = future.result().crc32c
            except StorageError as error:
                image.add(What.UNREADABLE, path, str(error))
                continue
            if found != crc:
                image.add(What.SUM, path, f"has the CRC-32C {found}, the ledger says {crc}")
                wrong.add(detector)
        return wrong

    def _others(
        self,
        image: ImageAudit,
        listings: Mapping[str, Mapping[str, OnDisk]],
        known: Mapping[str, set[str]],
        kinds: set[str],
    ) -> None:
        """Names on the disk that the ledger does not have."""
        moment = self._at - TAI_MINUS_UTC
        for folder, listed in listings.items():
            if folder != image.directory and os.path.basename(folder) != image.obsid:
                continue  # somewhere where other things may stand
            for name in sorted(listed.keys() - known.get(folder, set())):
                path = os.path.join(folder, name)
                what = what_is(name, image.obsid)
                age = moment - listed[name].modified
                if what == "temporary":
                    if age > self._options.stale:
                        image.add(What.TEMPORARY, path, f"was left {span(age)} ago by somebody who died")
                elif what in ("conflict", "damaged"):
                    image.add(What.ASIDE, path, f"a {what} was kept here; look at both, then move one away")
                elif what == "strange":
                    image.add(What.STRANGE, path, "is no file of an image")
                elif (
                    age > (_FRESH if what == "raw" else self._options.settle) and what in _LOOKED_FOR | kinds
                ):
                    image.add(What.UNKNOWN, path, f"is on the disk, and the ledger has no such {what}")

    def _sidecars(
        self,
        image: ImageAudit,
        files: Iterable[tuple[Any, ...]],
        listings: Mapping[str, Mapping[str, OnDisk]],
    ) -> None:
        """N21: each detector is a raw file and its sidecar."""
        for _, path, kind, _, _, _, status, replaced_by, _ in files:
            if kind != "raw" or status in ("conflict", "removed") or replaced_by:
                continue
            folder, name = os.path.split(path)
            if not os.path.isabs(folder):
                folder = image.directory or folder
            listed = listings[folder]
            beside = name.partition(".fits")[0] + ".json"
            if name in listed and beside not in listed:
                image.add(What.NO_SIDECAR, path, "has no sidecar beside it")

    # -- the ledger itself

    def _states(
        self, image: ImageAudit, detectors: Sequence[tuple[Any, ...]], whole: set[str], reason: str
    ) -> bool:
        """Compares what the ledger says with itself; whether it contradicts itself."""
        denied = False
        if len(detectors) != image.expected:
            image.add(
                What.STATE, image.obsid, f"expects {image.expected} detectors and lists {len(detectors)}"
            )
            denied = True
        lacking = []
        for _, detector, state, why, missing in detectors:
            if state == "present" and detector not in whole:
                image.add(
                    What.DETECTOR, detector, "is present in the ledger and has no whole file on the disk"
                )
            elif state != "present":
                lacking.append(detector)
                lack = f"{missing:,} pixels missing" if missing else state
                image.add(What.DETECTOR, detector, f"{lack}: {why}" if why else lack)
                if detector in whole:
                    image.add(What.STATE, detector, f"is {state} in the ledger and whole on the disk")
                    denied = True
        if image.state == "complete" and lacking:
            image.add(What.STATE, image.obsid, f"is complete in the ledger; {len(lacking)} detectors are not")
            denied = True
        elif (
            image.state in ("incomplete", "lost")
            and not lacking
            and detectors
            and len(whole) == len(detectors)
        ):
            said = f" ({reason})" if reason else ""
            image.add(What.STATE, image.obsid, f"is {image.state} in the ledger{said}; nothing is missing")
            denied = True
        return denied

    @staticmethod
    def _came(image: ImageAudit, sources: Iterable[tuple[Any, ...]]) -> None:
        for _, location, state, reason in sources:
            image.add(What.SOURCE, location, f"{state}: {reason}" if reason else str(state))

    # -- destinations

    def _delivered(
        self, image: ImageAudit, rows: Sequence[tuple[Any, ...]], instrument: str, young: bool
    ) -> None:
        places = self._places
        looked = {name: Looked(place) for name, place in places.items()}
        counts: dict[str, list[int]] = {}
        targets: dict[str, set[str]] = {}
        for _, number, name, path, target, octets, crc, state, reason, queued in rows:
            sums = counts.setdefault(name, [0, 0])
            sums[1] += 1
            targets.setdefault(name, set()).add(target)
            shown = posixpath.basename(path)
            known = self._replicas.get((image.image_id, name, target))
            if state == "delivered" and known is not None and known[0] == "removed":
                sums[1] -= 1  # taken away there on purpose
                targets[name].discard(target)
            elif state == "delivered" and known is not None:
                said = f"is {known[0]} there: {known[1]}" if known[1] else f"is {known[0]} there"
                image.add(What.REPLICA, shown, said, name)
            elif state == "delivered":
                there = self._there(image, looked.get(name), target, octets, name, number)
                if there and self._options.digests and name in places:
                    there = self._same(image, places[name], target, crc, name, number)
                sums[0] += there
            elif state == "failed":
                image.add(What.GIVEN_UP, shown, reason or "given up", name, number)
            elif state == "conflict":
                image.add(What.TAKEN, shown, reason or "another content has its name", name, number)
            elif self._at - float(queued) > self._options.settle:
                waits = f"{state} for {span(self._at - float(queued))}"
                image.add(What.UNDELIVERED, shown, f"{waits}: {reason}" if reason else waits, name, number)
        for name, place in places.items():
            only = place.place.instruments()
            wanted = not only or instrument in only
            if name not in counts and wanted and not young and image.state in _DONE and image.found:
                image.add(What.UNPLANNED, "", "was never asked to take it", name)
                counts[name] = [0, image.found]
            elif name in looked and not young:
                try:
                    others = looked[name].others(targets.get(name, set()))
                except RaftwrightError as error:
                    image.add(What.UNREADABLE, "", str(error), name)
                    continue
                for other in others:
                    image.add(What.STRANGE, other, "is there, and the ledger never sent it", name)
        image.delivered = {name: (sums[0], sums[1]) for name, sums in counts.items()}

    @staticmethod
    def _there(
        image: ImageAudit, looked: Looked | None, target: str, octets: int, name: str, number: int
    ) -> bool:
        """Whether what was delivered is there: true where nobody looks."""
        if looked is None:
            return True
        try:
            size = looked.size(target)
        except RaftwrightError as error:
            image.add(What.UNREADABLE, target, str(error), name)
            return False
        if size is None:
            image.add(What.LIES, target, "was delivered and is not there", name, number)
        elif size != octets:
            said = f"was delivered with {octets:,} bytes and has {size:,}"
            image.add(What.TAKEN, target, said, name, number)
        return size == octets

    @staticmethod
    def _same(image: ImageAudit, place: Watched, target: str, crc: str, name: str, number: int) -> bool:
        try:
            found = place.crc32c(target)
        except RaftwrightError as error:
            image.add(What.UNREADABLE, target, str(error), name)
            return False
        if found is not None and crc and found != crc:
            image.add(What.TAKEN, target, f"has the CRC-32C {found} there, {crc} was sent", name, number)
            return False
        return True


_MISSING = frozenset({What.GONE, What.NO_SIDECAR, What.DETECTOR})
_SPOILT = frozenset({What.SIZE, What.SUM})
_NOT_THERE = frozenset(
    {What.UNDELIVERED, What.GIVEN_UP, What.TAKEN, What.LIES, What.REPLICA, What.UNPLANNED, What.CONTAINER}
)
_MORE = frozenset({What.UNKNOWN, What.TEMPORARY, What.STRANGE, What.ASIDE, What.BACK})


def _verdict(image: ImageAudit, *, denied: bool, young: bool) -> Verdict:
    whats = {finding.what for finding in image.findings}
    unsettled = image.state not in _DONE
    if unsettled and young and not whats & (_SPOILT | {What.GONE}):
        return Verdict.WAITING
    if whats & _SPOILT:
        return Verdict.DAMAGED
    if image.found == 0 and image.expected:
        return Verdict.NONE_SENT
    if image.found < image.expected or whats & _MISSING:
        return Verdict.IMPOSSIBLE if denied and image.found >= image.expected else Verdict.SOME_MISSING
    if denied or What.UNREADABLE in whats:
        return Verdict.IMPOSSIBLE
    if whats & _NOT_THERE:
        none = any(there == 0 and of for there, of in image.delivered.values())
        return Verdict.NONE_DELIVERED if none else Verdict.NOT_DELIVERED
    if whats & _MORE:
        return Verdict.MORE_FOUND
    late = unsettled or any(there < of for there, of in image.delivered.values())
    return Verdict.WAITING if late else Verdict.OK


# --- all of them
# ----------------------------------------------------------------------------------------------


def _pages(book: Book, options: Options) -> Iterator[list[tuple[Any, ...]]]:
    where, values = ["id > ?"], []  # type: tuple[list[str], list[Any]]
    for column, step, value in (
        ("dayobs", "=", options.dayobs),
        ("announced_tai", ">=", options.since_tai),
        ("obsid", "=", options.obsid),
    ):
        if value is not None:
            where.append(f"{column} {step} ?")
            values.append(value)
    last = 0
    while True:
        page = book.all(
            "SELECT id, obsid, dayobs, daq_id, state, expected_detectors, announced_tai, reason, instrument"
            f" FROM image WHERE {' AND '.join(where)} ORDER BY id LIMIT {_PAGE}",
            last,
            *values,
        )
        if not page:
            return
        yield page
        last = page[-1][0]


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found
