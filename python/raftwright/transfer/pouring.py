"""Bytes from one file into another, and what is there then, as sums."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Final

from raftwright import _core

if TYPE_CHECKING:
    from raftwright.transfer.throttle import Throttle

__all__ = ["STEP", "crc_of", "pour"]

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
    buffer: memoryview | None = getattr(_buffers, "view", None)
    if buffer is None:
        buffer = _buffers.view = memoryview(bytearray(_READ))
    at = begin
    while end < 0 or at < end:
        most = _READ if end < 0 else min(_READ, end - at)
        count = os.preadv(file, [buffer[:most]], at)
        if not count:
            break
        crc, at = _core.crc32c(buffer[:count], crc), at + count
    return crc, at
