"""The ledger as its users see it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Self

from raftwright.errors import RaftwrightError, UsageError
from raftwright.ledger import owners
from raftwright.ledger.claims import Claims
from raftwright.ledger.containers import Containers
from raftwright.ledger.database import BUSY
from raftwright.ledger.deliveries import Deliveries
from raftwright.ledger.files import Files
from raftwright.ledger.headers import Headers
from raftwright.ledger.history import Attempts, Events
from raftwright.ledger.images import Images
from raftwright.ledger.ingests import Ingests
from raftwright.ledger.leases import LEASE, Leases
from raftwright.ledger.quarantine import Quarantine
from raftwright.ledger.replicas import Replicas
from raftwright.ledger.roles import Roles
from raftwright.ledger.tags import Tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raftwright.ledger.database import Database, Row

__all__ = ["Ledger", "open_ledger"]

_log = logging.getLogger("raftwright.ledger")

_SQLITE = "sqlite:///"


def open_ledger(
    url: str | os.PathLike[str],
    *,
    read_only: bool = False,
    lease: float = LEASE,
    busy: float = BUSY,
) -> Ledger:
    """The ledger in a file (`sqlite:///path` or a path) or in PostgreSQL (`postgresql://…`). One that is not
    there is made.

    Parameters
    ----------
    url : str or path-like
        Where it is.
    read_only : bool
        Nothing is written, not even that we are here.
    lease : float
        Seconds that what we claim outlives our last renewal.
    busy : float
        Seconds that we wait for what another has locked.

    Raises
    ------
    NotFoundError
        It is to be read and is not there.
    FormatError
        It is something else, damaged, or of another version.
    StorageError
        It cannot be opened now.
    UsageError
        The URL is none; MissingExtraError: PostgreSQL without `raftwright[postgres]`.
    """
    me = owners.this_process()
    return Ledger(_open(os.fspath(url), me.name, read_only, busy), Leases, me, lease, read_only=read_only)


def _open(url: str, owner: str, read_only: bool, busy: float) -> Database:
    scheme, separator, _ = url.partition("://")
    scheme = scheme.partition("+")[0]
    if separator and scheme in ("postgresql", "postgres"):
        from raftwright.ledger.postgres import PostgresDatabase

        return PostgresDatabase(url, owner, read_only=read_only, busy=busy)
    if separator and not url.startswith(_SQLITE):
        raise UsageError(
            f"{url[:80]!a}: a ledger is a file, `sqlite:///path`, or `postgresql://user@host/database`"
        )
    from raftwright.ledger.sqlite import SqliteDatabase

    path = url.removeprefix(_SQLITE)
    if not path:
        raise UsageError(f"{url!a}: names no file; give `sqlite:///path`")
    return SqliteDatabase(path, owner, read_only=read_only, busy=busy)


class Ledger:
    """All parts of a ledger. Thread-safe. Use `open_ledger`."""

    def __init__(
        self, database: Database, leases: type[Leases], me: owners.Owner, lease: float, *, read_only: bool
    ) -> None:
        self._read_only = read_only
        self._closed = False
        self.database = database
        self.leases = leases(database, me, lease)
        self.images = Images(database)
        self.files = Files(database, self.images)
        self.containers = Containers(database, self.files)
        self.claims = Claims(database, self.leases, self.images, self.files)
        self.headers = Headers(database)
        self.deliveries = Deliveries(database, self.leases)
        self.replicas = Replicas(database, self.leases)
        self.ingests = Ingests(database, self.leases)
        self.tags = Tags(database)
        self.attempts = Attempts(database)
        self.events = Events(database)
        self.quarantine = Quarantine(database)
        self.roles = Roles(database, self.leases)

    @property
    def owner(self) -> str:
        """By what name this process claims."""
        return self.leases.me.name

    @property
    def where(self) -> str:
        """Its place, for people: a path, or a URL without its password."""
        return self.database.where

    @property
    def generation(self) -> int:
        """Grows when this may be another ledger than before: one that was lost and made anew, or put back.
        Who remembers what is in it forgets that then."""
        return self.database.generation

    def renew(self) -> None:
        """Says that we are alive; to be called more often than leases last."""
        self.leases.renew()

    def keep_alive(self, every: float = 3.0) -> None:
        """Begins a thread that renews."""
        self.leases.keep_alive(every)

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query gives, `?` for values: for reports. Raises StorageError."""
        return self.database.read(sql, values)

    def close(self) -> None:
        """Gives back what is claimed and closes."""
        if self._closed:
            return
        self._closed = True
        self.leases.stop()
        try:
            if not self._read_only:
                self.claims.give_back()
                self.deliveries.give_back()
                self.ingests.give_back()
                self.roles.give_up()
                self.database.change(
                    lambda transaction: transaction.run("DELETE FROM owner WHERE name = ?", (self.owner,))
                )
        finally:
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.close()
        except RaftwrightError as error:
            # What is claimed is free again when the process ends.
            _log.error("the ledger cannot be told of the end: %s", error)
