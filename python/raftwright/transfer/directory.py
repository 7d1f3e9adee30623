"""A directory as a destination: hard links where the file system gives them, else copies that are looked at.

A name appears at once and whole, and never in place of another. A link shares the file with the archive: that
is no second copy, but also no second half of a copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright import _core
from raftwright.errors import ConflictError
from raftwright.rawfile.publishing import locked
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent, outage_of

if TYPE_CHECKING:
    from raftwright.transfer.place import Place

__all__ = ["DirectorySender"]

_STEP: Final = 4 << 20
_NO_LINKS: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}
)
_NO_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_TEMPORARY: Final = ".raftwright-"
_LEFT: Final = 3600.0
"""Seconds after which a hidden file is one that somebody left."""


class DirectorySender:
    """See `Sender`."""

    def __init__(self, destination: Place) -> None:
        self._root = Path(destination.root)
        self._links = destination.link == "auto"
        self._devices: set[int] = set()
        """File systems from which links are refused: known from the first try on."""

    def warm(self) -> str:
        """Raises OutageError."""
        self.probe()
        how = "hard links where they can be" if self._links else "copies"
        return f"directory {self._root}: {how}"

    def links_from(self, archive: str | os.PathLike[str]) -> bool:
        """Whether files of the archive can be linked to this place; remembered. Raises OutageError."""
        if not self._links:
            return False
        name = f"{_TEMPORARY}{secrets.token_hex(8)}"
        source, there = Path(archive) / name, self._root / name
        try:
            source.touch(exist_ok=False)
            try:
                os.link(source, there)
            finally:
                source.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    there.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in _NO_LINKS:
                self._devices.add(os.stat(archive).st_dev)
                return False
            raise OutageError(f"{self._root}: nothing can be linked there ({error.strerror})") from None
        return True

    def probe(self) -> None:
        """Raises OutageError."""
        name = self._root / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            if not self._root.is_dir():
                raise OutageError(
                    f"{self._root}: there is no such directory; make it, or mount what belongs there"
                )
            with name.open("xb") as stream:
                stream.write(b"\0" * 4096)
            name.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)
            raise OutageError(f"{self._root}: cannot be written ({error.strerror})") from None

    def close(self) -> None:
        """Nothing is open."""

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        there = self._root / job.target
        try:
            source = os.stat(job.path)
        except OSError as error:
            raise RefusedError(f"{job.path}: cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(source.st_mode) or source.st_size != job.bytes:
            raise RefusedError(
                f"{job.path}: has {source.st_size} bytes, the ledger says {job.bytes}; see the audit"
            )
        try:
            return self._send(job, source, there)
        except OSError as error:
            outage = outage_of(error, str(there))
            raise outage if outage is not None else RefusedError(f"{there}: {error.strerror}") from None

    def _send(self, job: Job, source: os.stat_result, there: Path) -> Sent:
        known = self._there(job, source, there)
        if known is not None:
            return known
        self._make(there.parent)
        if self._links and source.st_dev not in self._devices:
            try:
                os.link(job.path, there)
            except FileExistsError:
                return self._taken(job, source, there)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if error.errno == errno.EXDEV:
                    self._devices.add(source.st_dev)
            else:
                _sync(there.parent)
                now = os.lstat(there)
                if (now.st_ino, now.st_dev, now.st_size) != (source.st_ino, source.st_dev, job.bytes):
                    raise RefusedError(
                        f"{there}: is another file than the one that was linked there a moment ago"
                    )
                return Sent(how="linked", place=str(there))
        return self._copy(job, source, there)

    def _there(self, job: Job, source: os.stat_result, there: Path) -> Sent | None:
        """What is under the name already; None where nothing is. Raises ConflictError."""
        try:
            now = os.lstat(there)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if (now.st_ino, now.st_dev) == (source.st_ino, source.st_dev):
            return Sent(how="there already", place=str(there))
        if not stat.S_ISREG(now.st_mode):
            raise ConflictError(f"{there}: something that is no file has this name; move it away")
        if now.st_size == job.bytes and _crc_of(there) == job.crc32c:
            return Sent(how="there already", place=str(there))
        raise ConflictError(
            f"{there}: another content ({now.st_size} bytes) has this name; it is left as it is, look at both"
        )

    def _taken(self, job: Job, source: os.stat_result, there: Path) -> Sent:
        known = self._there(job, source, there)
        if known is None:
            raise RefusedError(f"{there}: was there and is not; somebody else works in this directory")
        return known

    def _copy(self, job: Job, source: os.stat_result, there: Path) -> Sent:
        """A copy without a name, looked at, and then named without replacing anything."""
        directory = os.open(there.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with _nameless(there.parent) as (copy, hidden):
                with open(job.path, "rb") as reader:
                    _pour(reader.fileno(), copy)
                os.fchmod(copy, stat.S_IMODE(source.st_mode) & 0o777)
                os.fsync(copy)
                found, mine = _crc_of(copy), os.fstat(copy)
                if found != job.crc32c or mine.st_size != job.bytes:
                    raise RefusedError(
                        f"{there}: the copy has the CRC-32C {found}, the file {job.crc32c}; it is not kept"
                    )
                try:
                    os.link(f"/proc/self/fd/{copy}", there.name, dst_dir_fd=directory, follow_symlinks=True)
                except FileExistsError:
                    return self._taken(job, source, there)
                except OSError as error:
                    if hidden is None or error.errno not in _NO_LINKS:
                        raise
                    with locked(there.parent):
                        if os.path.lexists(there):
                            return self._taken(job, source, there)
                        os.rename(hidden, there)
            os.fsync(directory)
        finally:
            os.close(directory)
        now = os.lstat(there)
        if now.st_size != job.bytes or now.st_ino != mine.st_ino:
            raise RefusedError(f"{there}: is not what was written there a moment ago")
        return Sent(how="copied", bytes=job.bytes, place=str(there))

    def _make(self, directory: Path) -> None:
        """Makes the directories below the root, not the root itself: what is not mounted is not written
        to."""
        missing = []
        at = directory
        while at != self._root and not at.is_dir():
            missing.append(at)
            at = at.parent
        if not self._root.is_dir():
            raise OutageError(
                f"{self._root}: there is no such directory; make it, or mount what belongs there"
            )
        for made in reversed(missing):
            with contextlib.suppress(FileExistsError):
                made.mkdir()
            _sync(made.parent)


def _pour(reader: int, writer: int) -> None:
    """Copies all bytes: in the kernel where it can."""
    try:
        while os.sendfile(writer, reader, None, _STEP):
            pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS) or os.lseek(writer, 0, os.SEEK_CUR):
            raise
        while piece := os.read(reader, _STEP):
            view = memoryview(piece)
            while view:
                view = view[os.write(writer, view) :]


@contextlib.contextmanager
def _nameless(directory: Path) -> Iterator[tuple[int, Path | None]]:
    """A new file that vanishes with us; where there is no such thing, one with a hidden name, which is
    given."""
    hidden = None
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
        _clean(directory)
        hidden = directory / f"{_TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor, hidden
    finally:
        os.close(descriptor)
        if hidden is not None:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)


def _clean(directory: Path) -> None:
    """Removes what those left who died while they copied."""
    before = time.time() - _LEFT
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_TEMPORARY) and entry.stat(follow_symlinks=False).st_mtime < before:
                os.unlink(entry.path)


def _crc_of(file: Path | int) -> str:
    crc = at = 0
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC) if isinstance(file, Path) else file
    try:
        while piece := os.pread(descriptor, _STEP, at):
            crc, at = _core.crc32c(piece, crc), at + len(piece)
    finally:
        if isinstance(file, Path):
            os.close(descriptor)
    return f"{crc:08x}"


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
