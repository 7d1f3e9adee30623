"""Bringing a ledger up to date: `raftwright ledger upgrade`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftwright.errors import FormatError, MissingExtraError, NotFoundError, StorageError
from raftwright.ledger.version import APPLICATION, JOURNAL, REVISION, VERSION

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

__all__ = ["engine_of", "kept_copy", "upgrade"]


def engine_of(url: str | os.PathLike[str]) -> Engine:
    """SQLAlchemy's door to a ledger, for reports and migrations: a path, `sqlite:///path` or `postgresql://…`.

    Raises MissingExtraError.
    """
    try:
        import sqlalchemy
        from sqlalchemy import event
    except ImportError as error:
        raise MissingExtraError(
            "this needs SQLAlchemy and Alembic; install them with `pip install 'raftwright[ledger]'`"
        ) from error
    where = os.fspath(url)
    scheme, separator, rest = where.partition("://")
    if separator and scheme.partition("+")[0] in ("postgresql", "postgres"):
        return sqlalchemy.create_engine(f"postgresql+psycopg://{rest}")
    engine = sqlalchemy.create_engine(f"sqlite:///{Path(where.removeprefix('sqlite:///')).absolute()}")

    # Transactions are ours, so that tables are changed at once or not at all.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def upgrade(url: str | os.PathLike[str]) -> tuple[int, int]:
    """Brings a ledger to the version of this release, at once or not at all; from which version to which.

    An empty database becomes an empty ledger: from version 0. Of an SQLite file that changes, the one
    of before stays beside it as `<name>.v<version>`.

    Raises NotFoundError, FormatError (no ledger, or one of a later release), MissingExtraError, StorageError.
    """
    engine = engine_of(url)
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import SQLAlchemyError

    config = Config()
    config.set_main_option("script_location", "raftwright.ledger:migrations")
    try:
        _keep(engine, url)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION + 1})")
            before = _version(connection, os.fspath(url))
            if before != VERSION:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION}")
                    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            if (after := _version(connection, os.fspath(url))) != VERSION:
                raise FormatError(f"{url}: migrations led to version {after}, not {VERSION} ({REVISION})")
        return before, after
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StorageError(
            5,
            f"the ledger cannot be upgraded ({' '.join(str(error).split())[:300]}); it is as it was",
            os.fspath(url),
        ) from error
    finally:
        engine.dispose()


def _version(connection: Connection, where: str) -> int:
    """Of a ledger that is open; 0: there is nothing in it."""
    from sqlalchemy import inspect

    tables = set(inspect(connection).get_table_names())
    if not tables:
        return 0
    if "information" not in tables:
        raise FormatError(f"{where}: is no ledger; choose another database")
    if connection.dialect.name == "sqlite":
        application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        if application not in (APPLICATION, 0):
            raise FormatError(f"{where}: is no ledger; choose another file")
    found = connection.exec_driver_sql("SELECT value FROM information WHERE name = 'version'").scalar()
    if not isinstance(found, str) or not found.isdecimal():
        raise FormatError(f"{where}: is no ledger; choose another database")
    if int(found) > VERSION:
        raise FormatError(
            f"{where}: is a ledger of version {found}, this release knows {VERSION}; use a later one"
        )
    return int(found)


def kept_copy(url: str | os.PathLike[str], version: int) -> Path | None:
    """Where an SQLite file stands as it was with an earlier version; None where there is none."""
    kept = _kept_name(Path(os.fspath(url).removeprefix("sqlite:///")), version)
    return kept if kept.is_file() else None


def _kept_name(path: Path, version: int) -> Path:
    return path.with_name(f"{path.name}.v{version}")


def _keep(engine: Engine, url: str | os.PathLike[str]) -> None:
    """A copy of an SQLite file that is about to change."""
    if engine.dialect.name != "sqlite":
        return
    path = Path(str(engine.url.database))
    if not path.is_file():
        raise NotFoundError(f"{url}: there is no such ledger")
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        application = source.execute("PRAGMA application_id").fetchone()[0]
        if application == JOURNAL:
            raise FormatError(
                f"{path}: is the journal of a forwarder of an earlier release; what it knew is found again "
                "in the archive with `raftwright ledger rebuild`"
            )
        version = source.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION or version >= VERSION:
            return
        kept = _kept_name(path, version)
        if not kept.exists():
            copy = sqlite3.connect(kept)
            try:
                source.backup(copy)
            finally:
                copy.close()
    finally:
        source.close()
