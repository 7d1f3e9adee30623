"""Whether the storage is the one that it was: where a mount went, its directory stays, empty, and what is
taken in would be on another disk, under the mount when that comes back.

The storage has a mark of its own (`.endpoint/mark`), and the buffer remembers it (`.raftwright-storage`)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from raftwright.errors import StorageError

__all__ = ["KNOWN", "Mount"]

KNOWN: Final = ".raftwright-storage"
"""File of the buffer with the mark of the storage."""
_MARK: Final = ".endpoint/mark"
_LONGEST: Final = 100


class Mount:
    """A storage as a buffer knows it. Used by one thread."""

    def __init__(self, buffer: Path, storage: Path) -> None:
        self._known = buffer / KNOWN
        self._storage = storage
        self._seen: tuple[int, int] | None = None

    def make_sure(self) -> None:
        """Raises StorageError where it is not there, or another one. A new one is marked."""
        try:
            now = os.stat(self._storage)
            if (now.st_dev, now.st_ino) == self._seen:
                return
            known, mark = _read(self._known), _read(self._storage / _MARK)
            if known and known != mark:
                raise StorageError(
                    2,
                    "is not the storage that files of this buffer went to; mount it, or remove "
                    f"{self._known} if another one is meant",
                    str(self._storage),
                )
            if not mark:
                mark = _write(self._storage / _MARK, secrets.token_hex(16))
            if not known:
                _write(self._known, mark)
        except StorageError:
            raise
        except OSError as error:
            said = f"cannot be looked at ({error.strerror}); make it, or mount what belongs there"
            raise StorageError(error.errno, said, str(error.filename or self._storage)) from None
        self._seen = now.st_dev, now.st_ino


def _read(path: Path) -> str:
    """Nothing where there is no such file. Raises OSError."""
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> str:
    """Whole or not at all, in place of nothing; what is there then. Raises OSError."""
    path.parent.mkdir(exist_ok=True)
    hidden = path.with_name(f".raftwright-{secrets.token_hex(8)}.tmp")
    try:
        with hidden.open("xb") as stream:
            stream.write(f"{text}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(hidden, path)
        except FileExistsError:
            return _read(path)
    finally:
        hidden.unlink(missing_ok=True)
    return text
