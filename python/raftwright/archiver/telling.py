"""What an archiver tells others. These are hints: what counts is in the ledger."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.events import Publisher
    from raftwright.ledger.rows import ImageRow

__all__ = ["HOST", "Teller", "parts_of"]

_log = logging.getLogger("raftwright.archiver")

HOST = socket.gethostname()[:100] or "unknown"


def parts_of(detector: str) -> tuple[str, str]:
    """Raft and sensor of a detector; NR and NS where there is none."""
    raft, _, sensor = detector.partition("_")
    return raft or "NR", sensor or "NS"


class Teller:
    """Publishes, if there is a publisher, and never fails."""

    def __init__(self, publisher: Publisher | None) -> None:
        self._publisher = publisher

    def tell(self, kind: str, **fields: Any) -> None:
        """An event of any kind."""
        if self._publisher is None:
            return
        try:
            self._publisher.publish(kind, **fields)
        except RaftwrightError as error:
            _log.error("%s", error)

    def of_image(self, kind: str, image: ImageRow, **fields: Any) -> None:
        """An event of raftwright's own about an image."""
        self.tell(kind, instrument=image.instrument or "unknown", obsid=image.obsid, **fields)

    def close(self) -> None:
        """Closes the publisher."""
        if self._publisher is not None:
            self._publisher.close()
