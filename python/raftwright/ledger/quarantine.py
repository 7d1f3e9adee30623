"""What was set aside, because its name is none or its content is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Transaction, clean
from raftwright.ledger.rows import QuarantineRow

if TYPE_CHECKING:
    from raftwright.ledger.database import Database

__all__ = ["Quarantine"]

_FIELDS: Final = QuarantineRow.__struct_fields__
_LONGEST_NAME: Final = 2048


class Quarantine:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, what: str, name: str | bytes, reason: str) -> bool:
        """Sets something aside (image, file, header, message), or counts it once more; whether it is news."""
        raw = (
            (os.fsencode(name) if _encodable(name) else name.encode("utf-8", "backslashreplace"))
            if isinstance(name, str)
            else bytes(name)
        )
        raw = raw[:_LONGEST_NAME]
        shown = ascii(raw.decode("utf-8", "backslashreplace"))[1:-1][:400]
        said = clean(reason)

        def work(transaction: Transaction) -> bool:
            moment = tai()
            known = transaction.one(
                f"SELECT reason FROM quarantine WHERE what = ? AND name_hex = ?{transaction.lock}",
                (what, raw.hex()),
            )
            if known is None:
                transaction.insert(
                    "quarantine",
                    ("what", "name_hex", "shown", "reason", "first_tai", "last_tai"),
                    [(what, raw.hex(), shown, said, moment, moment)],
                )
            else:
                transaction.run(
                    "UPDATE quarantine SET count = count + 1, last_tai = ?, reason = ?"
                    " WHERE what = ? AND name_hex = ?",
                    (moment, said, what, raw.hex()),
                )
            if known is not None and known[0] == said:
                return False
            transaction.note(
                Change(
                    *("quarantine", shown, "" if known is None else "set aside", "set aside"),
                    detail={"what": what, "reason": said},
                )
            )
            return True

        return self._database.change(work)

    def all(self) -> list[QuarantineRow]:
        """Everything that was set aside, what was seen last first."""
        return [
            QuarantineRow(**dict(zip(_FIELDS, row, strict=True)))
            for row in self._database.read(
                f"SELECT {', '.join(_FIELDS)} FROM quarantine ORDER BY last_tai DESC, id"
            )
        ]


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
