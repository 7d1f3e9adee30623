"""How full the disk of the archive is: said at 50, 80 and 95 %, long before nothing fits any more."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["LEVELS", "Fullness", "percent_used"]

_log = logging.getLogger("raftwright.archiver")

LEVELS: Final = (50.0, 80.0, 95.0)
"""Percent. The first is news for the log, the others are problems as long as they last."""
_BACK: Final = 2.0
"""Percent below a level at which it is over: who cleans and writes at a level is not told again and again."""


def percent_used(directory: Path) -> float:
    """Percent of a directory's file system that are used, as those see it who are not root; 0: not known."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0.0
    used = found.f_blocks - found.f_bfree
    return round(100.0 * used / max(1, used + found.f_bavail), 1)


class Fullness:
    """Of a directory's file system. `look` is called now and then by one thread."""

    def __init__(self, directory: Path, percent: Callable[[Path], float] = percent_used) -> None:
        self._directory = directory
        self._percent = percent
        self.level = 0.0
        """The highest of `LEVELS` that was reached and is not over."""

    @property
    def percent(self) -> float:
        """At this moment."""
        return self._percent(self._directory)

    def look(self) -> None:
        """Tells where a level was reached, or is over."""
        now = self.percent
        reached = max((level for level in LEVELS if now >= level), default=0.0)
        stays = self.level if now > self.level - _BACK else 0.0
        level = max(reached, stays)
        if level > self.level:
            log = _log.warning if level == LEVELS[0] else _log.error
            log("%s: %.1f %% of its disk are used; make room before it is full", self._directory, now)
        elif level < self.level:
            _log.info("%s: %.1f %% of its disk are used, less than %g", self._directory, now, self.level)
        self.level = level

    def trouble(self) -> str:
        """A sentence from the second level on, or nothing."""
        if self.level < LEVELS[1]:
            return ""
        return f"{self._directory}: {self.level:g} % of its disk are used; make room before it is full"
