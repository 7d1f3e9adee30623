"""What happened: events, how far they were relayed, and attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.ledger.database import Change, Transaction, clean, marks
from raftwright.ledger.rows import AttemptRow, EventRow

if TYPE_CHECKING:
    from raftwright.ledger.database import Database

__all__ = ["Attempts", "Events", "decoded"]

_EVENT: Final = ", ".join(EventRow.__struct_fields__)
_ATTEMPT: Final = ", ".join(AttemptRow.__struct_fields__)


class Events:
    """Every change of state, in the order of their commits: whoever has read up to a number has missed none
    before it. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, number: int, limit: int = 1000, things: Collection[str] | None = None) -> list[EventRow]:
        """What happened after an event."""
        where, values = "number > ?", [number]  # type: tuple[str, list[Any]]
        if things is not None:
            where += f" AND thing IN ({marks(list(things))})"
            values += things
        return self._select(f"WHERE {where} ORDER BY number LIMIT ?", (*values, limit))

    def of(self, image_id: int) -> list[EventRow]:
        """The story of an image."""
        return self._select("WHERE image_id = ? ORDER BY number", (image_id,))

    def of_night(self, dayobs: int, things: Collection[str] | None = None) -> list[EventRow]:
        """The story of a night."""
        where, values = "dayobs = ?", [dayobs]  # type: tuple[str, list[Any]]
        if things is not None:
            where += f" AND thing IN ({marks(list(things))})"
            values += things
        return self._select(f"WHERE {where} ORDER BY number", values)

    def newest(self, thing: str) -> list[EventRow]:
        """The last one of each subject, of things that belong to no night."""
        return self._select(
            "WHERE number IN (SELECT max(number) FROM event WHERE dayobs = 0 AND thing = ? GROUP BY subject)"
            " ORDER BY number",
            (thing,),
        )

    def note(self, thing: str, subject: str, old: str, new: str, **detail: Any) -> None:
        """Writes down a change of something that has no row of its own, and belongs to no image."""
        said = {key: clean(value) if isinstance(value, str) else value for key, value in detail.items()}
        change = Change(thing, clean(subject), old, new, detail=said)
        self._database.change(lambda transaction: transaction.note(change))

    def last(self) -> int:
        """The number of the last event; 0: there is none."""
        return int(self._database.read("SELECT coalesce(max(number), 0) FROM event")[0][0])

    def cursor(self, name: str) -> int:
        """How far somebody has read."""
        rows = self._database.read("SELECT number FROM cursor WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else 0

    def move_cursor(self, name: str, number: int) -> None:
        """Remembers how far somebody has read; it never goes back."""

        def work(transaction: Transaction) -> None:
            if not transaction.run(
                "UPDATE cursor SET number = CASE WHEN number < ? THEN ? ELSE number END WHERE name = ?",
                (number, number, name),
            ):
                transaction.insert("cursor", ("name", "number"), [(name, number)])

        self._database.change(work)

    def _select(self, where: str, values: Sequence[Any]) -> list[EventRow]:
        return [
            EventRow(**dict(zip(EventRow.__struct_fields__, (*row[:-1], decoded(row[-1])), strict=True)))
            for row in self._database.read(f"SELECT {_EVENT} FROM event {where}", values)
        ]


def decoded(text: str) -> dict[str, Any]:
    """The detail of an event; one that somebody else wrote is told as it is."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        found = None
    return found if isinstance(found, dict) else {"text": text}


class Attempts:
    """One row for each try at a source or a delivery. A delivery has its row when the try has ended: while it
    is under way that stands with the delivery. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, image_id: int) -> list[AttemptRow]:
        """All tries at things of an image, in their order."""
        with self._database.reading() as transaction:
            rows = transaction.rows(
                f"SELECT {_ATTEMPT} FROM attempt WHERE image_id = ? ORDER BY began_tai, id", (image_id,)
            )
            rows += transaction.rows(
                "SELECT image_id, 'delivery', destination || ' ' || path, attempts, owner, began_tai, NULL,"
                " '', '', 0 FROM delivery WHERE image_id = ? AND state = 'sending' AND began_tai IS NOT NULL"
                " ORDER BY began_tai, id",
                (image_id,),
            )
        return [AttemptRow(**dict(zip(AttemptRow.__struct_fields__, row, strict=True))) for row in rows]
