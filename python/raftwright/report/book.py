"""A ledger as reports read it: SQL of both databases, never a write, all of one moment.

It opens in a few milliseconds, without what the ledger of a service needs (its types, its clock, its lease).

Statements have `?` for values and take only what SQLite and PostgreSQL have in common.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from raftwright.errors import FormatError, MissingExtraError, NotFoundError, StorageError, UsageError

__all__ = ["Book", "Owner", "open_book"]

_LEASE = 10.0
_BUSY = 5.0
# As in raftwright.ledger, which would take a quarter of a second to import; tests compare them.
_APPLICATION = 0x52574C31  # "RWL1"
_VERSION = 4


class Owner(NamedTuple):
    """A process that works with the ledger."""

    name: str
    host: str
    pid: int
    alive: bool


class Book:
    """A ledger that is only read. Raises StorageError where it cannot be."""

    def __init__(self, connection: Any, shown: str, *, postgres: bool) -> None:
        self._connection = connection
        self.shown = shown
        """Where it is, without a password."""
        self.postgres = postgres

    def rows(self, statement: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The answer, row by row; few of them are in memory at a time."""
        try:
            if self.postgres:
                import uuid

                with self._connection.cursor(f"rows_{uuid.uuid4().hex}") as cursor:
                    cursor.itersize = 5000
                    cursor.execute(statement.replace("%", "%%").replace("?", "%s"), values)
                    yield from cursor
            else:
                yield from self._connection.execute(statement, values)
        except self._errors() as error:
            raise StorageError(
                None, f"the ledger cannot be read ({' '.join(str(error).split())[:300]})", self.shown
            ) from error

    def all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The answer as a list."""
        return list(self.rows(statement, *values))

    def value(self, statement: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        for row in self.rows(statement, *values):
            return row[0]
        return None

    def owners(self) -> list[Owner]:
        """Who works with the ledger, and who of them lives."""
        host = socket.gethostname()
        boot = _boot_id()
        found = []
        for name, where, its_boot, pid, started, renewed in self.all(
            "SELECT name, host, boot, pid, started, renewed FROM owner ORDER BY host, pid"
        ):
            lives = self._now() - float(renewed) < _LEASE
            if where == host and (its_boot != boot or _started(pid) != started):
                lives = False
            found.append(Owner(str(name), str(where), int(pid), lives))
        return found

    def _now(self) -> float:
        """By the clock that owners are renewed by."""
        if self.postgres:
            return float(self.value("SELECT extract(epoch FROM clock_timestamp())"))
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _errors(self) -> tuple[type[Exception], ...]:
        if self.postgres:
            import psycopg

            return (psycopg.Error,)
        return (sqlite3.Error,)

    def close(self) -> None:
        """Ends it."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_book(url: str) -> Book:
    """Of `sqlite:///PATH`, a bare path or `postgresql://…`. Raises NotFoundError, FormatError, StorageError,
    UsageError."""
    scheme, colon, rest = url.partition("://")
    if scheme.startswith(("postgresql", "postgres")) and colon:
        return _postgres(url)
    if colon and not scheme.startswith("sqlite"):
        raise UsageError(f"{url[:100]!r} is no ledger; give a path, sqlite:///PATH or postgresql://HOST/NAME")
    return _sqlite(Path(rest.removeprefix("/") if colon else url))


def _sqlite(path: Path) -> Book:
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no ledger; name its archive or give --ledger")
    try:
        try:
            connection, application, version = _connect(path, "mode=ro")
        except sqlite3.OperationalError:
            if os.path.lexists(f"{path}-wal"):
                raise
            # Nobody has it open, and we must not make the file that readers share: nothing changes under us.
            connection, application, version = _connect(path, "mode=ro&immutable=1")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise FormatError(f"{path}: is no ledger, or a damaged one ({error})") from None
        raise StorageError(None, f"the ledger cannot be read ({error})", str(path)) from error
    if application != _APPLICATION:
        connection.close()
        raise FormatError(f"{path}: is no ledger; name its archive or give --ledger")
    if version != _VERSION:
        connection.close()
        raise _other_version(str(path), version)
    return Book(connection, str(path), postgres=False)


def _other_version(where: str, version: object) -> FormatError:
    return FormatError(
        f"{where}: is a ledger of version {version}, this release reads {_VERSION}; bring it up to date "
        "with `raftwright ledger upgrade`, or use the release that it belongs to"
    )


def _connect(path: Path, how: str) -> tuple[sqlite3.Connection, int, int]:
    from urllib.parse import quote

    place = f"file:{quote(os.path.abspath(path))}?{how}"
    connection = sqlite3.connect(place, uri=True, timeout=_BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA mmap_size = 268435456")
        connection.execute("PRAGMA cache_size = -65536")
        # One moment for all that is asked.
        connection.execute("BEGIN")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection, application, version


def _postgres(url: str) -> Book:
    try:
        import psycopg
    except ImportError:
        raise MissingExtraError(
            "a ledger on PostgreSQL needs psycopg, which is not installed: pip install 'raftwright[postgres]'"
        ) from None
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    shown = f"postgresql://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    try:
        connection = psycopg.connect(url, connect_timeout=5)
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    except psycopg.Error as error:
        text = " ".join(str(error).split())[:300]
        raise StorageError(None, f"the ledger cannot be reached ({text})", shown) from error
    try:
        found = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    except psycopg.errors.UndefinedTable:
        found = None
    except psycopg.Error as error:
        connection.close()
        raise StorageError(None, f"the ledger cannot be read ({error})", shown) from error
    if found is None or found[0] != str(_VERSION):
        connection.close()
        if found is None:
            raise FormatError(f"{shown}: is no ledger; choose another database")
        raise _other_version(shown, found[0])
    return Book(connection, shown, postgres=True)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> int:
    """Start of a process in ticks since boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        after_name = text[text.rindex(")") + 2 :].split()
        return 0 if after_name[0] in "ZX" else int(after_name[19])
    except (OSError, ValueError, IndexError):
        return 0
