"""A directory as a place, NFS too: hard links where they may be, else copies that are looked at.

A name appears at once and whole, and never in place of another. A link shares the file with the archive: that
is no second copy, but also no second half of a copy. Directories are entered one by one and never through a
link, so that nothing leads out of the tree."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer import holding
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent, UnreadableError, outage_of
from raftwright.transfer.pouring import NewFile, crc_of, pieces, pour
from raftwright.transfer.targets import HIDDEN, aside, checked, partial
from raftwright.transfer.throttle import Throttle
from raftwright.transfer.tree import Tree, move, stat_of, sync

if TYPE_CHECKING:
    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import Why

__all__ = ["DirectorySender"]

_NO_LINKS: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}
)
_NO_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_LEFT: Final = 3600.0
"""Seconds after which a hidden file is one that somebody left."""
_PART_LEFT: Final = 86_400.0
"""The same of one that can be continued."""


class DirectorySender:
    """See `Sender`."""

    def __init__(self, destination: Place) -> None:
        self._place = destination
        self._root = Path(destination.root)
        self._tree = Tree(self._root)
        self._throttle = Throttle(destination.bandwidth)
        self._links = (
            destination.link == "auto" and not destination.readonly and destination.immutable == "never"
        )
        self._cold = destination.verify == "read"
        self._devices: set[int] = set()
        """File systems from which links are refused: known from the first try on."""

    # -- the place

    def warm(self) -> str:
        """Raises OutageError."""
        self.probe()
        how = "hard links where they can be" if self._links else "copies"
        return f"directory {self._root}: {how}"

    def links_from(self, archive: str | os.PathLike[str]) -> bool:
        """Whether files of the archive can be linked to this place; remembered. Raises OutageError."""
        if not self._links:
            return False
        name = f"{HIDDEN}{secrets.token_hex(8)}"
        source, there = Path(archive) / name, self._root / name
        try:
            source.touch(exist_ok=False)
            try:
                os.link(source, there)
            finally:
                source.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    there.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in _NO_LINKS:
                self._devices.add(os.stat(archive).st_dev)
                return False
            raise OutageError(f"{self._root}: nothing can be linked there ({error.strerror})") from None
        return True

    def probe(self) -> None:
        """Raises OutageError."""
        name = self._root / f"{HIDDEN}{secrets.token_hex(8)}"
        try:
            with self._tree.folder(()) as folder:
                with name.open("xb") as stream:
                    stream.write(b"\0" * 4096)
                name.unlink()
                if self._place.immutable == "required" and not holding.can_be_immutable(folder):
                    raise OutageError(
                        f"{self._root}: files cannot be made immutable there; that wants "
                        "CAP_LINUX_IMMUTABLE and a file system that has chattr +i"
                    )
        except OSError as error:
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)
            raise OutageError(f"{self._root}: cannot be written ({error.strerror})") from None

    def close(self) -> None:
        """Ends what waits for its turn."""
        self._throttle.close()

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        parts = checked(job.target)
        there = self._root / job.target
        try:
            source = os.stat(job.path)
        except OSError as error:
            raise RefusedError(f"{job.path}: cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(source.st_mode) or source.st_size != job.bytes:
            raise RefusedError(
                f"{job.path}: has {source.st_size} bytes, the ledger says {job.bytes}; see the audit"
            )
        with _said(there), self._tree.folder(parts[:-1], make=True) as folder:
            return _Sending(self, job, source, folder, parts[-1]).send()

    def protect(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        with self._opened(target) as file:
            return holding.hold(file, self._place, str(self._root / target))

    def unprotect(self, target: str) -> None:
        """Raises NotFoundError, OutageError, RefusedError."""
        with self._opened(target) as file:
            holding.let_go(file, str(self._root / target))

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Raises OutageError, RefusedError."""
        parts = checked(folder.rstrip("/")) if folder.rstrip("/") else ()
        with _said(self._root / folder):
            yield from self._tree.walk(parts)

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Raises OutageError, RefusedError."""
        parts = checked(folder.rstrip("/")) if folder.rstrip("/") else ()
        with _said(self._root / folder):
            return self._tree.files(parts)

    def has(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        parts = checked(target)
        with _said(self._root / target):
            try:
                with self._tree.folder(parts[:-1]) as folder:
                    return stat_of(parts[-1], folder) is not None
            except FileNotFoundError:
                return False

    def crc32c(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        with self._opened(target) as file:
            try:
                return f"{crc_of(file, cold=True)[0]:08x}"
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self.probe()  # is it this file alone?
                raise UnreadableError(
                    f"{self._root / target}: its disk cannot read it ({error.strerror})"
                ) from None

    def fetch(self, target: str, path: Path) -> str:
        """Raises NotFoundError, OutageError, RefusedError, StorageError."""
        with NewFile(path) as copy, self._opened(target) as file:
            for piece in pieces(file):
                copy.write(piece)
            return copy.crc32c

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        parts = checked(target)
        shown = self._root / target
        with _said(shown), _found(shown), self._tree.folder(parts[:-1]) as folder:
            now = stat_of(parts[-1], folder)
            if now is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), parts[-1])
            if stat.S_ISREG(now.st_mode):
                self.unprotect(target)
            for number in itertools.count(1):
                new = aside(parts, why, number)
                with self._tree.folder(new[:-1], make=True) as into:
                    try:
                        move(parts[-1], folder, new[-1], into, self._root.joinpath(*new[:-1]))
                    except FileExistsError:
                        continue
                    sync(into)
                sync(folder)
                return "/".join(new)
        raise AssertionError

    def remove(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        parts = checked(target)
        shown = self._root / target
        with _said(shown):
            try:
                with self._tree.folder(parts[:-1]) as folder:
                    now = stat_of(parts[-1], folder)
                    if now is not None and not stat.S_ISREG(now.st_mode):
                        raise RefusedError(f"{shown}: is no regular file; move it away")
                    os.unlink(parts[-1], dir_fd=folder)
                    sync(folder)
            except FileNotFoundError:
                return False
            except PermissionError:
                raise RefusedError(f"{shown}: is held and not removed; unprotect it first") from None
        return True

    @contextlib.contextmanager
    def _opened(self, target: str) -> Iterator[int]:
        """A regular file there, open. Raises NotFoundError, OutageError, RefusedError."""
        parts = checked(target)
        shown = self._root / target
        with _said(shown), _found(shown), self._tree.folder(parts[:-1]) as folder:
            file = _open_regular(parts[-1], folder, shown)
            try:
                yield file
            finally:
                os.close(file)


class _Sending:
    """One file on its way into an open directory."""

    def __init__(
        self, sender: DirectorySender, job: Job, source: os.stat_result, folder: int, name: str
    ) -> None:
        self._sender = sender
        self._job = job
        self._source = source
        self._folder = folder
        self._name = name
        self._there = sender._root / job.target

    def send(self) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        known = self._known()
        if known is not None:
            return known
        if self._sender._links and self._source.st_dev not in self._sender._devices:
            linked = self._link()
            if linked is not None:
                return linked
        return self._copy()

    def _known(self) -> Sent | None:
        """What is under the name already; None where nothing is. Raises ConflictError."""
        now = stat_of(self._name, self._folder)
        if now is None:
            return None
        if not stat.S_ISREG(now.st_mode):
            raise ConflictError(f"{self._there}: something that is no file has this name; move it away")
        if (now.st_ino, now.st_dev) == (self._source.st_ino, self._source.st_dev):
            return self._sent("there already") if self._sender._links else self._same_file()
        file = _open_regular(self._name, self._folder, self._there)
        try:
            if now.st_size == self._job.bytes and self._sum(file) == self._job.crc32c:
                os.fsync(file)  # who brought it may have died before this
                sync(self._folder)
                return self._sent("there already", held=self._settle(file))
        finally:
            os.close(file)
        raise ConflictError(
            f"{self._there}: another content ({now.st_size} bytes) has this name; it is left as it is, "
            "look at both"
        )

    def _same_file(self) -> Sent:
        raise RefusedError(f"{self._there}: is a link to {self._job.path}, and no copy; move it away")

    def _link(self) -> Sent | None:
        """None where it cannot be linked."""
        try:
            os.link(self._job.path, self._name, dst_dir_fd=self._folder)
        except FileExistsError:
            return self._taken()
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if error.errno == errno.EXDEV:
                self._sender._devices.add(self._source.st_dev)
            return None
        sync(self._folder)
        self._is(self._source)
        return self._sent("linked")

    def _taken(self) -> Sent:
        known = self._known()
        if known is None:
            raise RefusedError(f"{self._there}: was there and is not; somebody else works in this directory")
        return known

    # -- a copy without its name, looked at, and then named without replacing anything

    def _copy(self) -> Sent:
        if self._job.bytes >= self._sender._place.resumable:
            with _continued(self._folder, partial(self._job)) as file:
                if file is not None:
                    return self._fill(file, partial(self._job))
        with _nameless(self._folder) as (file, hidden):
            return self._fill(file, hidden)

    def _fill(self, file: int, hidden: str | None) -> Sent:
        with open(self._job.path, "rb") as reader:
            begun = self._begun(file, reader.fileno())
            moved = pour(reader.fileno(), file, self._sender._throttle, begun)
        mode = stat.S_IMODE(self._source.st_mode) & 0o777
        os.fchmod(file, holding.without_writing(mode) if self._sender._place.readonly else mode)
        os.fsync(file)
        found, mine = self._sum(file), os.fstat(file)
        if found != self._job.crc32c or mine.st_size != self._job.bytes:
            if hidden is not None:
                os.unlink(hidden, dir_fd=self._folder)
            raise RefusedError(self._why_not(found))
        try:
            if hidden is None:
                os.link(f"/proc/self/fd/{file}", self._name, dst_dir_fd=self._folder, follow_symlinks=True)
            else:
                self._is(mine, hidden)  # somebody may have cleaned up, and another begun anew
                move(hidden, self._folder, self._name, self._folder, self._there.parent)
        except FileExistsError:
            if hidden is not None:
                os.unlink(hidden, dir_fd=self._folder)
            return self._taken()
        sync(self._folder)
        self._is(mine)
        return self._sent("resumed" if begun else "copied", moved, self._settle(file))

    def _begun(self, file: int, reader: int) -> int:
        """Bytes of what a try left that was cut, if they are those of the file; else it is emptied."""
        size = os.fstat(file).st_size
        if 0 < size <= self._job.bytes and crc_of(reader, 0, size) == crc_of(file, 0, size, cold=True):
            return size
        if size:
            os.ftruncate(file, 0)
        return 0

    def _sum(self, file: int) -> str:
        return f"{crc_of(file, cold=self._sender._cold)[0]:08x}"

    def _why_not(self, found: str) -> str:
        now = os.stat(self._job.path)
        if (now.st_size, now.st_mtime_ns) != (self._source.st_size, self._source.st_mtime_ns):
            return f"{self._job.path}: changed while it was sent; nothing is kept at {self._there}"
        return f"{self._there}: the copy has the CRC-32C {found}, the file {self._job.crc32c}; it is not kept"

    def _is(self, wanted: os.stat_result, name: str = "") -> None:
        now = stat_of(name or self._name, self._folder)
        if now is None or (now.st_ino, now.st_dev, now.st_size) != (
            wanted.st_ino,
            wanted.st_dev,
            self._job.bytes,
        ):
            raise RefusedError(f"{self._there}: is not what was written there a moment ago")

    def _settle(self, file: int) -> str:
        place = self._sender._place
        if place.readonly or place.immutable != "never":
            return holding.hold(file, place, str(self._there))
        return ""

    def _sent(self, how: str, moved: int = 0, held: str = "") -> Sent:
        return Sent(how=how, bytes=moved, place=str(self._there), held=held)


@contextlib.contextmanager
def _said(shown: Path) -> Iterator[None]:
    """What the file system says, in our words."""
    try:
        yield
    except OSError as error:
        outage = outage_of(error, str(shown))
        raise outage if outage is not None else RefusedError(f"{shown}: {error.strerror}") from None


@contextlib.contextmanager
def _found(shown: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"{shown}: is not there") from None


def _open_regular(name: str, folder: int, shown: Path) -> int:
    """Raises UnreadableError, FileNotFoundError, OSError."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    raise UnreadableError(f"{shown}: is no regular file; move it away")


@contextlib.contextmanager
def _nameless(folder: int) -> Iterator[tuple[int, str | None]]:
    """A new file that vanishes with us; where there is no such thing, one with a hidden name, which is
    given."""
    hidden = None
    try:
        file = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
        _clean(folder)
        hidden = f"{HIDDEN}{secrets.token_hex(8)}"
        file = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
        _locked(file)
    try:
        yield file, hidden
    finally:
        os.close(file)
        if hidden is not None:
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=folder)


@contextlib.contextmanager
def _continued(folder: int, name: str) -> Iterator[int | None]:
    """What a try left that was cut, or a new file; it stays after an error. None where another try works on
    it."""
    _clean(folder)
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        if not _locked(file):
            yield None
            return
        now, mine = stat_of(name, folder), os.fstat(file)
        one = now is not None and now.st_ino == mine.st_ino and mine.st_nlink == 1
        yield file if one and stat.S_ISREG(mine.st_mode) else None
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Whether an open file is ours alone now, among those who ask."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_left(name: str, folder: int) -> bool:
    """Whether nobody works on a hidden file, however old it looks: clocks step, and disks hang for days."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return _locked(file)
    finally:
        os.close(file)


def _clean(folder: int) -> None:
    """Removes what those left who died while they copied."""
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(HIDDEN):
                with contextlib.suppress(OSError):
                    age = now - entry.stat(follow_symlinks=False).st_mtime
                    left = age > (_PART_LEFT if entry.name.endswith(".part") else _LEFT)
                    if left and _is_left(entry.name, folder):
                        os.unlink(entry.name, dir_fd=folder)
