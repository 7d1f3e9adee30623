"""The ledger in one SQLite file, shared by the services of one machine."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.ledger import owners
from raftwright.ledger.database import BUSY, Database, Retry, Row, Transaction, marks
from raftwright.ledger.version import APPLICATION, JOURNAL, VERSION, check_version

__all__ = ["SqliteDatabase"]

T = TypeVar("T")

_KEPT: Final = 4
"""Connections for reading that are kept."""
_TRIES: Final = 20
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 0.04
"""Seconds between two tries to write while another does."""


class SqliteTransaction(Transaction):
    """A transaction of SQLite: only one at a time writes, so that nothing has to be locked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, values).rowcount

    def _many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        return self._connection.executemany(sql, rows).rowcount if rows else 0

    def insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        new: bool = False,  # noqa: ARG002 - nobody can be quicker
    ) -> int:
        return self._many(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            " ON CONFLICT DO NOTHING",
            rows,
        )

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        return f"{column} IN ({marks(values)})", values

    def update(
        self,
        table: str,
        sets: Sequence[str],
        by: Sequence[str],
        rows: Sequence[Sequence[Any]],
        where: str = "",
        *,
        exact: bool = False,
    ) -> None:
        changed = self._many(
            f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in sets)}"
            f" WHERE {' AND '.join(f'{name} = ?' for name in by)}{f' AND {where}' if where else ''}",
            rows,
        )
        if exact and changed != len(rows):
            raise Retry

    def clock(self) -> float:
        return owners.now()


class SqliteDatabase(Database):
    """A ledger in a file, which is made if need be.

    Raises NotFoundError (read-only and not there), FormatError (something else, or of another version),
    StorageError.
    """

    dialect = "sqlite"

    def __init__(
        self, path: str | os.PathLike[str], owner: str, *, read_only: bool = False, busy: float = BUSY
    ) -> None:
        super().__init__(owner)
        self.path = Path(path).absolute()
        self.where = str(self.path)
        self._busy = busy
        self._read_only = read_only
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._retired: list[sqlite3.Connection] = []
        self._identity: tuple[int, int] | None = None
        self._closed = False
        self._open()

    # -- the file

    def _open(self) -> None:
        """Opens the file, and makes it what it should be."""
        if self._read_only and not self.path.is_file():
            raise NotFoundError(f"{self.path}: there is no such ledger; name that of the services")
        if not self._read_only:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    error.errno, f"cannot make the ledger's directory: {error.strerror}", self.where
                ) from error
        connection = self._connect(writing=not self._read_only)
        try:
            self._prepare(connection)
            self._identity = self._on_disk()
        except BaseException:
            connection.close()
            raise
        if self._read_only:
            self._idle.append(connection)
        else:
            connection.execute("PRAGMA busy_timeout = 0")  # it waits by `_begin`
            self._writer = connection

    def _connect(self, *, writing: bool) -> sqlite3.Connection:
        mode = "rwc" if writing else "ro" if self._read_only else "rw"
        try:
            connection = sqlite3.connect(
                f"file:{quote(self.where)}?mode={mode}",
                uri=True,
                timeout=self._busy,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            # FULL: what was told is in the ledger after a power cut too.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            if not writing:
                connection.execute("PRAGMA query_only = ON")
            return connection
        except sqlite3.Error as error:
            raise self._failed("opened", error) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables:
                self._check(connection)
            elif self._read_only:
                raise NotFoundError(f"{self.path}: there is nothing in it yet; is it a ledger?")
            if not self._read_only:
                self._use_wal(connection)
                if not tables:
                    self._create(connection)
                    self._check(connection)
        except sqlite3.DatabaseError as error:
            raise self._failed("opened", error) from error

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Here SQLite does not wait for others who open a new file at the same time."""
        until = time.monotonic() + self._busy
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _check(self, connection: sqlite3.Connection) -> None:
        """Whether it is ours."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application == JOURNAL:
            raise FormatError(
                f"{self.path}: is the journal of a forwarder of an earlier release; choose another file "
                "for the ledger: what it knew is found again in the archive (`raftwright ledger rebuild`)"
            )
        if application != APPLICATION:
            raise FormatError(f"{self.path}: is no ledger; choose another file")
        check_version(connection.execute("PRAGMA user_version").fetchone()[0], self.where)

    def _create(self, connection: sqlite3.Connection) -> None:
        script = resources.files("raftwright.ledger").joinpath("ddl/sqlite.sql").read_text("utf-8")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.where)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _look(self) -> None:
        """Opens the file anew where another one has its name now: it was deleted, or an older one was put
        back. What is written into a file without a name is lost when the last one closes it."""
        if self._on_disk() == self._identity and (self._writer is not None or self._read_only):
            return
        with self._lock:
            if self._closed:
                raise StorageError(errno.EBADF, "the ledger is closed", self.where)
            if self._on_disk() == self._identity and (self._writer is not None or self._read_only):
                return
            for connection in self._idle:
                connection.close()
            self._idle = []
            if self._writer is not None:
                self._retired.append(self._writer)  # another thread may be at it
                self._writer = None
            self.generation += 1
            self._open()

    def _failed(self, what: str, error: BaseException) -> RaftwrightError:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return FormatError(
                f"{self.path}: is no ledger, or a damaged one ({error}); move it away, with its -wal and "
                "-shm, and make a new one from the archive with `raftwright ledger rebuild`"
            )
        if isinstance(
            error, OverflowError | UnicodeError | sqlite3.InterfaceError | sqlite3.ProgrammingError
        ):
            if "closed" in str(error):
                return StorageError(errno.EBADF, "the ledger is closed", self.where)
            return UsageError(f"{self.path}: a value cannot be entered in the ledger ({error})")
        return StorageError(
            errno.ENOSPC if code == "SQLITE_FULL" else errno.EAGAIN if _is_busy(error) else errno.EIO,
            f"the ledger cannot be {what} ({error}); look after its disk, it is tried again",
            self.where,
        )

    # -- transactions

    def transaction(self, work: Callable[[Transaction], T]) -> T:
        for _ in range(_TRIES):
            self._look()
            connection = self._writer
            self._close_retired()
            if connection is None:
                if not self._read_only:
                    continue  # another thread is opening the file anew this moment
                raise UsageError(f"{self.path}: the ledger is open for reading only")
            try:
                self._begin(connection)
                try:
                    transaction = SqliteTransaction(connection)
                    result = work(transaction)
                    transaction.write_events(self._owner)
                    connection.execute("COMMIT")
                    if self._on_disk() != self._identity:
                        raise Retry  # it was deleted meanwhile, and the commit with it
                    for done in transaction.afterwards:
                        done()
                    return result
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except Retry:
                continue
            except (sqlite3.Error, OverflowError, UnicodeError) as error:
                raise self._failed("written", error) from error
        raise StorageError(errno.EAGAIN, "others change the same again and again; do it later", self.where)

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Waits until it is our turn to write. SQLite itself would sleep for a tenth of a second between two
        tries: of hundreds who write some would wait for seconds, and nobody write most of the time."""
        until = time.monotonic() + self._busy
        pause = _FIRST_PAUSE
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= until:
                    raise
            time.sleep(random.uniform(pause / 4, pause))
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def _close_retired(self) -> None:
        """Connections to files that have no name any more; called by whoever writes."""
        while self._retired:
            self._retired.pop().close()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        self._look()
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            identity = self._identity
        if connection is None:
            connection = self._connect(writing=False)
        try:
            connection.execute("BEGIN")
            try:
                yield SqliteTransaction(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            connection.close()
            raise self._failed("read", error) from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < _KEPT and not self._closed and identity == self._identity:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._close_retired()
            for connection in self._idle:
                connection.close()
            self._idle = []
            if self._writer is not None:
                self._writer.close()
                self._writer = None


def _is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
