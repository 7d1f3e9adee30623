"""Whether it is this one that works: of several services for one thing one does, the others wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.ledger import LEASE

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.service import Task

__all__ = ["Role"]

_log = logging.getLogger("raftwright.service")

_LOOK: Final = 1.0
"""Seconds between two looks."""


class Role:
    """A role in the ledger, taken when it is free. `keep` is its task; `begun` is called when it is ours from
    now on, and when the ledger is another than before: it was restored, or made anew."""

    def __init__(self, ledger: Ledger, name: str, begun: Callable[[], None]) -> None:
        self.name = name
        self.active = False
        """Whether it is ours."""
        self.trouble = ""
        """Why the ledger cannot be asked; empty where it can."""
        self._ledger = ledger
        self._begun = begun
        self._generation = 0

    def take(self) -> None:
        """Takes it, if nobody has it who lives. Raises StorageError."""
        was, self.active = self.active, self._ledger.roles.take(self.name)
        generation, self._generation = self._generation, self._ledger.generation
        if self.active and was and generation != self._generation:
            _log.warning("the ledger is another than before; all of it is compared again")
            self._begun()
        if self.active and not was:
            _log.info("this is the one that works as %s", self.name)
            self._begun()
        elif was and not self.active:
            _log.warning("another works as %s; this one waits", self.name)

    def keep(self, task: Task) -> None:
        """The task. Without the ledger for as long as a lease lasts, somebody else may work by now."""
        taken = time.monotonic()
        while not task.wait(_LOOK):
            try:
                self.take()
                taken = time.monotonic()
                self.trouble = ""
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("%s: %s", self.name, error)
                self.trouble = str(error)
                if time.monotonic() - taken > LEASE:
                    self.active = False
            task.beat()
