"""A raw file and its sidecar appear together: the sidecar first, so that a file that is seen has one.

Both are made ready without names; then, with the directory locked against other writers of raw files, they
get their names. Whoever dies in between leaves a sidecar without a file: the next one replaces it. On file
systems that lock no directories the names are given without a lock, still replacing nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import StorageError
from raftwright.rawfile.names import check_path

if TYPE_CHECKING:
    from raftwright._core import StagedFile

__all__ = ["Pair", "commit_pair", "locked", "make_directory", "sync_directory"]

_WAIT: Final = 10.0  # seconds; the lock is held for a few system calls
_NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass
class Pair:
    """A raw file and its sidecar, ready on the disk."""

    path: Path
    file: StagedFile
    sidecar: Path
    text: bytes
    beside: StagedFile


def make_directory(directory: Path, durable: bool) -> None:
    """Makes a directory and those above it. Raises StorageError, UsageError."""
    check_path(directory)
    missing = []
    at = directory
    try:
        while not at.exists() and at != at.parent:
            missing.append(at)
            at = at.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            if durable:
                sync_directory(made.parent)
        if not directory.is_dir():
            raise NotADirectoryError(20, "Not a directory")
    except OSError as error:
        raise StorageError(
            error.errno, f"cannot make the directory of the image: {error.strerror}", str(directory)
        ) from error


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Keeps other writers of raw files out of a directory; False where its file system has no such locks.

    The lock goes with the process. Raises StorageError when somebody holds it for more than ten seconds.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(
            error.errno, f"cannot open the directory: {error.strerror}", str(directory)
        ) from error
    try:
        yield _lock(descriptor, directory)
    finally:
        os.close(descriptor)  # and with it the lock


def _lock(descriptor: int, directory: Path) -> bool:
    until = time.monotonic() + _WAIT
    wait = 0.0002
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                raise StorageError(
                    error.errno, f"cannot lock the directory: {error.strerror}", str(directory)
                ) from error
        if time.monotonic() > until:
            raise StorageError(
                errno.ETIMEDOUT,
                f"another process has held its lock for {_WAIT:.0f} s; see whether it is stopped",
                str(directory),
            )
        time.sleep(wait)
        wait = min(2 * wait, 0.02)


def commit_pair(pair: Pair, alone: bool) -> bool:
    """Gives sidecar and file their names, in this order; False when the file's name is taken.

    `alone`: the directory is locked, so that a sidecar without a file is what somebody left who died.
    Raises StorageError.
    """
    if os.path.lexists(pair.path):
        return False
    mine = pair.beside.commit()
    if not mine and not _holds(pair.sidecar, pair.text):
        if not alone or os.path.lexists(pair.path):
            return False
        try:
            os.unlink(pair.sidecar)
        except OSError as error:
            raise StorageError(
                error.errno,
                f"is no sidecar of {pair.path.name} and cannot be removed ({error.strerror}); move it away",
                str(pair.sidecar),
            ) from error
        mine = pair.beside.commit()
    if pair.file.commit():
        return True
    if mine and alone:  # a writer without locks was quicker; its file is not described by this sidecar
        pair.sidecar.unlink(missing_ok=True)
    return False


def _holds(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(text) + 1) == text
    except OSError:
        return False
