"""Recordings: an image as a directory with image.json and one file a source (recording format 1).

What a recording says is checked before it is believed: names of files, that they are plain files and no
links, their sizes. CRCs are checked by whoever reads a stream through (`raftwright.assembly`).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from raftwright.daq.info import MAX_DOCUMENT_BYTES, ImageInfo, SourceInfo, decode_info
from raftwright.daq.names import is_plain_name
from raftwright.daq.store import Notice, check_range, cut_gaps, writable_view
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "DESCRIPTION",
    "RecordedImage",
    "RecordedSource",
    "RecordedStore",
    "is_recording",
    "open_recording",
]

DESCRIPTION = "image.json"

# Neither waits for a writer of a FIFO nor follows a link in the last part of the name.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SWEEP = 30.0
"""Seconds after which all recordings are looked at, though nothing seems to have changed."""

_SETTLED = 2.0
"""Seconds after which another change of a file shows in its time, whatever the file system."""

_Signature: TypeAlias = "tuple[int, int, int] | None"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class RecordedSource:
    """A source in a recording: a file that stays open as long as this object lives."""

    def __init__(self, path: Path, info: SourceInfo, fd: int, size: int) -> None:
        self._path = path
        self._info = info
        self._fd = fd
        self._gaps = info.gaps
        if size < info.bytes:  # salvaged: the rest was lost
            kept = tuple((begin, min(end, size)) for begin, end in info.gaps if begin < size)
            last = kept[-1][0] if kept and kept[-1][1] == size else size
            self._gaps = (*(gap for gap in kept if gap[1] < size), (last, info.bytes))
        weakref.finalize(self, os.close, fd)

    @property
    def info(self) -> SourceInfo:
        """What the recording says about it."""
        return self._info

    @property
    def path(self) -> Path:
        """Its file."""
        return self._path

    @property
    def final(self) -> bool:
        """Always: a recording appears whole."""
        return True

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Ranges [begin, end) that are neither recorded as missing nor cut off. Raises UsageError."""
        check_range(self._info, offset, length)
        return cut_gaps(self._gaps, offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises UsageError, FormatError (the file is too short), StorageError."""
        check_range(self._info, offset, length)
        data = bytearray(length)
        self._fill(offset, memoryview(data))
        return bytes(data)

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a buffer up to the stream's end; returns how many bytes. Raises as `read`."""
        check_range(self._info, offset, 0)
        view = writable_view(buffer)
        view = view[: min(len(view), self._info.bytes - offset)]
        self._fill(offset, view)
        return len(view)

    def _fill(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise StorageError(
                    error.errno, f"cannot be read ({error.strerror})", str(self._path)
                ) from error
            if count == 0:
                raise FormatError(
                    f"{self._path}: ends at byte {offset + done}, but {self._info.bytes} were promised; it "
                    "was cut off: copy it again, or salvage what there is"
                )
            done += count


class RecordedImage:
    """An image in a recording."""

    def __init__(self, path: Path, info: ImageInfo, salvage: bool) -> None:
        self._path = path
        self._info = info
        self._salvage = salvage

    @property
    def info(self) -> ImageInfo:
        """What image.json says."""
        return self._info

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def source(self, location: str) -> RecordedSource:
        """The source at a location.

        Raises NotFoundError (no such source, or its file is not there), FormatError (the file is not what
        image.json says: another size, a link, a device), StorageError.
        """
        for info in self._info.sources:
            if info.location == location:
                break
        else:
            known = ", ".join(self._info.locations[:8]) or "none"
            raise NotFoundError(f"{self._path} has no source {ascii(location)[:40]}; there are {known}")
        path = self._path / info.file
        directory = _open_directory(self._path)
        try:
            fd, size = _open_file(directory, path, info.file)
        finally:
            os.close(directory)
        try:
            if size != info.bytes and not (self._salvage and size < info.bytes):
                what = "is empty" if size == 0 else f"has {size} bytes"
                remedy = (
                    "copy it again, or salvage what there is"
                    if size < info.bytes
                    else "it is another stream's"
                )
                raise FormatError(f"{path}: {what}, but {DESCRIPTION} says {info.bytes}; {remedy}")
            return RecordedSource(path, info, fd, size)
        except BaseException:
            os.close(fd)
            raise


class RecordedStore:
    """A directory of recordings, or a single recording: images that were kept as the DAQ delivered them.

    The directory of a recording in a store bears the name of its image. What does not (copies set aside,
    links, writes under way) is no image of the store, and neither is one whose image.json cannot be read:
    `problems` tells about those.

    Raises NotFoundError if there is no such directory, StorageError if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, salvage: bool = False) -> None:
        """With `salvage`, streams that were cut off are taken as far as they go; the rest is missing."""
        self.path = _path(path)
        self._salvage = salvage
        self._lock = threading.Lock()
        self._read_before: dict[str, tuple[_Signature, str | None]] = {}
        self._known: dict[str, str] = {}
        self._looked = (-1, -math.inf)
        os.close(_open_directory(self.path))

    def _entries(self) -> Iterator[Path]:
        if is_recording(self.path):
            yield self.path
            return
        try:
            with os.scandir(self.path) as found:
                names = sorted(
                    entry.name
                    for entry in found
                    if is_plain_name(entry.name) and entry.is_dir(follow_symlinks=False)
                )
        except OSError as error:
            raise _storage_error(error, self.path) from error
        yield from (self.path / name for name in names if is_recording(self.path / name))

    def _read(self, path: Path) -> ImageInfo:
        info = _read_info(path)
        if path != self.path and info.name != path.name:
            raise FormatError(
                f"{path}: is a recording of {info.name}, and in a store the directory bears the image's "
                "name; rename it"
            )
        return info

    def _folders(self) -> dict[str, str]:
        """Name -> folder of every image. What has not changed is not looked at again."""
        if not self._changed():
            return self._known
        if is_recording(self.path):
            try:
                info = self._read(self.path)
            except RaftwrightError:
                return {}
            return {info.name: info.folder}
        looked = (self._modified(), time.monotonic())
        found: dict[str, tuple[_Signature, str | None]] = {}
        with self._lock:
            before = self._read_before
        for path in self._entries():
            signature = _signature(path / DESCRIPTION)
            entry = before.get(path.name)
            if entry is None or entry[0] != signature or signature is None:
                folder = None
                with contextlib.suppress(RaftwrightError):
                    folder = self._read(path).folder
                entry = (signature, folder)
            found[path.name] = entry
        names = {name: folder for name, (_, folder) in sorted(found.items()) if folder is not None}
        with self._lock:
            self._read_before, self._known = found, names
            self._looked = looked
        return names

    def _changed(self) -> bool:
        """Whether a look at all recordings may find something new; now and then one is taken anyway."""
        modified, looked = self._looked
        return (
            time.monotonic() - looked >= _SWEEP
            or self._modified() != modified
            or abs(time.time() - modified / 1e9) < _SETTLED
            or len(self._known) < len(self._read_before)  # some could not be read, or not yet
            or any(signature is None for signature, _ in self._read_before.values())
        )

    def _modified(self) -> int:
        try:
            return os.stat(self.path).st_mtime_ns
        except OSError:
            return -1

    def folders(self) -> list[str]:
        """Names of the folders that the images are in, sorted."""
        return sorted(set(self._folders().values()))

    def images(self, folder: str | None = None) -> list[str]:
        """Names of the images, of one folder or of all, sorted."""
        return [name for name, of in self._folders().items() if folder in (None, of)]

    def underway(self) -> list[str]:
        """None: a recording appears whole."""
        return []

    def image(self, name: str) -> RecordedImage:
        """An image by its name. Raises NotFoundError, FormatError (its image.json is bad), StorageError."""
        if is_recording(self.path):
            info = self._read(self.path)
            if info.name == name:
                return RecordedImage(self.path, info, self._salvage)
        elif is_plain_name(name) and is_recording(self.path / name) and not (self.path / name).is_symlink():
            return RecordedImage(self.path / name, self._read(self.path / name), self._salvage)
        known = self.images()
        some = f"there are {len(known)}, the last is {known[-1]}" if known else "there are none"
        raise NotFoundError(f"{self.path} has no image {ascii(name)[:80]}; {some}")

    def problems(self) -> list[str]:
        """One sentence for each recording that cannot be read."""
        found = []
        for path in self._entries():
            try:
                self._read(path)
            except RaftwrightError as error:
                found.append(str(error))
        return found

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        """Images that appear in the directory or vanish from it, within half a second.

        Ends after `timeout` quiet seconds.
        """
        known = set(self.images())
        quiet_since = time.monotonic()
        while timeout is None or time.monotonic() - quiet_since < timeout:
            left = 0.5 if timeout is None else quiet_since + timeout - time.monotonic()
            time.sleep(min(0.5, max(left, 0.0)))
            now = set(self.images())
            news = [Notice("complete", name) for name in sorted(now - known)]
            news += [Notice("removed", name) for name in sorted(known - now)]
            known = now
            if news:
                yield from news
                quiet_since = time.monotonic()


def _signature(path: Path) -> _Signature:
    """What changes when a file does: inode, size, time. None where it cannot be told."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if abs(time.time() - status.st_mtime) < _SETTLED:
        return None  # it may change again within the grain of the clock
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether there is an image.json in a directory, of whatever content."""
    return os.path.lexists(os.path.join(path, DESCRIPTION))


def open_recording(path: str | os.PathLike[str], *, salvage: bool = False) -> RecordedImage:
    """An image from the directory of its recording, whatever the directory's name.

    With `salvage`, streams that were cut off are taken as far as they go, and the rest counts as missing.

    Raises NotFoundError (no such directory, or no recording), FormatError (its image.json is bad) and
    StorageError.
    """
    where = _path(path)
    return RecordedImage(where, _read_info(where), salvage)


def _path(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):
        raise NotFoundError("an empty name was given for a directory; the current one is called '.'")
    return Path(path)


def _read_info(path: Path) -> ImageInfo:
    where = path / DESCRIPTION
    directory = _open_directory(path)
    try:
        try:
            fd, size = _open_file(directory, where, DESCRIPTION)
        except NotFoundError:
            raise NotFoundError(
                f"{path}: no recording, there is no {DESCRIPTION} in it; give the directory of one"
            ) from None
    finally:
        os.close(directory)
    with open(fd, "rb", buffering=0) as file:
        if size > MAX_DOCUMENT_BYTES:
            raise FormatError(f"{where}: {size} bytes; a description has at most {MAX_DOCUMENT_BYTES}")
        try:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise _storage_error(error, where) from error
    return decode_info(data or b"", str(where))


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, _OPEN_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: there is no such directory; give that of a recording") from None
    except ValueError as error:
        raise NotFoundError(
            f"{ascii(str(path))[:80]}: not the name of a directory ({error}); give another"
        ) from None
    except OSError as error:
        raise _storage_error(error, path) from error


def _open_file(directory: int, path: Path, name: str) -> tuple[int, int]:
    """Descriptor and size of a plain file. Raises NotFoundError, FormatError, StorageError."""
    try:
        fd = os.open(name, _OPEN, dir_fd=directory)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: the file is not there; copy the recording again") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FormatError(
                f"{path}: a link, which a recording does not follow; put the file itself there"
            ) from None
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise _no_file(path) from None
        raise _storage_error(error, path) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(path)
    except BaseException:
        os.close(fd)
        raise
    return fd, status.st_size


def _no_file(path: Path) -> FormatError:
    return FormatError(f"{path}: a directory or a device, not a file; put the file of the source there")


def _storage_error(error: OSError, path: Path) -> StorageError:
    return StorageError(error.errno, f"cannot be read ({error.strerror})", str(path))
