"""The directories below a root: entered one by one, never through a link, so that nothing leads out of the
tree."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from raftwright.rawfile.publishing import locked
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.targets import ASIDE, HIDDEN, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Tree", "move", "stat_of", "sync"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DEEPEST: Final = 64
_NOREPLACE: Final = 1
_NO_SUCH_CALL: Final = frozenset({errno.EINVAL, errno.ENOSYS})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})

_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
"""Which Python does not have."""


class Tree:
    """Below a root that has to be there: what is not mounted is not written to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """An open directory. Raises OutageError where there is no root, RefusedError for a link on the way,
        FileNotFoundError where it is not there and not to be made, OSError."""
        at = self._open_root()
        try:
            for number in range(len(parts)):
                below = self._enter(at, parts[: number + 1], make)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _open_root(self) -> int:
        try:
            return os.open(self.root, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            raise OutageError(
                f"{self.root}: there is no such directory; make it, or mount what belongs there"
            ) from None

    def _enter(self, above: int, parts: tuple[str, ...], make: bool) -> int:
        name = parts[-1]
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            now = stat_of(name, above)
            what = "a link" if now is not None and stat.S_ISLNK(now.st_mode) else "no directory"
            raise RefusedError(
                f"{self.root}/{'/'.join(parts)}: is {what}, so files do not go below it; move it away"
            ) from None
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        sync(above)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)

    def walk(self, parts: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        """Names and bytes of all regular files below a folder; not of what is not ready or was set aside."""
        with contextlib.suppress(FileNotFoundError), self.folder(parts) as at:
            yield from self._walk(at, parts)

    def files(self, parts: tuple[str, ...]) -> dict[str, int]:
        """Bytes of the regular files right below a folder; nothing where it is not there."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), self.folder(parts) as at, os.scandir(at) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(HIDDEN):
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return found

    def _walk(self, at: int, parts: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        if len(parts) > _DEEPEST:
            raise RefusedError(f"{self.root}: has directories more than {_DEEPEST} deep; look at it")
        folders = []
        with os.scandir(at) as entries:
            for entry in entries:
                if entry.name.startswith(HIDDEN) or (not parts and entry.name in ASIDE):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        yield "/".join((*parts, entry.name)), entry.stat(follow_symlinks=False).st_size
        for name in sorted(folders):
            below = (*parts, name)
            if is_ours(below):
                continue
            try:
                opened = self._enter(at, below, make=False)
            except (FileNotFoundError, RefusedError):  # it went, or became something else
                continue
            try:
                yield from self._walk(opened, below)
            finally:
                os.close(opened)


def stat_of(name: str, folder: int) -> os.stat_result | None:
    """Of a name in an open directory; links are not followed. None where nothing has the name."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def move(name: str, folder: int, new: str, into: int, shown: Path) -> None:
    """Gives a file another name, in one step and in place of nothing. `shown` is the directory it goes to.
    Raises FileExistsError, OSError."""
    try:
        return _rename(name, folder, new, into)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    try:
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=into, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with locked(shown):
            if stat_of(new, into) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
            os.rename(name, new, src_dir_fd=folder, dst_dir_fd=into)
    else:
        os.unlink(name, dir_fd=folder)


def _rename(name: str, folder: int, new: str, into: int) -> None:
    """Raises OSError."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), new)
    if _renameat2(folder, os.fsencode(name), into, os.fsencode(new), _NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new)


def sync(folder: int) -> None:
    """Makes the names in an open directory durable. Raises OSError."""
    os.fsync(folder)
