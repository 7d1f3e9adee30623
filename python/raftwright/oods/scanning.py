"""Directories that others write into: files are taken when they are whole, and not before.

A file is whole when its structure is, its sums hold, and either its size and times have not changed for a
while or its sidecar, which comes first, stands beside it. What stays broken is set aside once, until it
changes."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.errors import FormatError, RaftwrightError
from raftwright.oods.arrivals import Arrivals, Arrived, is_raw_name
from raftwright.oods.aside import FILE
from raftwright.rawfile.names import FileName, sidecar_path
from raftwright.rawfile.standing import digest
from raftwright.timescale import TAI_MINUS_UTC

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.ledger import Ledger
    from raftwright.oods.inputs import Directory
    from raftwright.service import Task

__all__ = ["Scanning"]

_log = logging.getLogger("raftwright.oods")

_DEEPEST: Final = 12
_BATCH: Final = 256
_FRESH: Final = 2.0
"""Seconds after a change in which another one may leave the times of a directory as they are."""
_SHARE: Final = 10.0
"""So many times as long as a look took, it pauses at least."""

_Signature = tuple[int, int, int]
"""Size, time of change, number of the file."""


class _Seen(msgspec.Struct):
    """A file that was met."""

    signature: _Signature
    since: float
    """Monotonic: since when it has been so."""
    tried: bool = False
    """It was looked into, and is not whole."""
    settled: bool = False
    """Nothing is to be done with it, unless it changes."""
    aside: bool = False
    """It is no good as it is."""


class Scanning:
    """A task for one directory. `refused` is told (path, reason) of files with the name of a raw that are
    none."""

    def __init__(
        self,
        directory: Directory,
        ledger: Ledger,
        name: str,
        arrivals: Arrivals,
        cameras: dict[str, Camera],
        refused: Callable[[str, str], None],
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._name = name
        self._arrivals = arrivals
        self._cameras = cameras
        self._refused = refused
        self._seen: dict[str, _Seen] = {}
        self._done: dict[str, int] = {}
        """Directories without others in them in which nothing is left to do, and their times."""
        self._asked: set[str] = set()
        """What is to be tried once more, and was not dealt with yet."""
        self.trouble = ""
        self._growing = 0
        self.waiting = 0
        """Files that were not whole when it looked last."""
        self.looks = 0

    @property
    def settled(self) -> bool:
        """Whether it has looked, and nothing there is still growing; or cannot look."""
        return bool(self.trouble) or (self.looks > 0 and not self.waiting)

    def keep(self, task: Task, active: Callable[[], bool]) -> None:
        """Looks from time to time. The task."""
        while not task.stopping.is_set():
            took = 0.0
            if active():
                begun = time.monotonic()
                try:
                    self.look(task)
                    self.trouble = ""
                except (RaftwrightError, OSError) as error:
                    if not self.trouble:
                        _log.error("%s cannot be looked through: %s", self._directory.path, error)
                    self.trouble = f"{self._directory.path} cannot be looked through: {error}"
                took = time.monotonic() - begun
            task.beat()
            task.wait(max(self._directory.every, _SHARE * took))

    def look(self, task: Task | None = None) -> int:
        """Goes through the tree once; how many files were taken. Raises OSError, StorageError."""
        taken = 0
        whole: list[Arrived] = []
        met: set[str] = set()
        self._growing = 0
        self._ask()
        for path, status in self._files(self._directory.path, 0, met):
            if task is not None:
                task.beat()
                if task.stopping.is_set():
                    return taken
            found = self._judge(path, status)
            if found is not None:
                whole.append(found)
            if len(whole) >= _BATCH:
                taken += self._take(whole)
                whole = []
        taken += self._take(whole)
        gone = set(self._seen) - met
        self._settle([path for path in gone if self._seen[path].aside], "it is gone")
        for path in gone:
            del self._seen[path]
        self._answer()
        self.waiting = self._growing
        self.looks += 1
        return taken

    def _take(self, whole: list[Arrived]) -> int:
        new = self._arrivals.take(whole) if whole else 0
        for file in whole:  # after it is written down
            self._seen[file.path].settled = True
        self._settle([file.path for file in whole], "it was taken")
        return new

    def _settle(self, paths: list[str], why: str) -> None:
        if paths:
            self._ledger.quarantine.settle(FILE, paths, why)

    # -- what was set aside, and is to be tried once more

    def _again(self) -> list[str]:
        """Of what is under the directory."""
        root = self._directory.path.rstrip("/") + "/"
        return [row.name for row in self._ledger.quarantine.standing(FILE, root, again=True)]

    def _ask(self) -> None:
        """Forgets what was found out about it, once."""
        wanted = set(self._again())
        for path in wanted - self._asked:
            self._seen.pop(path, None)
            self._done.pop(os.path.dirname(path), None)
        self._asked = wanted

    def _answer(self) -> None:
        """What was not set aside again by a look at all, and does not grow, is as it should be, or gone."""
        if not self._asked:
            return
        for path in self._asked.intersection(self._again()):
            seen = self._seen.get(path)
            if seen is None or seen.settled:
                self._settle([path], "it is as it should be" if os.path.lexists(path) else "it is gone")

    # -- the tree

    def _files(self, directory: str, depth: int, met: set[str]) -> Iterator[tuple[str, os.stat_result]]:
        """Files whose names end as those of raws. Links are not followed: what they lead to is elsewhere."""
        before = os.stat(directory).st_mtime_ns
        if self._done.get(directory) == before:
            return
        below: list[str] = []
        mine: list[str] = []
        with os.scandir(directory) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif is_raw_name(entry.name):
                    status = entry.stat(follow_symlinks=False)
                    met.add(entry.path)
                    mine.append(entry.path)
                    yield entry.path, status
            except FileNotFoundError:
                continue  # it was moved on
        if not below and time.time() - before / 1e9 > _FRESH and self._all_settled(mine):
            self._done[directory] = before
            met.difference_update(mine)  # and forgotten
        else:
            self._done.pop(directory, None)
        for path in below:
            if depth >= _DEEPEST:
                self._set_aside(path, f"is deeper than {_DEEPEST} directories")
                continue
            try:
                yield from self._files(path, depth + 1, met)
            except FileNotFoundError:
                continue

    def _all_settled(self, paths: list[str]) -> bool:
        """Files that are set aside may change, which a directory's time does not tell."""
        found = [self._seen.get(path) for path in paths]
        return all(seen is not None and seen.settled and not seen.aside for seen in found)

    # -- one file

    def _judge(self, path: str, status: os.stat_result) -> Arrived | None:
        """A file that is to be taken now."""
        signature = (status.st_size, status.st_mtime_ns, status.st_ino)
        now = time.monotonic()
        seen = self._seen.get(path)
        if seen is None or seen.signature != signature:
            self._seen[path] = seen = _Seen(signature, now)
            if refusal := self._refusal(path, status):
                seen.settled = seen.aside = True
                self._set_aside(path, refusal)
            elif self._is_known(path, status):
                seen.settled = True
        if seen.settled:
            return None
        quiet = now - seen.since
        if quiet < self._directory.settle and not sidecar_path(Path(path)).is_file():
            self._growing += 1
            return None
        if seen.tried and quiet < self._directory.patience:
            self._growing += 1
            return None
        try:
            if (whole := self._whole(path, signature)) is not None or seen.settled:
                return whole
        except _GrowingError:
            seen.since, seen.tried = now, False
        except FileNotFoundError:
            return None
        except (RaftwrightError, OSError) as error:
            seen.tried = True
            if quiet >= self._directory.patience:
                seen.settled = seen.aside = True
                self._set_aside(path, str(error).removeprefix(f"{path}: "))
                return None
        self._growing += 1
        return None

    def _refusal(self, path: str, status: os.stat_result) -> str:
        """Why it is none that will ever be taken."""
        try:
            path.encode()
        except UnicodeEncodeError:
            return "its name is not UTF-8"
        if not stat.S_ISREG(status.st_mode):
            return "is no file; links are not followed"
        if any(ord(letter) < 32 for letter in path):
            return "its name has control characters"
        try:
            FileName.parse(path)
        except FormatError as error:
            return str(error)
        return ""

    def _is_known(self, path: str, status: os.stat_result) -> bool:
        """Whether the ledger has it, as it is."""
        changed = status.st_mtime_ns / 1e9 + TAI_MINUS_UTC
        return any(
            row.bytes == status.st_size and row.queued_tai >= changed
            for row in self._ledger.ingests.by_path(self._name, path)
        )

    def _whole(self, path: str, signature: _Signature) -> Arrived | None:
        """Reads it to its end. Raises FormatError, StorageError, and whatever says that it still grows."""
        from raftwright.rawfile.read import open_raw

        name = FileName.parse(path)
        raw = open_raw(path, 1, camera=self._cameras.get(name.image.source))
        if any(held is False for hdu in range(len(raw.fits)) for held in raw.fits.sums(hdu)):
            raise FormatError(f"{path}: its sums do not hold")
        if not name.guider and name.image.source in self._cameras:
            wanted, there = len(raw.detector.segments), len(raw.names)
            if there < wanted:
                raise FormatError(f"{path}: has {there} of {wanted} segments; it is not whole")
        stamps = raw.file_header.get("N_STAMPS") if name.guider else None
        if isinstance(stamps, int) and len(raw.fits) - 1 < stamps:
            raise FormatError(f"{path}: has {len(raw.fits) - 1} of {stamps} stamps; it is not whole")
        summed = digest(Path(path))
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns, status.st_ino) != signature:
            raise _GrowingError
        if refusal := self._arrivals.changed(path, summed.bytes, summed.crc32c):
            self._seen[path].settled = self._seen[path].aside = True
            self._set_aside(path, refusal)
            return None
        return Arrived(path=path, bytes=summed.bytes, crc32c=summed.crc32c)

    def _set_aside(self, path: str, reason: str) -> None:
        if self._ledger.quarantine.put(FILE, path, reason):
            _log.warning("%s: is not taken: %s", ascii(path)[1:-1], reason)
            self._refused(path, reason)


class _GrowingError(Exception):
    """It changed while it was read."""
