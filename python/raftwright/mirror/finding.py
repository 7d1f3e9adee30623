"""What is new, changed, renamed or gone: a tree compared with its manifest.

A *quick* pass looks at the times of directories, and reads those that changed. A *full* pass reads all and
looks at every file: only it, and notices, find a content that changed in place. Both compare a directory's
print first, so that what is as it was costs no look into the manifest. Directories are trusted only when
they were read some time after their times had changed: file systems count times in steps, and two changes
may be in one.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from raftwright.errors import StorageError
from raftwright.mirror.listing import Facts, Listing, Seen, listings
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tables import Directory, Entry
from raftwright.mirror.tree import Tree, join, shown
from raftwright.service.inotify import CREATE, DELETE_SELF, IGNORED, MOVED_TO, Inotify, Notice

__all__ = ["Finder", "Pass"]

_log = logging.getLogger("raftwright.mirror")

_STEP: Final = 2.0
"""Seconds that the clock of a file system may stand still."""
_SOON: Final = 60.0
"""A file that changes again within so many seconds is one that is written again and again."""
_HOT: Final = 5000
"""Files at most that are looked at because they changed lately."""
_TROUBLES: Final = 1000
_AT_ONCE: Final = 64
"""Directories at most that are open at once."""
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Pass(msgspec.Struct, kw_only=True):
    """What a pass did."""

    full: bool
    directories: int = 0
    """That were looked at."""
    read: int = 0
    """Of these, those that were read."""
    files: int = 0
    """That were looked at."""
    new: int = 0
    changed: int = 0
    gone: int = 0
    ignored: int = 0
    seconds: float = 0.0


class _Opened(NamedTuple):
    """A directory that is about to be read."""

    path: str
    descriptor: int
    times: tuple[int, int, int, int]
    seen: float
    """When it had these times, on the monotonic clock."""


class Finder:
    """Belongs to one thread; `pass_` and what it calls say what they found to the manifest alone.

    Parameters
    ----------
    between
        Called now and then within a pass; says whether to go on.
    watches
        Where directories are watched; None where nothing watches.
    """

    def __init__(
        self,
        tree: Tree,
        manifest: Manifest,
        settings: TreeSettings,
        *,
        between: Callable[[], bool] = lambda: True,
        watches: Inotify | None = None,
    ) -> None:
        self.tree = tree
        self.manifest = manifest
        self.settings = settings
        self.directories = manifest.directories()
        now = time.monotonic()
        for one in self.directories.values():
            one.read = now
        self.last: Pass | None = None
        self.passes = 0
        self.watches = watches
        self.unwatched = ""
        """Why not all is watched."""
        self.troubles: dict[str, str] = {}
        """What could not be read, and why."""
        self._watched: dict[str, int] = {}
        self._paths: dict[int, str] = {}
        self._between = between
        self._excluded = re.compile("|".join(map(fnmatch.translate, settings.exclude)) or r"(?!)")
        self._first = manifest.word("first") != "done"
        self._hinted = False
        """A directory is read because of a notice: its files are new, and writers that are known to be gone
        need not be waited for."""
        self._now = Pass(full=True)

    # -- passes

    def pass_(self, full: bool) -> Pass:
        """Compares the whole tree. Raises StorageError where the tree itself is not there."""
        begun = time.monotonic()
        self._check_root()
        self._now = found = Pass(full=full)
        whole = self._walk("", full)
        if not full and whole and (self.watches is None or self.unwatched):
            self._look_at_hot()
        found.seconds = time.monotonic() - begun
        if whole:
            self.last = found
            self.passes += 1
            if self._first and full:
                self.manifest.remember("first", "done")
                self._first = False
        return found

    def _check_root(self) -> None:
        """Takes no empty directory for the tree: what should be mounted there may not be."""
        identity = "{}:{}".format(*self.tree.identity())
        known = self.manifest.word("root")
        if known == identity:
            return
        if known:
            with self.tree.directory("") as descriptor, os.scandir(descriptor) as entries:
                if next(entries, None) is None:
                    raise StorageError(
                        errno.ENODEV,
                        "is empty and another directory than before; is it mounted?",
                        self.tree.root,
                    )
            self._drop_watches()
        self.manifest.remember("root", identity)

    def _walk(self, path: str, full: bool) -> bool:
        """A directory and all below; whether it came to its end."""
        waiting = [path]
        while waiting:
            if not self._between():
                return False
            waiting, some = waiting[:-_AT_ONCE], waiting[-_AT_ONCE:]
            with contextlib.ExitStack() as opened:
                unread = []
                for at in some:
                    try:
                        names = self._as_it_was(at, full)
                        if names is None:
                            unread.append(self._open(at, opened))
                    except OSError as error:  # StorageError is one
                        self._not_read(at, error)
                        continue
                    if names is not None:
                        waiting += self._read_well(at, names)
                for one, listing in zip(unread, self._listings(unread), strict=True):
                    try:
                        if isinstance(listing, OSError):
                            raise listing
                        names = self._compare(one, listing)
                    except OSError as error:
                        self._not_read(one.path, error)
                        continue
                    waiting += self._read_well(one.path, names)
        return True

    def _as_it_was(self, path: str, full: bool) -> set[str] | None:
        """Names of the directories in one that need not be read. Raises StorageError."""
        known = self.directories.get(path)
        self._now.directories += 1
        if known is None or full or not known.trusted:
            return None
        if self.watches is not None and path not in self._watched:
            return None
        now = self.tree.stat(path)
        same = now is not None and known.times == _times(now)
        return known.names if same else None

    def _open(self, path: str, opened: contextlib.ExitStack) -> _Opened:
        """A directory that is about to be read; watched before it is looked at. Raises OSError."""
        descriptor = opened.enter_context(self.tree.directory(path))
        self._watch(path, descriptor)
        return _Opened(path, descriptor, _times(os.fstat(descriptor)), time.monotonic())

    def _listings(self, opened: list[_Opened]) -> list[Listing | OSError]:
        return listings([one.descriptor for one in opened], self.tree.walkers)

    def _read_well(self, path: str, names: set[str]) -> list[str]:
        """Paths of the directories in one."""
        if self.troubles:
            self.troubles.pop(path, None)
        return [join(path, name) for name in names]

    def _not_read(self, path: str, error: OSError) -> None:
        """Raises what ends the whole pass."""
        if str(error.filename) == str(self.manifest.path):
            raise error
        if not isinstance(error, StorageError):
            if error.errno in _GONE and path:
                self._forget(path)
                return
            error = StorageError(error.errno, f"cannot be read ({error.strerror})", shown(path))
        if path == "":
            raise error
        self._trouble(path, error)

    def _compare(self, opened: _Opened, listing: Listing) -> set[str]:
        path, known = opened.path, self.directories.get(opened.path)
        self._now.read += 1
        self._now.files += listing.count
        if known is not None and known.times == opened.times:
            trusted = known.trusted or opened.seen - known.read >= _STEP
            if known.print == listing.print:
                if trusted and not known.trusted:
                    self.manifest.trust([known.id])
                    known.trusted = True
                return known.names
            read = known.read
        else:
            trusted, read = False, opened.seen
        directories = {name for name in listing.directories() if not self._left_out(name)}
        one = Directory(
            id=0, path=path, times=opened.times, print=listing.print, trusted=trusted, names=directories,
            read=read,
        )  # fmt: skip
        with self.manifest.transaction():
            self.manifest.directory(one)
            self._compare_files(one, listing.files())
            for name in (known.names if known is not None else set()) - directories:
                self._forget(join(path, name))
        self.directories[path] = one
        return directories

    def _compare_files(self, one: Directory, files: list[Seen]) -> None:
        entries = self.manifest.of_directory(one.id)
        for name, facts, owner in files:
            if self._left_out(name):
                continue
            entry = entries.pop(name, None)
            if entry is None:
                self._now.new += 1
                renamed = not self._first and self.manifest.was(facts)  # then it is what it was
                quick = self._hinted and self.tree.knows_writers(owner)
                pause = 0.0 if renamed else self.settings.calm if quick else self.settings.settle
                self.manifest.found(one.id, name, facts, time.monotonic() + pause, int(self._first))
            else:
                self._judge(entry, facts, written=False)
        gone = [entry for entry in entries.values() if entry.state != "gone"]
        self._now.gone += len(gone)
        self.manifest.gone(gone)

    def _judge(self, entry: Entry, facts: Facts, *, written: bool) -> None:
        """A name that was known, as it is now. `written`: its writer was seen to end."""
        busy = entry.busy
        same = entry.facts == facts and entry.state != "gone"
        if not same and entry.state == "mirrored":
            busy = min(busy + 1, 16) if self.manifest.lived - entry.changed < _SOON else 0
        pause = min(self.settings.longest, self.settings.calm * (1 << busy))
        if not written:
            pause = max(self.settings.settle, pause)
        due = time.monotonic() + pause
        if not same:
            self._now.changed += 1
            self.manifest.changed(entry, facts, due, 0, busy)
        elif written:
            self.manifest.sooner(entry, due)

    def _left_out(self, name: str) -> bool:
        if self._excluded.match(name) is None:
            return False
        self._now.ignored += 1
        return True

    def _forget(self, path: str) -> None:
        """A directory is there no more, with all that was in it."""
        below = [path]
        while below:
            at = below.pop()
            one = self.directories.pop(at, None)
            self.troubles.pop(at, None)
            watch = self._watched.pop(at, None)
            if watch is not None and self._paths.get(watch) == at:
                del self._paths[watch]
                if self.watches is not None:
                    self.watches.remove(watch)
            if one is not None:
                self._now.gone += 1
                self.manifest.forget_directory(one)
                below += [join(at, name) for name in one.names]

    def _look_at_hot(self) -> None:
        """Files that changed lately may change in place."""
        found: dict[str, list[Entry]] = {}
        for entry in self.manifest.hot(self.settings.hot, _HOT):
            found.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        for path, entries in found.items():
            if not self._between():
                return
            self._now.files += len(entries)
            names = [entry.path.rpartition("/")[2] for entry in entries]
            for entry, facts in zip(entries, self.tree.facts_in(path, names), strict=True):
                if facts is None:
                    self.look(entry.path)
                elif facts != entry.facts:
                    self._judge(entry, facts, written=False)

    def _trouble(self, path: str, error: OSError) -> None:
        if path not in self.troubles and len(self.troubles) < _TROUBLES:
            _log.warning("%s: %s: %s", self.settings.name, shown(path), error)
            self.troubles[path] = str(error)

    # -- hints

    def look(self, path: str, *, written: bool = False) -> None:
        """There is a hint about a name. Raises StorageError."""
        above, _, name = path.rpartition("/")
        parts = path.split("/")
        if any(map(self._left_out, parts)):
            return
        one = self.directories.get(above)
        if one is None:
            self._look_above(path)
            return
        found = self.tree.stat(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            if name not in one.names:
                one.names.add(name)
            self._walk_hinted(path, full=path not in self.directories)
            return
        if path in self.directories:
            self._forget(path)
            one.names.discard(name)
        facts, entry = self.tree.facts(path), self.manifest.at(path)
        if facts is None:
            if entry is not None and entry.state != "gone":
                self.manifest.gone([entry])
        elif entry is None:
            pause = self.settings.calm if written else self.settings.settle
            if self.manifest.was(facts):
                pause = 0.0  # renamed: it is what it was
            self.manifest.found(one.id, name, facts, time.monotonic() + pause, 0)
        else:
            self._judge(entry, facts, written=written)

    def _look_above(self, path: str) -> None:
        """A hint from where nothing is known yet: the first unknown directory on the way is read."""
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in self.directories:
                found = self.tree.stat(above)
                before = self.directories.get("/".join(parts[: depth - 1]))
                if before is not None and found is not None and stat.S_ISDIR(found.st_mode):
                    before.names.add(parts[depth - 1])
                    self._walk_hinted(above, full=True)
                return

    def _walk_hinted(self, path: str, *, full: bool) -> None:
        before, self._hinted = self._hinted, self.watches is not None
        try:
            self._walk(path, full)
        finally:
            self._hinted = before

    # -- watches

    def _watch(self, path: str, descriptor: int) -> None:
        if self.watches is None or path in self._watched:
            return
        try:
            watch = self.watches.add(descriptor)
        except StorageError as error:
            if not self.unwatched:
                _log.warning("%s: %s; passes find what watches do not tell", self.settings.name, error)
            self.unwatched = str(error)
            self._watched[path] = -1
            return
        before = self._paths.get(watch)
        if before is not None:
            self._watched.pop(before, None)
        self._watched[path] = watch
        self._paths[watch] = path

    def _drop_watches(self) -> None:
        """They are of directories that are none of the tree any more."""
        if self.watches is not None:
            for watch in self._paths:
                self.watches.remove(watch)
        self._paths.clear()
        self._watched.clear()

    def heard(self, notice: Notice) -> bool:
        """Takes a notice in; False where notices were lost, and only a full pass helps."""
        if notice.overflow:
            return False
        path = self._paths.get(notice.watch)
        if path is None:
            return True
        if notice.mask & (IGNORED | DELETE_SELF):
            if notice.mask & IGNORED:
                del self._paths[notice.watch]
                if self._watched.get(path) == notice.watch:
                    del self._watched[path]
            if not path:
                return False
            self.look(path)
        elif notice.directory and not notice.mask & (CREATE | MOVED_TO):
            at = join(path, notice.name)
            found = self.tree.stat(at)
            if (
                found is None
                or not stat.S_ISDIR(found.st_mode)
                or (at in self._watched and self._other(at, found))
            ):
                self._forget(at)
                one = self.directories.get(path)
                if one is not None:
                    one.names.discard(notice.name)
        else:
            self.look(join(path, notice.name), written=notice.written)
        return True

    def _other(self, path: str, found: os.stat_result) -> bool:
        one = self.directories.get(path)
        return one is not None and one.times[:2] != (found.st_dev, found.st_ino)


def _times(found: os.stat_result) -> tuple[int, int, int, int]:
    """As `Directory.times`."""
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
