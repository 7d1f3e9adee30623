"""Files that nobody changes by mistake: mode bits, and the immutable flag of the file system (`chattr
+i`)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from raftwright.transfer.outcome import RefusedError

if TYPE_CHECKING:
    from raftwright.transfer.place import Place

__all__ = ["can_be_immutable", "hold", "is_immutable", "let_go", "without_writing"]

_LONG: Final = struct.calcsize("l")
_GET_FLAGS: Final = (2 << 30) | (_LONG << 16) | (ord("f") << 8) | 1
_SET_FLAGS: Final = (1 << 30) | (_LONG << 16) | (ord("f") << 8) | 2
_IMMUTABLE: Final = 0x10
_CANNOT: Final = frozenset(
    {*(errno.EPERM, errno.EACCES, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS), errno.EROFS}
)


def without_writing(mode: int) -> int:
    """Mode bits, those for writing left out."""
    return stat.S_IMODE(mode) & ~0o222


def hold(file: int, place: Place, shown: str) -> str:
    """Holds an open file as strongly as the place may; says how. Raises RefusedError, OSError."""
    now = os.fstat(file)
    if now.st_mode & 0o222 and not is_immutable(file):
        os.fchmod(file, without_writing(now.st_mode))
        os.fsync(file)
    if place.immutable != "never":
        if _set(file, True):
            return "immutable"
        if place.immutable == "required":
            raise RefusedError(
                f"{shown}: cannot be made immutable; that wants CAP_LINUX_IMMUTABLE and a file system "
                "that has chattr +i"
            )
    return "read-only"


def let_go(file: int, shown: str) -> None:
    """Lets go of an open file; its mode bits stay. Raises RefusedError, OSError."""
    if is_immutable(file) and not _set(file, False):
        raise RefusedError(f"{shown}: is immutable, and it is not ours to change that: chattr -i wants root")


def is_immutable(file: int) -> bool:
    """Whether an open file has the flag."""
    try:
        return bool(_flags(file) & _IMMUTABLE)
    except OSError:
        return False


def can_be_immutable(directory: int) -> bool:
    """Whether files in an open directory can be held so. Raises OSError."""
    file = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        return _set(file, True)  # it has no name, and vanishes
    finally:
        os.close(file)


def _flags(file: int) -> int:
    answer = fcntl.ioctl(file, _GET_FLAGS, bytes(_LONG))
    return int(struct.unpack("l", answer)[0]) & 0xFFFFFFFF


def _set(file: int, held: bool) -> bool:
    """False where it cannot be. Raises OSError."""
    try:
        flags = _flags(file)
        wanted = flags | _IMMUTABLE if held else flags & ~_IMMUTABLE
        if wanted != flags:
            fcntl.ioctl(file, _SET_FLAGS, struct.pack("l", wanted))
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True
