"""What is verified at the far side goes into a Butler repository: each file for itself, a raft that is not
whole as well as a whole one, and with no person in between. A file that no camera of the repository made is
kept as `unsupported`, and asked about again when somebody says so."""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, RaftwrightError
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import Ingest
from raftwright.mirror.tables import Entry
from raftwright.mirror.tree import shown

if TYPE_CHECKING:
    from raftwright.butler import Ingester, Outcome
    from raftwright.service import Task

__all__ = ["Ingesting"]

_log = logging.getLogger("raftwright.mirror")

_LOOK: Final = 1.0
_AT_ONCE: Final = 5000
_FIRST: Final = 1.0
_PAUSE: Final = 30.0
"""After a trouble of the repository, at most."""


class Ingesting:
    """A task, and the words about it. `wake` may be called from any thread."""

    def __init__(
        self, settings: Ingest, far: Path, manifest: Manifest, news: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._settings = settings
        self._far = far
        self._manifest = manifest
        self._news = news
        self._wake = threading.Event()
        self.trouble = ""
        """Why the repository takes nothing."""

    def wants(self, path: str) -> str:
        """`queued` for a name that is to be ingested, else nothing."""
        name = path.rpartition("/")[2]
        return "queued" if any(fnmatch.fnmatchcase(name, one) for one in self._settings.include) else ""

    def adopt(self) -> int:
        """Queues what was mirrored before it was to be ingested at all, or into another repository; how many
        files. Raises StorageError."""
        repository, include = os.path.abspath(self._settings.repository), self._settings.include
        mark = "\n".join([repository, *include])
        before = self._manifest.word("ingest")
        if before == mark:
            return 0
        other = bool(before) and before.partition("\n")[0] != repository
        done = after = 0
        while found := self._manifest.rows(
            "SELECT id, name FROM entry WHERE id > ? AND far = 'there' AND state <> 'gone'"
            f"{'' if other else ' AND ingest = ?'} ORDER BY id LIMIT {_AT_ONCE}",
            (after,) if other else (after, ""),
        ):
            after = found[-1][0]
            wanted = [(id,) for id, name in found if self.wants(os.fsdecode(name))]
            with self._manifest.transaction() as run:
                for values in wanted:
                    run(
                        "UPDATE entry SET ingest = 'queued', ingest_reason = '', ingest_due = 0,"
                        " ingest_tries = 0 WHERE id = ?",
                        values,
                    )
            done += len(wanted)
        self._manifest.remember("ingest", mark)
        return done

    def wake(self) -> None:
        """There may be something."""
        self._wake.set()

    def waits(self) -> bool:
        """Whether something is to be ingested."""
        return bool(self._manifest.rows("SELECT 1 FROM entry WHERE ingest IN ('queued', 'waiting') LIMIT 1"))

    def again(self) -> int:
        """What was unsupported or failed is queued again; how many."""
        with self._manifest.transaction() as run:
            done = run(
                "UPDATE entry SET ingest = 'queued', ingest_due = 0, ingest_tries = 0"
                " WHERE ingest IN ('unsupported', 'failed', 'conflict')"
            )
            return int(done.rowcount)

    def work(self, task: Task) -> None:
        """Until the task is to stop."""
        ingester: Ingester | None = None
        troubles = 0
        try:
            while not task.stopping.is_set():
                self._wake.wait(_LOOK)
                self._wake.clear()
                try:
                    while not task.stopping.is_set() and (entries := self._due()):
                        ingester = ingester or self._open()
                        self._ingest(ingester, entries)
                        troubles, self.trouble = 0, ""
                        task.beat()
                except RaftwrightError as error:
                    if not self.trouble:
                        _log.error("nothing is ingested: %s", error)
                    self.trouble = f"nothing is ingested: {error}"
                    if ingester is not None:
                        ingester.close()
                        ingester = None
                    troubles += 1
                    task.wait(min(_PAUSE, _FIRST * 2 ** min(troubles, 10)))
                task.beat()
        finally:
            if ingester is not None:
                ingester.close()

    def _open(self) -> Ingester:
        from raftwright.butler import Ingester, open_repository

        return Ingester(open_repository(self._settings.repository, writeable=True))

    def _due(self) -> list[Entry]:
        found = self._manifest.rows(
            "SELECT id FROM entry WHERE ingest IN ('queued', 'waiting') AND ingest_due <= ? AND far = 'there'"
            " ORDER BY ingest_due, id LIMIT ?",
            (time.monotonic(), self._settings.batch),
        )
        return [entry for (id,) in found if (entry := self._manifest.one(id)) is not None]

    def _ingest(self, ingester: Ingester, entries: Sequence[Entry]) -> None:
        """Hard links: the repository's own name stays when the far side renames its file."""
        from raftwright.butler import Incoming

        files, mine = [], []
        for entry in entries:
            path = os.path.join(self._far, entry.path)
            try:
                files.append(Incoming.of(path, crc32c=entry.crc32c, bytes=entry.far_bytes))
                mine.append(entry)
            except FormatError as error:
                self._write(entry, "unsupported", str(error), 0.0)
        outcomes = (
            ingester.ingest(files, transfer=_way(self._far, self._settings.repository)) if files else []
        )
        exposures = set()
        for entry, outcome in zip(mine, outcomes, strict=True):
            self._end(entry, outcome)
            if outcome.good and outcome.exposure:
                exposures.add((outcome.instrument, outcome.exposure))
        if exposures:
            ingester.define_visits(sorted(exposures))

    def _end(self, entry: Entry, outcome: Outcome) -> None:
        if outcome.good:
            self._write(entry, "ingested", "", 0.0)
            return
        pause = min(self._settings.longest, _FIRST * 2 ** min(entry.ingest_tries, 30))
        if outcome.state == "waiting":
            self._write(entry, "waiting", outcome.reason, pause)
        elif outcome.state == "failed" and outcome.again and entry.ingest_tries < self._settings.retries:
            self._write(entry, "queued", outcome.reason, pause)
        else:
            self._write(entry, outcome.state, outcome.reason, 0.0)

    def _write(self, entry: Entry, state: str, reason: str, after: float) -> None:
        with self._manifest.transaction() as run:
            run(
                "UPDATE entry SET ingest = ?, ingest_reason = ?, ingest_tries = ingest_tries + 1,"
                " ingest_due = ?"
                " WHERE id = ? AND crc32c = ? AND far = 'there'",
                (state, reason[:2000], time.monotonic() + after, entry.id, entry.crc32c),
            )
        if state != "queued":
            self._news({"path": shown(entry.path), "ingest": state, "reason": reason})


def _way(far: Path, repository: str) -> Any:
    """Hard links where both are on one file system."""
    try:
        same = os.stat(far).st_dev == os.stat(repository).st_dev
    except OSError:
        same = False
    return "hardlink" if same else "copy"
