"""Where pools are: `/dev/shm/raftwright-<uid>/<name>`, for this user alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import Final, NamedTuple

from raftwright.errors import StorageError, UsageError

__all__ = [
    "OWNER",
    "SLAB",
    "STATE",
    "PoolFacts",
    "hints",
    "make_private",
    "own",
    "pool_directory",
    "pools",
    "slab_name",
]

OWNER: Final = "owner"
STATE: Final = "pool"
SLAB: Final = re.compile(r"\Aslab-([0-9]{6})\Z")
_NAME = re.compile(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_LONGEST_SOCKET: Final = 100


def _home() -> Path:
    return Path(f"/dev/shm/raftwright-{os.getuid()}")


def pool_directory(name: str | os.PathLike[str]) -> Path:
    """The directory of a pool by its name, or a path as it is (what has a `/` is one).

    Raises UsageError for a name that is none.
    """
    if not isinstance(name, str) or "/" in name:
        return Path(name)
    if not _NAME.match(name):
        raise UsageError(f"{name[:80]!a} is no name for a pool; use letters, digits, '_', '-' and '.'")
    return _home() / name


def slab_name(number: int) -> str:
    """`slab-000017`."""
    return f"slab-{number:06d}"


def hints(directory: Path) -> str | None:
    """The endpoint where a pool says that there is something new; None where the path is too long for one."""
    path = os.fspath(directory.absolute() / "notices")
    return f"ipc://{path}" if len(os.fsencode(path)) <= _LONGEST_SOCKET else None


def make_private(directory: Path) -> None:
    """Makes a directory, and those above it, for this user alone.

    Raises StorageError where somebody else owns what is there, or could write there.
    """
    if directory.parent == _home():
        _make(directory.parent)
    else:
        _attempt(directory.parent, lambda: directory.parent.mkdir(parents=True, exist_ok=True))
    _make(directory)


def _make(directory: Path) -> None:
    def make() -> os.stat_result:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        return os.lstat(directory)

    found = _attempt(directory, make)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StorageError(
            errno.EPERM,
            f"{directory} is not a directory of this user alone (mode 0700); remove it or name another pool",
        )


def _attempt(directory: Path, make: object) -> os.stat_result:
    assert callable(make)
    try:
        result = make()
    except OSError as error:
        raise StorageError(
            error.errno, f"{directory}: the pool cannot be there ({error.strerror}); name another directory"
        ) from None
    return result  # type: ignore[no-any-return]


def own(directory: os.PathLike[str]) -> int:
    """The lock that says whose pool it is; held until its descriptor is closed, or the process dies."""
    path = os.path.join(directory, OWNER)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(
            error.errno, f"{path} cannot be had ({error.strerror}); name another pool"
        ) from None
    end = time.monotonic() + 0.2
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # perhaps somebody only asks whose it is
            if time.monotonic() < end:
                time.sleep(0.01)
                continue
            said = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise StorageError(
                errno.EBUSY,
                f"the pool {os.fspath(directory)} is in use by process {said or '?'}; name another one",
            ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


class PoolFacts(NamedTuple):
    """A pool that was found."""

    name: str
    path: Path
    bytes: int
    """What its files take."""
    slabs: int
    alive: bool
    """Whether a process has it open; else it was left behind, and the next pool of this name takes it
    over."""
    owner: int | None
    """The process that had it last."""


def pools(home: Path | None = None) -> list[PoolFacts]:
    """The pools of this user, sorted by name."""
    home = _home() if home is None else home
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(home), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    found.append(_facts(Path(entry.path)))
    return found


def _facts(path: Path) -> PoolFacts:
    sizes = []
    for entry in os.scandir(path):
        if SLAB.match(entry.name):
            with contextlib.suppress(OSError):  # it goes while we look
                sizes.append(entry.stat(follow_symlinks=False).st_blocks * 512)
    alive, owner = False, None
    with contextlib.suppress(OSError, ValueError), open(path / OWNER, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            alive = True
        owner = int(file.read(20))
    return PoolFacts(path.name, path, sum(sizes), len(sizes), alive, owner)
