"""Files that are to be sent, as they are now: compared with what the ledger says of them."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from raftwright import _core
from raftwright.transfer.outcome import RefusedError

if TYPE_CHECKING:
    from raftwright.transfer.outcome import Job

__all__ = ["checked_source"]

_STEP: Final = 1 << 20


def checked_source(job: Job, algorithm: str = "") -> str:
    """Reads a file that is to be sent; gives a sum of it by that algorithm of hashlib, where one is wanted.
    Raises RefusedError where it is not what the job says: it changed, or is gone."""
    found = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
    crc = size = 0
    try:
        with open(job.path, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise RefusedError(f"{job.path}: is no regular file, and is not sent")
            while piece := stream.read(_STEP):
                if found is not None:
                    found.update(piece)
                crc, size = _core.crc32c(piece, crc), size + len(piece)
    except OSError as error:
        raise RefusedError(f"{job.path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    if size != job.bytes or f"{crc:08x}" != job.crc32c:
        raise RefusedError(
            f"{job.path}: is not what the ledger says ({size} bytes, {crc:08x}); see the audit"
        )
    return found.hexdigest() if found is not None else ""
