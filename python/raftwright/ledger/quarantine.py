"""What was set aside, because its name is none or its content is none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Transaction, clean, parts
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
        raw = _raw(name)
        shown = ascii(raw.decode("utf-8", "backslashreplace"))[1:-1][:400]
        said = clean(reason)

        def work(transaction: Transaction) -> bool:
            moment = tai()
            known = transaction.one(
                f"SELECT reason, standing FROM quarantine WHERE what = ? AND name_hex = ?{transaction.lock}",
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
                    "UPDATE quarantine SET count = count + 1, last_tai = ?, reason = ?, standing = 'aside'"
                    " WHERE what = ? AND name_hex = ?",
                    (moment, said, what, raw.hex()),
                )
            if known is not None and tuple(known) == (said, "aside"):
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
        """Everything that was ever set aside, what was seen last first."""
        return self._select("ORDER BY last_tai DESC, id", ())

    def standing(
        self, what: str, under: str = "", *, again: bool = False, limit: int = -1
    ) -> list[QuarantineRow]:
        """What is still set aside, of names that begin with `under`, what was seen last first; `again`: only
        what somebody wants to be tried once more."""
        where, values = _under(what, under)
        state = "standing = 'again'" if again else "standing <> 'settled'"
        most = f" LIMIT {limit}" if limit >= 0 else ""
        return self._select(f"WHERE {where} AND {state} ORDER BY last_tai DESC, id{most}", values)

    def again(self, what: str, under: str = "") -> int:
        """Asks that what is set aside be tried once more by whoever set it aside; how many."""
        where, values = _under(what, under)

        def work(transaction: Transaction) -> int:
            rows = transaction.rows(
                f"SELECT id, shown FROM quarantine WHERE {where} AND standing = 'aside'"
                f" ORDER BY id{transaction.lock}",
                values,
            )
            self._move_in(transaction, rows, what, "again")
            return len(rows)

        return self._database.change(work)

    def settle(self, what: str, names: Iterable[str | bytes], why: str) -> int:
        """Nothing is to be done any more with what was set aside under these names: it was taken after all,
        or it is gone; how many there were."""
        keys = sorted({_raw(name).hex() for name in names})

        def asked(transaction: Transaction, lock: str) -> list[tuple[int, str]]:
            found: list[tuple[int, str]] = []
            for part in parts(keys):
                among, values = transaction.among("name_hex", part)
                found += [
                    (int(row[0]), str(row[1]))
                    for row in transaction.rows(
                        f"SELECT id, shown FROM quarantine WHERE what = ? AND {among}"
                        f" AND standing <> 'settled' ORDER BY id{lock}",
                        (what, *values),
                    )
                ]
            return found

        def work(transaction: Transaction) -> int:
            rows = asked(transaction, transaction.lock)
            self._move_in(transaction, rows, what, "settled", why)
            return len(rows)

        with self._database.reading() as transaction:
            if not asked(transaction, ""):
                return 0
        return self._database.change(work)

    @staticmethod
    def _move_in(
        transaction: Transaction, rows: Iterable[tuple[object, ...]], what: str, new: str, why: str = ""
    ) -> None:
        for number, shown in rows:
            transaction.run("UPDATE quarantine SET standing = ? WHERE id = ?", (new, number))
            detail = {"what": what, **({"reason": clean(why)} if why else {})}
            transaction.note(Change("quarantine", str(shown), "set aside", new, detail=detail))

    def _select(self, rest: str, values: tuple[str, ...]) -> list[QuarantineRow]:
        return [
            QuarantineRow(**dict(zip(_FIELDS, row, strict=True)))
            for row in self._database.read(f"SELECT {', '.join(_FIELDS)} FROM quarantine {rest}", values)
        ]


def _under(what: str, under: str) -> tuple[str, tuple[str, ...]]:
    """A condition, and its values: names are found by how they begin."""
    if not under:
        return "what = ?", (what,)
    begin = _raw(under).hex()
    return "what = ? AND name_hex >= ? AND name_hex < ?", (what, begin, begin + "g")


def _raw(name: str | bytes) -> bytes:
    if not isinstance(name, str):
        raw = bytes(name)
    elif _encodable(name):
        raw = os.fsencode(name)
    else:
        raw = name.encode("utf-8", "backslashreplace")
    return raw[:_LONGEST_NAME]


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
