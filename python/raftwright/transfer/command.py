"""A place that programs reach: rsync or scp bring files, ssh looks at them there.

What is told to the far side are argument lists of a few programs of POSIX and GNU (mkdir, test, realpath,
sha256sum, find, mv, chmod, cat, rm, chattr), quoted for the shell that ssh hands them to. A name is one
argument wherever it goes, and programs that bring files see none but their own: a file goes to a name of
sixteen odd digits first, is summed there, and is moved to its own, in place of nothing."""

from __future__ import annotations

import io
import itertools
import os
import posixpath
import re
import secrets
import shlex
import tempfile
import threading
from typing import TYPE_CHECKING, BinaryIO, Final

from raftwright import _core
from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer.batching import Batches
from raftwright.transfer.claims import Claims
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent
from raftwright.transfer.pouring import NewFile
from raftwright.transfer.programs import Programs, Said
from raftwright.transfer.sources import checked_source
from raftwright.transfer.targets import HIDDEN, aside, checked, is_ours
from raftwright.transfer.words import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import Why

__all__ = ["CommandSender"]

_STAGE: Final = f"{HIDDEN}stage"
"""Right below the root: what is on its way."""
_OLD: Final = 1440
"""Minutes after which what is there was left by somebody who died."""
_REMEMBERED: Final = 10_000
_MOST_ANSWERED: Final = 1 << 20
_SHA256: Final = re.compile(rb"\A\\?([0-9a-f]{64})[ ]")
_STEP: Final = 1 << 20


class CommandSender:
    """See `Sender`."""

    def __init__(self, destination: Place) -> None:
        assert destination.commands is not None  # the place has seen to it
        self._place = destination
        self._commands = destination.commands
        self._root = posixpath.normpath(destination.root)
        self._programs = Programs(destination.name)
        share = destination.bandwidth // 1024 // destination.concurrency
        self._words: Mapping[str, str] = {
            "user": destination.user,
            "host": destination.host,
            "bandwidth": str(max(1, share) if destination.bandwidth else 0),
            **destination.parameters,
        }
        self._batches = Batches(self._transfer_batch) if "{batch}" in self._commands.transfer else None
        self._claims = Claims()
        self._lock = threading.Lock()
        self._made: dict[str, None] = {}
        """Directories that were made, and lie below the root without a link."""

    # -- the place

    def warm(self) -> str:
        """Raises OutageError."""
        self.probe()
        stage = f"{self._root}/{_STAGE}"
        old = ("-mindepth", "1", "-mmin", f"+{_OLD}", "-delete")
        self._remote(["find", stage, *old])  # where there is none yet, it says so
        return f"{self._commands.transfer[0]} to {self._place.host or 'this host'}:{self._root}"

    def probe(self) -> None:
        """Raises OutageError."""
        for flag, wrong in (
            ("-d", "is no directory; make it, or mount what belongs there"),
            ("-w", "is read-only"),
        ):
            if self._remote(["test", flag, self._root]).rc:
                raise OutageError(f"{self._shown(self._root)}: {wrong}")
        if self._place.immutable == "required":
            self._try_to_hold()

    def _try_to_hold(self) -> None:
        path = f"{self._root}/{HIDDEN}{secrets.token_hex(8)}"
        self._do(["mkdir", "--", path])
        said = self._remote(["chattr", "+i", "--", path])
        self._remote(["chattr", "-i", "--", path])
        self._remote(["rmdir", "--", path])
        if said.rc:
            raise OutageError(
                f"{self._shown(self._root)}: files cannot be made immutable there: {said.complaint}"
            )

    def close(self) -> None:
        """Ends the programs that run."""
        self._programs.close()

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        parts = checked(job.target)
        path = self._path(parts)
        wanted = checked_source(job, "sha256")
        found = self._digest(path)
        if found is None:
            with self._claims.of(job) as name:
                hidden = self._bring(job, wanted, parts[:-1], name)
                moved = self._move(hidden, path)
            if moved:
                if self._looked([path]).get(path) != ("f", job.bytes):
                    raise RefusedError(f"{self._shown(path)}: is not what was moved there a moment ago")
                return Sent(how="copied", bytes=job.bytes, place=self._shown(path), held=self._settle(path))
            self._remote(["rm", "-f", "--", hidden])
            found = self._digest(path)
        if found != wanted or self._looked([path]).get(path) != ("f", job.bytes):
            raise ConflictError(
                f"{self._shown(path)}: another content has this name; it is left as it is, look at both"
            )
        return Sent(how="there already", place=self._shown(path), held=self._settle(path))

    def _bring(self, job: Job, wanted: str, folders: tuple[str, ...], name: str) -> str:
        """Under which hidden name it is now, as it was sent."""
        local = os.path.abspath(job.path)
        shown = self._shown(self._path((*folders, posixpath.basename(job.target))))
        self._folder((_STAGE,))
        self._folder(folders)
        if self._batches is None:
            hidden = f"{self._root}/{_STAGE}/{name}"
            said = self._transfer({"file": local, "dest": hidden})
        else:
            into, said = self._batches.bring(local)
            hidden = f"{into}/{os.path.basename(local)}"
        found = self._digest(hidden)
        if found is None:
            with self._lock:
                self._made.clear()  # somebody may have removed them
            self.probe()
            program = self._commands.transfer[0]
            complaint = said.complaint[-500:] or "without a word"
            raise RefusedError(f"{shown}: {program} ended with {said.rc}: {complaint}")
        if found != wanted:
            if said.rc:  # it was cut, and is gone on with
                raise RefusedError(
                    f"{shown}: {self._commands.transfer[0]} ended with {said.rc}: {said.complaint}"
                )
            self._remote(["rm", "-f", "--", hidden])
            checked_source(job)  # it may have changed meanwhile
            raise RefusedError(
                f"{shown}: the copy has the SHA-256 {found}, the file {wanted}; it is not kept"
            )
        if self._place.readonly:
            self._do(["chmod", "a-w", "--", hidden])
        return hidden

    def _transfer(self, words: Mapping[str, str]) -> Said:
        arguments = [fill(argument, {**self._words, **words}) for argument in self._commands.transfer]
        return self._programs.run(arguments, self._place.timeout)

    def _transfer_batch(self, paths: Sequence[str]) -> tuple[str, Said]:
        """Into which directory, and how it ended."""
        into = f"{self._root}/{_STAGE}/{secrets.token_hex(8)}"
        self._do(["mkdir", "--", into])
        words = {**self._words, "dest": into}
        arguments: list[str] = []
        for argument in self._commands.transfer:
            arguments += paths if argument == "{batch}" else [fill(argument, words)]
        return into, self._programs.run(arguments, self._place.timeout)

    def _move(self, path: str, new: str) -> bool:
        """False where the name was taken. Raises OutageError, RefusedError."""
        said = self._remote(["mv", "-n", "-T", "--", path, new])
        left = self._looked([path, new])
        if path not in left and new in left:
            return True
        if path in left and new in left:
            return False
        raise RefusedError(f"{self._shown(new)}: it cannot be named so there: {said.complaint or said.rc}")

    def _folder(self, parts: tuple[str, ...]) -> None:
        """Makes a directory there, and sees that no link leads out of the tree. Raises OutageError,
        RefusedError."""
        path = self._path(parts)
        with self._lock:
            if path in self._made:
                return
        self._do(["test", "-d", self._root])
        self._do(["mkdir", "-p", "--", path])
        real = self._answer(["realpath", "-z", "-e", "--", self._root, path]).split(b"\0")
        if len(real) != 3 or real[1] != b"/".join([real[0].rstrip(b"/"), *map(os.fsencode, parts)]):
            raise RefusedError(
                f"{self._shown(path)}: leads through a link, so no file goes there; move it away"
            )
        with self._lock:
            self._made[path] = None
            while len(self._made) > _REMEMBERED:
                del self._made[next(iter(self._made))]

    def _settle(self, path: str) -> str:
        return self._hold(path) if self._place.readonly or self._place.immutable != "never" else ""

    def protect(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        return self._hold(self._there(target))

    def _hold(self, path: str) -> str:
        said = self._remote(["chmod", "a-w", "--", path])
        if said.rc and self._place.immutable == "never":
            raise RefusedError(f"{self._shown(path)}: cannot be made read-only: {said.complaint}")
        if self._place.immutable != "never":
            said = self._remote(["chattr", "+i", "--", path])
            if said.rc == 0:
                return "immutable"
            if self._place.immutable == "required":
                raise RefusedError(f"{self._shown(path)}: cannot be made immutable: {said.complaint}")
        return "read-only"

    def unprotect(self, target: str) -> None:
        """Raises NotFoundError, OutageError, RefusedError."""
        path = self._there(target)
        if self._place.immutable != "never":
            said = self._remote(["chattr", "-i", "--", path])
            if said.rc and self._place.immutable == "required":
                raise RefusedError(f"{self._shown(path)}: cannot be let go of: {said.complaint}")

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Raises OutageError, RefusedError."""
        parts = checked(folder.rstrip("/")) if folder.rstrip("/") else ()
        with tempfile.TemporaryFile() as listed:
            self._find(parts, listed, ())
            for _, size, name in _entries(listed):
                found = (*parts, *name.split("/"))
                if not is_ours(found):
                    yield "/".join(found), size

    def sizes(self, folder: str) -> dict[str, int]:
        """Raises OutageError, RefusedError."""
        parts = checked(folder.rstrip("/")) if folder.rstrip("/") else ()
        with tempfile.TemporaryFile() as listed:
            self._find(parts, listed, ("-maxdepth", "1"))
            return {name: size for _, size, name in _entries(listed) if not name.startswith(HIDDEN)}

    def _find(self, parts: tuple[str, ...], listed: BinaryIO, depth: tuple[str, ...]) -> None:
        path = self._path(parts)
        said = self._remote(["find", path, *depth, "-type", "f", "-printf", r"%y%s %P\0"], listed.write)
        if said.rc and not self._is_absent(path):
            raise RefusedError(f"{self._shown(path)}: cannot be read whole: {said.complaint[-500:]}")
        listed.seek(0)

    def has(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        return not self._is_absent(self._path(checked(target)))

    def crc32c(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        crc = 0

        def add(piece: bytes) -> None:
            nonlocal crc
            crc = _core.crc32c(piece, crc)

        self._read(target, add)
        return f"{crc:08x}"

    def fetch(self, target: str, path: Path) -> str:
        """Raises NotFoundError, OutageError, RefusedError, StorageError."""
        with NewFile(path) as copy:
            self._read(target, copy.write)
            return copy.crc32c

    def _read(self, target: str, to: Callable[[bytes], object]) -> None:
        path = self._path(checked(target))
        said = self._remote(["cat", "--", path], to)
        if said.rc:
            if self._is_absent(path):
                raise NotFoundError(f"{self._shown(path)}: is not there")
            raise RefusedError(f"{self._shown(path)}: cannot be read: {said.complaint[-500:]}")

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        path = self._there(target)
        self.unprotect(target)
        for number in itertools.count(1):
            new = aside(checked(target), why, number)
            self._folder(new[:-1])
            if self._move(path, self._path(new)):
                return "/".join(new)
        raise AssertionError

    def remove(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        path = self._path(checked(target))
        said = self._remote(["rm", "--", path])
        if said.rc and self._is_absent(path):
            return False
        if said.rc:
            raise RefusedError(f"{self._shown(path)}: is not removed: {said.complaint[-500:]}; is it held?")
        return True

    # -- the far side

    def _path(self, parts: tuple[str, ...]) -> str:
        return "/".join([self._root.rstrip("/"), *parts]) or "/"

    def _shown(self, path: str) -> str:
        return ascii(f"{self._place.host}:{path}" if self._place.host else path)[1:-1]

    def _remote(self, arguments: Sequence[str], to: Callable[[bytes], object] | None = None) -> Said:
        """Runs a program there. Raises OutageError where none can be run."""
        words = {**self._words, "command": shlex.join(arguments)}
        wanted = [fill(argument, words) for argument in self._commands.remote]
        said = self._programs.run(wanted, self._place.timeout, to)
        if said.rc < 0 or said.rc > 125:
            raise OutageError(
                f"{wanted[0]}: cannot run {arguments[0]} at {self._place.host or 'the far side'}: exit code "
                f"{said.rc}: {said.complaint[-500:] or 'without a word'}"
            )
        return said

    def _do(self, arguments: Sequence[str]) -> None:
        """What has to succeed. Raises OutageError, RefusedError."""
        said = self._remote(arguments)
        if said.rc:
            if arguments[:2] == ["test", "-d"]:
                raise OutageError(
                    f"{self._shown(self._root)}: is no directory; make it, or mount what belongs there"
                )
            raise RefusedError(
                f"{self._shown(arguments[-1])}: {arguments[0]}: {said.complaint[-500:] or said.rc}"
            )

    def _answer(self, arguments: Sequence[str]) -> bytes:
        """What a program writes, the first of it. Raises OutageError."""
        answer = bytearray()

        def add(piece: bytes) -> None:
            if len(answer) < _MOST_ANSWERED:
                answer.extend(piece)

        self._remote(arguments, add)
        return bytes(answer)

    def _digest(self, path: str) -> str | None:
        """SHA-256 of a file there, read by the far side; None where it cannot be read. Raises OutageError."""
        found = _SHA256.match(self._answer(["sha256sum", "--", path]))
        return found[1].decode() if found else None

    def _looked(self, paths: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Kind (`f` for a file) and bytes of what is there of these names. Raises OutageError."""
        answer = self._answer(["find", *paths, "-maxdepth", "0", "-printf", r"%y%s %p\0"])
        return {name: (kind, size) for kind, size, name in _entries(io.BytesIO(answer))}

    def _there(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        path = self._path(checked(target))
        if self._is_absent(path):
            raise NotFoundError(f"{self._shown(path)}: is not there")
        return path

    def _is_absent(self, path: str) -> bool:
        """Whether a place that is there has nothing under a name. Raises OutageError."""
        if not self._remote(["test", "-e", path]).rc or not self._remote(["test", "-L", path]).rc:
            return False
        self._do(["test", "-d", self._root])
        return True


def _entries(listed: BinaryIO) -> Iterator[tuple[str, int, str]]:
    """Kind, bytes and name of what `find` printed."""
    left = b""
    while piece := listed.read(_STEP):
        *whole, left = (left + piece).split(b"\0")
        for entry in whole:
            head, _, name = entry.partition(b" ")
            yield chr(head[0]), int(head[1:]), os.fsdecode(name)
