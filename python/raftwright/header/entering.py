"""Headers and what they say, entered into the ledger."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from raftwright.header.collected import tai_seconds
from raftwright.header.store import Stored

if TYPE_CHECKING:
    from raftwright.ledger.ledger import Ledger

__all__ = ["LedgerLog"]


class LedgerLog:
    """Enters headers into the ledger at a URL, which is opened when it is needed. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None

    def enter(self, stored: Stored) -> None:
        """The header, and what it says of its image. Raises StorageError, ConflictError."""
        ledger = self._opened()
        header, values = stored.header, stored.header.values
        obsid = str(header.name)
        ledger.headers.put(
            obsid,
            stored.version,
            str(stored.path),
            len(header.data),
            header.crc32c,
            md5=header.md5,
            state=header.state,
            problems=stored.sentences(),
        )
        facts: dict[str, Any] = {
            "image_type": values.get("IMGTYPE"),
            "exposure_time": values.get("EXPTIME"),
            "physical_filter": values.get("FILTER"),
            "target": values.get("OBJECT"),
            "group_id": values.get("GROUPID"),
            "cur_index": values.get("CURINDEX"),
            "ra": values.get("RA"),
            "dec": values.get("DEC"),
        }
        ledger.images.facts(obsid, **facts)
        ledger.images.times(
            obsid,
            begin_tai=tai_seconds(values.get("DATE-BEG")),
            end_tai=tai_seconds(values.get("DATE-END")),
            end_readout_tai=header.end_readout,
        )

    def open(self) -> None:
        """Opens it now. Raises UsageError, FormatError, StorageError, MissingExtraError."""
        self._opened()

    def _opened(self) -> Ledger:
        with self._lock:
            if self._ledger is None:
                from raftwright.ledger.ledger import open_ledger

                self._ledger = open_ledger(self._url)
            return self._ledger

    def close(self) -> None:
        """Twice is once."""
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None
