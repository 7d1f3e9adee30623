"""Files that wait at the same time go together: whoever is first takes along what came while others went."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Batches"]

T = TypeVar("T")

_MOST: Final = 100
_MOST_BYTES: Final = 64 << 10
"""Of names in one list of arguments."""


class _Batch(Generic[T]):
    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        """By the last part of the name: a directory has room for each once."""
        self.begun = False
        self.ended = False
        self.result: T | None = None
        self.error: Exception | None = None

    def has_room(self, path: str) -> bool:
        return (
            not self.begun
            and os.path.basename(path) not in self.paths
            and len(self.paths) < _MOST
            and sum(len(os.fsencode(one)) for one in self.paths.values()) < _MOST_BYTES
        )


class Batches(Generic[T]):
    """Thread-safe. `transfer` brings several files at once; one call of it is under way at a time."""

    def __init__(self, transfer: Callable[[Sequence[str]], T]) -> None:
        self._transfer = transfer
        self._changed = threading.Condition()
        self._waiting: list[_Batch[T]] = []
        self._busy = False

    def bring(self, path: str) -> T:
        """Brings a file, with others where there are some; gives what `transfer` gave for all of them. Raises
        what `transfer` raises."""
        with self._changed:
            batch = next((one for one in self._waiting if one.has_room(path)), None)
            if batch is None:
                batch = _Batch[T]()
                self._waiting.append(batch)
            batch.paths[os.path.basename(path)] = path
            while batch.begun or self._busy or self._waiting[0] is not batch:
                if batch.ended:
                    break
                self._changed.wait()
            if not batch.ended:
                batch.begun = self._busy = True
                self._waiting.remove(batch)
                self._changed.release()
                try:
                    batch.result = self._transfer(list(batch.paths.values()))
                except Exception as error:
                    batch.error = error
                finally:
                    self._changed.acquire()
                    batch.ended, self._busy = True, False
                    self._changed.notify_all()
        if batch.error is not None:
            raise batch.error
        return cast("T", batch.result)
