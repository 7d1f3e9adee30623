"""Writing recordings: complete and durable under their name, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from raftwright import _core
from raftwright.daq.info import ImageInfo, SourceInfo, encode_info
from raftwright.daq.names import check_plain_name
from raftwright.daq.recording import DESCRIPTION, RecordedImage, open_recording
from raftwright.daq.store import DaqImage, Source, check_range, cut_gaps
from raftwright.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    RaftwrightError,
    StorageError,
    UsageError,
)

__all__ = ["Progress", "Recorded", "write_recording"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); calls never overlap."""

_CHUNK = 4 << 20


class Recorded(msgspec.Struct, frozen=True):
    """A recording that was written, or was there already."""

    path: Path
    status: str
    """`written`, or `unchanged` where the same content stood already."""
    info: ImageInfo
    """As in its image.json: with files and CRCs."""

    @property
    def bytes(self) -> int:
        """Of all its streams."""
        return sum(source.bytes for source in self.info.sources)


def write_recording(
    directory: str | os.PathLike[str],
    image: DaqImage,
    *,
    locations: Iterable[str] | None = None,
    threads: int | None = None,
    durable: bool = True,
    progress: Progress | None = None,
) -> Recorded:
    """Records an image as `directory`, which must not be there yet, be empty or hold the same recording.

    Everything is written under a hidden name beside it, then renamed: whoever sees `directory` sees all of
    it. Directories above it are made. Sources are read and written by up to `threads` workers (None: one a
    processor). `durable` waits until it is safe on disk.

    Parameters
    ----------
    directory
        The recording's own directory. In a store of recordings it must bear the image's name.
    image
        Any image: simulated, of another store, or a recording, which is copied.
    locations
        Sources to record; all by default.

    Raises
    ------
    ConflictError
        Another content stands there. It is untouched, the new recording is beside it (`kept_as`).
    FormatError
        A source has another CRC-32C than its description promised, or the description is not one.
    NotFoundError
        The image has no such source.
    StorageError
        The file system refused. Nothing is left.
    """
    target = Path(os.path.abspath(directory))
    try:
        check_plain_name("the directory's name", target.name)
    except FormatError as error:
        raise UsageError(str(error)) from None
    info = _with_files(image.info, locations)
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; give at least 1, or None for one a processor")
    partial = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            os.makedirs(target.parent, exist_ok=True)
            os.mkdir(partial)
        except OSError as error:
            raise _storage_error(error, partial) from error
        info = _write_streams(partial, image, info, threads or _core.usable_processors(), durable, progress)
        document = encode_info(info)
        _write_document(partial / DESCRIPTION, document, durable)
        if durable:
            for folder in (partial, *(parent.parent for parent in new_parents)):
                _sync_directory(folder)
        return _publish(partial, target, info, document, durable)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # renamed by now, unless something went wrong


def _with_files(info: ImageInfo, locations: Iterable[str] | None) -> ImageInfo:
    """The description with the chosen sources only, each with a file."""
    chosen = info.sources
    if locations is not None:
        wanted = list(dict.fromkeys(locations))
        for location in wanted:
            if location not in info.locations:
                raise NotFoundError(f"image {info.name} has no source {ascii(location)[:40]} to record")
        chosen = tuple(source for source in info.sources if source.location in wanted)
    sources = []
    for source in chosen:
        name = source.file or source.location.replace("/", "-") + ".raw"
        check_plain_name(f"source {source.location}: file", name)
        sources.append(msgspec.structs.replace(source, file=name))
    info = msgspec.structs.replace(info, sources=tuple(sources))
    placeholder = tuple(msgspec.structs.replace(source, crc32c="00000000") for source in sources)
    encode_info(
        msgspec.structs.replace(info, sources=placeholder)
    )  # refuses now what would be refused at the end
    return info


class _Progress:
    def __init__(self, total: int, report: Progress | None) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._done = 0
        self._report = report
        self.stop = False

    def add(self, count: int) -> None:
        if self._report is None:
            return
        with self._lock:
            self._done += count
            self._report(self._done, self._total)


def _write_streams(
    folder: Path, image: DaqImage, info: ImageInfo, threads: int, durable: bool, report: Progress | None
) -> ImageInfo:
    progress = _Progress(sum(source.bytes for source in info.sources), report)
    if threads == 1 or len(info.sources) < 2:
        sources = [_write_stream(folder, image, source, durable, progress) for source in info.sources]
        return msgspec.structs.replace(info, sources=tuple(sources))
    with ThreadPoolExecutor(min(threads, len(info.sources)), thread_name_prefix="record") as pool:
        tasks = [
            pool.submit(_write_stream, folder, image, source, durable, progress) for source in info.sources
        ]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            progress.stop = not all(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
    failures = [task.exception() for task in tasks if not task.cancelled() and task.exception() is not None]
    first = next((failure for failure in failures if not isinstance(failure, _StoppedError)), None)
    if first is not None:
        raise first
    return msgspec.structs.replace(info, sources=tuple(task.result() for task in tasks))


class _StoppedError(RaftwrightError):
    """Another source failed."""


def _write_stream(
    folder: Path, image: DaqImage, info: SourceInfo, durable: bool, progress: _Progress
) -> SourceInfo:
    """Writes one stream; returns its description with the CRC and the gaps that it really has."""
    source = image.source(info.location)
    path = folder / info.file
    buffer = memoryview(bytearray(min(_CHUNK, max(info.bytes, 1))))
    crc = 0
    gaps: list[tuple[int, int]] = []
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _storage_error(error, path) from error
    with open(fd, "wb", buffering=0) as file:
        for offset in range(0, info.bytes, len(buffer)):
            if progress.stop:
                raise _StoppedError("stopped because another source failed")
            view = buffer[: min(len(buffer), info.bytes - offset)]
            _fetch(source, offset, view, gaps)
            crc = _core.crc32c(view, crc)
            _write_all(file.fileno(), view, path)
            progress.add(len(view))
        _sync(file.fileno(), path, durable)
    found = f"{crc:08x}"
    if info.crc32c is not None and not gaps and found != info.crc32c.lower():
        raise FormatError(
            f"source {info.location}: the CRC-32C of its stream is {found}, but its description says "
            f"{info.crc32c.lower()}; the data changed on the way, fetch them again"
        )
    return msgspec.structs.replace(info, crc32c=found, gaps=tuple(gaps))


def _fetch(source: Source, offset: int, view: memoryview, gaps: list[tuple[int, int]]) -> None:
    """Fills `view` with what arrived, and with zeros where `gaps` grows."""
    check_range(source.info, offset, len(view))
    arrived = source.available(offset, len(view))
    for begin, end in cut_gaps(tuple(arrived), offset, len(view)):
        view[begin - offset : end - offset] = bytes(end - begin)
        if gaps and gaps[-1][1] == begin:
            begin = gaps.pop()[0]
        gaps.append((begin, end))
    for begin, end in arrived:
        part = view[begin - offset : end - offset]
        count = source.readinto(begin, part)
        if count != len(part):
            raise FormatError(
                f"source {source.info.location}: gave {count} bytes at {begin} of {len(part)} that it has; "
                "it is the store that is at fault: check it with raftwright.daq.contract"
            )


def _write_document(path: Path, document: bytes, durable: bool) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _storage_error(error, path) from error
    with open(fd, "wb", buffering=0) as file:
        _write_all(file.fileno(), memoryview(document), path)
        _sync(file.fileno(), path, durable)


def _write_all(fd: int, view: memoryview, path: Path) -> None:
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            raise _storage_error(error, path) from error


def _sync(fd: int, path: Path, durable: bool) -> None:
    if durable:
        try:
            os.fsync(fd)
        except OSError as error:
            raise _storage_error(error, path) from error


def _sync_directory(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _storage_error(error, path) from error
    try:
        _sync(fd, path, True)
    finally:
        os.close(fd)


def _publish(partial: Path, target: Path, info: ImageInfo, document: bytes, durable: bool) -> Recorded:
    """Gives the finished recording its name, or finds the same content there already."""
    beside = target.with_name(f"{target.name}.conflict-{_core.crc32c(document):08x}")
    for place in (target, beside):
        if _rename(partial, place):
            if durable:
                _sync_directory(place.parent)
            status = "written"
        elif _holds(place, info):
            status = "unchanged"
        else:
            continue
        if place is target:
            return Recorded(place, status, info)
        raise ConflictError(
            f"{target}: another content stands there and is left as it is; the new recording of {info.name} "
            f"is kept beside it as {beside.name}: compare them and remove one",
            kept_as=str(beside),
        )
    raise ConflictError(
        f"{target}: another content stands there, and so it does at {beside.name} beside it; move them away"
    )


def _rename(partial: Path, place: Path) -> bool:
    """False when the name is taken. A directory replaces none but an empty one."""
    try:
        if place.is_symlink():
            return False
        os.rename(partial, place)
    except (FileExistsError, NotADirectoryError):
        return False
    except OSError as error:
        if os.path.lexists(place):  # not empty, or not ours
            return False
        raise _storage_error(error, place) from error
    return True


def _holds(place: Path, info: ImageInfo) -> bool:
    """Whether the same recording stands there, every byte of it."""
    try:
        there = open_recording(place)
        return there.info == info and all(_crc_of(there, source) == source.crc32c for source in info.sources)
    except (NotFoundError, FormatError):
        return False


def _crc_of(image: RecordedImage, info: SourceInfo) -> str:
    source = image.source(info.location)
    crc = 0
    for offset in range(0, info.bytes, _CHUNK):
        crc = _core.crc32c(source.read(offset, min(_CHUNK, info.bytes - offset)), crc)
    return f"{crc:08x}"


def _storage_error(error: OSError, path: Path) -> StorageError:
    return StorageError(error.errno, f"cannot be written ({error.strerror})", str(path))
