"""Who we are in a ledger, who else lives, and what we hold."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.ledger import owners
from raftwright.ledger.owners import Owner

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from raftwright.ledger.database import Database, Transaction

__all__ = ["LEASE", "Leases"]

_log = logging.getLogger("raftwright.ledger")

LEASE: Final = 10.0
"""Seconds that a claim outlives its last renewal."""


class Leases:
    """Thread-safe."""

    def __init__(self, database: Database, me: Owner, lease: float = LEASE) -> None:
        self.me = me
        self.lease = lease
        self._database = database
        self._lock = threading.Lock()
        self._held: set[Hashable] = set()
        self._renewed = 0.0
        self._entered = -1  # the generation of the ledger that has us among its owners
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    # -- being alive

    def renew(self) -> None:
        """Says that we are alive; to be called more often than leases last."""
        self._database.change(lambda transaction: self.renew_in(transaction, now=True))

    def renew_in(self, transaction: Transaction, *, now: bool = False) -> None:
        """The same, within a transaction; nothing, unless `now`, where it was done a moment ago."""
        moment, generation = time.monotonic(), self._database.generation
        if not now and generation == self._entered and moment - self._renewed < self.lease / 8:
            return

        def entered() -> None:
            self._renewed, self._entered = moment, generation

        transaction.afterwards.append(entered)
        me, clock = self.me, transaction.clock()
        if transaction.run("UPDATE owner SET renewed = ? WHERE name = ?", (clock, me.name)):
            return
        columns = ("name", "host", "boot", "pid", "started", "renewed")
        row = (me.name, me.host, me.boot, me.pid, me.started, clock)
        transaction.insert("owner", columns, [row])
        self._forget_the_dead(transaction)

    def _forget_the_dead(self, transaction: Transaction) -> None:
        there = transaction.rows("SELECT name, renewed FROM owner")
        living = self.living(transaction)  # afterwards: who came between the two questions is in neither
        for name, renewed in there:
            if name not in living:
                transaction.run("DELETE FROM owner WHERE name = ? AND renewed = ?", (name, renewed))

    def living(self, transaction: Transaction) -> frozenset[str]:
        """Names of the owners that still have their claims; we are always among them."""
        clock = transaction.CLOCK
        rows = transaction.rows(f"SELECT name, host, boot, pid, started, renewed, {clock} FROM owner")
        moment = transaction.clock() if clock == "0" else max((row[6] for row in rows), default=0.0)
        found = {row[0] for row in rows if owners.alive(Owner(*row[:5]), row[5], moment, self.lease, self.me)}
        return frozenset(found | {self.me.name})

    def keep_alive(self, every: float) -> None:
        """Begins a thread that renews."""
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._renew_on, args=(every,), name="lease", daemon=True)
            self._keeper.start()

    def _renew_on(self, every: float) -> None:
        said = False
        while not self._stop.wait(every):
            try:
                self.renew()
                said = False
            except RaftwrightError as error:
                if not said:
                    _log.error("the lease in the ledger cannot be renewed: %s", error)
                said = True

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join(5.0)

    # -- what we hold: rows that say so and that we know nothing of are of a commit whose answer was lost

    def hold(self, things: Iterable[Hashable]) -> None:
        """Remembers that they are ours."""
        with self._lock:
            self._held.update(things)

    def let_go(self, things: Iterable[Hashable]) -> None:
        """They are ours no more."""
        with self._lock:
            self._held.difference_update(things)

    def held(self) -> list[Hashable]:
        """All that is ours."""
        with self._lock:
            return list(self._held)

    def holds(self, thing: Hashable) -> bool:
        """Whether we know it to be ours."""
        with self._lock:
            return thing in self._held

    def busy(self, owner: str, living: frozenset[str], thing: Hashable) -> bool:
        """Whether what is entered as this owner's is being worked on."""
        return self.holds(thing) if owner == self.me.name else owner in living
