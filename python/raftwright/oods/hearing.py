"""Whether a store still tells of its objects. Silence is an alarm while a listing finds what nobody told of.
It stands in the ledger, so that everybody sees it, and ends by itself when something is heard again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.metrics import Metrics

__all__ = ["Hearing", "end_others", "silent_of"]

_log = logging.getLogger("raftwright.oods")

_THING: Final = "input"
"""What the ledger calls an input: its events have `heard`, `silent` and `ended`."""


class Hearing:
    """One for each bucket that is listed. `heard` may be called from any thread, all else by one task.

    Parameters
    ----------
    subject
        What the ledger calls it: `REPOSITORY s3://BUCKET`.
    silence
        Seconds without a word after which files that were found are an alarm.
    """

    def __init__(self, ledger: Ledger, subject: str, silence: float, metrics: Metrics) -> None:
        self._ledger = ledger
        self.subject = subject
        self._place = subject.rpartition(" ")[2]
        self._silence = silence
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._told = 0
        """Times that something was heard."""
        self._found = 0
        """Files that were found since."""
        self._silent: bool | None = None
        """What the ledger says; None: it was not asked yet."""
        self._told_then = 0
        """How often something had been heard when the alarm began."""
        self.alarm = ""
        """A sentence while it is silent."""
        metrics.gauge(
            "notifications_silent",
            "1 where a store tells nothing of what is in it",
            read=lambda: float(bool(self.alarm)),
            input=self._place,
        )

    def begin(self) -> None:
        """We are at work from now on; what was before the ledger says."""
        with self._lock:
            self._last, self._found, self._told_then = time.monotonic(), 0, self._told
        self._silent, self.alarm = None, ""

    def heard(self) -> None:
        """A notification came."""
        with self._lock:
            self._last, self._found, self._told = time.monotonic(), 0, self._told + 1

    def found(self, files: int) -> None:
        """The listing found files that nobody told of."""
        with self._lock:
            self._found += files

    def judge(self) -> None:
        """Raises the alarm, or ends it. Raises StorageError, and then the next call does it."""
        if self._silent is None:
            stood = silent_of(self._ledger).get(self.subject)
            self._silent, self.alarm = stood is not None, stood or ""
        with self._lock:
            told, found, quiet = self._told, self._found, time.monotonic() - self._last
        if found and quiet >= self._silence:
            self._told_then = told
            self.alarm = (
                f"no notification of {self._place} for {_span(quiet)} while the listing found"
                f" {found:,} {'file' if found == 1 else 'files'}"
            )
            if not self._silent:
                _log.error("%s; look at the store, and at the topic or the webhook", self.alarm)
                self._note("heard", "silent", reason=self.alarm, files=found, seconds=round(quiet, 1))
                self._silent = True
        elif self._silent and told > self._told_then:
            self._note("silent", "heard")
            self._silent, self.alarm = False, ""
            _log.info("notifications of %s are heard again", self._place)

    def _note(self, old: str, new: str, **detail: Any) -> None:
        self._ledger.events.note(_THING, self.subject, old, new, **detail)


def silent_of(ledger: Ledger, repository: str | None = None) -> dict[str, str]:
    """Inputs that are silent, of a repository or of all, and what was said of each. Raises StorageError."""
    return {
        row.subject: str(row.detail.get("reason", "")) or "no notifications"
        for row in ledger.events.newest(_THING)
        if row.new == "silent" and (repository is None or row.subject.startswith(f"{repository} "))
    }


def end_others(ledger: Ledger, repository: str, subjects: Collection[str]) -> None:
    """Nobody listens any more to inputs of a repository that are none of these. Raises StorageError."""
    for subject in silent_of(ledger, repository):
        if subject not in subjects:
            ledger.events.note(_THING, subject, "silent", "ended", reason="it is no input any more")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
