"""Whether an endpoint still is the place that it was.

Where a mount went, its directory stays, empty: taken for the endpoint, it would have lost everything, and
what is brought there would fill another disk. So before anything is brought, or said to be lost, a few of the
replicas that the ledger knows are looked for. Where none of them is there, nor their directories, that is an
outage, until they are back or somebody says that they are gone (`raftwright handoff lost`)."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from raftwright.transfer.outcome import OutageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from raftwright.backbone.settings import Endpoint
    from raftwright.ledger import Ledger
    from raftwright.transfer.sender import Sender

__all__ = ["Presence"]

_FEW: Final = 4
_AGAIN: Final = 60.0
"""Seconds after which it is looked again at a place of which it cannot be seen that it is another."""
_KNOWN: Final = (
    "SELECT target FROM replica WHERE endpoint = ? AND state = 'verified' ORDER BY checked_tai {} LIMIT {}"
)


class Presence:
    """Of one endpoint. Thread-safe."""

    def __init__(self, endpoint: Endpoint, sender: Sender, ledger: Ledger) -> None:
        self._endpoint = endpoint
        self._sender = sender
        self._ledger = ledger
        self.others: Collection[Presence] = ()
        """Those of the other endpoints."""
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        """Which directory it is."""
        self._until = 0.0

    def warm(self) -> str:
        """As that of the sender. Raises OutageError, StorageError."""
        said = self._sender.warm()
        self.make_sure(anew=True)
        return said

    def probe(self) -> None:
        """Whether anything would go there now. Raises OutageError, StorageError."""
        self._sender.probe()
        self.make_sure(anew=True)

    def make_sure(self, *, anew: bool = False) -> None:
        """Raises OutageError where it is not there any more, StorageError. `anew`: whatever was seen last."""
        directory = self._directory()
        with self._lock:
            if not anew and self._seen == directory and (directory or time.monotonic() < self._until):
                return
        if directory is not None:
            self._is_our_own(directory)
        self._look()
        with self._lock:
            self._seen = directory
            self._until = time.monotonic() + _AGAIN

    def _directory(self) -> tuple[int, int] | None:
        if self._endpoint.kind != "directory":
            return None
        try:
            now = os.stat(self._endpoint.root)
        except OSError:
            return None
        return now.st_dev, now.st_ino

    def _is_our_own(self, directory: tuple[int, int]) -> None:
        for other in self.others:
            if other is self or not self._endpoint.may_share_images(other._endpoint):
                continue
            if other._directory() == directory:
                raise OutageError(
                    f"{self._endpoint.root}: is the same directory as that of {other._endpoint.name}; a copy "
                    "there would count twice"
                )

    def _look(self) -> None:
        name = self._endpoint.name
        known: dict[str, None] = {}
        for order in ("ASC", "DESC"):
            known |= {row[0]: None for row in self._ledger.read(_KNOWN.format(order, _FEW), (name,))}
        for target in known:
            above = target.rpartition("/")[0]
            if self._sender.has(target) or (above and self._sender.has(above)):
                return
        if known:
            raise OutageError(
                f"{self._endpoint.root}: has nothing of what was verified there; mount it, or "
                f"`raftwright handoff lost {name}` if it is gone for good"
            )
