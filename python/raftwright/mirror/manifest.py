"""What a mirror remembers: directories with their times, every file with its facts, what is verified at the
far side, versions, and what waits. One SQLite file.

Everything in it can be found again by comparing both sides; a manifest that is lost costs reading, no data.
Times of `due` are of the monotonic clock of one run; `lived` counts the seconds that mirrors have run with
this manifest, which no clock that is set can change.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.ledger import tai
from raftwright.mirror.listing import Facts
from raftwright.mirror.tables import (
    APPLICATION,
    DDL,
    ENTRY,
    VERSION,
    VERSION_COLUMNS,
    Directory,
    Entry,
    Version,
    entry_of,
    read_only,
    version_of,
)

__all__ = ["Manifest"]

_SENT: Final = 7


class Manifest:
    """Thread-safe; one process at a time. Raises StorageError, FormatError where the file is none of ours,
    UsageError where another mirror has it.

    Parameters
    ----------
    path
        The file; made with its directory if need be.
    trial
        Work on a copy in memory, which is forgotten; nothing is made.
    settle
        Seconds after which what waited in the last run is looked at.
    """

    def __init__(self, path: Path, *, trial: bool = False, settle: float = 0.0) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._deep = 0
        self._guard = -1
        try:
            if trial:
                self._connection = _connect(":memory:")
                if path.exists():
                    with read_only(path) as standing:
                        standing.backup(self._connection)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._guard = _guarded(path)
                self._connection = _connect(str(path))
            self._prepare(settle)
        except sqlite3.Error as error:
            self.close()
            raise _told(error, path) from None
        except OSError as error:
            self.close()
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                error.errno, f"the manifest cannot be made ({error.strerror})", str(path)
            ) from None
        except BaseException:
            self.close()
            raise
        self._begun = time.monotonic()
        self._lived = float(self.word("lived") or 0.0)

    def _prepare(self, settle: float) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            with self.transaction() as run:
                for statement in DDL.split(";\n"):
                    run(statement)
                run(f"PRAGMA application_id = {APPLICATION}")
                run(f"PRAGMA user_version = {VERSION}")
        elif (application, version) != (APPLICATION, VERSION):
            raise FormatError(f"{self.path}: is no manifest of a mirror of this version; name another file")
        with self.transaction() as run:
            due = time.monotonic() + settle
            run("UPDATE entry SET state = 'waiting', due = ? WHERE state IN ('waiting', 'sending')", (due,))
            run("UPDATE entry SET still = 0 WHERE still <> 0")
            run("UPDATE entry SET ingest_due = 0 WHERE ingest <> ''")
            run("UPDATE entry SET gone = ? WHERE state = 'gone' AND far = 'there'", (time.monotonic(),))

    def close(self) -> None:
        """Writes down how long it lived."""
        with self._lock:
            if getattr(self, "_connection", None) is not None:
                with contextlib.suppress(StorageError):  # a minute at most is not counted
                    if hasattr(self, "_lived"):
                        self.live()
                self._connection.close()
                del self._connection
            if self._guard >= 0:
                os.close(self._guard)
                self._guard = -1

    # -- statements

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """All or nothing; gives a function that runs a statement. One within another is part of it. Raises
        StorageError."""
        with self._lock:
            self._check_open()
            try:
                if not self._deep:
                    self._connection.execute("BEGIN IMMEDIATE")
                self._deep += 1
                try:
                    yield self._connection.execute
                except BaseException:
                    if self._deep == 1:
                        self._connection.execute("ROLLBACK")
                    raise
                finally:
                    self._deep -= 1
                if not self._deep:
                    self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if not self._deep and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise _told(error, self.path) from None

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Raises StorageError."""
        with self._lock:
            self._check_open()
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise _told(error, self.path) from None

    def _check_open(self) -> None:
        if getattr(self, "_connection", None) is None:
            raise StorageError(9, "the manifest is closed", str(self.path))

    def word(self, name: str) -> str:
        """Something that is remembered beside the tables; nothing where it is not."""
        found = self.rows("SELECT value FROM word WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def remember(self, name: str, value: str) -> None:
        """Raises StorageError."""
        with self.transaction() as run:
            run("INSERT OR REPLACE INTO word VALUES (?, ?)", (name, value))

    @property
    def lived(self) -> float:
        """Seconds that mirrors have run with it."""
        return self._lived + time.monotonic() - self._begun

    def live(self) -> None:
        """Writes down how long it lived."""
        self.remember("lived", repr(self.lived))

    # -- directories

    def directories(self) -> dict[str, Directory]:
        """All, by path."""
        found = {
            os.fsdecode(path): Directory(
                id=id, path=os.fsdecode(path), times=tuple(times), print=mark, trusted=bool(trusted),
                names=set(),
            )
            for id, path, mark, trusted, *times in self.rows(
                "SELECT id, path, print, trusted, dev, inode, mtime, ctime FROM directory WHERE dev >= 0"
            )
        }  # fmt: skip
        for path in found:
            above, _, name = path.rpartition("/")
            if path and above in found:
                found[above].names.add(name)
        return found

    def directory(self, one: Directory) -> None:
        """Writes down one as it was read now; gives a new one its number."""
        with self.transaction() as run:
            run(
                "INSERT INTO directory(path, dev, inode, mtime, ctime, print, trusted) VALUES (?, ?, ?, ?,"
                " ?, ?, ?)"
                " ON CONFLICT(path) DO UPDATE SET dev = excluded.dev, inode = excluded.inode,"
                " mtime = excluded.mtime, ctime = excluded.ctime, print = excluded.print, trusted ="
                " excluded.trusted",
                (os.fsencode(one.path), *one.times, one.print, one.trusted),
            )
            ((one.id,),) = run("SELECT id FROM directory WHERE path = ?", (os.fsencode(one.path),)).fetchall()

    def trust(self, ids: Iterable[int]) -> None:
        """These were read again, and were as before."""
        with self.transaction() as run:
            for id in ids:
                run("UPDATE directory SET trusted = 1 WHERE id = ?", (id,))

    def forget_directory(self, one: Directory) -> None:
        """It is there no more, and so is all that was in it: its files are gone."""
        with self.transaction():
            self.gone([entry for entry in self.of_directory(one.id).values() if entry.state != "gone"])
            with self.transaction() as run:
                run("UPDATE directory SET dev = -1, inode = 0, trusted = 0 WHERE id = ?", (one.id,))

    # -- entries

    def of_directory(self, directory: int) -> dict[str, Entry]:
        """All of a directory, gone ones too, by name."""
        found = [
            entry_of(row) for row in self.rows(f"SELECT {ENTRY} WHERE entry.directory = ?", (directory,))
        ]
        return {entry.path.rpartition("/")[2]: entry for entry in found}

    def one(self, id: int) -> Entry | None:
        """By its number."""
        rows = self.rows(f"SELECT {ENTRY} WHERE entry.id = ?", (id,))
        return entry_of(rows[0]) if rows else None

    def at(self, path: str) -> Entry | None:
        """By its path."""
        above, _, name = path.rpartition("/")
        rows = self.rows(
            f"SELECT {ENTRY} WHERE directory.path = ? AND entry.name = ?",
            (os.fsencode(above), os.fsencode(name)),
        )
        return entry_of(rows[0]) if rows else None

    def found(self, directory: int, name: str, facts: Facts, due: float, priority: int) -> None:
        """A name that was not there before. Where a first pass found it, its own time says how long ago it
        has changed: of no consequence but for whether it is looked at in quick passes."""
        age = max(0.0, time.time() - facts.ctime * 1e-9) if priority else 0.0
        with self.transaction() as run:
            run(
                "INSERT INTO entry(directory, name, kind, inode, bytes, mtime, ctime, state, priority,"
                " due, changed,"
                " found_tai) VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?, ?)",
                (
                    *(directory, os.fsencode(name), *facts, priority, due),
                    *(self.lived - age, tai()),
                ),
            )

    def changed(self, entry: Entry, facts: Facts, due: float, priority: int, busy: int) -> None:
        """It has other facts than before: whatever waited to be done with the old ones is void."""
        with self.transaction() as run:
            run(
                "UPDATE entry SET kind = ?, inode = ?, bytes = ?, mtime = ?, ctime = ?, state = 'waiting',"
                " reason = '',"
                " priority = min(priority, ?), due = ?, tries = 0, busy = ?, still = 0, changed = ?,"
                " gone_tai = NULL,"
                " gone = NULL WHERE id = ?",
                (*facts, priority, due, busy, self.lived, entry.id),
            )

    def again(self, ids: Iterable[int], due: float) -> None:
        """To be looked at, and brought if need be, then."""
        with self.transaction() as run:
            for id in ids:
                run(
                    "UPDATE entry SET state = 'waiting', due = ?, tries = 0, reason = '' WHERE id = ?",
                    (due, id),
                )

    def all_again(self, state: str) -> int:
        """All in this state are looked at and brought anew; how many."""
        with self.transaction() as run:
            done = run(
                "UPDATE entry SET state = 'waiting', due = ?, tries = 0, priority = 1 WHERE state = ?",
                (time.monotonic(), state),
            )
            return int(done.rowcount)

    def lost(self, entry: Entry) -> None:
        """The far side has its content no more: it is brought again, if it is still here."""
        with self.transaction() as run:
            run("UPDATE entry SET far = '', ingest = '' WHERE id = ?", (entry.id,))
            run(
                "UPDATE entry SET state = 'waiting', due = ?, tries = 0, priority = 1"
                " WHERE id = ? AND state NOT IN ('gone', 'waiting', 'sending')",
                (time.monotonic(), entry.id),
            )

    def sooner(self, entry: Entry, due: float) -> None:
        """What waits is to be looked at then, if that is earlier."""
        with self.transaction() as run:
            run("UPDATE entry SET due = min(due, ?) WHERE id = ? AND state = 'waiting'", (due, entry.id))

    def gone(self, entries: Iterable[Entry]) -> None:
        """They are not there any more."""
        with self.transaction() as run:
            for entry in entries:
                run(
                    "UPDATE entry SET state = 'gone', reason = '', tries = 0, gone_tai = ?, gone = ?,"
                    " ingest = CASE WHEN ingest IN ('queued', 'failed') AND far <> 'there' THEN '' ELSE"
                    " ingest END"
                    " WHERE id = ?",
                    (tai(), time.monotonic(), entry.id),
                )

    def hot(self, seconds: float, most: int) -> list[Entry]:
        """What changed within the last so many seconds of life, the newest first."""
        return [
            entry_of(row)
            for row in self.rows(
                f"SELECT {ENTRY} WHERE entry.changed > ? AND entry.state NOT IN ('gone', 'waiting',"
                f" 'sending')"
                " ORDER BY entry.changed DESC LIMIT ?",
                (self.lived - seconds, most),
            )
        ]

    def renamed_from(self, facts: Facts) -> list[Entry]:
        """Entries that are gone, whose content stands there, and that were this very file."""
        rows = self.rows(
            f"SELECT {ENTRY} WHERE entry.inode = ? AND entry.state = 'gone' AND entry.far = 'there'"
            " AND entry.bytes = ? AND entry.mtime = ? AND entry.kind = ? ORDER BY entry.id LIMIT 10",
            (facts.inode, facts.bytes, facts.mtime, facts.kind),
        )
        return [entry_of(row) for row in rows]

    def was(self, facts: Facts) -> bool:
        """Whether a file that is gone was this very file."""
        return bool(self.renamed_from(facts))

    def below(self, path: str) -> list[Entry]:
        """All in a directory and further down whose content stands there."""
        mark = os.fsencode(path)
        rows = self.rows(
            f"SELECT {ENTRY} WHERE entry.far = 'there' AND (directory.path = ? OR directory.path BETWEEN ?"
            f" AND ?)",
            (mark, mark + b"/", mark + b"0"),
        )
        return [entry_of(row) for row in rows]

    def next_due(self, after: float) -> float | None:
        """When something is due next, after that time."""
        found = [
            row[0]
            for priority in (0, 1)
            for row in self.rows(
                "SELECT due FROM entry WHERE state = 'waiting' AND priority = ? AND due > ? ORDER BY due"
                " LIMIT 1",
                (priority, after),
            )
        ]
        return min(found, default=None)

    def due(self) -> bool:
        """Whether anything is due now."""
        now = time.monotonic()
        return any(
            self.rows(
                "SELECT 1 FROM entry WHERE state = 'waiting' AND priority = ? AND due <= ? LIMIT 1",
                (priority, now),
            )
            for priority in (0, 1)
        )

    def waiting(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self.rows("SELECT 1 FROM entry WHERE state IN ('waiting', 'sending') LIMIT 1"))

    def claim(
        self, most: int, without: Collection[int] = (), *, most_bytes: int | None = None
    ) -> list[Entry]:
        """Takes what is due, but for some: what changed lately before what was found by a first pass. With
        `most_bytes` only small ones of a first pass."""
        now = time.monotonic()
        found: list[Entry] = []
        marks = ", ".join("?" * len(without))
        with self.transaction() as run:
            for priority in (0, 1) if most_bytes is None else (1,):
                if len(found) < most:
                    found += [
                        entry_of(row)
                        for row in self.rows(
                            f"SELECT {ENTRY} WHERE entry.state = 'waiting' AND entry.priority = ?"
                            f" AND entry.due <= ? AND entry.id NOT IN ({marks}) AND entry.bytes <= ?"
                            " ORDER BY entry.due LIMIT ?",
                            (priority, now, *without, most_bytes or 1 << 62, most - len(found)),
                        )
                    ]
            for entry in found:
                run("UPDATE entry SET state = 'sending', tries = tries + 1 WHERE id = ?", (entry.id,))
        return found

    def put_off(self, entry: Entry, due: float, reason: str, *, still: float = 0.0) -> None:
        """Not now; unless it has changed since it was taken."""
        with self.transaction() as run:
            run(
                "UPDATE entry SET state = 'waiting', due = ?, reason = ?, still = ? WHERE id = ? AND state"
                " = 'sending'",
                (due, reason[:2000], still, entry.id),
            )

    def ended(self, entry: Entry, state: str, reason: str) -> None:
        """failed, conflict or skipped."""
        with self.transaction() as run:
            run(
                "UPDATE entry SET state = ?, reason = ? WHERE id = ? AND state = 'sending'",
                (state, reason[:2000], entry.id),
            )

    def mirrored(self, entry: Entry, crc32c: str, ingest: str) -> None:
        """This content is verified at the far side; the file here may have changed again meanwhile."""
        with self.transaction() as run:
            new = entry.crc32c != crc32c or entry.far != "there"
            run(
                "UPDATE entry SET crc32c = ?, far = 'there', far_bytes = ?, staged = '', sent = '',"
                " mirrored_tai = ?, ingest = CASE WHEN ? THEN ? ELSE ingest END, ingest_tries = 0,"
                " ingest_due = 0 WHERE id = ?",
                (crc32c, entry.facts.bytes, tai(), new, ingest, entry.id),
            )
            run(
                "UPDATE entry SET state = 'mirrored', reason = '', tries = 0, still = 0 WHERE id = ?"
                " AND state = 'sending'",
                (entry.id,),
            )
            run("UPDATE version SET state = 'kept' WHERE entry = ? AND state = 'wanted'", (entry.id,))

    def vanished(self, seconds: float, most: int) -> list[Entry]:
        """Gone for so long, in this run, and their content stands there."""
        return [
            entry_of(row)
            for row in self.rows(
                f"SELECT {ENTRY} WHERE entry.state = 'gone' AND entry.far = 'there' AND entry.gone <= ?"
                " ORDER BY entry.gone LIMIT ?",
                (time.monotonic() - seconds, most),
            )
        ]

    def standing(self) -> tuple[int, int]:
        """How many contents stand at the far side, and of how many of them the file is gone."""
        rows = self.rows("SELECT count(*), coalesce(sum(state = 'gone'), 0) FROM entry WHERE far = 'there'")
        return int(rows[0][0]), int(rows[0][1])

    def all_there(self, after: int, most: int) -> list[Entry]:
        """Entries whose content stands at the far side, by number."""
        return [
            entry_of(row)
            for row in self.rows(
                f"SELECT {ENTRY} WHERE entry.far = 'there' AND entry.id > ? ORDER BY entry.id LIMIT ?",
                (after, most),
            )
        ]

    def far(self, entry: Entry, far: str) -> None:
        """Its content is there no more under its name."""
        with self.transaction() as run:
            run("UPDATE entry SET far = ?, ingest = '' WHERE id = ?", (far, entry.id))

    def sends(self, entry: Entry, crc32c: str) -> None:
        """Says, before it is done, what will be sent; the last few that were said are kept."""
        entry.sent = " ".join([*entry.sent.split()[-_SENT:], crc32c])
        with self.transaction() as run:
            run("UPDATE entry SET sent = ? WHERE id = ?", (entry.sent, entry.id))

    def staged(self, entry: Entry, name: str) -> None:
        """A new content may lie there."""
        with self.transaction() as run:
            run("UPDATE entry SET staged = ? WHERE id = ?", (name, entry.id))

    # -- versions

    def versions(self, entry: int) -> list[Version]:
        """In their order."""
        return [
            version_of(row)
            for row in self.rows(
                f"SELECT {VERSION_COLUMNS} FROM version WHERE entry = ? ORDER BY number", (entry,)
            )
        ]

    def want_version(self, entry: int, number: int, target: str, bytes: int, crc32c: str, why: str) -> None:
        """Says, before anything is moved, where it will be. One that was wanted before is made use of."""
        with self.transaction() as run:
            run("DELETE FROM version WHERE entry = ? AND state = 'wanted'", (entry,))
            run(
                "INSERT INTO version(entry, number, target, bytes, crc32c, why, state, kept_tai, kept)"
                " VALUES (?, ?, ?, ?, ?, ?, 'wanted', ?, ?)",
                (entry, number, os.fsencode(target), bytes, crc32c, why, tai(), self.lived),
            )

    def keep_version(self, entry: int) -> None:
        """It is there."""
        with self.transaction() as run:
            run("UPDATE version SET state = 'kept' WHERE entry = ? AND state = 'wanted'", (entry,))

    def old_versions(self, why: str, seconds: float, most: int) -> list[Version]:
        """Kept for longer than so many seconds of life."""
        return [
            version_of(row)
            for row in self.rows(
                f"SELECT {VERSION_COLUMNS} FROM version WHERE why = ? AND state = 'kept' AND kept < ?"
                f" LIMIT ?",
                (why, self.lived - seconds, most),
            )
        ]

    def version_removed(self, version: Version) -> None:
        """It is removed there."""
        with self.transaction() as run:
            run("UPDATE version SET state = 'removed', removed_tai = ? WHERE id = ?", (tai(), version.id))
            run("UPDATE entry SET far = 'removed' WHERE id = ? AND far = 'marked'", (version.entry,))

    # -- sums

    def counts(self) -> dict[str, Any]:
        """For status: entries by state, bytes, versions, ingest."""
        states = self.rows("SELECT state, count(*), coalesce(sum(bytes), 0) FROM entry GROUP BY state")
        return {
            "files": {state: number for state, number, _ in states},
            "bytes": {state: octets for state, _, octets in states},
            "directories": self.rows("SELECT count(*) FROM directory WHERE dev >= 0")[0][0],
            "versions": self.rows("SELECT count(*) FROM version WHERE state = 'kept'")[0][0],
            "ingest": dict(
                self.rows("SELECT ingest, count(*) FROM entry WHERE ingest <> '' GROUP BY ingest")
            ),
        }

    def listed(self, states: Sequence[str], most: int) -> list[Entry]:
        """Entries in these states, by path."""
        marks = ", ".join("?" * len(states))
        return [
            entry_of(row)
            for row in self.rows(
                f"SELECT {ENTRY} WHERE entry.state IN ({marks}) ORDER BY directory.path, entry.name LIMIT ?",
                (*states, most),
            )
        ]


def _connect(where: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        where, timeout=10.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is found again by comparing
    connection.execute("PRAGMA cache_size = -32000")
    return connection


def _guarded(path: Path) -> int:
    """A lock that goes with the process."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(
            f"{path}: another mirror works with it; stop that one, or name another manifest"
        ) from None
    return descriptor


def _told(error: BaseException, path: Path) -> StorageError:
    return StorageError(
        5,
        f"the manifest does not work ({error}); if it is damaged move it away, the mirror makes it anew",
        str(path),
    )
