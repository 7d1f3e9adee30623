"""Headers that are stored are told: to the ledger, then to those who listen.

What cannot be told now is told later; after a restart it may be told again.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError
from raftwright.header.store import HeaderLog, Stored

if TYPE_CHECKING:
    from raftwright.events import Publisher

__all__ = ["Announcer", "messages"]

_log = logging.getLogger("raftwright.header")

_MOST_WAITING: Final = 10_000
_MOST_LISTED: Final = 50


def messages(stored: Stored, instrument: str, url: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stored header: kinds and fields."""
    header = stored.header
    large = {
        "instrument": instrument,
        "url": url,
        "generator": "raftwright-header",
        "version": float(stored.version),
        "byteSize": len(header.data),
        "checkSum": header.md5,
        "mimeType": "YAML",
        "id": str(header.name),
    }
    ready = {
        "instrument": instrument,
        "obsid": str(header.name),
        "path": str(stored.path),
        "bytes": len(header.data),
        "crc32c": header.crc32c,
        "md5": header.md5,
        "version": stored.version,
        "lacking": list(header.lacking[:_MOST_LISTED]),
        "partial": header.state == "partial",
        "groups": {group: list(keywords) for group, keywords in header.groups.items()},
        "problems": [str(problem)[:200] for problem in header.problems[:_MOST_LISTED]],
    }
    return [("largeFileObjectAvailable", large), ("headerReady", ready)]


class Announcer:
    """Tells of stored headers, once `open_to` says that it may. Thread-safe."""

    def __init__(
        self,
        instrument: str,
        url_of: Callable[[Stored], str],
        may: Callable[[], bool],
        told: Callable[[Stored], None],
        publisher: Publisher | None = None,
        log: HeaderLog | None = None,
    ) -> None:
        self._instrument = instrument
        self._url_of = url_of
        self._may = may
        self._told = told
        self._publisher = publisher
        self._headers = log
        self._lock = threading.Lock()
        self._waiting: OrderedDict[tuple[str, int], Stored] = OrderedDict()
        self.announced = 0
        self.dropped = 0
        """Announcements that were given up: too many waited."""

    def enter(self, stored: Stored) -> None:
        """Enters a header into the ledger. Raises StorageError, ConflictError."""
        if self._headers is not None:
            self._headers.enter(stored)

    def announce(self, stored: Stored) -> None:
        """Tells of a header, now or as soon as it may."""
        with self._lock:
            self._waiting[str(stored.header.name), stored.version] = stored
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)
                self.dropped += 1
        self.flush()

    def flush(self) -> None:
        """Tells what waits, if it may."""
        while self._may():
            with self._lock:
                if not self._waiting:
                    return
                _, stored = self._waiting.popitem(last=False)
            self._publish(stored)
            self.announced += 1
            self._told(stored)

    @property
    def waiting(self) -> int:
        """Announcements that are not told yet."""
        return len(self._waiting)

    def _publish(self, stored: Stored) -> None:
        if self._publisher is None:
            return
        for kind, fields in messages(stored, self._instrument, self._url_of(stored)):
            try:
                self._publisher.publish(kind, **fields)
            except Exception as error:  # a bug there keeps no header here
                known = isinstance(error, RaftwrightError)
                _log.error(
                    "%s of %s cannot be told: %s",
                    *(kind, stored.header.name, error),
                    exc_info=None if known else error,
                )
