"""A file of the repository as it stands on the disk now: whether it is what the ledger means, what stands
beside it, and what its removal would free."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from raftwright.errors import RaftwrightError
from raftwright.rawfile.names import sidecar_path
from raftwright.rawfile.newest import later_path, newest_sidecar
from raftwright.rawfile.standing import digest
from raftwright.timescale import TAI_MINUS_UTC

if TYPE_CHECKING:
    from raftwright.ledger.rows import IngestRow

__all__ = ["beside", "frees_nothing", "in_place", "local_path", "other_name", "stands", "strange"]


def local_path(uri: str) -> str:
    """Of a `file` URI, or a path; empty where it is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return ""
    return unquote(parts.path) if parts.scheme else uri


def in_place(row: IngestRow) -> bool:
    """Whether the repository reads it from where it was found."""
    return row.path.startswith("/") and local_path(row.uri or row.path) == row.path


def other_name(row: IngestRow) -> bool:
    """Whether its path is but another way to write that of the file that the repository reads."""
    there = local_path(row.uri)
    if not there or there == row.path:
        return False
    if os.path.realpath(there) == os.path.realpath(row.path):
        return True
    try:
        one, other = os.stat(row.path), os.stat(there)
    except OSError:
        return False
    return os.path.samestat(one, other) and one.st_nlink == 1  # mounted twice


def beside(path: str) -> list[str]:
    """The sidecars that stand beside a raw file, the first and the later ones."""
    raw = Path(path)
    version, _ = newest_sidecar(raw)
    names = [sidecar_path(raw), *(later_path(raw, number) for number in range(2, version + 1))]
    return [str(name) for name in names if os.path.lexists(name)]


def stands(path: str, size: int) -> bool:
    """Whether a regular file of this size is there."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def strange(row: IngestRow) -> str:
    """Why what stands there is not what was ingested, and copied elsewhere; empty where it is, or is gone.

    It is read only where it changed since it was ingested.
    """
    try:
        found = os.lstat(row.path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file any more"
    if row.bytes and found.st_size != row.bytes:
        return "is not what was ingested: its size is another"
    changed = max(found.st_ctime, found.st_mtime) + TAI_MINUS_UTC
    if row.crc32c and (row.ingested_tai is None or changed > row.ingested_tai):
        try:
            if digest(Path(row.path)).crc32c != row.crc32c:
                return "is not what was ingested: its sum is another"
        except (RaftwrightError, OSError) as error:
            return f"cannot be read ({str(error)[:200]})"
    return ""


def frees_nothing(path: str, disk: str) -> str:
    """Why the removal of a file makes no room on the file system of a directory; empty where it does."""
    try:
        found, there = os.lstat(path), os.stat(disk)
    except OSError:
        return ""
    if found.st_dev != there.st_dev:
        return f"is on another file system than {disk}"
    if found.st_nlink > 1:
        return "has another name (a hard link), so that its removal frees nothing"
    return ""
