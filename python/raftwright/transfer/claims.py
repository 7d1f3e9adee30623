"""Names of what is on its way, each one's alone while it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING

from raftwright.transfer.targets import HIDDEN, partial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raftwright.transfer.outcome import Job

__all__ = ["Claims"]


class Claims:
    """Those of one sender. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    @contextlib.contextmanager
    def of(self, job: Job) -> Iterator[str]:
        """The name under which a try that was cut is gone on with; where another thread works on that, one
        that nobody has."""
        name = _ours(job)
        with self._lock:
            if name in self._taken:
                name = f"{HIDDEN}{secrets.token_hex(16)}.part"
            self._taken.add(name)
        try:
            yield name
        finally:
            with self._lock:
                self._taken.discard(name)


def _ours(job: Job) -> str:
    """As `partial`, and of this file on this host alone: where two services bring the same there, none of
    them writes into what the other has looked at."""
    text = f"{partial(job)}\0{socket.gethostname()}\0{os.path.abspath(job.path)}"
    return f"{HIDDEN}{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.part"
