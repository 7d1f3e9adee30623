"""What a hand-off tells others: replicas that are there, damaged, lost, mended, and files that do not get
there. These are hints, read off the ledger's own history; what counts is in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError
from raftwright.ledger.clock import tai
from raftwright.ledger.replicas import ENDPOINT

if TYPE_CHECKING:
    from raftwright.events import Publisher
    from raftwright.ledger.rows import EventRow, ImageRow

__all__ = ["DEAD", "Teller"]

_log = logging.getLogger("raftwright.backbone")

DEAD: Final = frozenset({"failed", "conflict"})
"""States of deliveries that wait for somebody: dead letters."""
_OLD: Final = 86_400.0
"""Seconds after which it is no news."""
_BAD: Final = frozenset({"damaged", "lost"})


class Teller:
    """`settled` is told the same as the events, as a mapping."""

    def __init__(
        self,
        publisher: Publisher | None,
        image_of: Callable[[int], ImageRow],
        settled: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._publisher = publisher
        self._image_of = image_of
        self._settled = settled

    def replica(self, row: EventRow) -> None:
        """A replica has another state."""
        endpoint, _, name = row.subject.partition(" ")
        state = "healed" if row.new == "verified" and row.old in _BAD else row.new
        self._tell(row, endpoint, name, state)

    def delivery(self, row: EventRow) -> None:
        """A delivery has another state: it is told where it is given up."""
        destination, _, path = row.subject.partition(" ")
        if destination.startswith(ENDPOINT) and row.new in DEAD:
            self._tell(row, destination.removeprefix(ENDPOINT), path, row.new)

    def _tell(self, row: EventRow, endpoint: str, name: str, state: str) -> None:
        if row.image_id is None or tai() - row.at_tai > _OLD:
            return
        image = self._image_of(row.image_id)
        facts = {
            "instrument": image.instrument or "unknown",
            "obsid": image.obsid,
            "endpoint": endpoint,
            "name": name[:4096],
            "standing": state,
            "bytes": int(row.detail.get("bytes", 0)),
            "attempt": int(row.detail.get("attempt", 0)),
            "reason": str(row.detail.get("reason", ""))[:2000],
        }
        self._settled(facts)
        if self._publisher is None:
            return
        try:
            self._publisher.publish("replica", **facts)
        except RaftwrightError as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Closes the publisher."""
        if self._publisher is not None:
            self._publisher.close()
