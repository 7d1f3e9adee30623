"""What is wrong now: said once when it begins, listed while it lasts."""

from __future__ import annotations

import logging
import threading

__all__ = ["Troubles"]

_log = logging.getLogger("raftwright.capture")


class Troubles:
    """Thread-safe. A trouble has a kind; of each kind there is one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, tuple[object, str]] = {}

    def begin(self, kind: str, text: str, cause: object = None) -> None:
        """Notes a trouble. It goes to the log if it is new: if its cause is another than before (by default
        its errno or its text)."""
        cause = text if cause is None else cause
        with self._lock:
            known = self._now.get(kind)
            self._now[kind] = cause, text
        if known is None or known[0] != cause:
            _log.error("%s", text)

    def failed(self, kind: str, error: Exception, where: str = "") -> None:
        """Notes an exception; those with the same errno are one trouble."""
        text = f"{where}: {error}" if where else str(error)
        self.begin(kind, text, getattr(error, "errno", None))

    def over(self, kind: str, said: str = "") -> None:
        """It is no more."""
        with self._lock:
            known = self._now.pop(kind, None)
        if known is not None and said:
            _log.info("%s", said)

    def __contains__(self, kind: str) -> bool:
        return kind in self._now

    def list(self) -> list[str]:
        """A sentence each."""
        with self._lock:
            return [text for _, text in self._now.values()]
