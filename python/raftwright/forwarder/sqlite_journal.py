"""The journal in one SQLite file, shared by the forwarders of one machine."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.forwarder import owners
from raftwright.forwarder.journal import ENDED, Claim, Entry, FileRow, Outcome, Unit, UnitKey
from raftwright.forwarder.owners import Owner

if TYPE_CHECKING:
    import os

__all__ = ["LEASE", "SqliteJournal", "open_journal"]

LEASE: Final = 10.0
"""Seconds that a claim outlives its last renewal."""

LONGEST_WAIT: Final = 600.0
"""Seconds that a unit may wait for its next try."""

_APPLICATION: Final = 0x52574A31  # "RWJ1"
_VERSION: Final = 1
_BUSY: Final = 20.0
_ASK_AT_A_TIME: Final = 500

_SCHEMA: Final = """
CREATE TABLE owner (
    name TEXT PRIMARY KEY, host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL,
    started INTEGER NOT NULL, renewed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE unit (
    image TEXT NOT NULL, daq_id TEXT NOT NULL, location TEXT NOT NULL, folder TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', expected INTEGER NOT NULL,
    received INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL, owner TEXT NOT NULL,
    created INTEGER NOT NULL, next_try REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (image, daq_id, location)) WITHOUT ROWID;
CREATE INDEX unit_state ON unit (state, next_try);
CREATE TABLE file (
    path TEXT PRIMARY KEY, image TEXT NOT NULL, daq_id TEXT NOT NULL, location TEXT NOT NULL,
    detector TEXT NOT NULL, version INTEGER NOT NULL, bytes INTEGER NOT NULL, adler32 TEXT NOT NULL,
    crc32c TEXT NOT NULL, missing INTEGER NOT NULL, status TEXT NOT NULL,
    replaces TEXT NOT NULL DEFAULT '', replaced_by TEXT NOT NULL DEFAULT '', written REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX file_image ON file (image, detector);
CREATE TABLE history (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, image TEXT NOT NULL,
    location TEXT NOT NULL, owner TEXT NOT NULL, detail BLOB NOT NULL);
"""

_UNIT: Final = (
    "image, daq_id, location, folder, state, reason, expected, received, attempts, owner, created, next_try"
)
_FILE: Final = (
    "image, daq_id, location, detector, version, path, bytes, adler32, crc32c, missing, status, replaces, "
    "replaced_by, written"
)


def open_journal(path: str | os.PathLike[str], *, read_only: bool = False) -> SqliteJournal:
    """The journal in a file, which is made if need be.

    Raises NotFoundError (read-only and not there), FormatError (the file is something else, or of another
    version), StorageError.
    """
    return SqliteJournal(path, read_only=read_only)


class SqliteJournal:
    """A `Journal`. Use `open_journal`."""

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, lease: float = LEASE
    ) -> None:
        self.path = Path(path)
        self.me: Owner = owners.this_process()
        self._lease = lease
        self._read_only = read_only
        self._lock = threading.Lock()
        self._closed = False
        if read_only and not self.path.is_file():
            raise NotFoundError(f"{self.path}: there is no such journal; name that of the forwarder")
        try:
            self._db = sqlite3.connect(
                f"file:{_quoted(self.path)}?mode={'ro' if read_only else 'rwc'}",
                uri=True,
                timeout=_BUSY,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._failed("opened", error) from error
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    @property
    def owner(self) -> str:
        """As `Journal.owner`."""
        return self.me.name

    # -- the file

    def _prepare(self) -> None:
        try:
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if self._read_only and tables == 0:
                raise NotFoundError(f"{self.path}: there is nothing in it yet; is it a forwarder's journal?")
            if not self._read_only and tables:
                self._check()
            if not self._read_only:
                # FULL: what is told by event is in the journal after a power cut too.
                self._use_wal()
                self._db.execute("PRAGMA synchronous = FULL")
                if tables == 0:
                    self._create()
            self._check()
        except sqlite3.DatabaseError as error:
            raise self._failed("opened", error) from error

    def _use_wal(self) -> None:
        """Here SQLite does not wait for others who open a new file at the same time."""
        until = time.monotonic() + _BUSY
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
                if not busy or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _check(self) -> None:
        """Whether it is ours."""
        try:
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise self._failed("opened", error) from error
        if application != _APPLICATION:
            raise FormatError(f"{self.path}: is no journal of a forwarder; choose another file")
        if version != _VERSION:
            raise FormatError(
                f"{self.path}: is a journal of version {version}, this release reads {_VERSION}; use one "
                "that knows it"
            )

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _failed(self, what: str, error: sqlite3.Error) -> StorageError | FormatError:
        code = getattr(error, "sqlite_errorname", "")
        if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return FormatError(
                f"{self.path}: is no journal, or a damaged one ({error}); move it away; a new one is made "
                "from the DAQ's catalogue and the archive"
            )
        return StorageError(
            28 if code == "SQLITE_FULL" else 5,
            f"the journal cannot be {what} ({error}); look after its disk, it is tried again",
            str(self.path),
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failed("written", error) from error

    def _read(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, tuple(values)).fetchall()
            except sqlite3.Error as error:
                raise self._failed("read", error) from error

    # -- claims

    def renew(self) -> None:
        """Says that we are alive."""
        with self._writing() as db:
            self._renew(db)

    def _renew(self, db: sqlite3.Connection) -> None:
        me = self.me
        db.execute(
            "INSERT INTO owner VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET renewed = excluded.renewed",
            (me.name, me.host, me.boot, me.pid, me.started, owners.now()),
        )

    def _living(self, db: sqlite3.Connection) -> set[str]:
        """Names of the owners that still have their claims."""
        rows = db.execute("SELECT name, host, boot, pid, started, renewed FROM owner").fetchall()
        return {row[0] for row in rows if owners.alive(Owner(*row[:5]), row[5], self._lease, self.me)}

    def claim(self, keys: Iterable[tuple[UnitKey, str, int]], *, again: bool = False) -> list[Claim]:
        """As `Journal.claim`."""
        wanted = list(keys)
        if not wanted:
            return []
        claims = []
        with self._writing() as db:
            self._renew(db)
            living = self._living(db)
            moment = time.time()
            for key, folder, expected in wanted:
                claim = self._claim_one(db, key, folder, expected, living, moment, again)
                if claim is not None:
                    claims.append(claim)
        return claims

    def _claim_one(
        self,
        db: sqlite3.Connection,
        key: UnitKey,
        folder: str,
        expected: int,
        living: set[str],
        moment: float,
        again: bool,
    ) -> Claim | None:
        where = (key.image, key.daq_id, key.location)
        row = db.execute(
            "SELECT state, owner, created, attempts, next_try FROM unit"
            " WHERE image = ? AND daq_id = ? AND location = ?",
            where,
        ).fetchone()
        if row is None:
            created = int(moment * 1000) * 1_000_000
            db.execute(
                f"INSERT INTO unit ({_UNIT}) VALUES (?, ?, ?, ?, 'claimed', '', ?, 0, 1, ?, ?, 0)",
                (*where, folder, expected, self.me.name, created),
            )
            self._note(db, moment, "claimed", key, {})
            return Claim(key, created, 1, False)
        state, owner, created, attempts, next_try = row
        if state in ENDED or (state == "claimed" and owner in living):
            return None
        if state != "claimed" and not again and _waits(next_try, moment):
            return None
        db.execute(
            "UPDATE unit SET state = 'claimed', owner = ?, attempts = ?, expected = ?, next_try = 0"
            " WHERE image = ? AND daq_id = ? AND location = ?",
            (self.me.name, attempts + 1, expected, *where),
        )
        taken = state == "claimed"
        self._note(db, moment, "taken over" if taken else "claimed", key, {"from": owner} if taken else {})
        return Claim(key, created, attempts + 1, taken, owner if taken else "")

    def holds(self, claim: Claim) -> bool:
        """As `Journal.holds`."""
        key = claim.key
        rows = self._read(
            "SELECT 1 FROM unit WHERE image = ? AND daq_id = ? AND location = ?"
            " AND state = 'claimed' AND owner = ? AND attempts = ?",
            (key.image, key.daq_id, key.location, self.me.name, claim.attempt),
        )
        return bool(rows)

    def end(self, claim: Claim, outcome: Outcome) -> bool:
        """As `Journal.end`."""
        key = claim.key
        moment = time.time()
        with self._writing() as db:
            for row in outcome.files:
                self._enter_file(db, row, moment)
            changed = db.execute(
                "UPDATE unit SET state = ?, reason = ?, received = ?, next_try = ?"
                " WHERE image = ? AND daq_id = ? AND location = ? AND state = 'claimed' AND owner = ?"
                " AND attempts = ?",
                (
                    outcome.state,
                    outcome.reason,
                    outcome.received,
                    0 if outcome.state in ENDED else moment + min(outcome.retry_after, LONGEST_WAIT),
                    key.image,
                    key.daq_id,
                    key.location,
                    self.me.name,
                    claim.attempt,
                ),
            ).rowcount
            detail: dict[str, Any] = {"attempt": claim.attempt, "received": outcome.received}
            if outcome.reason:
                detail["reason"] = outcome.reason
            if outcome.files:
                detail["files"] = [row.path for row in outcome.files]
            if not changed:
                detail["late"] = True
            self._note(db, moment, outcome.state, key, detail)
        return bool(changed)

    @staticmethod
    def _enter_file(db: sqlite3.Connection, row: FileRow, moment: float) -> None:
        """A file that is known keeps its row: the same bytes were found under the name."""
        values = [getattr(row, name.strip()) for name in _FILE.split(",")]
        values[-1] = row.written or moment
        db.execute(
            f"INSERT INTO file ({_FILE}) VALUES ({', '.join('?' * len(values))})"
            " ON CONFLICT (path) DO NOTHING",
            values,
        )
        if row.replaces:
            db.execute("UPDATE file SET replaced_by = ? WHERE path = ?", (row.path, row.replaces))

    def _note(
        self, db: sqlite3.Connection, moment: float, kind: str, key: UnitKey, detail: dict[str, Any]
    ) -> None:
        db.execute(
            "INSERT INTO history (at, kind, image, location, owner, detail) VALUES (?, ?, ?, ?, ?, ?)",
            (moment, kind, key.image, key.location, self.me.name, msgspec.json.encode(detail)),
        )

    # -- reading

    def settled(self, images: Collection[str]) -> set[UnitKey]:
        """As `Journal.settled`."""
        found: set[UnitKey] = set()
        moment = time.time()
        with self._lock:
            try:
                living = self._living(self._db)
                for part in _parts(images):
                    rows = self._db.execute(
                        "SELECT image, daq_id, location, state, owner, next_try FROM unit"
                        f" WHERE image IN ({', '.join('?' * len(part))})",
                        part,
                    )
                    for image, daq_id, location, state, owner, next_try in rows:
                        busy = owner in living if state == "claimed" else _waits(next_try, moment)
                        if state in ENDED or busy:
                            found.add(UnitKey(image, daq_id, location))
            except sqlite3.Error as error:
                raise self._failed("read", error) from error
        return found

    def units(self, images: Collection[str] | None = None) -> Iterator[Unit]:
        """As `Journal.units`."""
        for row in self._of_images("unit", _UNIT, "image, location", images):
            yield Unit(**dict(zip(Unit.__struct_fields__, row, strict=True)))

    def files(self, images: Collection[str] | None = None) -> Iterator[FileRow]:
        """As `Journal.files`."""
        for row in self._of_images("file", _FILE, "image, detector, version", images):
            yield FileRow(**dict(zip(FileRow.__struct_fields__, row, strict=True)))

    def _of_images(
        self, table: str, columns: str, order: str, images: Collection[str] | None
    ) -> Iterator[tuple[Any, ...]]:
        if images is None:
            yield from self._read(f"SELECT {columns} FROM {table} ORDER BY {order}")
            return
        for part in _parts(images):
            marks = ", ".join("?" * len(part))
            yield from self._read(
                f"SELECT {columns} FROM {table} WHERE image IN ({marks}) ORDER BY {order}", part
            )

    def history(self, after: int = 0) -> Iterator[Entry]:
        """As `Journal.history`."""
        for row in self._read("SELECT * FROM history WHERE number > ? ORDER BY number", (after,)):
            number, at, kind, image, location, owner, detail = row
            yield Entry(number, at, kind, image, location, owner, msgspec.json.decode(detail))

    def unfinished(self, most: int) -> list[Unit]:
        """As `Journal.unfinished`."""
        rows = self._read(
            f"SELECT {_UNIT} FROM unit WHERE state IN ('incomplete', 'failed') ORDER BY next_try LIMIT ?",
            (most,),
        )
        return [Unit(**dict(zip(Unit.__struct_fields__, row, strict=True))) for row in rows]

    def counts(self) -> dict[str, int]:
        """As `Journal.counts`."""
        return dict(self._read("SELECT state, count(*) FROM unit GROUP BY state"))

    # -- the end

    def close(self) -> None:
        """As `Journal.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._read_only:
                with self._writing() as db:
                    db.execute(
                        "UPDATE unit SET state = 'open', reason = 'given back'"
                        " WHERE state = 'claimed' AND owner = ?",
                        (self.me.name,),
                    )
                    db.execute("DELETE FROM owner WHERE name = ?", (self.me.name,))
        finally:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _waits(next_try: float, moment: float) -> bool:
    """Whether the time has not come. One that is too far away was written before the clock was set back."""
    return moment < next_try <= moment + LONGEST_WAIT


def _parts(images: Collection[str]) -> Iterator[list[str]]:
    names = sorted(images)
    for begin in range(0, len(names), _ASK_AT_A_TIME):
        yield names[begin : begin + _ASK_AT_A_TIME]


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))
