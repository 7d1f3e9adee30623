"""The ledger's history as a log of events: every change of a state, told at least once by an `Outbox`."""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError
from raftwright.events.interface import EventLog, Row
from raftwright.timescale import TAI_MINUS_UTC

if TYPE_CHECKING:
    from raftwright.ledger import EventRow, Ledger
    from raftwright.ledger.database import Transaction

__all__ = ["LedgerLog"]

_NAME: Final = "log"


class LedgerLog(EventLog):
    """Rows of the ledger's history: `stateChanged` for what belongs to an image, `ledgerNote` for the rest.

    Thread-safe. Raises StorageError where the ledger cannot be read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._generation = ledger.generation
        self._id = self._known_id()

    @property
    def id(self) -> str:
        """Another one where the ledger was lost and made anew."""
        generation = self._ledger.generation
        if generation != self._generation:
            with contextlib.suppress(RaftwrightError):  # it cannot be read now, nor its rows
                self._id = self._known_id()
                self._generation = generation
        return self._id

    def after(self, number: int, limit: int) -> Sequence[Row]:
        rows = self._ledger.events.after(number, limit)
        instruments = self._instruments({row.image_id for row in rows if row.image_id is not None})
        return [_told(row, instruments) for row in rows]

    def last(self) -> int:
        return self._ledger.events.last()

    def cursor(self, name: str) -> int:
        return self._ledger.events.cursor(name)

    def move_cursor(self, name: str, number: int) -> None:
        self._ledger.events.move_cursor(name, number)

    def _instruments(self, images: set[int]) -> dict[int, str]:
        if not images:
            return {}
        wanted = sorted(images)
        marks = ", ".join("?" * len(wanted))
        query = f"SELECT id, instrument FROM image WHERE id IN ({marks})"
        return {int(row[0]): str(row[1]) for row in self._ledger.database.read(query, wanted)}

    def _known_id(self) -> str:
        """The log's own name; it is made with the first look, and stays."""
        query = "SELECT value FROM information WHERE name = ?"
        found = self._ledger.database.read(query, (_NAME,))
        if found:
            return str(found[0][0])

        def work(transaction: Transaction) -> str:
            known = transaction.one(query, (_NAME,))
            if known is not None:
                return str(known[0])
            new = f"ledger-{secrets.token_hex(8)}"
            transaction.insert("information", ("name", "value"), [(_NAME, new)])
            return new

        return self._ledger.database.change(work)


def _told(row: EventRow, instruments: dict[int, str]) -> Row:
    facts: dict[str, Any] = {
        "thing": row.thing,
        "subject": row.subject,
        "old": row.old,
        "new": row.new,
        "owner": row.owner,
        "detail": row.detail,
    }
    time = _utc(row.at_tai)
    if row.image_id is None:
        facts["new"] = row.new or "given up"  # a role that nobody has
        return Row(row.number, "ledgerNote", facts, time)
    facts["instrument"] = instruments.get(row.image_id) or "unknown"
    facts["obsid"] = row.obsid
    facts["dayobs"] = f"{row.dayobs:08d}"
    return Row(row.number, "stateChanged", facts, time)


def _utc(tai: float) -> str:
    moment = datetime.datetime.fromtimestamp(tai - TAI_MINUS_UTC, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
