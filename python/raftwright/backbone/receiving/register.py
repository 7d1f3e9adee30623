"""The register of an endpoint: every file that came, every attempt at it, and what is left to do.

One SQLite file, shared by the processes of one machine. `file` and `event` are only ever added to (triggers
see to that); `work` says where each file stands with each ingester, and follows from the events. A claim is
an event PENDING whose owner lives.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from raftwright._version import __version__
from raftwright.backbone.receiving.plugins import Item
from raftwright.backbone.receiving.rows import (
    APPLICATION,
    INTAKE,
    TABLES,
    VERSION,
    End,
    EventRow,
    FileRow,
    State,
)
from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.ledger import owners
from raftwright.ledger.clock import LONGEST_WAIT, tai
from raftwright.ledger.database import clean, marks, parts

__all__ = ["LEASE", "Register"]

LEASE: Final = 10.0
"""Seconds that a claim outlives the last sign of life of its owner."""

_BUSY: Final = 20.0
_NEVER: Final = 9e15
"""`next_try` of what is not tried again by itself."""
_FILE: Final = "id, relpath, filename, crc32c, adler32, md5, bytes, added_tai, place, alias_of, kept_as"
_EVENT: Final = "id, file_id, ingester, attempt, state, begun_tai, duration, message, version, owner"
_OPEN: Final = "('UNTRIED', 'RERUN', 'FAILURE', 'UNKNOWN')"


class Register:
    """Thread-safe. Raises StorageError where it cannot be read or written, FormatError where it is none."""

    def __init__(
        self, path: str | Path, storage: str | Path, *, lease: float = LEASE, must_exist: bool = False
    ) -> None:
        self.path = Path(path).absolute()
        self.storage = Path(storage)
        self.lease = lease
        self.me = owners.this_process()
        self._lock = threading.Lock()
        self._renewed = -1e9
        if must_exist and not self.path.is_file():
            raise NotFoundError(f"{self.path}: there is no register; name the storage of the endpoint")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from None
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        try:
            found = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
            tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
            until = time.monotonic() + _BUSY
            while True:  # here SQLite does not wait for others who open a new file at the same time
                try:
                    run("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)
            run("PRAGMA synchronous = FULL")
            if not tables:
                self._create()
            elif found != (APPLICATION, VERSION):
                raise FormatError(f"{self.path}: is no register of an endpoint; choose another file")
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _create(self) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        if run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            statement = ""
            for piece in TABLES.split(";"):
                statement += piece
                if sqlite3.complete_statement(statement + ";"):
                    run(statement)
                    statement = ""
                else:
                    statement += ";"
        run("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failed(self, error: Exception) -> StorageError | FormatError:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return FormatError(f"{self.path}: is no register, or a damaged one ({error}); move it away")
        number = getattr(error, "errno", None) or errno.EIO
        return StorageError(
            number, f"the register cannot be used ({error}); look after its disk", str(self.path)
        )

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """A transaction that is durable at its end."""
        with self._lock:
            run = self._connection.execute
            try:
                run("BEGIN IMMEDIATE")
                try:
                    self._renew(run)
                    yield run
                    run("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        run("ROLLBACK")
                    self._renewed = -1e9
                    raise
            except sqlite3.Error as error:
                raise self._failed(error) from None

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from None

    # -- who lives

    def _renew(self, run: Callable[..., sqlite3.Cursor]) -> None:
        if time.monotonic() - self._renewed < self.lease / 8:
            return
        me = self.me
        run(
            "INSERT INTO owner VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET renewed = excluded.renewed",
            (me.name, me.host, me.boot, me.pid, me.started, owners.now()),
        )
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Says that we live; to be called more often than leases last."""
        with self._writing():
            pass

    def _dead(self, run: Callable[..., sqlite3.Cursor], ingester: str) -> list[str]:
        """Owners that claim something of an ingester and live no more."""
        known = {row[0]: row for row in run("SELECT name, host, boot, pid, started, renewed FROM owner")}
        dead = []
        claims = "SELECT DISTINCT owner FROM work WHERE ingester = ? AND state = 'PENDING'"
        for (name,) in run(claims, (ingester,)).fetchall():
            row = known.get(name)
            if name != self.me.name and (
                row is None
                or not owners.alive(owners.Owner(*row[:5]), row[5], owners.now(), self.lease, self.me)
            ):
                dead.append(name)
        return dead

    # -- files

    def known(self, crc32c: str, adler32: str, size: int) -> list[FileRow]:
        """Files of the storage that seem to have this content, the oldest first."""
        return self._files(
            "crc32c = ? AND adler32 = ? AND bytes = ? AND place = 'storage' AND alias_of IS NULL",
            (crc32c, adler32, size),
        )

    def file(self, file_id: int) -> FileRow:
        """Raises NotFoundError."""
        found = self._files("id = ?", (file_id,))
        if not found:
            raise NotFoundError(f"{self.path}: there is no file {file_id}")
        return found[0]

    def files(self, name: str) -> list[FileRow]:
        """All that came under a name: `directory/name`, or the name alone."""
        directory, _, filename = name.rpartition("/")
        if directory:
            return self._files("relpath = ? AND filename = ?", (directory, filename))
        return self._files("filename = ?", (filename,))

    def _files(self, where: str, values: Sequence[Any]) -> list[FileRow]:
        return [
            FileRow(*row) for row in self._read(f"SELECT {_FILE} FROM file WHERE {where} ORDER BY id", values)
        ]

    def enter(
        self,
        *,
        relpath: str,
        filename: str,
        crc32c: str,
        adler32: str,
        size: int,
        ingesters: Iterable[str],
        md5: str = "",
        place: str = "storage",
        alias_of: int | None = None,
        kept_as: str = "",
        message: str = "",
        begun_tai: float | None = None,
        state: State | None = None,
        first: State = "UNTRIED",
    ) -> tuple[int, bool]:
        """Enters a file that stands at its place, with the event of its taking in; its number, and whether it
        is new. What is known already gets the event alone. `first` is its first state with each ingester."""
        begun = tai() if begun_tai is None else begun_tai
        values = (relpath, filename, crc32c, adler32, md5, size, tai(), place, alias_of, kept_as)
        said = state or ("SUCCESS" if place == "storage" else "INVALID")
        with self._writing() as run:
            new = bool(
                run(
                    f"INSERT INTO file ({_FILE.partition(', ')[2]}) VALUES ({marks(values)})"
                    " ON CONFLICT DO NOTHING",
                    values,
                ).rowcount
            )
            file_id = run(
                "SELECT id FROM file WHERE relpath = ? AND filename = ? AND crc32c = ? AND adler32 = ?"
                " AND bytes = ? AND place = ?",
                (relpath, filename, crc32c, adler32, size, place),
            ).fetchone()[0]
            earlier = run(
                "SELECT count(*) FROM event WHERE file_id = ? AND ingester = ?", (file_id, INTAKE)
            ).fetchone()[0]
            self._event(run, file_id, INTAKE, earlier + 1, said, begun, tai() - begun, message)
            if new and place == "storage":
                for name in ingesters:
                    self._enrol(run, file_id, name, "IGNORED" if alias_of else first, alias_of)
        return int(file_id), new

    def _enrol(
        self,
        run: Callable[..., sqlite3.Cursor],
        file_id: int,
        ingester: str,
        state: str,
        alias_of: int | None,
    ) -> None:
        said = f"the same content is ingested as file {alias_of}" if alias_of else ""
        waits = 0.0 if state in ("UNTRIED", "RERUN") else _NEVER
        moment = tai()
        if run(
            "INSERT INTO work VALUES (?, ?, ?, 0, ?, ?, ?, '', ?) ON CONFLICT DO NOTHING",
            (file_id, ingester, state, moment, moment, waits, said),
        ).rowcount:
            self._event(run, file_id, ingester, 0, state, moment, None, said)

    def _event(
        self,
        run: Callable[..., sqlite3.Cursor],
        file_id: int,
        ingester: str,
        attempt: int,
        state: str,
        begun: float,
        duration: float | None,
        message: str,
    ) -> None:
        run(
            f"INSERT INTO event ({_EVENT.partition(', ')[2]}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(file_id, ingester, attempt, state, begun, duration),
                *(clean(message), __version__, self.me.name),
            ),
        )

    def enrol(self, ingester: str) -> int:
        """Gives an ingester the files that were stored before there was one; how many."""
        rows = self._read(
            "SELECT id, alias_of FROM file WHERE place = 'storage' AND NOT EXISTS"
            " (SELECT 1 FROM work WHERE ingester = ? AND file_id = file.id) ORDER BY id",
            (ingester,),
        )
        for some in parts(rows):
            with self._writing() as run:
                for file_id, alias_of in some:
                    self._enrol(run, file_id, ingester, "IGNORED" if alias_of else "UNTRIED", alias_of)
        return len(rows)

    # -- what is to be done

    def claim(self, ingester: str, most: int) -> list[Item]:
        """Takes on files whose time has come, the oldest first; also those of ingesters that died."""
        moment = tai()
        with self._writing() as run:
            for name in self._dead(run, ingester):
                for file_id, attempts, begun in run(
                    "SELECT file_id, attempts, begun_tai FROM work WHERE ingester = ? AND owner = ?"
                    " AND state = 'PENDING'",
                    (ingester, name),
                ).fetchall():
                    said = f"{name} died at it"
                    self._event(run, file_id, ingester, attempts, "UNKNOWN", begun, None, said)
                    run(
                        "UPDATE work SET state = 'UNKNOWN', owner = '', next_try = 0, message = ?"
                        " WHERE ingester = ? AND file_id = ?",
                        (said, ingester, file_id),
                    )
            rows = run(
                f"SELECT {', '.join(f'f.{column.strip()}' for column in _FILE.split(','))}, w.attempts"
                f" FROM work w JOIN file f ON f.id = w.file_id WHERE w.ingester = ? AND w.state IN {_OPEN}"
                " AND (w.next_try <= ? OR w.next_try BETWEEN ? AND ?) ORDER BY w.file_id LIMIT ?",
                # what waits longer than anything may is of a clock that was wrong
                (ingester, moment, moment + LONGEST_WAIT + 1, _NEVER / 2, most),
            ).fetchall()
            items = []
            for *columns, attempts in rows:
                row = FileRow(*columns)
                run(
                    "UPDATE work SET state = 'PENDING', owner = ?, begun_tai = ?, attempts = ?"
                    " WHERE ingester = ? AND file_id = ?",
                    (self.me.name, moment, attempts + 1, ingester, row.id),
                )
                self._event(run, row.id, ingester, attempts + 1, "PENDING", moment, None, "")
                items.append(self._item(row, attempts + 1))
        return items

    def _item(self, row: FileRow, attempt: int) -> Item:
        return Item(
            id=row.id,
            relpath=row.relpath,
            filename=row.filename,
            path=str(self.storage / row.relpath / row.filename),
            bytes=row.bytes,
            crc32c=row.crc32c,
            adler32=row.adler32,
            md5=row.md5,
            attempt=attempt,
        )

    def end(self, ingester: str, ends: Sequence[End]) -> int:
        """Writes how attempts ended, all at once; how many of them were still ours."""
        moment = tai()
        ours = 0
        with self._writing() as run:
            for end in ends:
                row = run(
                    "SELECT attempts, begun_tai FROM work WHERE ingester = ? AND file_id = ? AND owner = ?"
                    " AND state = 'PENDING'",
                    (ingester, end.file_id, self.me.name),
                ).fetchone()
                if row is None:
                    continue  # the lease ran out and somebody else took it over
                attempts, begun = row
                ours += 1
                said = clean(end.message)
                self._event(run, end.file_id, ingester, attempts, end.state, begun, moment - begun, said)
                run(
                    "UPDATE work SET state = ?, owner = '', attempts = ?, next_try = ?, message = ?"
                    " WHERE ingester = ? AND file_id = ?",
                    (
                        *(end.state, attempts if end.counts else attempts - 1),
                        _NEVER if end.retry_after is None else moment + min(end.retry_after, LONGEST_WAIT),
                        *(said, ingester, end.file_id),
                    ),
                )
        return ours

    def ended(self, ingester: str, state: State, after_id: int = 0, limit: int = 1000) -> list[Item]:
        """Files in a state, by their numbers: some at a time."""
        columns = ", ".join(f"f.{column.strip()}" for column in _FILE.split(","))
        rows = self._read(
            f"SELECT {columns} FROM work w JOIN file f ON f.id = w.file_id"
            " WHERE w.ingester = ? AND w.state = ? AND w.file_id > ? ORDER BY w.file_id LIMIT ?",
            (ingester, state, after_id, limit),
        )
        return [self._item(FileRow(*row), 0) for row in rows]

    def rerun(
        self,
        ingester: str | None = None,
        *,
        names: Sequence[str] = (),
        states: Sequence[State] = ("FAILURE", "UNKNOWN"),
    ) -> int:
        """Asks once more for what ended in one of these states; how many files that is. Raises NotFoundError
        for names that never came."""
        ids = [row.id for name in names for row in self.files(name)]
        if names and not ids:
            raise NotFoundError(f"{self.path}: no file {names[0][:200]!a} came; look at its name")
        asked = 0
        for some in parts(ids) if names else [[]]:
            where = f"state IN ({marks(states)}) AND state <> 'PENDING'"
            values: list[Any] = list(states)
            if ingester is not None:
                where, values = where + " AND ingester = ?", [*values, ingester]
            if some:
                where, values = where + f" AND file_id IN ({marks(some)})", [*values, *some]
            with self._writing() as run:
                rows = run(f"SELECT file_id, ingester FROM work WHERE {where}", values).fetchall()
                for file_id, name in rows:
                    self._event(run, file_id, name, 0, "RERUN", tai(), None, "")
                    run(
                        "UPDATE work SET state = 'RERUN', attempts = 0, next_try = 0, since_tai = ?"
                        " WHERE ingester = ? AND file_id = ?",
                        (tai(), name, file_id),
                    )
                asked += len(rows)
        return asked

    # -- what is known

    def events(self, file_id: int) -> list[EventRow]:
        """The whole history of a file, in its order."""
        rows = self._read(f"SELECT {_EVENT} FROM event WHERE file_id = ? ORDER BY id", (file_id,))
        return [EventRow(*row) for row in rows]

    def states(self, file_id: int) -> dict[str, str]:
        """Where a file stands with each ingester."""
        return dict(self._read("SELECT ingester, state FROM work WHERE file_id = ?", (file_id,)))

    def counts(self) -> dict[str, dict[str, int]]:
        """Files by ingester and state."""
        found: dict[str, dict[str, int]] = {}
        for name, state, number in self._read(
            "SELECT ingester, state, count(*) FROM work GROUP BY ingester, state ORDER BY ingester"
        ):
            found.setdefault(name, {})[state] = number
        return found

    def places(self) -> dict[str, int]:
        """Files by place, with aliases apart."""
        return dict(
            self._read(
                "SELECT CASE WHEN alias_of IS NULL THEN place ELSE 'alias' END AS kind, count(*) FROM file"
                " GROUP BY kind"
            )
        )

    def waiting(self, ingester: str) -> tuple[int, float]:
        """How many files an ingester has left to do, and for how many seconds the oldest has waited."""
        count, oldest = self._read(
            "SELECT count(*), min(since_tai) FROM work WHERE ingester = ?"
            f" AND (state = 'PENDING' OR state IN {_OPEN} AND next_try < ?)",
            (ingester, _NEVER / 2),
        )[0]
        return count, 0.0 if oldest is None else max(0.0, tai() - oldest)

    def dead_letters(self, limit: int = 100) -> list[tuple[FileRow, str, str, str]]:
        """Files that are not tried again by themselves and have not gone well: ingester, state, why."""
        columns = ", ".join(f"f.{column.strip()}" for column in _FILE.split(","))
        rows = self._read(
            f"SELECT {columns}, w.ingester, w.state, w.message FROM work w JOIN file f ON f.id = w.file_id"
            " WHERE w.state IN ('FAILURE', 'UNKNOWN', 'INVALID') AND w.next_try >= ? ORDER BY f.id LIMIT ?",
            (_NEVER / 2, limit),
        )
        return [(FileRow(*row[:-3]), *row[-3:]) for row in rows]

    def set_aside(self, limit: int = 100) -> list[tuple[FileRow, str]]:
        """Files that are not in the storage, and why; the newest first."""
        found = self._read(
            f"SELECT {_FILE}, (SELECT message FROM event WHERE file_id = file.id ORDER BY id DESC LIMIT 1)"
            " FROM file WHERE place <> 'storage' ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [(FileRow(*row[:-1]), row[-1]) for row in found]
