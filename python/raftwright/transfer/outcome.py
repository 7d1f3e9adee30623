"""What becomes of a try to bring a file to a place."""

from __future__ import annotations

import errno
from typing import Final

import msgspec

from raftwright.errors import RaftwrightError, StorageError

__all__ = ["Job", "OutageError", "RefusedError", "Sent", "UnreadableError", "outage_of"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A file on its way."""

    path: str
    target: str
    """Its name below the root of the destination."""
    bytes: int
    crc32c: str


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """It is there."""

    how: str
    """`linked`, `copied`, `put`, `resumed`, `there already`, `run`."""
    bytes: int = 0
    """That were moved."""
    place: str = ""
    """Where it is, for people."""
    held: str = ""
    """How it is protected there: `immutable`, `legal hold`, `read-only`; nothing where it is not."""


class OutageError(RaftwrightError):
    """Nothing goes there now, whatever the file."""


class RefusedError(RaftwrightError):
    """This file is not taken, or did not arrive as it was sent."""


class UnreadableError(RefusedError):
    """The disk of the place cannot read this file, or something that is no file has its name, and others are
    not concerned: it is as good as damaged."""


_OUTAGES: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENXIO, errno.ENODEV),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNREFUSED, errno.ECONNRESET),
    }
)


def outage_of(error: OSError, place: str) -> OutageError | None:
    """An error of the file system that concerns all files there, as an OutageError; None for every other."""
    if error.errno not in _OUTAGES:
        return None
    said = str(error) if isinstance(error, StorageError) else f"{place}: {error.strerror}"
    return OutageError(said)
