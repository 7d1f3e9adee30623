"""Notifications of object stores, whoever brings them: a topic, a webhook. What says that one was dealt with,
an offset or an answer, does so after the ledger has it. What is none becomes a dead letter, and the next one
follows.

A notification is a hint: the object itself is looked at where the store can be asked, and what that tells of
it, tag and sums, is kept, so that another object under the same name is noticed."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from raftwright.errors import FormatError, RaftwrightError, UsageError
from raftwright.events.deadletters import DeadLetters
from raftwright.events.notifications import StoredObject, parse
from raftwright.oods.arrivals import Arrivals, Arrived, is_raw_name
from raftwright.oods.aside import OBJECT
from raftwright.oods.stored import Stored, known_of, named, same
from raftwright.rawfile.names import FileName

if TYPE_CHECKING:
    from raftwright.ledger import IngestRow, Ledger
    from raftwright.ledger.rows import QuarantineRow
    from raftwright.metrics import Metrics
    from raftwright.oods.inputs import Notifications
    from raftwright.oods.stored import Stores
    from raftwright.service import Task

__all__ = ["Intake", "dead_letters"]

_log = logging.getLogger("raftwright.oods")

_REMEMBERED: Final = 10_000
_AGAIN: Final = 200
"""Objects that are tried again at a time."""
_ENTERED: Final = frozenset({"ingested", "leaving", "removed"})


class Intake:
    """Takes what is told of objects, from any thread.

    Parameters
    ----------
    name
        What the ledger calls the repository.
    refused
        Is told (path, reason) of objects with the name of a raw that are none.
    heard
        Is told the bucket of what a store told of.
    """

    def __init__(
        self,
        settings: Notifications,
        ledger: Ledger,
        name: str,
        arrivals: Arrivals,
        stores: Stores,
        dead: DeadLetters,
        *,
        refused: Callable[[str, str], None],
        heard: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._name = name
        self._arrivals = arrivals
        self._stores = stores
        self._refused = refused
        self._heard = heard
        self.dead = dead
        self.trouble = ""
        self._lock = threading.Lock()
        self._judged: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        """Objects (path, tag, size) that differ from what is known, and were dealt with."""
        self._objects = metrics.counter("notified", "Objects that stores told of")
        self._ignored = metrics.counter("notifications_ignored", "Records of no file that is ingested here")
        self._bad = metrics.counter("notifications_refused", "Messages and records that became dead letters")
        self._changed = metrics.counter("objects_changed", "Objects that were written again")

    def take(self, bodies: Sequence[tuple[bytes, str]]) -> int:
        """Deals with messages (body, where it came from); how many files are new. Raises StorageError, and
        then all may be given again."""
        things: dict[str, StoredObject] = {}
        letters: list[tuple[bytes, str, str]] = []
        buckets: set[str] = set()
        ignored = 0
        for body, source in bodies:
            try:
                said = parse(body, secret=self._settings.secret)
            except FormatError as error:
                letters.append((body, str(error), source))
                continue
            letters += [(refused.body, refused.reason, source) for refused in said.refused]
            ignored += said.ignored
            for thing in said.objects:
                buckets.add(thing.bucket)
                path = self._path(thing)
                if path:
                    things[path] = thing
                else:
                    ignored += 1
        new = self._enter(things)
        for letter in letters:
            self.dead.put(*letter)
        for bucket in buckets:
            self._heard(bucket)
        self._objects.add(len(things))
        self._ignored.add(ignored)
        self._bad.add(len(letters))
        return new

    def found(self, things: Mapping[str, StoredObject]) -> int:
        """Takes what a listing found, by path; how many nobody had told of. Raises StorageError."""
        return self._enter(things)

    def compare(self, things: Sequence[StoredObject]) -> dict[str, StoredObject]:
        """Looks at what a listing gave: those that the ledger does not know, by path. What was written again
        under the name of what it knows is dealt with. Raises StorageError."""
        wanted = {path: thing for thing in things if (path := self._path(thing))}
        known = self._ledger.ingests.by_paths(self._name, list(wanted))
        for path, rows in known.items():
            self._meet(path, wanted[path], rows[-1])
        return {path: thing for path, thing in wanted.items() if path not in known}

    def _enter(self, things: Mapping[str, StoredObject]) -> int:
        """Plans what is new; how many."""
        known = self._ledger.ingests.by_paths(self._name, list(things))
        fresh = {path: thing for path, thing in things.items() if path not in known}
        files = []
        for (path, thing), seen in zip(
            fresh.items(), self._stores.look_at(list(fresh.values())), strict=True
        ):
            told = Stored(size=thing.size, etag=thing.etag)
            if seen is not None and seen.etag == told.etag:
                told = Stored(size=thing.size, etag=thing.etag, sums=seen.sums)
            elif seen is not None:
                told = seen  # it was written again since that was told
            files.append(Arrived(path=path, bytes=told.size, stored=told.text))
        for path, rows in known.items():
            self._meet(path, things[path], rows[-1])
        return self._arrivals.take(files)

    # -- names

    def _path(self, thing: StoredObject) -> str:
        """What the Butler calls the raw that an object is; empty where it is another. Raises StorageError."""
        wanted = self._settings
        if (wanted.buckets and thing.bucket not in wanted.buckets) or not is_raw_name(thing.key):
            return ""
        path = f"{self._settings.root(thing.bucket)}/{quote(thing.key)}"
        try:
            if ".." in thing.key.split("/"):
                raise FormatError("its key has a part `..`")
            FileName.parse(thing.key)
        except FormatError as error:
            self._set_aside(path, thing, str(error))
            return ""
        return path if self._arrivals.wants(thing.key) else ""

    # -- what is known already

    def _meet(self, path: str, thing: StoredObject, row: IngestRow) -> None:
        """Another object may have the name of one that is known. What is not ingested yet is taken as it is
        now; what is, stays, and the other one is set aside. Raises StorageError."""
        known, told = known_of(row), Stored(size=thing.size, etag=thing.etag)
        if same(known, told) or (known.size == told.size and not known.etag):
            return
        if (path, thing.etag, thing.size) in self._judged or row.state == "ingesting":
            return  # what is being ingested is looked at again by the next listing
        try:
            now = self._stores.look(thing)
        except RaftwrightError:
            now = told
        if now is None:
            return  # it is gone; what waits for it will say so
        verdict = same(known, now)
        if not verdict and row.state in _ENTERED:
            what, why = (
                ("another content", "")
                if verdict is False
                else (
                    "perhaps another content",
                    ", and its store tells no sum that would say whether it is the same",
                )
            )
            tags = f"tag {known.etag or 'unknown'}, now {now.etag or 'unknown'}"
            reason = (
                f"{what} of that name was ingested before; the object was written again since{why} ({tags})"
            )
            self._changed.add(1)
            self._set_aside(path, thing, reason)
        elif not verdict:
            if not self._ledger.ingests.rewritten(row, now.size, now.text):
                return
            self._arrivals.planned()
        self._remember(path, thing)

    def _remember(self, path: str, thing: StoredObject) -> None:
        with self._lock:
            self._judged[path, thing.etag, thing.size] = None
            while len(self._judged) > _REMEMBERED:
                self._judged.popitem(last=False)

    def _set_aside(self, path: str, thing: StoredObject, reason: str) -> None:
        if (path, thing.etag, thing.size) in self._judged:
            return
        if self._ledger.quarantine.put(OBJECT, path, reason):
            _log.warning("%s: is not taken: %s", path, reason)
            self._refused(path, reason)
        self._remember(path, thing)

    # -- once more

    def retry(self, task: Task, active: Callable[[], bool]) -> None:
        """Tries what was set aside when somebody asks for it. The task."""
        while not task.stopping.is_set():
            if active():
                try:
                    for row in self._asked():
                        self.once_more(row.name)
                        task.beat()
                    self.trouble = ""
                except RaftwrightError as error:
                    if not self.trouble:
                        _log.error("what was set aside cannot be tried again: %s", error)
                    self.trouble = f"what was set aside cannot be tried again: {error}"
            task.beat()
            task.wait(1.0)

    def _asked(self) -> list[QuarantineRow]:
        book = self._ledger.quarantine
        return [
            row
            for under in self._settings.roots
            for row in book.standing(OBJECT, under, again=True, limit=_AGAIN)
        ]

    def once_more(self, path: str) -> None:
        """Looks at an object that was set aside as if nobody had. Raises OutageError, RefusedError,
        StorageError."""
        known = named(path)
        seen = self._stores.look(known)
        if seen is None:
            self._ledger.quarantine.settle(OBJECT, [path], "it is gone")
            return
        thing = StoredObject(bucket=known.bucket, key=known.key, size=seen.size, etag=seen.etag)
        with self._lock:
            self._judged.pop((path, thing.etag, thing.size), None)
        if self._path(thing):
            self._enter({path: thing})
        if any(row.name == path for row in self._ledger.quarantine.standing(OBJECT, path, again=True)):
            self._ledger.quarantine.settle(OBJECT, [path], "it is as it should be")


def dead_letters(settings: Notifications, repository: str) -> DeadLetters:
    """Where they go. Raises UsageError where that is no absolute path."""
    where = Path(settings.dead_letters or Path(repository).absolute() / "dead-letters")
    if not where.is_absolute():
        raise UsageError(f"{str(where)[:200]!a}: oods.notifications.dead_letters has to be an absolute path")
    return DeadLetters(where)
