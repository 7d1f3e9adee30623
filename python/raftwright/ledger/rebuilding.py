"""A ledger made anew, or brought to the truth, from nothing but what stands in the archive."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright import _core
from raftwright.errors import ConflictError, FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.ledger.clock import tai
from raftwright.ledger.finding import Found, FoundImage, image_directories, look_at, row_of
from raftwright.ledger.rows import FileRow, ImageFacts
from raftwright.ledger.units import ENDED, Outcome, UnitKey
from raftwright.rawfile.standing import digest

if TYPE_CHECKING:
    from raftwright.ledger.ledger import Ledger

__all__ = ["Rebuilt", "rebuild", "rebuild_image"]

_log = logging.getLogger("raftwright.ledger")

_AHEAD: Final = 4
"""Images that are read while one is entered."""
_STRANGE: Final = 1000
"""Strange things that are listed; all are counted and set aside."""
_BAD: Final = frozenset({"lost", "damaged"})


class Rebuilt(msgspec.Struct):
    """What a rebuild came to, or would come to."""

    images: int = 0
    """Images in the archive."""
    new_images: int = 0
    files: int = 0
    """Raw files in the archive."""
    new_files: int = 0
    """Files of all kinds that are entered."""
    bytes: int = 0
    """Of files that were read."""
    headers: int = 0
    damaged: int = 0
    lost: int = 0
    """Files that the ledger had in a directory, and that are not in it."""
    strange: int = 0
    listed: list[tuple[str, str]] = []
    """Strange things, and why they are."""
    states: dict[str, int] = {}
    """Images by their state now."""


class _Box(msgspec.Struct, frozen=True, kw_only=True):
    """A container that was read and is whole."""

    row: FileRow
    members: dict[str, tuple[int, str]]
    """By name: bytes and CRC-32C."""


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """A directory whose files were read."""

    images: list[tuple[FoundImage, list[FileRow], list[_Box]]]
    strange: list[tuple[Path, str]]
    bytes: int


def rebuild(
    ledger: Ledger | None,
    archive: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    threads: int | None = None,
    progress: Callable[[Rebuilt, str], None] | None = None,
) -> Rebuilt:
    """Enters what an archive has and a ledger does not: images, detectors, sources, files with versions and
    sums, headers. What a ledger knows with the same size is not read again, so a stopped rebuild goes on.

    Parameters
    ----------
    ledger : Ledger or None
        An empty one, or one that is behind. It may be in use. None, with `dry_run`: there is none.
    archive : path
        Root of the archive.
    dry_run : bool
        Nothing is entered; sums are not taken.
    threads : int
        That read; every processor by default.
    progress : callable
        Gets the counts so far and the name of each image.

    Raises
    ------
    NotFoundError
        There is no such archive.
    StorageError
        Archive or ledger cannot be read or written. What was entered stays.
    """
    root = Path(os.path.abspath(archive))
    if not root.is_dir():
        raise NotFoundError(f"{root}: there is no such archive; name its root")
    result = Rebuilt()
    with ThreadPoolExecutor(threads or _core.usable_processors(), thread_name_prefix="rebuild") as pool:
        for read in _read_ahead(pool, root, ledger, dry_run, result):
            result.bytes += read.bytes
            for image, rows, boxes in read.images:
                if dry_run or ledger is None:
                    _count(ledger, image, rows, result)
                else:
                    _enter(ledger, image, rows, boxes, result)
                if progress is not None:
                    progress(result, image.facts.obsid)
            _set_aside(None if dry_run else ledger, read.strange, result)
    return result


def rebuild_image(ledger: Ledger, directory: str | os.PathLike[str], *, dry_run: bool = False) -> Rebuilt:
    """The same for the directory of one image. Raises FormatError for a name that is none, StorageError."""
    result = Rebuilt()
    path = Path(os.path.abspath(directory))
    try:
        read = _read(path, ledger, dry_run)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(path)) from error
    result.bytes = read.bytes
    for image, rows, boxes in read.images:
        if dry_run:
            _count(ledger, image, rows, result)
        else:
            _enter(ledger, image, rows, boxes, result)
    _set_aside(None if dry_run else ledger, read.strange, result)
    return result


# -- reading


def _read_ahead(
    pool: ThreadPoolExecutor, root: Path, ledger: Ledger | None, dry_run: bool, result: Rebuilt
) -> Iterator[_Read]:
    """Directories in their order, read by several threads, a few ahead."""
    strange: list[tuple[Path, str]] = []
    try:
        directories = image_directories(root, strange)
        waiting: deque[Future[_Read]] = deque(
            pool.submit(_read, path, ledger, dry_run) for path in islice(directories, _AHEAD)
        )
        while waiting:
            read = waiting.popleft().result()
            for path in islice(directories, 1):
                waiting.append(pool.submit(_read, path, ledger, dry_run))
            yield read
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(root)) from error
    _set_aside(None if dry_run else ledger, strange, result)


def _read(directory: Path, ledger: Ledger | None, dry_run: bool) -> _Read:
    strange: list[tuple[Path, str]] = []
    known = {}
    if ledger is not None:
        known = {row.path: row for row in ledger.files.of_images([directory.name], kind=None)}
    images = []
    total = 0
    for image in look_at(directory, strange):
        rows = []
        for row, size in _rows(image, known, dry_run, strange):
            rows.append(row)
            total += size
        boxes = [] if dry_run else list(_boxes(image, known, strange))
        total += sum(box.row.bytes for box in boxes)
        images.append((image, rows, boxes))
    return _Read(images=images, strange=strange, bytes=total)


def _rows(
    image: FoundImage, known: dict[str, FileRow], dry_run: bool, strange: list[tuple[Path, str]]
) -> Iterator[tuple[FileRow, int]]:
    """A row for each file of an image, with sums, and how many bytes were read for it."""
    for found in image.files:
        there = known.get(str(found.path))
        if there is not None and there.bytes == found.size and there.status not in _BAD:
            yield there, 0
        elif dry_run:
            yield row_of(found, image.facts, "", ""), 0
        else:
            try:
                yield _with_sums(found, image), found.size
            except StorageError as error:
                strange.append((found.path, str(error)))
    beside = [("sidecar", path, found) for found in image.files for path in found.beside]
    beside += [("header", header.path, None) for header in image.headers]  # type: ignore[misc]
    if image.manifest is not None:
        beside.append(("manifest", image.manifest, None))  # type: ignore[arg-type]
    for kind, path, raw in beside:
        if (row := known.get(str(path))) is None:
            try:
                row = _beside(kind, path, raw, image, dry_run)
            except StorageError as error:
                strange.append((path, str(error)))
                continue
        yield row, 0


def _boxes(
    image: FoundImage, known: Mapping[str, FileRow], strange: list[tuple[Path, str]]
) -> Iterator[_Box]:
    """The containers of an image that the ledger does not have, read from end to end. One that is damaged is
    none."""
    from raftwright.rawfile.container import check_container
    from raftwright.rawfile.names import container_version

    before = ""
    for path in image.containers:
        there = known.get(str(path))
        if there is not None and there.status not in _BAD:
            before = str(path)
            continue
        try:
            found = check_container(path)
            wrong = [f"{name} {why}" for name, why in found.wrong]
            if there is not None and (found.bytes, found.crc32c) != (there.bytes, there.crc32c):
                wrong.append("is another container than the ledger had under this name")
            if wrong:
                raise FormatError(f"{path}: {wrong[0]}")
        except (FormatError, StorageError) as error:
            strange.append((path, str(error)))
            continue
        row = FileRow(
            image=image.facts.obsid,
            daq_id=image.facts.daq_id,
            version=container_version(path)[1],
            path=str(path),
            bytes=found.bytes,
            adler32=found.adler32,
            crc32c=found.crc32c,
            status="written",
            kind="container",
            replaces=before,
            verified=tai(),
        )
        before = str(path)
        yield _Box(row=row, members={one.name: (one.bytes, one.crc32c) for one in found.members})


def _enter_box(ledger: Ledger, box: _Box, daq_id: str, image_id: int) -> bool:
    """With those of its members that the ledger has as files; False where there are none."""
    ids = {os.path.basename(file.path): file.id for file in ledger.files.of(image_id)}
    members = {ids[name]: what for name, what in box.members.items() if name in ids}
    if not members:
        return False
    try:
        return ledger.containers.enter(msgspec.structs.replace(box.row, daq_id=daq_id), members)
    except ConflictError as error:
        _log.error("%s", error)
        return False


def _with_sums(found: Found, image: FoundImage) -> FileRow:
    """A raw file that was read: whole, or damaged."""
    from raftwright.rawfile.read import open_raw

    sums = digest(found.path)
    try:
        raw = open_raw(found.path, 1)
        whole = all(all(raw.fits.sums(hdu)) for hdu in range(len(raw.fits)))
    except FormatError:
        whole = False
    row = row_of(found, image.facts, sums.crc32c, sums.adler32)
    if whole:
        return msgspec.structs.replace(row, bytes=sums.bytes, verified=tai())
    return msgspec.structs.replace(row, bytes=sums.bytes, status="damaged")


def _beside(kind: str, path: Path, raw: Found | None, image: FoundImage, dry_run: bool) -> FileRow:
    sums = None if dry_run else digest(path)
    version = 1
    if kind == "header":
        version = next(header.version for header in image.headers if header.path == path)
    return FileRow(
        image=image.facts.obsid,
        daq_id=image.facts.daq_id,
        location="" if raw is None else raw.location,
        detector="" if raw is None else raw.detector,
        version=version if raw is None else raw.version,
        path=str(path),
        bytes=0 if sums is None else sums.bytes,
        adler32="" if sums is None else sums.adler32,
        crc32c="" if sums is None else sums.crc32c,
        status="written",
        kind=kind,
        verified=tai(),
    )


# -- entering


def _identified(ledger: Ledger, image: FoundImage) -> ImageFacts:
    """A directory without files says no id of the DAQ: if the ledger knows the name, it is that image."""
    facts = image.facts
    if facts.daq_id or image.files:
        return facts
    known = ledger.images.get(facts.obsid)
    return msgspec.structs.replace(facts, daq_id=known[-1].daq_id) if known else facts


def _enter(
    ledger: Ledger, image: FoundImage, rows: list[FileRow], boxes: list[_Box], result: Rebuilt
) -> None:
    facts = _identified(ledger, image)
    new = not ledger.images.get(facts.obsid, facts.daq_id)
    image_id = ledger.images.announce(facts)
    before = {row.path: row for row in ledger.files.of(image_id)}
    ledger.images.facts(facts.obsid, **image.known)
    ledger.images.times(facts.obsid, begin_tai=image.begin_tai, end_tai=image.end_tai)
    _enter_headers(ledger, image, rows, result)
    rows = [msgspec.structs.replace(row, daq_id=facts.daq_id) for row in rows]
    raws = [row for row in rows if row.kind == "raw"]
    for row in raws:
        there = before.get(row.path)
        if row.status == "damaged" and (there is None or there.status != "damaged"):
            result.damaged += 1
            _log.error("%s: its sums do not hold; it is fetched again if the DAQ has it", row.path)
            if there is not None:
                ledger.files.verified(row.path, ok=False)
    _end_units(ledger, msgspec.structs.replace(image, facts=facts), image_id, raws, before)
    # Of sources that somebody works on, and what stands beside.
    ledger.files.enter(rows)
    entered = sum(_enter_box(ledger, box, facts.daq_id, image_id) for box in boxes)
    directory = str(next((Path(row.path).parent for row in rows), Path("/nowhere")))
    present = {row.path for row in rows} | {str(path) for path in image.containers}
    for path, row in before.items():
        beside = path not in present and os.path.dirname(path) == directory
        if beside and row.status not in (*_BAD, "removed") and not os.path.lexists(path):
            result.lost += ledger.files.lost(path)
    at = max((row.written for row in raws), default=None)
    state = ledger.images.judge(image_id, late=True, at=at).state
    result.images += 1
    result.new_images += new
    result.files += len(raws)
    result.new_files += sum(row.path not in before for row in rows) + entered
    result.states[state] = result.states.get(state, 0) + 1


def _enter_headers(ledger: Ledger, image: FoundImage, rows: list[FileRow], result: Rebuilt) -> None:
    sums = {row.path: row for row in rows if row.kind == "header"}
    for header in image.headers:
        row = sums.get(str(header.path))
        if row is None:
            continue
        try:
            md5 = _md5(header.path)
            result.headers += ledger.headers.put(
                image.facts.obsid, header.version, row.path, row.bytes, row.crc32c, md5, header.state
            )
        except (ConflictError, StorageError) as error:
            _log.error("%s", error)
    if not image.headers and any(row.kind == "raw" for row in rows):
        ledger.headers.missed(image.facts.obsid, image.facts.daq_id)


def _md5(path: Path) -> str:
    import hashlib

    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(path)) from error


def _end_units(
    ledger: Ledger, image: FoundImage, image_id: int, raws: list[FileRow], before: Mapping[str, FileRow]
) -> None:
    """Sources of which the archive has files come to the end that these files say, as if they had been
    fetched; those that somebody works on, or that ended, are left alone."""
    facts = image.facts
    of_source: dict[str, list[FileRow]] = {}
    for row in raws:
        of_source.setdefault(row.location, []).append(row)
    streams = {source.location: source.bytes for source in facts.sources}
    names: dict[str, set[str]] = {}
    for each in facts.detectors:
        names.setdefault(each.location, set()).add(each.detector)
    outcomes = {
        location: _outcome(rows, names.get(location, set()), streams.get(location, 0))
        for location, rows in of_source.items()
    }
    wanted: list[tuple[UnitKey, str, int]] = []
    for source in ledger.images.sources(image_id):
        outcome = outcomes.get(source.location)
        if outcome is None or source.state in ENDED:
            continue
        news = any(row.path not in before or before[row.path].status in _BAD for row in outcome.files)
        if news or outcome.state != source.state:
            key = UnitKey(facts.obsid, facts.daq_id, source.location)
            wanted.append((key, facts.folder, source.expected))
    claims = ledger.claims.claim(wanted, again=True)
    if claims:
        ledger.claims.end_many([(claim, outcomes[claim.key.location]) for claim in claims])


def _outcome(rows: list[FileRow], names: set[str], stream: int) -> Outcome:
    newest: dict[str, FileRow] = {}
    for row in rows:
        if row.status in ("conflict", "removed", *_BAD):
            continue
        if row.detector not in newest or newest[row.detector].version < row.version:
            newest[row.detector] = row
    said: dict[str, Any] = {"files": tuple(rows), "reason": "found in the archive"}
    missing = sum(row.missing for row in newest.values())
    if set(newest) >= names and not missing:
        return Outcome(state="done", received=stream, **{**said, "reason": ""})
    if newest:
        if set(newest) >= names:
            said["reason"] = f"found in the archive, {missing} pixels are missing"
        return Outcome(state="incomplete", **said)
    if any(row.status == "conflict" for row in rows):
        return Outcome(state="conflict", **said)
    return Outcome(state="failed", **{**said, "reason": "its files are damaged"})


def _count(ledger: Ledger | None, image: FoundImage, rows: list[FileRow], result: Rebuilt) -> None:
    """What would be entered."""
    known: set[str] = set()
    states: list[str] = []
    if ledger is not None:
        facts = _identified(ledger, image)
        for row in ledger.images.get(facts.obsid, facts.daq_id):
            states.append(row.state)
            known = {file.path for file in ledger.files.of(row.id)}
    result.images += 1
    result.new_images += not states
    result.files += sum(row.kind == "raw" for row in rows)
    result.new_files += sum(row.path not in known for row in rows)
    result.headers += len(image.headers)


def _set_aside(ledger: Ledger | None, strange: list[tuple[Path, str]], result: Rebuilt) -> None:
    for path, reason in strange:
        result.strange += 1
        if len(result.listed) < _STRANGE:
            result.listed.append((str(path), reason))
        if ledger is not None:
            try:
                ledger.quarantine.put("file", os.fsencode(path), reason)
            except RaftwrightError as error:
                _log.error("%s", error)
