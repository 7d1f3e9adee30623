"""Bytes from one file into another, and what is there then, as sums."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Final, Self

from raftwright import _core
from raftwright.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raftwright.transfer.throttle import Throttle

__all__ = ["STEP", "NewFile", "crc_of", "pieces", "pour"]

STEP: Final = 4 << 20
_READ: Final = 1 << 20
_NO_SENDFILE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})

_buffers = threading.local()


def pour(reader: int, writer: int, throttle: Throttle, begin: int = 0) -> int:
    """Copies all bytes from `begin` on, to the same place in the other file; gives how many. Raises OSError.

    In the kernel where it can, but never by sharing blocks of the disk (copy_file_range may do that): a copy
    is to be one.
    """
    step = throttle.step(STEP)
    os.lseek(writer, begin, os.SEEK_SET)
    at = begin
    try:
        while count := _allowed(throttle, os.sendfile(writer, reader, at, step)):
            at += count
    except OSError as error:
        if error.errno not in _NO_SENDFILE or at != begin:
            raise
        while piece := os.pread(reader, step, at):
            view = memoryview(piece)
            while view:
                view = view[os.write(writer, view) :]
            at += _allowed(throttle, len(piece))
    return at - begin


def _allowed(throttle: Throttle, count: int) -> int:
    throttle.take(count)
    return count


def crc_of(file: int, begin: int = 0, end: int = -1, *, cold: bool = False, crc: int = 0) -> tuple[int, int]:
    """CRC-32C of the bytes from `begin` to `end` (to the end of the file by default), going on from `crc`,
    and where they ended. Raises OSError.

    `cold`: what the kernel remembers of them is dropped first, so that the disk is read, where it lets us.
    """
    if cold:
        with contextlib.suppress(OSError):
            os.posix_fadvise(file, begin, 0 if end < 0 else end - begin, os.POSIX_FADV_DONTNEED)
    with contextlib.suppress(OSError):
        os.posix_fadvise(file, begin, 0 if end < 0 else end - begin, os.POSIX_FADV_SEQUENTIAL)
    at = begin
    for piece in pieces(file, begin, end):
        crc, at = _core.crc32c(piece, crc), at + len(piece)
    return crc, at


def pieces(file: int, begin: int = 0, end: int = -1) -> Iterator[memoryview]:
    """The bytes of an open file, each piece good until the next is asked for. Raises OSError."""
    buffer: memoryview | None = getattr(_buffers, "view", None)
    if buffer is None:
        buffer = _buffers.view = memoryview(bytearray(_READ))
    at = begin
    while end < 0 or at < end:
        count = os.preadv(file, [buffer if end < 0 else buffer[: end - at]], at)
        if not count:
            return
        at += count
        yield buffer[:count]


class NewFile:
    """A local file that was not there; nothing is left of it after an error. Raises StorageError for all that
    the local file system refuses, whatever else is on its way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed: StorageError | None = None
        self._crc = 0

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(error.errno, f"cannot be made ({error.strerror})", str(self._path)) from error
        return self

    def write(self, piece: bytes | memoryview) -> None:
        """All of it. Raises StorageError."""
        with self._local():
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file, view) :]
        self._crc = _core.crc32c(piece, self._crc)

    @property
    def crc32c(self) -> str:
        """Of what was written."""
        return f"{self._crc:08x}"

    @contextlib.contextmanager
    def _local(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = f"cannot be written ({error.strerror})"
            self._failed = StorageError(error.errno, said, str(self._path))
            raise self._failed from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._local():
                    os.fsync(self._file)
        finally:
            os.close(self._file)
            if kind is not None or self._failed is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
        if self._failed is not None:
            raise self._failed
