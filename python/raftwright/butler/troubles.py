"""What a registry's own errors mean: somebody else has it locked, its server or disk is gone, or a row is
refused."""

from __future__ import annotations

import errno
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from raftwright.butler.software import DBAPIError, IntegrityError, listen
from raftwright.errors import StorageError

if TYPE_CHECKING:
    from raftwright.butler.software import Butler

__all__ = ["bound_waits", "is_contention", "is_refusal", "storage_error"]

_log = logging.getLogger("raftwright.butler")

_CONTENDED: Final = ("database is locked", "database table is locked", "deadlock detected", "lock timeout")
_FULL: Final = ("database or disk is full", "no space left", "disk quota")
_READ_ONLY: Final = ("readonly database", "read-only transaction", "permission denied")


def bound_waits(butler: Butler, busy: float) -> None:
    """From now on a Butler's connections wait for locks of others for so many seconds: its own bound is five
    minutes with SQLite, and none with PostgreSQL."""
    engine = getattr(getattr(getattr(butler, "_registry", None), "_db", None), "_engine", None)
    if engine is None:
        _log.warning("this Butler hides its database: how long it waits for locks is its own to say")
        return

    def bound(connection: Any, _: object) -> None:
        milliseconds = max(1, int(busy * 1000))
        cursor = connection.cursor()
        try:
            if engine.dialect.name == "sqlite":
                cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
            else:
                cursor.execute(f"SET lock_timeout = {milliseconds}")
                connection.commit()
        finally:
            cursor.close()

    listen(engine, "connect", bound)
    butler.registry.resetConnectionPool()


def is_contention(error: BaseException) -> bool:
    """Whether others were in the way, so that the same may go well in a moment."""
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.OperationalError):
        return "locked" in str(original)
    code = getattr(original, "pgcode", None)
    return code in ("40001", "40P01", "55P03") or any(word in str(error).lower() for word in _CONTENDED)


def is_refusal(error: BaseException) -> bool:
    """Whether it is the rows that were refused, not the registry that failed."""
    if isinstance(error, IntegrityError):
        return True
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "pgcode", None)
        return isinstance(code, str) and code[:2] in ("22", "23")
    return not isinstance(error, OSError | MemoryError)


def storage_error(error: BaseException, root: str, what: str) -> StorageError:
    """The same as one sentence with what helps."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())[:200] or type(error).__name__
    lower = said.lower()
    if is_contention(error):
        number, remedy = errno.EAGAIN, "others hold its lock; it is tried again"
    elif any(word in lower for word in _FULL):
        number, remedy = errno.ENOSPC, "free some space there"
    elif any(word in lower for word in _READ_ONLY):
        number, remedy = errno.EACCES, "have the permissions changed"
    else:
        number, remedy = getattr(error, "errno", None) or errno.EIO, "look after the database"
    return StorageError(number, f"the repository cannot be {what} ({said}); {remedy}", root)
