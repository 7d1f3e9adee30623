"""What changed in the ledger, read behind a cursor that lasts: nobody needs to be told for it to be seen.

The cursor moves once all that follows from what was read is done: what was read by somebody who died is read
again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import EventRow
    from raftwright.service import Task

__all__ = ["Chronicle"]

_log = logging.getLogger("raftwright.service")

_BATCH: Final = 500
_LOOK: Final = 0.25
_LONG: Final = 60.0


class Chronicle:
    """A task, `read`, that hands events of the ledger about some things to `take`, a batch at a time.

    `name` is that of the cursor. `active` says whether to read; `settled` whether all that was taken is
    done: only then the cursor moves.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        take: Callable[[list[EventRow]], None],
        *,
        things: Collection[str],
        active: Callable[[], bool],
        settled: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._take = take
        self._things = tuple(things)
        self._active = active
        self._settled = settled
        self._wanted = threading.Event()
        self._unsaved = 0
        self._ended = False
        self._anew = False
        self.number = -1
        """How far it has read; -1: it has not begun."""
        self.trouble = ""

    def end(self) -> None:
        """Reads no more."""
        self._ended = True
        self._wanted.set()

    def forget(self) -> None:
        """Begins where the cursor in the ledger is."""
        self._anew = True
        self._wanted.set()

    def wake(self) -> None:
        """There may be something new."""
        self._wanted.set()

    def read(self, task: Task) -> None:
        """The task."""
        while not task.stopping.is_set():
            if self._ended:
                task.wait(_LONG)
                continue
            self._wanted.wait(_LOOK)
            self._wanted.clear()
            if not self._active():
                self.number = -1
                task.beat()
                continue
            try:
                while self._read() and not task.stopping.is_set():
                    task.beat()
                self.trouble = ""
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("the ledger cannot be read: %s", error)
                self.trouble = str(error)
                task.wait(0.5)
            task.beat()

    def _read(self) -> bool:
        """One batch; whether there may be more."""
        if self._anew:
            self._anew, self.number = False, -1
        if self.number < 0:
            self.number = self._unsaved = self._ledger.events.cursor(self._name)
        rows = self._ledger.events.after(self.number, _BATCH, self._things)
        if rows:
            self._take(rows)
            self.number = rows[-1].number
        elif self._ledger.events.last() < self.number:
            self._anew = True  # an older ledger was put in place of the one that was read
            return True
        if self.number > self._unsaved and self._settled():
            self._ledger.events.move_cursor(self._name, self.number)
            self._unsaved = self.number
        return len(rows) == _BATCH
