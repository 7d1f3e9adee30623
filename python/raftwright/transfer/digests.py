"""Sums of files, each taken once: known again by inode, size and time of the last change."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from raftwright.errors import StorageError
from raftwright.rawfile.standing import digest

if TYPE_CHECKING:
    from raftwright.rawfile.standing import Digest

__all__ = ["Digests"]

_REMEMBERED: Final = 100_000

_Key: TypeAlias = tuple[int, int, int, int]


class Digests:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, Digest] = OrderedDict()
        self.taken = 0
        """Files that were read."""

    def of(self, path: str | Path) -> Digest | None:
        """Size and sums of a file; None where there is none. Raises StorageError."""
        try:
            now = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", str(path)) from error
        if not stat.S_ISREG(now.st_mode):
            raise StorageError(21, "is no file; move it away", str(path))
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        found = digest(Path(path))
        with self._lock:
            self.taken += 1
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found
