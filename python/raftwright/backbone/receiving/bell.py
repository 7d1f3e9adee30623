"""A bell that rings when something comes into a directory: what the kernel tells, where it tells.

It is a hint. Of writers on other machines, or where there are no more watches, nothing is heard, and the next
look comes in its time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from raftwright.errors import StorageError
from raftwright.service.inotify import CLOSE_WRITE, CREATE, MOVED_TO, ONLYDIR, Inotify

if TYPE_CHECKING:
    import threading

__all__ = ["Bell"]

_COMES: Final = CREATE | CLOSE_WRITE | MOVED_TO | ONLYDIR
_TICK: Final = 0.5
"""Seconds after which a wait looks whether it is to end."""


class Bell:
    """Used by one thread."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._deaf = False

    def watch(self, directory: bytes) -> None:
        """Rings when something comes into this directory, from now on."""
        if self._inotify is None:
            if self._deaf:
                return
            try:
                self._inotify = Inotify()
            except StorageError:
                self._deaf = True
                return
        try:
            there = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # it went
        try:
            self._inotify.add(there, _COMES)
        except StorageError:
            return
        finally:
            os.close(there)

    def wait(self, seconds: float, stopping: threading.Event) -> bool:
        """Waits so long, or until it rings or all is to end. Whether all is to end."""
        until = time.monotonic() + seconds
        while not stopping.is_set():
            left = min(_TICK, until - time.monotonic())
            if left <= 0:
                break
            if self._inotify is None:
                stopping.wait(left)
            elif self._inotify.read(left):
                break
        return stopping.is_set()

    def close(self) -> None:
        """Hears nothing more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
