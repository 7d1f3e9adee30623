"""A place whose files are taken away by a receiving endpoint (`raftwright endpoint`): they are brought to its
buffer, and stand in its storage a moment later.

The endpoint moves a file out of sight while it looks at it. What is in neither place is looked for some times
more before it counts as gone."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer.outcome import OutageError, RefusedError, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from raftwright.transfer.outcome import Job
    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import Sender, Why

__all__ = ["ReceivedSender"]

T = TypeVar("T")

_PAUSES: Final = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each look for a file that may be being taken in."""


class ReceivedSender:
    """See `Sender`."""

    def __init__(self, place: Place, sender_of: Callable[[Place], Sender]) -> None:
        self._place = place
        self._buffer = sender_of(msgspec.structs.replace(place, storage=""))
        self._storage = sender_of(msgspec.structs.replace(place, root=place.storage, storage=""))
        self._closed = threading.Event()

    # -- the place

    def warm(self) -> str:
        """Raises OutageError."""
        said = self._buffer.warm()
        self._storage.has("x")
        return f"{said}, taken in to {self._place.storage}"

    def probe(self) -> None:
        """Raises OutageError."""
        self._buffer.probe()
        try:
            self._storage.has("x")
        except RefusedError as error:
            raise OutageError(str(error)) from None

    def close(self) -> None:
        """Both, and every wait."""
        self._closed.set()
        self._buffer.close()
        self._storage.close()

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        if self._storage.has(job.target):
            return self._there(job)
        try:
            return self._buffer.send(job)
        except (RefusedError, NotFoundError):
            # It may have been taken in before it was looked at under its name.
            for pause in _PAUSES:
                self._wait(pause)
                if self._storage.has(job.target):
                    return self._there(job)
                if self._buffer.has(job.target):
                    break
            raise

    def _there(self, job: Job) -> Sent:
        if self._storage.crc32c(job.target) != job.crc32c:
            raise ConflictError(
                f"{self._place.storage}/{job.target}: another content has this name; it is left as it is, "
                "look at both"
            )
        held = self._storage.protect(job.target)
        return Sent(how="there already", place=f"{self._place.storage}/{job.target}", held=held)

    def protect(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        return self._wherever(lambda sender: sender.protect(target))

    def unprotect(self, target: str) -> None:
        """Raises NotFoundError, OutageError, RefusedError."""
        self._wherever(lambda sender: sender.unprotect(target))

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Raises OutageError, RefusedError."""
        known = dict(self._buffer.walk(folder))
        yield from ((name, size) for name, size in self._storage.walk(folder) if name not in known)
        yield from known.items()

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Raises OutageError, RefusedError."""
        buffer = self._buffer.sizes(folder)  # first: what leaves it is in the storage then
        return {**buffer, **self._storage.sizes(folder)}

    def has(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        return self._buffer.has(target) or self._storage.has(target)

    def crc32c(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        return self._wherever(lambda sender: sender.crc32c(target))

    def fetch(self, target: str, path: Path) -> str:
        """Raises NotFoundError, OutageError, RefusedError, StorageError."""
        return self._wherever(lambda sender: sender.fetch(target, path))

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        return self._wherever(lambda sender: sender.set_aside(target, why))

    def remove(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        return any([self._buffer.remove(target), self._storage.remove(target)])

    def _wherever(self, do: Callable[[Sender], T]) -> T:
        for pause in _PAUSES:
            self._wait(pause)
            with contextlib.suppress(NotFoundError):
                return do(self._buffer)
            with contextlib.suppress(NotFoundError):
                return do(self._storage)
        return do(self._storage)

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise OutageError("nothing more is sent: the service ends")
