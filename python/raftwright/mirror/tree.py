"""The tree that somebody else writes: looked at and read through descriptors, so that no symbolic link and no
`..` ever leads out of it.

Names are text with what is no UTF-8 escaped as Python does (surrogateescape); a path is relative to the root,
and the root itself is the empty one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from raftwright import _core
from raftwright.errors import StorageError
from raftwright.mirror.listing import Facts, kind_of

__all__ = ["Tree", "crc_of", "facts_of", "join", "shown"]

_STEP: Final = 4 << 20
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_LOCAL: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "overlay"})
_LEASES: Final = _LOCAL - {"overlay"}
_BEFORE: Final = 8
_WALKERS: Final = 8
_LONGEST: Final = 3800
"""Bytes of a path that is taken: at the far side it grows."""


def facts_of(found: os.stat_result) -> Facts:
    """Of what `stat` says."""
    return Facts(kind_of(found.st_mode), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def join(directory: str, name: str) -> str:
    """Path of a name in a directory of the tree."""
    return f"{directory}/{name}" if directory else name


def shown(path: str) -> str:
    """A path as a line may show it."""
    return path if path.isprintable() else ascii(path)[1:-1]


def crc_of(descriptor: int) -> tuple[str, int]:
    """CRC-32C and number of bytes of an open file."""
    crc = at = 0
    while piece := os.pread(descriptor, _STEP, at):
        crc, at = _core.crc32c(piece, crc), at + len(piece)
    return f"{crc:08x}", at


class Tree:
    """A root that stays open. Every method raises StorageError where the file system fails, and gives None
    where there is nothing (any more)."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fd = -1
        self._before: list[int] = []
        """Roots of before: other threads may be about to use them, and nothing else may get their numbers."""
        self.kind = ""
        """Of file system."""

    def open(self) -> None:
        """Looks where the root is now. Raises StorageError where it is no directory."""
        try:
            now = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(
                error.errno, f"the tree cannot be opened ({error.strerror}); is it mounted?", self.root
            ) from None
        if self._fd >= 0:
            self._before.append(self._fd)
        self._fd = now
        if len(self._before) > _BEFORE:
            os.close(self._before.pop(0))
        self.kind = _file_system(os.fstat(self._fd).st_dev)

    def close(self) -> None:
        """Lets go."""
        while self._before:
            os.close(self._before.pop())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def identity(self) -> tuple[int, int]:
        """Device and inode of the root as it is named now; the open one follows where it was replaced.
        Raises StorageError."""
        try:
            now = os.stat(self.root)
        except OSError as error:
            raise StorageError(
                error.errno, f"the tree is not there ({error.strerror}); is it mounted?", self.root
            ) from None
        if self._fd < 0 or os.fstat(self._fd)[1:3] != (now.st_ino, now.st_dev):
            self.open()
            now = os.fstat(self._fd)
        return now.st_dev, now.st_ino

    @property
    def tells_all(self) -> bool:
        """Whether inotify tells of all who write here."""
        return self.kind in _LOCAL

    # -- looking

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """A descriptor of a directory. Raises FileNotFoundError and NotADirectoryError too."""
        descriptor = self._below(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def stat(self, path: str) -> os.stat_result | None:
        """As `lstat`. A link among the directories above is followed: only what is opened is safe."""
        try:
            return os.stat(path or ".", dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise StorageError(
                error.errno, f"cannot be looked at ({error.strerror})", self._full(path)
            ) from None

    def facts(self, path: str) -> Facts | None:
        """Of anything but a directory; None where there is none."""
        above, _, name = path.rpartition("/")
        return self.facts_in(above, [name])[0]

    def facts_in(self, path: str, names: Sequence[str]) -> list[Facts | None]:
        """As `facts`, of several names in one directory."""
        found: list[Facts | None] = []
        try:
            with self.directory(path) as descriptor:
                for name in names:
                    try:
                        now = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        found.append(None if stat.S_ISDIR(now.st_mode) else facts_of(now))
                    except FileNotFoundError:
                        found.append(None)
        except OSError as error:
            if error.errno in _GONE:
                return [None] * len(names)
            text = f"cannot be looked at ({error.strerror})"
            raise StorageError(error.errno, text, self._full(path)) from None
        return found

    @property
    def walkers(self) -> int:
        """Threads that directories are read with: over a network it is waiting that takes the time."""
        return min(4, _core.usable_processors()) if self.tells_all else _WALKERS

    def link(self, path: str) -> str | None:
        """Where a symbolic link points; None where there is none."""
        above, _, name = path.rpartition("/")
        try:
            with self.directory(above) as descriptor:
                return os.readlink(name, dir_fd=descriptor)
        except OSError as error:
            if error.errno in _GONE or error.errno == errno.EINVAL:
                return None
            raise StorageError(error.errno, f"cannot be read ({error.strerror})", self._full(path)) from None

    # -- reading

    @contextmanager
    def file(self, path: str) -> Iterator[int | None]:
        """A descriptor of a regular file; None where there is none. Raises StorageError."""
        try:
            descriptor = self._below(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _GONE or error.errno in (errno.EISDIR, errno.ENXIO):
                yield None
                return
            raise StorageError(
                error.errno, f"cannot be opened ({error.strerror})", self._full(path)
            ) from None
        try:
            yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        finally:
            os.close(descriptor)

    def knows_writers(self, owner: int) -> bool:
        """Whether `being_written` knows, of a file that this user owns."""
        return self.kind in _LEASES and os.geteuid() in (0, owner)

    def being_written(self, descriptor: int) -> bool:
        """Whether somebody on this machine has the file open for writing, as far as that can be known: a
        lease for reading is refused then."""
        if self.kind not in _LEASES:
            return False
        try:
            # Who opens it in the moment that we have the lease causes a signal: one that nobody hears.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    def _below(self, path: str, flags: int) -> int:
        """Opens something below the root, each part without following a link."""
        if len(os.fsencode(path)) > _LONGEST:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        if not path:
            return os.open(".", flags, dir_fd=self._fd)
        *above, name = path.split("/")
        at = self._fd
        try:
            for part in above:
                if part in ("", ".", ".."):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                if at != self._fd:
                    os.close(at)
                at = below
            if name in ("", ".", ".."):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return os.open(name, flags, dir_fd=at)
        finally:
            if at != self._fd:
                os.close(at)

    def _full(self, path: str) -> str:
        return shown(os.path.join(self.root, path))


def _file_system(device: int) -> str:
    """Kind of the file system of a device, as the kernel calls it; nothing where that is not known."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with (
        contextlib.suppress(OSError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            before, _, after = line.partition(" - ")
            if before.split()[2:3] == [wanted]:
                return after.split()[0]
    return ""
