"""The ledger in PostgreSQL, shared by the services of many machines."""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from raftwright.errors import FormatError, MissingExtraError, NotFoundError, StorageError, UsageError
from raftwright.ledger.database import BUSY, Database, Retry, Row, Transaction
from raftwright.ledger.version import APPLICATION, check_version

try:
    import psycopg
    from psycopg import errors as pg
except ImportError as error:  # pragma: no cover - the test environment has it
    raise MissingExtraError(
        "a ledger in PostgreSQL needs psycopg; install it with `pip install 'raftwright[postgres]'`"
    ) from error

if TYPE_CHECKING:
    from raftwright.errors import RaftwrightError

__all__ = ["PostgresDatabase"]

T = TypeVar("T")

_log = logging.getLogger("raftwright.ledger")

_EVENTS_LOCK: Final = APPLICATION
"""Whoever writes events has it until the commit, so that their numbers appear in their order."""
_TABLES_LOCK: Final = APPLICATION + 1
_KEPT: Final = 4
"""Connections for reading that are kept."""
_TRIES: Final = 20
_PATIENCE: Final = 5.0
"""Seconds for which a lost connection is made again before the caller is told."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_AGAIN: Final = (
    Retry,
    *(pg.SerializationFailure, pg.DeadlockDetected),
    pg.UniqueViolation,  # somebody entered the same
    pg.DivisionByZero,  # somebody changed the same: see `update`
)
_CONNECT: Final = 5
_STATEMENT: Final = 120
"""Seconds that a statement may take."""
_IDLE: Final = 30
"""Seconds that a transaction may do nothing: who was stopped in it gives up what he has locked."""
_LOST: Final = (psycopg.OperationalError, psycopg.InterfaceError)

_BIG: Final = (
    *(
        "id",
        "image_id",
        "file_id",
        "container_id",
        "number",
        "bytes",
        "expected",
        "received",
        "created",
        "missing",
        "missing_pixels",
    ),
    *("started", "exposure_id", "count"),
)
_INTEGERS: Final = (
    *("version", "attempts", "dayobs", "seqnum", "priority", "rank", "pid"),
    *("expected_sources", "expected_detectors", "cur_index", "custodial", "code", "pinned"),
)
_NUMBERS: Final = ("next_try", "renewed", "exposure_time", "ra", "dec")
_BY_INDEX: Final = "; ".join(
    f"SET {name}"
    for name in (
        *("enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off"),
        *("enable_material = off", "enable_bitmapscan = off"),
        "plan_cache_mode = force_generic_plan",
    )
)
"""Of the connection that writes: all that it looks for has an index, whatever statistics say of a table
that grew since."""
_TYPES: Final = {
    **dict.fromkeys(_BIG, "bigint"),
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys(_NUMBERS, "double precision"),
}


def _type_of(column: str) -> str:
    return "double precision" if column.endswith("_tai") else _TYPES.get(column, "text")


@functools.lru_cache(maxsize=1024)
def _translated(sql: str) -> str:
    """Statements are written with `?`, psycopg wants `%s`."""
    return sql.replace("%", "%%").replace("?", "%s")


def _arrays(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Each column of some rows as the text of an array. Text of arrays and JSON differ in their brackets, and
    in how they write control characters."""
    arrays = []
    for column in zip(*rows, strict=True):
        data = msgspec.json.encode(column)
        if b"\\" in data.replace(b"\\\\", b"").replace(b'\\"', b""):
            parts = (
                msgspec.json.encode(part) if not isinstance(part, str) else _quoted(part) for part in column
            )
            data = b"[" + b",".join(parts) + b"]"
        arrays.append("{" + data[1:-1].decode() + "}")
    return arrays


def _quoted(text: str) -> bytes:
    return b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


class PostgresTransaction(Transaction):
    """A transaction of PostgreSQL: rows that are going to be changed are locked when they are read."""

    lock = " FOR NO KEY UPDATE"
    skip = " FOR NO KEY UPDATE SKIP LOCKED"
    CLOCK = "extract(epoch FROM clock_timestamp())::float8"

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        super().__init__()
        self._connection = connection

    # The connection is in pipeline mode: statements go out at once, an answer is read when it is asked for.

    def _send(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        return self._connection.cursor().execute(sql, values)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._send(_translated(sql), values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        if not sql.startswith(("UPDATE", "INSERT", "DELETE")):
            self._send(_translated(sql), values)
            return 0
        return self._counted(f"{_translated(sql)} RETURNING 1", values)

    def _counted(self, sql: str, values: Sequence[Any]) -> int:
        return int(self._send(f"WITH done AS ({sql}) SELECT count(*) FROM done", values).fetchall()[0][0])

    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, new: bool = False
    ) -> int:
        """All rows in one statement, as one array a column."""
        if not rows:
            return 0
        arrays = ", ".join(f"%s::{_type_of(column)}[]" for column in columns)
        names = ", ".join(columns)
        conflict = "" if new else " ON CONFLICT DO NOTHING"
        statement = f"INSERT INTO {table} ({names}) SELECT new.* FROM unnest({arrays}) AS new{conflict}"
        if table == "event":  # their numbers are given with the lock held, which is until the commit
            lock = f"WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock({_EVENTS_LOCK}))"
            statement = f"{lock} {statement.replace('FROM unnest', 'FROM alone, unnest')}"
        if not new:
            return self._counted(f"{statement} RETURNING 1", _arrays(rows))
        self._send(statement, _arrays(rows))
        return len(rows)

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        kind = _type_of(column.rpartition(".")[2])
        return f"{column} = ANY(?::{kind}[])", _arrays([(value,) for value in values])

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
        """All rows in one statement, likewise. Each is looked up by its key: that `where` could be too is
        hidden, since rows in a state may be many."""
        if not rows:
            return
        columns = (*sets, *by)
        arrays = ", ".join(f"%s::{_type_of(column)}[]" for column in columns)
        names = [f"new_{number}" for number in range(len(columns))]
        values = ", ".join(f"{column} = {name}" for column, name in zip(sets, names, strict=False))
        keys = " AND ".join(
            f"{table}.{column} = {name}" for column, name in zip(by, names[len(sets) :], strict=True)
        )
        statement = (
            f"UPDATE {table} SET {values} FROM unnest({arrays}) AS new ({', '.join(names)})"
            f" WHERE {keys}{f' AND ({where}) IS TRUE' if where else ''}"
        )
        if exact:  # an error, which nobody has to wait for, where it is another number
            counted = "SELECT 1 / (count(*) = %s)::int FROM done"
            self._send(f"WITH done AS ({statement} RETURNING 1) {counted}", [*_arrays(rows), len(rows)])
        else:
            self._send(statement, _arrays(rows))

    def clock(self) -> float:
        return float(self.rows(f"SELECT {self.CLOCK}")[0][0])


class PostgresDatabase(Database):
    """A ledger in a database that is there; its tables are made if need be.

    Raises NotFoundError (read-only and no tables), FormatError (something else, or of another version),
    StorageError, UsageError (the URL).
    """

    dialect = "postgresql"

    def __init__(self, url: str, owner: str, *, read_only: bool = False, busy: float = BUSY) -> None:
        super().__init__(owner)
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme.partition('+')[0]}://{rest}"
        self._busy = busy
        self._read_only = read_only
        try:
            parts = psycopg.conninfo.conninfo_to_dict(self._url)
        except psycopg.Error as error:
            raise UsageError(f"{_hidden(url)}: cannot be read as a URL of PostgreSQL ({error})") from None
        self.where = "postgresql://{}{}/{}".format(
            parts.get("host") or "",
            f":{parts['port']}" if parts.get("port") else "",
            parts.get("dbname") or "",
        )
        self._lock = threading.Lock()
        self._idle: list[psycopg.Connection[Row]] = []
        self._writer: psycopg.Connection[Row] | None = None
        self._down_since: float | None = None
        self._closed = False
        self._prepare()

    # -- connections

    def _connect(self) -> psycopg.Connection[Row]:
        """A connection. Raises what psycopg raises."""
        if self._closed:
            raise StorageError(errno.EBADF, "the ledger is closed", self.where)
        milliseconds = {
            "lock_timeout": self._busy * 1000,
            "statement_timeout": _STATEMENT * 1000,
            "idle_in_transaction_session_timeout": _IDLE * 1000,
        }
        connection: psycopg.Connection[Row] = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT,
            application_name=f"raftwright {self._owner}"[:63],
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        try:
            sets = "; ".join(f"SET {name} = {max(1, int(value))}" for name, value in milliseconds.items())
            # Whatever the server's default is: what was told is in the ledger after a power cut too.
            connection.execute(f"{sets}; SET synchronous_commit = on; SET timezone = 'UTC'; SET jit = off")
            connection.execute("SET default_transaction_isolation = 'read committed'")
        except BaseException:
            connection.close()
            raise
        self._down_since = None
        return connection

    def _prepare(self) -> None:
        """Looks whether it is a ledger of this version; makes the tables of an empty one."""

        def look(connection: psycopg.Connection[Row]) -> str | None:
            if connection.execute("SELECT to_regclass('information')").fetchall()[0][0] is None:
                return None
            rows = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchall()
            return str(rows[0][0]) if rows else ""

        with self._borrowed("opened") as connection:
            found = look(connection)
            if found is None:
                if self._read_only:
                    raise NotFoundError(f"{self.where}: there is no ledger in this database yet")
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_TABLES_LOCK,))
                    if look(connection) is None:
                        self._create(connection)
                found = look(connection)
            if not found or not found.isdecimal():
                raise FormatError(f"{self.where}: is no ledger; choose another database or schema")
            check_version(int(found), self.where)

    def _create(self, connection: psycopg.Connection[Row]) -> None:
        script = resources.files("raftwright.ledger").joinpath("ddl/postgresql.sql").read_text("utf-8")
        try:
            connection.execute(script.encode())
        except pg.DuplicateTable as error:
            raise FormatError(
                f"{self.where}: has tables of somebody else ({error.diag.message_primary}); "
                "choose another database or schema"
            ) from error

    # -- when the server is not there

    def _lost(self, error: BaseException) -> bool:
        """Whether it is the connection that failed, and another may do."""
        if isinstance(error, pg.QueryCanceled | pg.LockNotAvailable | pg.DiskFull):
            return False
        if isinstance(error, pg.AdminShutdown | pg.CrashShutdown | pg.CannotConnectNow):
            return True
        if isinstance(error, pg.IdleInTransactionSessionTimeout):
            return True
        state = getattr(error, "sqlstate", None)
        return isinstance(error, _LOST) and (state is None or state[:2] in ("08", "57"))

    def _wait(self, began: float, attempt: int) -> bool:
        """Waits before another attempt; False where the caller is to be told now."""
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
        pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        # While it has been down for long nobody waits: whoever calls has patience of his own.
        if now + pause > min(began, self._down_since) + min(_PATIENCE, self._busy):
            return False
        time.sleep(pause)
        return True

    def _failed(self, what: str, error: BaseException) -> RaftwrightError:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, psycopg.DataError | psycopg.ProgrammingError | OverflowError | UnicodeError):
            if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn):
                return FormatError(
                    f"{self.where}: lacks a table of the ledger ({said}); upgrade or rebuild it"
                )
            if isinstance(error, pg.InsufficientPrivilege):
                return StorageError(errno.EACCES, f"the ledger cannot be {what} ({said})", self.where)
            return UsageError(f"{self.where}: a value cannot be entered in the ledger ({said})")
        if isinstance(error, pg.DiskFull):
            number = errno.ENOSPC
        elif isinstance(error, pg.LockNotAvailable | pg.QueryCanceled):
            number = errno.EAGAIN
        else:
            number = errno.ECONNREFUSED if self._lost(error) else errno.EIO
        return StorageError(
            number,
            f"the ledger cannot be {what} ({said}); look after its server, it is tried again",
            self.where,
        )

    # -- transactions

    def transaction(self, work: Callable[[Transaction], T]) -> T:
        if self._read_only:
            raise UsageError(f"{self.where}: the ledger is open for reading only")
        began = time.monotonic()
        tries = attempt = 0
        while True:
            try:
                if self._writer is None:
                    self._writer = self._connect()
                    self._writer.execute(_BY_INDEX)
                transaction = PostgresTransaction(self._writer)
                with self._pipeline(self._writer):
                    result = work(transaction)
                    transaction.write_events(self._owner)
                for done in transaction.afterwards:
                    done()
                return result
            except _AGAIN as error:
                tries += 1
                if tries >= _TRIES:
                    raise StorageError(
                        errno.EAGAIN, "others change the same again and again; do it later", self.where
                    ) from error
                time.sleep(0.002 * tries)
            except (psycopg.Error, OverflowError, UnicodeError) as error:
                if not self._lost(error):
                    if self._writer is not None and self._writer.closed:
                        self._writer = None
                    raise self._failed("written", error) from error
                self._drop()
                if not self._wait(began, attempt):
                    raise self._failed("written", error) from error
                attempt += 1
            except BaseException:
                if self._writer is not None and self._writer.broken:
                    self._drop()
                raise

    @staticmethod
    @contextmanager
    def _pipeline(connection: psycopg.Connection[Row]) -> Iterator[None]:
        """A transaction whose statements go out without waiting for the answers of those before, the COMMIT
        too: after a statement that failed the server does nothing more."""
        try:
            with connection.pipeline():
                connection.execute("BEGIN")
                yield
                connection.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                with suppress(psycopg.Error):  # then it is of no use any more
                    connection.rollback()
            raise

    def _drop(self) -> None:
        """Closes connections that may be of a server that is no more."""
        with self._lock:
            closing = [*self._idle, *([self._writer] if self._writer is not None else [])]
            self._idle, self._writer = [], None
            self.generation += 1
        for connection in closing:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def _borrowed(self, what: str) -> Iterator[psycopg.Connection[Row]]:
        began = time.monotonic()
        attempt = 0
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            try:
                if connection is None:
                    connection = self._connect()
                else:
                    connection.execute("SELECT 1")
                break
            except psycopg.Error as error:
                if connection is not None:
                    connection.close()
                if not self._lost(error):
                    raise self._failed(what, error) from error
                if connection is None and not self._wait(began, attempt):
                    raise self._failed(what, error) from error
                attempt += 1
        try:
            yield connection
        except (psycopg.Error, OverflowError, UnicodeError) as error:
            connection.close()
            raise self._failed(what, error) from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < _KEPT and not self._closed and not connection.closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with self._borrowed("read") as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield PostgresTransaction(connection)
            connection.execute("COMMIT")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._borrowed("read") as connection:
            return connection.execute(_translated(sql), values).fetchall()

    def close(self) -> None:
        self._closed = True
        self._drop()


def _hidden(url: str) -> str:
    """A URL without its password."""
    head, separator, tail = url.rpartition("@")
    scheme, _, credentials = head.partition("://")
    return f"{scheme}://{credentials.partition(':')[0]}{separator}{tail}" if separator else url
