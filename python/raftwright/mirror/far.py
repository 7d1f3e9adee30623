"""The far side of a mirror: a place, and what a mirror does there beyond bringing files.

A directory can rename and link; every other place gets a copy under the new name, verified, before the old
one is removed. Nothing is ever put in place of another name but by `replace`, which keeps the other under a
version name first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer import Job, RefusedError
from raftwright.transfer.outcome import outage_of
from raftwright.transfer.sender import Sender, sender_of
from raftwright.transfer.targets import HIDDEN, checked
from raftwright.transfer.tree import Tree, move, stat_of, sync

if TYPE_CHECKING:
    from raftwright.transfer.place import Place

__all__ = ["DirectoryFar", "Far", "Kind", "far_of"]

Kind: TypeAlias = Literal["none", "file", "directory", "link", "other"]

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})


class Far:
    """Any place. Methods raise OutageError and RefusedError as those of a `Sender`."""

    links = False
    """Whether symbolic links can be made there."""

    def __init__(self, sender: Sender, scratch: Path) -> None:
        self.sender = sender
        self._scratch = scratch

    def kind(self, target: str) -> Kind:
        """What has this name there."""
        above, _, name = target.rpartition("/")
        return "file" if name in self.sender.sizes(above) else "none"

    def blocker(self, target: str) -> str:  # noqa: ARG002
        """What stands above a name and is no directory; nothing where nothing does."""
        return ""

    def move(self, target: str, to: str) -> None:
        """Renames a file; in place of nothing. Again is as good. Raises NotFoundError, ConflictError."""
        self._copy(target, to)
        self.sender.remove(target)

    def replace(self, staged: str, target: str, version: str) -> None:
        """The staged file gets a name that another has, which is kept under a version name. Again is as good.
        Raises NotFoundError, ConflictError."""
        self._copy(target, version)
        self.sender.remove(target)
        self.move(staged, target)

    def discard(self, staged: str) -> None:
        """Removes a file that was staged and is not needed."""
        self.sender.remove(staged)

    def stamp(self, target: str, mtime: int) -> None:
        """Gives a file the time of the original, in ns, where there is such a thing."""

    def link(self, text: str, target: str) -> None:  # noqa: ARG002
        """Makes a symbolic link. Raises ConflictError."""
        raise RefusedError("there are no symbolic links at this place")

    def read_link(self, target: str) -> str | None:  # noqa: ARG002
        """Where a symbolic link points; None where there is none."""
        return None

    def remove_empty(self, target: str) -> None:
        """Removes a directory and those below that hold nothing."""

    def _copy(self, target: str, to: str) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            path = Path(directory) / "content"
            try:
                crc = self.sender.fetch(target, path)
            except NotFoundError:
                if self.kind(to) == "file":
                    return  # this was done before
                raise
            self.sender.send(Job(path=str(path), target=to, bytes=path.stat().st_size, crc32c=crc))


class DirectoryFar(Far):
    """A directory: links and renames are what they are, and no link is followed there."""

    links = True

    def __init__(self, sender: Sender, scratch: Path, root: Path) -> None:
        super().__init__(sender, scratch)
        self._root = root
        self._tree = Tree(root)

    @contextlib.contextmanager
    def _folder(self, target: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The open directory of a name, and its last part. Raises NotFoundError."""
        parts = checked(target)
        shown = self._root / target
        try:
            with self._tree.folder(parts[:-1], make=make) as folder:
                yield folder, parts[-1]
        except FileNotFoundError:
            raise NotFoundError(f"{shown}: is not there") from None
        except FileExistsError:
            raise ConflictError(f"{shown}: the name is taken there") from None
        except OSError as error:
            outage = outage_of(error, str(shown))
            raise outage if outage is not None else RefusedError(f"{shown}: {error.strerror}") from None

    def kind(self, target: str) -> Kind:
        """See `Far`."""
        try:
            with self._folder(target) as (folder, name):
                found = stat_of(name, folder)
        except NotFoundError:
            return "none"
        return "none" if found is None else _kind(found)

    def blocker(self, target: str) -> str:
        """See `Far`."""
        parts = checked(target)
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            kind = self.kind(above)
            if kind == "none":
                return ""
            if kind != "directory":
                return above
        return ""

    def move(self, target: str, to: str) -> None:
        """See `Far`."""
        with self._folder(to, make=True) as (into, new):
            try:
                with self._folder(target) as (folder, name):
                    move(name, folder, new, into, (self._root / to).parent)
                    sync(folder)
            except NotFoundError:
                if stat_of(new, into) is None:
                    raise
            sync(into)

    def replace(self, staged: str, target: str, version: str) -> None:
        """See `Far`. The name is never without a file."""
        with (
            self._folder(version, make=True) as (into, kept),
            self._folder(staged) as (stage, new),
            self._folder(target, make=True) as (folder, name),
        ):
            if stat_of(new, stage) is None:
                raise NotFoundError(f"{self._root / staged}: is not there")
            try:
                os.link(name, kept, src_dir_fd=folder, dst_dir_fd=into, follow_symlinks=False)
            except FileExistsError:
                if not _same(stat_of(name, folder), stat_of(kept, into)):
                    raise
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                move(name, folder, kept, into, (self._root / version).parent)
                sync(into)
                move(new, stage, name, folder, (self._root / target).parent)
                sync(folder)
                return
            sync(into)
            os.rename(new, name, src_dir_fd=stage, dst_dir_fd=folder)
            sync(folder)

    def stamp(self, target: str, mtime: int) -> None:
        """See `Far`."""
        with self._folder(target) as (folder, name), contextlib.suppress(PermissionError):
            # a file of somebody else: its content counts
            os.utime(name, ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)

    def link(self, text: str, target: str) -> None:
        """See `Far`."""
        with self._folder(target, make=True) as (folder, name):
            hidden = f"{HIDDEN}{secrets.token_hex(8)}"
            os.symlink(text, hidden, dir_fd=folder)
            try:
                move(hidden, folder, name, folder, (self._root / target).parent)
            except BaseException:
                os.unlink(hidden, dir_fd=folder)
                raise
            sync(folder)

    def read_link(self, target: str) -> str | None:
        """See `Far`."""
        try:
            with self._folder(target) as (folder, name):
                return os.readlink(name, dir_fd=folder)
        except (NotFoundError, RefusedError):
            return None

    def remove_empty(self, target: str) -> None:
        """See `Far`."""
        with self._folder(target) as (folder, name):
            _prune(name, folder)


def far_of(place: Place, scratch: Path) -> Far:
    """The far side of a mirror. Raises MissingExtraError."""
    sender = sender_of(place)
    if place.kind == "directory":
        return DirectoryFar(sender, scratch, Path(place.root))
    return Far(sender, scratch)


def _kind(found: os.stat_result) -> Kind:
    if stat.S_ISREG(found.st_mode):
        return "file"
    if stat.S_ISDIR(found.st_mode):
        return "directory"
    return "link" if stat.S_ISLNK(found.st_mode) else "other"


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)


def _prune(name: str, folder: int) -> None:
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(opened) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for one in below:
            _prune(one, opened)
    finally:
        os.close(opened)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=folder)
