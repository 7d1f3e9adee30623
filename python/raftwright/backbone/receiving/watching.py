"""What stands in the buffer, and which of it is whole: a file that may still be written is left alone.

A file is taken when a hand-over list vouches for its size, or when it has not changed for `settle` seconds,
and nobody has it open for writing as far as the system tells.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import math
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from raftwright.backbone.receiving.lists import SUFFIX, Promise, read_list
from raftwright.backbone.receiving.mounting import KNOWN
from raftwright.errors import RaftwrightError

__all__ = ["TAKING", "Candidate", "Lookout", "being_written"]

TAKING: Final = ".raftwright-taking"
"""Directory in the buffer of files that are being taken in."""
_DEPTH: Final = 32


class Candidate(NamedTuple):
    """A file that may be taken."""

    name: str
    """Relative to the buffer."""
    path: Path
    promise: Promise | None


class _Listed(msgspec.Struct):
    key: tuple[int, int, int]
    promises: dict[str, Promise]
    open: set[str]
    """Files of it that have not been taken since it was read."""


class _Seen(msgspec.Struct):
    key: tuple[int, int, int]
    since: float


def being_written(path: Path) -> bool:
    """Whether somebody has a file open for writing; False also where the system does not tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Should somebody open it in this moment, the signal is one that nobody minds.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EBUSY)
    finally:
        os.close(descriptor)
    return False


class Lookout:
    """Looks at the buffer. Used by one thread. What is wrong in it goes to `odd`: its name below the buffer,
    and why. `entered` is told each directory before it is read."""

    def __init__(
        self,
        root: Path,
        *,
        settle: Callable[[], float],
        exclude: Sequence[str],
        most: int,
        odd: Callable[[bytes, str], None],
        patience: Callable[[], float] = lambda: 600.0,
        empty: float = 0.0,
        entered: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._root = root
        self._settle = settle
        self._exclude = tuple(exclude)
        self._most = most
        self._odd = odd
        self._patience = patience
        self._empty = empty
        self._entered = entered
        self._seen: dict[str, _Seen] = {}
        self._lists: dict[str, _Listed] = {}
        self.waiting = 0
        """Files that are not known to be whole, as of the last look."""
        self.oldest = 0.0
        """Seconds since the first of them was seen as it is now."""
        self.complete = True
        """Whether the last look saw all."""
        self.settled_at = math.inf
        """When (monotonic) the next of those that wait may have settled."""

    def look(self) -> list[Candidate]:
        """Files that are whole, those with sidecars after them. Raises OSError where the buffer is gone."""
        if not self._root.is_dir():
            raise NotADirectoryError(
                errno.ENOTDIR, "is no directory; make it, or mount what belongs there", str(self._root)
            )
        now = time.monotonic()
        seen: dict[str, _Seen] = {}
        places: dict[str, Path] = {}
        self.complete = True
        for name, path, status in self._walk():
            if len(seen) >= self._most:
                self.complete = False
                break
            if name in seen:
                continue  # one that is being taken in goes before the next of its name
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            before = self._seen.get(name)
            seen[name] = before if before is not None and before.key == key else _Seen(key, now)
            places[name] = path
        self._seen = seen
        promises = self._promises(places)
        ready, waiting, oldest, settled_at = [], 0, 0.0, math.inf
        for name, known in seen.items():
            promise = promises.get(name)
            if self._is_whole(name, known, promise, places[name], now):
                ready.append(Candidate(name, places[name], promise))
            else:
                waiting += 1
                oldest = max(oldest, now - known.since)
                if known.since + self._settle() > now:
                    settled_at = min(settled_at, known.since + self._settle())
        self.waiting, self.oldest, self.settled_at = waiting, oldest, settled_at
        # A sidecar or manifest is stored before the file that it belongs to.
        ready.sort(key=lambda one: (".fits" in one.name, one.name))
        return ready

    def sees(self, name: str) -> bool:
        """Whether the last look saw it."""
        return name in self._seen

    def forget(self, name: str) -> None:
        """It is gone from the buffer."""
        self._seen.pop(name, None)
        self._lists.pop(name, None)
        for listed in self._lists.values():
            listed.open.discard(name)

    def _is_whole(self, name: str, known: _Seen, promise: Promise | None, path: Path, now: float) -> bool:
        if promise is not None and promise.bytes != known.key[1]:
            # Shorter: it is still on its way. Whoever makes it longer, or never ends, is told from its sums.
            return known.key[1] > promise.bytes and now - known.since >= self._settle()
        listed = self._lists.get(name)
        if listed is not None and listed.open and now - known.since < self._patience():
            return False  # the list leaves after the files that it names
        if promise is None and now - known.since < self._settle():
            return False
        return not being_written(path)

    def _promises(self, places: dict[str, Path]) -> dict[str, Promise]:
        """What lists say of files, by names relative to the buffer."""
        found: dict[str, Promise] = {}
        for name, path in places.items():
            if not name.endswith(SUFFIX):
                continue
            key = self._seen[name].key
            known = self._lists.get(name)
            if known is None or known.key != key:
                try:
                    listed = read_list(path)
                except RaftwrightError:
                    continue  # perhaps it is being written; taken in, it is refused
                above = name.rpartition("/")[0]
                promises = {f"{above}/{each}" if above else each: one for each, one in listed.items()}
                known = self._lists[name] = _Listed(key, promises, set(promises))
            found.update(known.promises)
        self._lists = {name: known for name, known in self._lists.items() if name in places}
        return found

    def _walk(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        """Files in the buffer, with those that were being taken in when somebody died."""
        yield from self._below(os.fsencode(self._root / TAKING), "", 0)
        yield from self._below(os.fsencode(self._root), "", 0)

    def _below(self, directory: bytes, above: str, depth: int) -> Iterator[tuple[str, Path, os.stat_result]]:
        self._entered(directory)  # before it is read: what comes meanwhile is heard of
        try:
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._odd(
                os.path.relpath(directory, os.fsencode(self._root)), f"cannot be listed ({error.strerror})"
            )
            return
        if not found and above and self._empty:
            self._remove(directory)
        for entry in found:
            try:
                name = entry.name.decode("utf-8")
            except UnicodeDecodeError:
                name = ""
            if name and any(fnmatch.fnmatchcase(name, pattern) for pattern in self._exclude):
                continue
            if not above and name in (TAKING, KNOWN):
                continue
            relative = os.path.relpath(entry.path, os.fsencode(self._root))
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            if not name or not name.isprintable():
                self._odd(relative, "its name is not of printable UTF-8; rename it")
            elif stat.S_ISDIR(status.st_mode):
                if depth >= _DEPTH:
                    self._odd(relative, f"lies deeper than {_DEPTH} directories; move it up")
                else:
                    yield from self._below(entry.path, f"{above}{name}/", depth + 1)
            elif stat.S_ISREG(status.st_mode):
                yield f"{above}{name}", Path(os.fsdecode(entry.path)), status
            else:
                self._odd(relative, "is neither file nor directory; links are not followed, remove it")

    def _remove(self, directory: bytes) -> None:
        """An empty directory, if it has been so for long."""
        with contextlib.suppress(OSError):
            if time.time() - os.stat(directory).st_mtime > self._empty:
                os.rmdir(directory)
