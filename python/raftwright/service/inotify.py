"""inotify of Linux: what the kernel tells of a directory."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from typing import Final, NamedTuple

from raftwright.errors import StorageError

__all__ = ["Inotify", "Notice"]

ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x1000000
ISDIR: Final = 0x40000000

_WANTED: Final = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | ATTRIB | ONLYDIR
_HEAD: Final = struct.Struct("iIII")
_READ: Final = 1 << 20


class Notice(NamedTuple):
    """Something happened in a directory."""

    watch: int
    mask: int
    name: str

    @property
    def written(self) -> bool:
        """Whether its writer was seen to end."""
        return bool(self.mask & (CLOSE_WRITE | MOVED_TO))

    @property
    def directory(self) -> bool:
        """Whether it is about a directory in the directory."""
        return bool(self.mask & ISDIR)

    @property
    def overflow(self) -> bool:
        """Whether notices were lost."""
        return bool(self.mask & OVERFLOW)


class Inotify:
    """An inotify instance. Raises StorageError where the system gives none."""

    def __init__(self) -> None:
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._add = self._libc.inotify_add_watch
            self._add.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
            self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, AttributeError) as error:
            raise StorageError(errno.ENOSYS, f"there is no inotify here ({error})", "inotify") from None
        if self._fd < 0:
            number = ctypes.get_errno()
            raise StorageError(
                number,
                f"no watch can be had ({os.strerror(number)}); raise fs.inotify.max_user_instances",
                "inotify",
            )
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def close(self) -> None:
        """Ends all watches."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, directory: int, mask: int = _WANTED) -> int:
        """Watches an open directory; gives the number of the watch, the same for the same directory. Raises
        StorageError; ENOSPC where the system has no more watches."""
        found: int = self._add(self._fd, f"/proc/self/fd/{directory}".encode(), mask)
        if found < 0:
            number = ctypes.get_errno()
            raise StorageError(
                number,
                "no more watches can be had; raise fs.inotify.max_user_watches"
                if number == errno.ENOSPC
                else f"cannot be watched ({os.strerror(number)})",
                "inotify",
            )
        return found

    def remove(self, watch: int) -> None:
        """Ends a watch, if it is there."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def read(self, seconds: float) -> list[Notice]:
        """What happened; waits so long for something."""
        if not self._poll.poll(seconds * 1000):
            return []
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        found = []
        at = 0
        while at + _HEAD.size <= len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = data[at : at + length].split(b"\0", 1)[0]
            at += length
            found.append(Notice(watch, mask, os.fsdecode(name)))
        return found
