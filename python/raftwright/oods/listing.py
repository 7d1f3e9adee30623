"""Listing a bucket: what is in it and nobody told of is ingested all the same, and what was written again
under the name of something that was ingested is noticed.

Of a bucket of a year only the newest nights are looked at, and of these the folders of images in which
something may still come; some of the others in turn. So a look takes about as many requests as there are new
images, and what is remembered is a few numbers a folder. A look that takes too long is cut, and the next one
goes on from there."""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.errors import RaftwrightError
from raftwright.transfer.words import fill, words_of

if TYPE_CHECKING:
    from raftwright.events.notifications import StoredObject
    from raftwright.metrics import Metrics
    from raftwright.oods.hearing import Hearing
    from raftwright.oods.inputs import Notifications
    from raftwright.oods.notified import Intake
    from raftwright.oods.stored import Page, Stores
    from raftwright.service import Task

__all__ = ["Listing", "prefixes_of"]

_log = logging.getLogger("raftwright.oods")

_TICK: Final = 1.0
_LATER: Final = 5.0
"""Seconds before the first look, at most: what waits in a topic is told in them."""
_LONGEST: Final = 20.0
"""Seconds for folders, and for what is in them, before a look is cut."""
_GRACE: Final = 2.0
"""Seconds in which a notification of what was just found may still come."""
_QUIET: Final = 300.0
"""Seconds after something new in which a folder is looked at each time."""
_NEWEST: Final = 5
"""Folders of each night that may be under way when the first look begins."""
_AGAIN: Final = 50
"""Folders that are done and are looked at again, a look."""
_MOST_FOLDERS: Final = 200_000
_MOST_WAITING: Final = 2000
_NIGHT: Final = 8
"""Digits of an observing day."""


class _Folder(msgspec.Struct):
    """What begins with a prefix."""

    prefix: str
    since: float
    """Monotonic: when something new was in it."""
    listed: float = -math.inf
    """When it was listed to its end."""
    after: str = ""
    """Where its listing was cut."""


class Listing:
    """A task for one bucket. `instruments` are those whose folders are looked for; `hearing` is told how many
    files nobody had told of."""

    def __init__(
        self,
        bucket: str,
        settings: Notifications,
        instruments: Sequence[str],
        stores: Stores,
        intake: Intake,
        hearing: Hearing,
        metrics: Metrics,
    ) -> None:
        self.bucket = bucket
        self._settings = settings
        self._prefixes = prefixes_of(settings.layout, instruments)
        self._stores = stores
        self._intake = intake
        self._hearing = hearing
        self._folders: dict[str, _Folder] = {}
        self._after: dict[str, str] = {}
        """Where looking for folders was cut, by prefix."""
        self._waiting: dict[str, StoredObject] = {}
        """What nobody knows, by path, until it is clear that nobody tells of it."""
        self._waits_since = 0.0
        self._until = math.inf
        self._caught_up = False
        """All that was there when we began was looked at: what is found from now on came since."""
        self.trouble = ""
        self.looks = 0
        root = settings.root(bucket)
        self._found = metrics.counter(
            "found_by_listing", "Files that were in a bucket, and no notification told of", input=root
        )
        self._listed = metrics.counter("listed_objects", "Objects that listings of a bucket gave", input=root)
        self._stage = metrics.stage("list_bucket")

    @property
    def settled(self) -> bool:
        """Whether it has looked; or cannot look."""
        return bool(self.trouble) or self.looks > 0

    def keep(self, task: Task, active: Callable[[], bool]) -> None:
        """Looks from time to time, and says whether anything is heard. The task."""
        was = False
        due = 0.0
        while not task.stopping.is_set():
            now = time.monotonic()
            if active() and not was:
                self._hearing.begin()
                self._caught_up = False
                due = now + min(_LATER, self._settings.reconcile)
            was = active()
            if was:
                try:
                    if now >= due:
                        due = now + self._settings.reconcile
                        self.look(task)
                        due = max(due, time.monotonic() + _TICK)
                        self.trouble = ""
                    self._hearing.judge()
                except RaftwrightError as error:
                    said = f"{self._settings.root(self.bucket)} cannot be listed: {error}"
                    if not self.trouble:
                        _log.error("%s", said)
                    self.trouble = said
            task.beat()
            task.wait(max(0.05, min(_TICK, due - time.monotonic())))

    def look(self, task: Task | None = None) -> int:
        """Looks once; how many files were taken that nobody had told of. Raises OutageError, RefusedError,
        StorageError."""
        taken = 0
        with self._stage:
            for _ in self._walk():
                if task is not None:
                    task.beat()
                    if task.stopping.is_set():
                        return taken
                if len(self._waiting) >= _MOST_WAITING:
                    taken += self._take(task)
            taken += self._take(task)
        self.looks += 1
        cut = self._after or any(one.after or one.listed < 0 for one in self._folders.values())
        self._caught_up = self._caught_up or not cut
        return taken

    # -- the bucket

    def _walk(self) -> Iterator[None]:
        """Goes through what is to be looked at; comes back after each request."""
        self._until = time.monotonic() + _LONGEST
        yield from self._survey()
        now = time.monotonic()
        self._until = now + _LONGEST
        fresh: list[_Folder] = []
        done: list[_Folder] = []
        for folder in self._folders.values():
            is_fresh = folder.listed < 0 or folder.after or now - folder.since < _QUIET
            (fresh if is_fresh else done).append(folder)
        fresh.sort(key=lambda folder: _order(folder.prefix), reverse=True)
        fresh.sort(key=lambda folder: folder.listed)  # those that never were first, of these the newest
        for folder in [*fresh, *heapq.nsmallest(_AGAIN, done, key=lambda folder: folder.listed)]:
            yield from self._list(folder)  # something of it in any case
            if time.monotonic() >= self._until:
                return

    def _survey(self) -> Iterator[None]:
        """Finds the folders there are in the nights that count; what is in none is looked at on the way."""
        found: set[str] = set()
        there: set[str] = set()
        whole = True
        for prefix, nights in self._prefixes:
            tops = [prefix]
            if nights:
                tops = []
                for page in self._stores.pages(self.bucket, prefix, folders=True):
                    here = [one for one in page.folders if _is_night(one)]
                    tops = heapq.nlargest(self._settings.nights, {*tops, *here})
                    yield
            there.update(tops)
            for top in tops:
                new: list[_Folder] = []
                cut = False
                after = self._after.pop(top, "")
                whole = whole and not after
                for page in self._stores.pages(self.bucket, top, after=after, folders=True):
                    self._examine(page)
                    for name in page.folders:
                        found.add(name)
                        if name not in self._folders and len(self._folders) < _MOST_FOLDERS:
                            self._folders[name] = _Folder(name, time.monotonic())
                            new.append(self._folders[name])
                    yield
                    if page.more and time.monotonic() >= self._until:
                        cut, self._after[top] = True, page.last
                        break
                whole = whole and not cut
                if not self.looks:  # most of what is there is old
                    for folder in heapq.nsmallest(
                        len(new) - _NEWEST, new, key=lambda one: _order(one.prefix)
                    ):
                        folder.since = -math.inf
        self._after = {top: after for top, after in self._after.items() if top in there}
        if whole:
            for gone in set(self._folders) - found:
                del self._folders[gone]

    def _list(self, folder: _Folder) -> Iterator[None]:
        """All that is in a folder."""
        new = 0
        for page in self._stores.pages(self.bucket, folder.prefix, after=folder.after):
            new += self._examine(page)
            yield
            if page.more and time.monotonic() >= self._until:
                folder.after = page.last
                break
        else:
            folder.after, folder.listed = "", time.monotonic()
        if new:
            folder.since = time.monotonic()

    def _examine(self, page: Page) -> int:
        """Files that nobody knows are kept for later; how many there are. Raises StorageError."""
        self._listed.add(len(page.objects))
        unknown = self._intake.compare(page.objects)
        if unknown and not self._waiting:
            self._waits_since = time.monotonic()
        self._waiting.update(unknown)
        return len(unknown)

    # -- what nobody told of

    def _take(self, task: Task | None) -> int:
        """Enters what nobody told of meanwhile either."""
        if not self._waiting:
            return 0
        left = self._waits_since + _GRACE - time.monotonic()
        if task is not None and left > 0 and task.wait(left):
            return 0
        taken = self._intake.found(self._waiting)
        self._waiting = {}
        if taken:
            self._found.add(taken)
            if self._caught_up:
                self._hearing.found(taken)
            _log.warning(
                "%s: %d files were there of which no notification came",
                self._settings.root(self.bucket),
                taken,
            )
        return taken


def prefixes_of(layout: str, instruments: Sequence[str]) -> list[tuple[str, bool]]:
    """Where keys begin, by a layout as `{instrument}/{dayobs}/{obsid}/{file}`, and whether folders of nights
    are right there."""
    lead: list[str] = []
    nights = False
    for part in PurePosixPath(layout).parts[:-1]:
        if set(words_of(part)) - {"instrument"}:
            nights = part == "{dayobs}"
            break
        lead.append(part)
    prefix = "".join(f"{part}/" for part in lead)
    return [
        (one, nights) for one in dict.fromkeys(fill(prefix, {"instrument": name}) for name in instruments)
    ]


def _is_night(prefix: str) -> bool:
    name = prefix.rstrip("/").rpartition("/")[2]
    return len(name) == _NIGHT and name.isdecimal()


def _order(prefix: str) -> str:
    """The later image has the greater: night and number end its name."""
    return prefix.rstrip("/")[-15:]
