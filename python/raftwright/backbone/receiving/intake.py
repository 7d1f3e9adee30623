"""Taking in: a file leaves the buffer for the storage, checked, and never in place of another.

The order is what makes it safe to die anywhere: out of the others' sight by a rename, read and checked,
published in the storage (or aside), entered in the register, and only then removed from the buffer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from raftwright import _core
from raftwright.backbone.receiving.lists import SUFFIX, read_list
from raftwright.backbone.receiving.register import Register
from raftwright.backbone.receiving.rows import FileRow
from raftwright.backbone.receiving.watching import TAKING, Candidate
from raftwright.errors import ConflictError, FormatError, RaftwrightError, StorageError
from raftwright.ledger.clock import tai
from raftwright.rawfile.container import check_container, open_container
from raftwright.rawfile.names import FileName, container_version
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import Job, OutageError, RefusedError
from raftwright.transfer.place import Place
from raftwright.transfer.tree import Tree, move

__all__ = ["Intake", "Sums", "Taken", "sums_of"]

_log = logging.getLogger("raftwright.endpoint")

_STEP: Final = 1 << 20
_FITS: Final = (".fits", ".fits.fz", ".fz")
_JSON: Final = 256 << 20


class Sums(NamedTuple):
    """Of a file's bytes."""

    bytes: int
    crc32c: str
    adler32: str
    md5: str


class Taken(NamedTuple):
    """What became of a file of the buffer."""

    name: str
    outcome: str
    """`stored`, `alias`, `again`, `conflict`, `refused`; `later`: it is tried again; `unfinished`: likewise,
    its writer may come back to it."""
    message: str
    file_id: int = 0


class _NotYet(OSError):  # noqa: N818 - no error
    """Perhaps it is still being written."""


class Intake:
    """Takes files in. Used by one thread; of several processes one at a time has the buffer."""

    def __init__(
        self,
        buffer: Path,
        storage: Path,
        aside: Path,
        register: Register,
        *,
        ingesters: Iterable[str] = (),
        md5: bool = False,
        verify: str = "sums",
        link: bool = True,
        patience: Callable[[], float] = lambda: 600.0,
    ) -> None:
        self.buffer = buffer
        self.storage = storage
        self.aside = aside
        self._register = register
        self._ingesters = tuple(ingesters)
        self._md5 = md5
        self._verify = verify
        self._patience = patience
        self._here, self._hidden = Tree(buffer), Tree(buffer / TAKING)
        self._into = _sender("storage", storage, link)
        self._beside = _sender("aside", aside, link)
        self._short: dict[str, tuple[tuple[int, int], float]] = {}
        """Files that are cut short, and since when as they are."""
        self._lock: int | None = None

    # -- the buffer is ours

    def acquire(self) -> bool:
        """Whether the buffer is ours alone now; another process may have it. Raises StorageError."""
        if self._lock is not None:
            return True
        taking = self.buffer / TAKING
        try:
            taking.mkdir(mode=0o700, exist_ok=True)
            self.aside.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(taking, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(
                error.errno,
                f"cannot be written to ({error.strerror}); look after it",
                str(error.filename or taking),
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return False
            raise StorageError(error.errno, f"cannot be locked ({error.strerror})", str(taking)) from None
        self._lock = descriptor
        return True

    def close(self) -> None:
        """Lets go of the buffer."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._into.close()
        self._beside.close()

    # -- a file

    def take(self, candidate: Candidate) -> Taken:
        """Takes a file in. Raises OutageError where storage or register take nothing now."""
        begun = tai()
        try:
            self._must_be_finished(candidate)
            mine = self._hide(candidate)
        except _NotYet as error:
            return Taken(candidate.name, "unfinished", str(error))
        except RefusedError as error:
            return Taken(candidate.name, "later", str(error))
        except OSError as error:
            return Taken(candidate.name, "later", f"cannot be taken out of the buffer ({error.strerror})")
        try:
            wanted = self._md5 or bool(candidate.promise and candidate.promise.md5)
            sums = sums_of(mine, wanted, durable=True)
            why = self._wrong(candidate, mine, sums)
        except _NotYet as error:
            return Taken(candidate.name, "unfinished", str(error))
        except OSError as error:
            return Taken(candidate.name, "later", f"cannot be read ({error.strerror})")
        try:
            if why:
                return self._refuse(candidate.name, mine, sums, why, begun)
            return self._store(candidate.name, mine, sums, begun)
        except OutageError:
            raise
        except StorageError as error:
            raise OutageError(str(error)) from error
        except RaftwrightError as error:
            return Taken(candidate.name, "later", str(error))
        except OSError as error:
            raise OutageError(f"{error.filename or self.storage}: {error.strerror}") from error

    def _must_be_finished(self, candidate: Candidate) -> None:
        """A file that is cut short, and that nothing vouches for, may be one whose writer comes back to it:
        it stays where it is for as long as that may take. Raises _NotYet, OSError."""
        if candidate.promise is not None or candidate.path == self.buffer / TAKING / candidate.name:
            return
        why = _cut(candidate.path, candidate.name)
        if not why:
            return
        now, status = time.monotonic(), os.lstat(candidate.path)
        key = status.st_size, status.st_mtime_ns
        before, since = self._short.get(candidate.name, (key, now))
        if before != key:
            since = now
        self._short[candidate.name] = key, since
        if now - since < self._patience():
            raise _NotYet(f"it may still be written: {why}")

    def _hide(self, candidate: Candidate) -> Path:
        """Moves a file to where only we look. What comes under its name from now on is another file. A name
        that is there already was left by somebody who died: it is looked at first, by itself."""
        mine = self.buffer / TAKING / candidate.name
        if candidate.path != mine:
            *folders, name = candidate.name.split("/")
            parts = tuple(folders)
            with (
                self._here.folder(parts) as folder,
                self._hidden.folder(parts, make=True) as hidden,
            ):
                move(name, folder, name, hidden, mine.parent)
        return mine

    def _wrong(self, candidate: Candidate, mine: Path, sums: Sums) -> str:
        """Why a file is refused, or nothing."""
        promise = candidate.promise
        if promise is not None:
            for key in ("bytes", "crc32c", "adler32", "md5"):
                said, found = getattr(promise, key), getattr(sums, key)
                if said not in ("", found):
                    return f"{key} is {found}, the hand-over list says {said}"
        if sums.bytes == 0:
            return "it is empty"
        if candidate.name.endswith(SUFFIX):
            try:
                read_list(mine)
            except FormatError as error:
                return str(error)
        return _cut(mine, candidate.name) or self._damaged(mine)

    def _damaged(self, mine: Path) -> str:
        """Whether a whole FITS file, or a container, is what it says, as far as it says anything."""
        if self._verify == "no":
            return ""
        if _is_container(mine.name):
            return _spoilt_container(mine)
        if not mine.name.endswith(_FITS):
            return ""
        fits = _core.FitsFile.open(str(mine))
        for hdu in range(len(fits)):
            if False in fits.sums(hdu):
                return f"the sums of HDU {hdu} do not hold"
        try:
            name = FileName.parse(mine)
        except FormatError:
            return ""  # no raw file
        from raftwright.rawfile import open_raw, verify

        said = open_raw(mine, 1).file_header.string("OBSID")
        if said is not None and said != str(name.image):
            return f"its header says that it is of {said}"
        if self._verify == "pixels":
            for each in verify(mine, threads=1).findings:
                if each.severity == "error":
                    return ": ".join(part for part in (each.hdu, each.place, each.problem) if part)
        return ""

    # -- places

    def _store(self, name: str, mine: Path, sums: Sums, begun: float) -> Taken:
        """Into the storage, or as an alias, or as a conflict."""
        same = self._same(name, mine, sums)
        source = mine if same is None else self.storage / same.name
        try:
            sent = self._into.send(Job(path=str(source), target=name, bytes=sums.bytes, crc32c=sums.crc32c))
        except ConflictError:
            kept = self._set_aside("conflict", name, mine, sums)
            why = "the name is taken by another content, which stays; this one is kept aside"
            return self._entered(name, mine, sums, begun, "conflict", why, place="conflict", kept_as=kept)
        if sent.how == "there already":
            outcome, why = "again", "it was there already"
        elif same is not None:
            outcome, why = "alias", f"the content of {same.name}, under another name"
        else:
            outcome, why = "stored", ""
        there = self.storage / name
        with contextlib.suppress(OSError):
            os.chmod(there, stat.S_IMODE(there.stat().st_mode) & 0o555 or 0o444)
        return self._entered(
            name, mine, sums, begun, outcome, why, alias_of=None if same is None else same.id
        )

    def _same(self, name: str, mine: Path, sums: Sums) -> FileRow | None:
        """The file of the storage with the same content and another name, byte for byte."""
        for row in self._register.known(sums.crc32c, sums.adler32, sums.bytes):
            if row.name == name:
                return None
            there = self.storage / row.name
            with contextlib.suppress(OSError):
                if not there.is_symlink() and filecmp.cmp(there, mine, shallow=False):
                    return row
        return None

    def _refuse(self, name: str, mine: Path, sums: Sums, why: str, begun: float) -> Taken:
        kept = self._set_aside("refused", name, mine, sums)
        return self._entered(name, mine, sums, begun, "refused", why, place="refused", kept_as=kept)

    def _set_aside(self, kind: str, name: str, mine: Path, sums: Sums) -> str:
        """Where it is kept: under its content, so that none is in the way of another."""
        target = f"{kind}/{sums.crc32c}-{sums.bytes}/{name}"
        self._beside.send(Job(path=str(mine), target=target, bytes=sums.bytes, crc32c=sums.crc32c))
        return str(self.aside / target)

    def _entered(
        self, name: str, mine: Path, sums: Sums, begun: float, outcome: str, why: str, **more: Any
    ) -> Taken:
        """It stands at its place: that is written down, and then it leaves the buffer."""
        relpath, _, filename = name.rpartition("/")
        file_id, new = self._register.enter(
            relpath=relpath,
            filename=filename,
            crc32c=sums.crc32c,
            adler32=sums.adler32,
            md5=sums.md5,
            size=sums.bytes,
            ingesters=self._ingesters,
            message=why,
            begun_tai=begun,
            **more,
        )
        mine.unlink()
        self._short.pop(name, None)
        with contextlib.suppress(OSError):  # directories of ours that are empty now
            for above in mine.relative_to(self.buffer / TAKING).parents[:-1]:
                (self.buffer / TAKING / above).rmdir()
        if outcome == "again" and new:
            outcome = "stored"  # somebody died after it was published
        if outcome in ("conflict", "refused"):
            _log.error("%s: %s: %s", name, outcome, why)
        return Taken(name, outcome, why, file_id)


def _sender(name: str, root: Path, link: bool) -> DirectorySender:
    return DirectorySender(
        Place(name=name, kind="directory", root=str(root), link="auto" if link else "never")
    )


def sums_of(path: Path, md5: bool, *, durable: bool = False) -> Sums:
    """Size and sums of a file that does not change meanwhile; `durable`: it is on the disk then. Raises
    OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        before = os.fstat(descriptor)
        crc, adler, size = 0, 1, 0
        digest = hashlib.md5(usedforsecurity=False) if md5 else None
        while piece := stream.read(_STEP):
            crc, adler, size = _core.crc32c(piece, crc), _core.adler32(piece, adler), size + len(piece)
            if digest is not None:
                digest.update(piece)
        now = os.fstat(descriptor)
        if durable:
            os.fsync(descriptor)
    if (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns) or size != now.st_size:
        raise _NotYet("it changed while it was read")
    return Sums(size, f"{crc:08x}", f"{adler:08x}", "" if digest is None else digest.hexdigest())


def _cut(path: Path, name: str) -> str:
    """Why a file cannot be all that it is to be, by its form; nothing where that does not tell. Raises
    OSError."""
    if name.endswith(_FITS):
        try:
            fits = _core.FitsFile.open(str(path))
        except FormatError as error:
            return str(error).replace(f"{path}", name)
        return f"{fits.trailing} bytes stand behind its last HDU" if fits.trailing else ""
    if _is_container(name):
        try:
            with open_container(path):
                return ""
        except FormatError as error:
            return str(error).replace(f"{path}", name)
    if name.endswith(".json"):
        try:
            with path.open("rb") as stream:
                msgspec.json.decode(stream.read(_JSON))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"it is no JSON: {str(error)[:200]}"
    return ""


def _is_container(name: str) -> bool:
    """Whether a name is that of a container of an image; a zip of somebody else is nothing to us."""
    try:
        container_version(name)
    except FormatError:
        return False
    return True


def _spoilt_container(path: Path) -> str:
    """Why a container is not what its own lists say, or its name; or nothing. Raises StorageError."""
    try:
        found = check_container(path)
        with open_container(path) as container:
            image = container.image
    except FormatError as error:
        return str(error).replace(f"{path}", path.name)
    if found.wrong:
        return " ".join(found.wrong[0])
    named, _ = container_version(path)
    return "" if image == named else f"it is a container of {image}"
