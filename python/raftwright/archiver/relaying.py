"""Every change of the ledger, told at least once: by the archiver that works, where it publishes at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.events import LedgerLog, Outbox

if TYPE_CHECKING:
    from raftwright.events import Publisher
    from raftwright.ledger import Ledger
    from raftwright.service import Task

__all__ = ["Relay"]

_log = logging.getLogger("raftwright.archiver")

_LOOK: Final = 1.0
_LONGEST: Final = 30.0


class Relay:
    """A task, `work`. What is in a ledger that nobody relayed before is history, and not told. Raises
    StorageError, when it is made, where the ledger cannot be read and written."""

    def __init__(self, ledger: Ledger, name: str, publisher: Publisher, active: Callable[[], bool]) -> None:
        cursor = f"events {name}"
        self._active = active
        self._outbox = Outbox(LedgerLog(ledger), publisher, cursor)
        if not ledger.events.cursor(cursor):
            ledger.events.move_cursor(cursor, ledger.events.last())

    def work(self, task: Task) -> None:
        """The task."""
        pause = 0.0
        trouble = ""
        while not task.wait(pause):
            pause = _LOOK
            if not self._active():
                continue
            try:
                while not task.stopping.is_set() and self._active() and self._outbox.step():
                    pass
                trouble = ""
            except RaftwrightError as error:
                if not trouble:
                    _log.warning("changes of the ledger are told later: %s", error)
                pause = min(2 * pause, _LONGEST) if trouble else _LOOK
                trouble = str(error)
