"""One tree and its mirror: what finds, brings, tidies and ingests, and what they tell one another."""

from __future__ import annotations

import functools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import RaftwrightError, StorageError
from raftwright.mirror.bringing import Bringer
from raftwright.mirror.checking import Checked, check
from raftwright.mirror.far import far_of
from raftwright.mirror.finding import Finder
from raftwright.mirror.ingesting import Ingesting
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.outbox import Outbox
from raftwright.mirror.rsynclog import RsyncLogs
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tidying import Tidier
from raftwright.mirror.tree import Tree, shown
from raftwright.service.inotify import Inotify, Notice
from raftwright.transfer.lane import Lane, Limits

if TYPE_CHECKING:
    from raftwright.metrics import Metrics
    from raftwright.service import Task

__all__ = ["TreeMirror"]

_log = logging.getLogger("raftwright.mirror")

_TICK: Final = 0.2
_NOTICES: Final = 500
"""That are taken in at a time."""
_LIVE: Final = 60.0
_TIDY: Final = 1.0
_LISTED: Final = 100


class TreeMirror:
    """Opened with `open`; then its `tasks` are to run.

    Parameters
    ----------
    manifest
        The file in which it remembers.
    trial
        Finds what would be brought, on a copy of the manifest, and brings nothing.
    once
        One full pass, and `over` once all is done that could be.
    checksum
        The first pass is followed by a new reading of every file.
    """

    def __init__(
        self,
        settings: TreeSettings,
        manifest: Path,
        metrics: Metrics,
        news: Callable[[Mapping[str, Any]], None],
        *,
        once: bool = False,
        trial: bool = False,
        checksum: bool = False,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.once = once or trial
        self.trial = trial
        self._checksum = checksum
        self.tree = Tree(settings.source)
        self.manifest = Manifest(manifest, trial=trial, settle=0.0 if once else min(1.0, settings.settle))
        # Another name of the same file would change with it: a mirror has copies.
        place = msgspec.structs.replace(settings.to, link="never")
        scratch = manifest.with_name(manifest.name + ".scratch")
        if not trial:
            shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        try:
            self.far = far_of(place, scratch)
        except RaftwrightError:
            self.manifest.close()
            raise
        self.bringer = Bringer(self.tree, self.far, self.manifest, settings)
        self.tidier = Tidier(self.far, self.manifest, self.bringer, settings)
        self.ingesting = None
        if settings.ingest is not None:
            self.ingesting = Ingesting(settings.ingest, Path(settings.to.root), self.manifest, news)
        self.outbox = Outbox(
            self.manifest,
            self.bringer,
            settings,
            news=self._ended,
            ingest=self.ingesting.wants if self.ingesting is not None else lambda _: "",
        )
        self.lane = Lane(
            settings.name,
            Limits(
                concurrency=place.concurrency,
                timeout=place.timeout,
                retries=place.retries,
                backoff=place.backoff,
                longest=place.longest,
                in_a_row=20,
            ),
            self.outbox,
            self.outbox.send,
            probe=self.far.sender.probe,
            told=lambda _: None,
            active=lambda: not trial and not self.trouble,
            any_waiting=self.manifest.due,
            metrics=metrics,
        )
        self.finder: Finder | None = None
        self.trouble = ""
        """Why the tree cannot be read."""
        self._news = news
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._inside = False
        self._lost_notices = False
        self._inotify: Inotify | None = None
        self._logs = RsyncLogs(self.manifest, settings.logs, settings.logs_below) if settings.logs else None
        self._logs_trouble = ""
        self._next_poke = 0.0
        self.passed = threading.Event()
        """A full pass came to its end."""
        self._moved = time.monotonic()
        self._counts: dict[str, Any] = {}
        self._count_after = 0.0
        self._files = {
            kind: metrics.counter("mirrored_files", "Entries that were mirrored", tree=self.name, how=kind)
            for kind in ("new", "version", "renamed", "link", "same")
        }
        for state in ("waiting", "failed", "conflict"):
            metrics.gauge(
                "entries",
                "Entries of a manifest",
                read=functools.partial(self._count, state),
                tree=self.name,
                state=state,
            )
        metrics.gauge("pass_seconds", "Of the last pass", read=self._pass_seconds, tree=self.name)

    def tasks(self) -> dict[str, Callable[[Task], None]]:
        """By name."""
        found: dict[str, Callable[[Task], None]] = {f"find {self.name}": self._find}
        if not self.trial:
            found[f"bring {self.name}"] = self.lane.work
            found[f"tidy {self.name}"] = self._tidy
            if self.ingesting is not None:
                found[f"ingest {self.name}"] = self.ingesting.work
        return found

    def open(self) -> None:
        """What was given up on is tried again. Raises StorageError."""
        if not self.trial:
            self.manifest.all_again("failed")
            if self.ingesting is not None and (adopted := self.ingesting.adopt()):
                _log.info("%s: %d files that were mirrored before are ingested too", self.name, adopted)

    def quiet(self) -> None:
        """Takes on nothing more."""
        self._stopping.set()
        self.lane.quiet()
        self._look.set()

    def close(self) -> None:
        """Everything that was opened."""
        self.far.sender.close()
        self.manifest.close()
        self.tree.close()
        if self._inotify is not None:
            self._inotify.close()

    # -- finding

    def _find(self, task: Task) -> None:
        """Passes, notices and logs. A manifest that does not work ends it, and it begins anew."""
        finder = self.finder = None
        next_full = next_quick = next_lost = 0.0
        while not task.stopping.is_set() and not self._stopping.is_set():
            now = time.monotonic()
            try:
                if finder is None:
                    self.tree.open()
                    self._open_watches()
                    finder = self.finder = Finder(
                        self.tree, self.manifest, self.settings, between=self._between, watches=self._inotify
                    )
                if now >= next_full or (self._lost_notices and now >= next_lost) or self._look.is_set():
                    self._pass(finder, full=True)
                    next_lost = time.monotonic() + self.settings.every  # however much is lost
                    next_full = time.monotonic() + (self.settings.full or 1e18)
                    next_quick = time.monotonic() + self.settings.every
                elif now >= next_quick:
                    if not self.settings.logs_only:
                        self._pass(finder, full=False)
                    self._read_logs(finder)
                    next_quick = time.monotonic() + self.settings.every
                self._listen(finder, min(next_quick, next_full))
            except StorageError as error:
                if error.filename == str(self.manifest.path):
                    raise
                if not self.trouble:
                    _log.error("%s: %s", self.name, error)
                self.trouble = str(error)
                finder = None
                next_full = 0.0
                self._pause(min(self.settings.every, 10.0))
            task.beat()

    def _open_watches(self) -> None:
        """Where the kernel tells of all writers, or somebody says so."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self.once or self.settings.watch == "never":
            return
        try:
            if self.settings.watch == "always" or self.tree.tells_all:
                self._inotify = Inotify()
        except StorageError as error:
            _log.warning("%s: nothing is watched, passes find what changes: %s", self.name, error)

    def _pass(self, finder: Finder, *, full: bool) -> None:
        self._look.clear()
        self._lost_notices = False
        found = finder.pass_(full)
        self.trouble = ""
        if full and self._checksum and not self._stopping.is_set():
            self._checksum = False
            self.manifest.all_again("mirrored")
        if found is finder.last and full:
            self.passed.set()
        self._poke()
        if found.new or found.changed or found.gone or full:
            self._news({"tree": self.name, "pass": msgspec.to_builtins(found)})

    def _between(self) -> bool:
        """Within a pass: notices come first."""
        if self._stopping.is_set():
            return False
        if self._inotify is not None and not self._inside and self.finder is not None:
            self._take_in(self.finder, self._inotify.read(0.0))
        return True

    def _listen(self, finder: Finder, until: float) -> None:
        """Notices until it is time for a pass, or a tick at least."""
        self._poke()
        wait = max(0.0, min(until, self._next_poke, time.monotonic() + _TICK) - time.monotonic())
        if self._inotify is None:
            self._pause(wait)
        else:
            self._take_in(finder, self._inotify.read(wait))
        self._poke()

    def _take_in(self, finder: Finder, notices: list[Notice]) -> None:
        """What the kernel told; a hint about a file is one transaction with its neighbours."""
        self._inside = True
        try:
            at = 0
            while at < len(notices) and not self._stopping.is_set():
                if notices[at].directory or not notices[at].name:
                    self._hear(finder, notices[at])
                    at += 1
                    continue
                with self.manifest.transaction():
                    end = min(len(notices), at + _NOTICES)
                    while at < end and notices[at].name and not notices[at].directory:
                        self._hear(finder, notices[at])
                        at += 1
        finally:
            self._inside = False

    def _hear(self, finder: Finder, notice: Notice) -> None:
        try:
            if not finder.heard(notice):
                self._lost_notices = True
        except StorageError as error:
            if error.filename == str(self.manifest.path):
                raise
            _log.warning("%s: %s", self.name, error)
            self._lost_notices = True

    def _read_logs(self, finder: Finder) -> None:
        if self._logs is None:
            return
        try:
            for names in self._logs.read():
                for name in names:
                    finder.look(name)
                if self._stopping.is_set():
                    return
        except StorageError as error:
            if error.filename == str(self.manifest.path):
                raise
            if not self._logs_trouble:
                _log.error("%s: %s", self.name, error)
            self._logs_trouble = str(error)
        else:
            self._logs_trouble = ""

    def _poke(self) -> None:
        """Wakes the lane when something becomes due."""
        now = time.monotonic()
        if now >= self._next_poke:
            self.lane.poke()
        after = self.manifest.next_due(now)
        self._next_poke = after if after is not None else now + 3600.0

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    # -- the other tasks

    def _tidy(self, task: Task) -> None:
        lived = again = time.monotonic()
        said = ""
        while not task.wait(_TIDY if not self.once else 0.2):
            now = time.monotonic()
            try:
                if now - lived >= _LIVE:
                    lived = now
                    self.manifest.live()
                if now - again >= self.settings.retry_failed:
                    again = now
                    self.manifest.all_again("failed")
                if self.passed.is_set() and not self.trouble:
                    self.tidier.tidy()
                said = ""
            except RaftwrightError as error:
                if str(error) != said:
                    _log.error("%s: %s", self.name, error)
                said = str(error)
            task.beat()

    def _ended(self, facts: Mapping[str, Any]) -> None:
        if facts["state"] not in ("waiting", "queued"):
            self._moved = time.monotonic()
        if facts["state"] == "mirrored":
            self._files[facts["how"]].add()
            if self.ingesting is not None:
                self.ingesting.wake()
        self._news(facts)

    # -- by command

    def look(self) -> None:
        """A full pass, now."""
        self._look.set()

    def retry(self) -> int:
        """What was given up on, and conflicts, again; how many."""
        return self.manifest.all_again("failed") + self.manifest.all_again("conflict")

    def check(self, *, read: bool) -> Checked:
        """Whether the far side has what it should. Raises OutageError, RefusedError, StorageError."""
        return check(
            self.far, self.manifest, self.bringer, read=read, go_on=lambda: not self._stopping.is_set()
        )

    # -- what it tells

    def idle(self, patience: float = 0.0) -> bool:
        """Whether all is done that can be; with `patience` also where nothing has moved for so long."""
        if self.trouble or not self.passed.is_set():
            return bool(patience) and time.monotonic() - self._moved > patience and not self.lane.in_flight()
        if self.trial:
            return True
        ingests = self.ingesting is not None and self.ingesting.waits()
        if not self.manifest.waiting() and not self.lane.in_flight() and not ingests:
            return True
        return bool(patience) and time.monotonic() - self._moved > patience

    def problems(self) -> list[str]:
        """A sentence each."""
        finder = self.finder
        said = [self.trouble, self._logs_trouble, self.lane.trouble, self.tidier.trouble]
        if finder is not None:
            said.append(finder.unwatched)
            said += [f"{shown(path)}: {why}" for path, why in list(finder.troubles.items())[:_LISTED]]
        if self.ingesting is not None:
            said.append(self.ingesting.trouble)
        return [f"{self.name}: {sentence}" for sentence in said if sentence]

    def status(self) -> dict[str, Any]:
        """As JSON."""
        last = None if self.finder is None else self.finder.last
        return {
            "source": self.settings.source,
            "to": self.settings.to.root,
            "manifest": str(self.manifest.path),
            "watched": self._inotify is not None,
            **self._counted(),
            "in_flight": len(self.lane.in_flight()),
            "last_pass": None if last is None else msgspec.to_builtins(last),
            "problems": self.problems(),
        }

    def _counted(self) -> dict[str, Any]:
        """Counts of the manifest, which take long where there are millions: not all the time."""
        now = time.monotonic()
        if now >= self._count_after:
            self._counts = self.manifest.counts()
            self._count_after = time.monotonic() + 20 * (time.monotonic() - now)
        return self._counts

    def _pass_seconds(self) -> float:
        return self.finder.last.seconds if self.finder is not None and self.finder.last is not None else 0.0

    def _count(self, state: str) -> float:
        try:
            rows = self.manifest.rows("SELECT count(*) FROM entry WHERE state = ?", (state,))
        except StorageError:
            return 0.0
        return float(rows[0][0])
