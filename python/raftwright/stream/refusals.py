"""What was refused: counted always, told once a peer."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict

__all__ = ["Refusals"]

_log = logging.getLogger("raftwright.stream")
_MOST = 1024
"""Peers remembered as told about."""


class Refusals:
    """Counts by code; the first of a kind from a peer goes to the log. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def add(self, code: str, peer: str, reason: str) -> None:
        """One more."""
        with self._lock:
            self._counts[code] += 1
            key = (peer, code)
            if key in self._told:
                self._told.move_to_end(key)
                return
            self._told[key] = None
            if len(self._told) > _MOST:
                self._told.popitem(last=False)
        _log.warning(
            "%s refused a message of %s (%s): %s; more of this kind are only counted",
            self._name,
            peer,
            code,
            ascii(reason)[1:301].rstrip("'\""),
        )

    def counts(self) -> dict[str, int]:
        """How many of each code."""
        with self._lock:
            return dict(self._counts)
