"""One file of a pool, as the pool's own process has it: locked while it is filled, mapped as long as it is
there."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from raftwright.prompt.layout import HEADER_BYTES, SlabHeader, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SlabFile", "file_bytes"]


def file_bytes(nbytes: int) -> int:
    """Size of the file of a slab for so many bytes of pixels: header, whole pages."""
    return HEADER_BYTES + -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


class SlabFile:
    """A slab. The pool's lock guards all of it."""

    def __init__(self, path: Path, number: int, fd: int, capacity: int, serial: int) -> None:
        self.path = path
        self.number = number
        self.capacity = capacity
        self.serial = serial
        """Of the board that lies in it; 0 where there is none."""
        self.lent = False
        self._fd = fd
        self._memory: weakref.ReferenceType[Any] | None = None
        self._map = mmap.mmap(fd, HEADER_BYTES + capacity, mmap.MAP_SHARED)
        self._header = SlabHeader(memoryview(self._map)[:HEADER_BYTES])

    @classmethod
    def create(cls, path: Path, number: int, size: int) -> Self:
        """A new one, lent and locked. All of its memory is there from now on: a full /dev/shm is an error
        here and never a SIGBUS later. Who writes a page first maps it. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, size)
            file = cls(path, number, fd, size - HEADER_BYTES, 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(fd)
            raise
        file._header.format(file.capacity)
        file.begin()
        return file

    @classmethod
    def adopt(cls, path: Path, number: int) -> Self | None:
        """One that is there already. None where it is no slab, or being read by nobody and not whole."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            header = read_header(fd)
            if header is not None and header.capacity % mmap.PAGESIZE == 0:
                serial = 0 if header.generation % 2 else header.generation // 2
                return cls(path, number, fd, header.capacity, serial)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            os.unlink(path)  # who holds it keeps it
        os.close(fd)
        return None

    @property
    def file_bytes(self) -> int:
        """What it takes of the pool."""
        return HEADER_BYTES + self.capacity

    @property
    def idle(self) -> bool:
        """Whether the pool's own process has done with it: not lent, and nobody has its memory any more."""
        return not self.lent and (self._memory is None or self._memory() is None)

    def fits(self, need: int) -> bool:
        """Whether a file of so many bytes may be this one: large enough, and not more than twice that."""
        return need <= self.file_bytes <= 2 * need

    def memory(self, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes for pixels. Who has this array, or a view of it, keeps the slab from being used
        again."""
        import numpy as np

        array = np.frombuffer(self._map, np.uint8, nbytes, HEADER_BYTES)
        self._memory = weakref.ref(array)
        return array

    def try_lock(self) -> bool:
        """Takes it for us alone, unless somebody reads it. Readers who come just now try again."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Anybody may read it."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def begin(self) -> None:
        """It is locked, and from now on being written."""
        self.lent = True
        self._header.generation = 2 * self.serial + 1
        self.serial = 0

    def publish(self, body: bytes, serial: int) -> None:
        """It is a board's now, and anybody may read it."""
        self._header.describe(body)
        self._header.generation = 2 * serial
        self.serial = serial
        self.lent = False
        self.unlock()

    def discard(self) -> None:
        """It is nobody's; its generation stays odd."""
        self.lent = False
        self.unlock()

    def remove(self) -> None:
        """It is locked, and goes. A reader who has opened it meanwhile finds nothing in it."""
        self._header.generation = 0
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.forget()

    def forget(self) -> None:
        """Lets go of the file and, once nobody has its memory any more, of the mapping."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._header.release()
        with contextlib.suppress(BufferError):
            self._map.close()
