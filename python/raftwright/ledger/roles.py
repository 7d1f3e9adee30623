"""Roles: what one service at a time may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Transaction

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.leases import Leases

__all__ = ["Roles"]


class Roles:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def take(self, name: str) -> bool:
        """Takes a role, unless somebody who lives has it; whether it is ours. It is lost with our lease."""
        me = self._leases.me.name

        def work(transaction: Transaction) -> bool:
            self._leases.renew_in(transaction, now=True)
            if transaction.insert("role", ("name", "owner", "since_tai"), [(name, me, tai())]):
                transaction.note(Change("role", name, "", me))
                return True
            row = transaction.one(f"SELECT owner FROM role WHERE name = ?{transaction.lock}", (name,))
            if row is None:
                return False  # given up this moment: at the next try
            if row[0] == me:
                return True
            if row[0] in self._leases.living(transaction):
                return False
            transaction.run("UPDATE role SET owner = ?, since_tai = ? WHERE name = ?", (me, tai(), name))
            transaction.note(Change("role", name, row[0], me))
            return True

        return self._database.change(work)

    def holds(self, name: str) -> bool:
        """Whether a role is ours, and our lease has not ended."""
        with self._database.reading() as transaction:
            row = transaction.one(
                "SELECT owner.renewed FROM role JOIN owner ON owner.name = role.owner"
                " WHERE role.name = ? AND role.owner = ?",
                (name, self._leases.me.name),
            )
            return row is not None and transaction.clock() - row[0] < self._leases.lease

    def holder(self, name: str) -> str:
        """Who has it; empty: nobody who lives."""
        with self._database.reading() as transaction:
            row = transaction.one("SELECT owner FROM role WHERE name = ?", (name,))
            if row is None or row[0] not in self._leases.living(transaction):
                return ""
            return str(row[0])

    def give_up(self, name: str | None = None) -> None:
        """Gives a role back, or all of ours."""
        me = self._leases.me.name

        def work(transaction: Transaction) -> None:
            for (each,) in transaction.rows("SELECT name FROM role WHERE owner = ?", (me,)):
                if name is None or name == each:
                    transaction.run("DELETE FROM role WHERE name = ? AND owner = ?", (each, me))
                    transaction.note(Change("role", each, me, ""))

        self._database.change(work)
