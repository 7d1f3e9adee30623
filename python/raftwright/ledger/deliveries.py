"""Deliveries: what is to be brought where, by whom, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import UsageError
from raftwright.ledger.clock import LONGEST_WAIT, tai
from raftwright.ledger.database import Change, Row, Transaction, clean, marks, parts, quoted
from raftwright.ledger.rows import DeliveryPlan, DeliveryRow, dayobs_of
from raftwright.ledger.states import EDGES, check, sources_of

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.leases import Leases

__all__ = ["Deliveries"]

_FIELDS: Final = DeliveryRow.__struct_fields__
_DELIVERY: Final = ", ".join("image.obsid" if name == "obsid" else f"delivery.{name}" for name in _FIELDS)
_FROM: Final = "FROM delivery JOIN image ON image.id = delivery.image_id"
_OPEN: Final = "delivery.state <> 'delivered'"  # as the index of the queue has it


class Deliveries:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def plan(self, plans: Iterable[DeliveryPlan]) -> int:
        """Enters what is to be delivered; how many are new. The same file with the same sum is not planned
        twice for a destination, whatever became of it."""
        listed = list(plans)
        return self._database.change(lambda transaction: self.plan_in(transaction, listed))

    def plan_in(self, transaction: Transaction, plans: Iterable[DeliveryPlan]) -> int:
        """The same within a transaction."""
        of_queue: dict[tuple[int, str], list[DeliveryPlan]] = {}
        for plan in plans:
            of_queue.setdefault((plan.image_id, plan.destination), []).append(plan)
        new = 0
        for (image_id, destination), some in of_queue.items():
            entered = self._queue_in(transaction, some)
            if entered:
                image = transaction.one("SELECT obsid, dayobs FROM image WHERE id = ?", (image_id,))
                assert image is not None
                transaction.note(
                    Change(
                        *("delivery", destination, "", "queued", image_id, image[0], image[1]),
                        {"files": entered},
                    )
                )
            new += entered
        return new

    @staticmethod
    def _queue_in(transaction: Transaction, plans: Sequence[DeliveryPlan]) -> int:
        moment = tai()
        columns = (*DeliveryPlan.__struct_fields__, "queued_tai")
        return transaction.insert(
            "delivery",
            columns,
            [(*(getattr(plan, name) for name in DeliveryPlan.__struct_fields__), moment) for plan in plans],
        )

    # -- the queue of a destination

    def turn(
        self, destination: str, ends: Sequence[tuple[DeliveryRow, str, str, float, int]], most: int
    ) -> tuple[list[bool], list[DeliveryRow]]:
        """How deliveries of ours ended (`end_many`), and up to so many others that are ours now (`claim`), in
        one commit."""
        for row, state, *_ in ends:
            check("delivery", "sending", state, f"{row.destination} {row.path}")
            if state == "sending":
                raise UsageError(f"{row.destination} {row.path}: an attempt does not end in `sending`")
        held: list[tuple[str, int, int]] = []

        def work(transaction: Transaction) -> tuple[list[bool], list[DeliveryRow]]:
            self._leases.let_go(held)
            held.clear()
            done = self._end_in(transaction, ends)
            rows = self._claim_in(transaction, destination, most) if most > 0 else []
            held.extend(("delivery", row.id, row.attempts) for row in rows)
            self._leases.hold(held)
            return done, rows

        try:
            found = self._database.change(work)
        except BaseException:
            self._leases.let_go(held)
            raise
        self._leases.let_go(("delivery", row.id, row.attempts) for row, *_ in ends)
        return found

    def claim(self, destination: str, most: int) -> list[DeliveryRow]:
        """Up to so many deliveries of a destination that are ours now: by priority, then the oldest image,
        then rank within it. Those that others began and did not live to end are among them."""
        return self.turn(destination, (), most)[1]

    def _claim_in(self, transaction: Transaction, destination: str, most: int) -> list[DeliveryRow]:
        self._leases.renew_in(transaction)
        self._take_back_in(transaction, destination)
        moment, me = tai(), self._leases.me.name
        rows = self._select(
            transaction,
            f"WHERE delivery.destination = ? AND delivery.state = 'queued' AND {_OPEN}"
            " AND (delivery.next_try <= ? OR delivery.next_try > ?)"
            " ORDER BY delivery.priority, delivery.image_id, delivery.rank, delivery.id LIMIT ?"
            + transaction.skip.replace("UPDATE", "UPDATE OF delivery"),
            (destination, moment, moment + LONGEST_WAIT, most),
        )
        if not rows:
            return []
        transaction.update(
            "delivery",
            ("state", "owner", "attempts", "next_try", "began_tai"),
            ("id", "attempts"),
            [("sending", me, row.attempts + 1, 0.0, moment, row.id, row.attempts) for row in rows],
            "state = 'queued'",
            exact=True,
        )
        for row in rows:
            self._note(transaction, row, "queued", "sending", {"attempt": row.attempts + 1})
        return [
            DeliveryRow(
                **{
                    **{name: getattr(row, name) for name in _FIELDS},
                    "state": "sending",
                    "owner": me,
                    "attempts": row.attempts + 1,
                    "next_try": 0.0,
                    "began_tai": moment,
                }
            )
            for row in rows
        ]

    def _take_back_in(self, transaction: Transaction, destination: str) -> None:
        """Queues again what is being sent by nobody who lives."""
        rows = self._select(
            transaction,
            f"WHERE delivery.destination = ? AND delivery.state = 'sending' AND {_OPEN} ORDER BY delivery.id",
            (destination,),
        )
        living = self._leases.living(transaction) if rows else frozenset()  # after the rows, as in claims
        deserted = [
            row
            for row in rows
            if not self._leases.busy(row.owner, living, ("delivery", row.id, row.attempts))
        ]
        self._end_in(transaction, [(row, "queued", "its sender is no more", 0.0, 0) for row in deserted])

    def end(
        self,
        row: DeliveryRow,
        state: str,
        reason: str = "",
        retry_after: float = 0.0,
        bytes: int = 0,
    ) -> bool:
        """How a delivery of ours ended: delivered, failed, conflict, or queued for another try after so many
        seconds. False, and nothing is written, where it is no longer ours."""
        return self.end_many([(row, state, reason, retry_after, bytes)])[0]

    def end_many(self, ends: Sequence[tuple[DeliveryRow, str, str, float, int]]) -> list[bool]:
        """The same for several (row, state, reason, retry_after, bytes), in one commit."""
        return self.turn("", ends, 0)[0]

    def _end_in(
        self, transaction: Transaction, ends: Sequence[tuple[DeliveryRow, str, str, float, int]]
    ) -> list[bool]:
        if not ends:
            return []
        moment = tai()
        ids = [row.id for row, *_ in ends]
        there: dict[int, Row] = {}
        for begin in range(0, len(ids), 500):
            among, values = transaction.among("id", sorted(ids[begin : begin + 500]))
            there.update(
                (found[0], found[1:])
                for found in transaction.rows(
                    f"SELECT id, state, owner, attempts, began_tai FROM delivery WHERE {among}"
                    f" ORDER BY id{transaction.lock}",
                    values,
                )
            )
        results, updates, attempts, before = [], [], [], []  # type: tuple[list[bool], list[Row], list[Row], list[Row]]
        delivered: list[DeliveryRow] = []
        for row, state, reason, retry_after, size in ends:
            found = there.get(row.id, ("", "", 0, None))
            ours = found[1] == row.owner and found[2] == row.attempts
            if not ours or found[0] != "sending":
                # Written already, and the answer of that commit was lost; or somebody else's by now.
                results.append(ours and found[0] == state)
                continue
            results.append(True)
            said = clean(reason)
            if state == "delivered":
                delivered.append(row)
            next_try = (
                moment + min(retry_after, LONGEST_WAIT) if state == "queued" and retry_after > 0 else 0.0
            )
            updates.append(
                (state, said, next_try, moment if state == "delivered" else None, row.id, row.attempts)
            )
            tried = (moment, state, said, size, row.image_id, _subject(row), row.attempts, row.owner)
            if found[3] is not None:
                attempts.append((*tried, "delivery", found[3]))
            else:
                before.append(tried)  # begun with a ledger of version 1, which has a row of it already
            detail: dict[str, Any] = {"attempt": row.attempts, **({"reason": said} if said else {})}
            if size:
                detail["bytes"] = size
            self._note(transaction, row, "sending", state, detail)
        transaction.update(
            "delivery",
            ("state", "reason", "next_try", "delivered_tai"),
            ("id", "attempts"),
            updates,
            "state = 'sending'",
            exact=True,
        )
        told, known = ("ended_tai", "outcome", "reason", "bytes"), ("image_id", "subject", "number", "owner")
        transaction.insert("attempt", (*told, *known, "thing", "began_tai"), attempts, new=True)
        transaction.update("attempt", told, known, before, "ended_tai IS NULL AND thing = 'delivery'")
        if delivered:
            self._delivered_in(transaction, delivered)
        return results

    def _delivered_in(self, transaction: Transaction, rows: Sequence[DeliveryRow]) -> None:
        """For queues that write more of what was delivered just now."""

    @staticmethod
    def _note(
        transaction: Transaction,
        row: DeliveryRow,
        old: str,
        new: str,
        detail: dict[str, Any],
    ) -> None:
        """What is delivered, and where, says the subject: `DESTINATION PATH`."""
        transaction.note(
            Change(
                "delivery",
                _subject(row),
                old,
                new,
                row.image_id,
                row.obsid,
                dayobs_of(row.obsid),
                detail,
            )
        )

    def give_back(self) -> None:
        """Queues everything that is being sent by us, at the end."""
        ours = [
            thing[1] for thing in self._leases.held() if isinstance(thing, tuple) and thing[0] == "delivery"
        ]

        def work(transaction: Transaction) -> None:
            for part in parts(sorted(ours)):
                among, values = transaction.among("delivery.id", part)
                rows = self._select(
                    transaction,
                    f"WHERE {among} AND delivery.state = 'sending' AND delivery.owner = ?"
                    " ORDER BY delivery.id",
                    (*values, self._leases.me.name),
                )
                self._end_in(transaction, [(row, "queued", "given back", 0.0, 0) for row in rows])

        if ours:
            self._database.change(work)

    def again(
        self,
        destination: str | None = None,
        image_id: int | None = None,
        states: Collection[str] = ("failed",),
        reason: str = "asked for again",
        ids: Collection[int] | None = None,
    ) -> int:
        """Queues deliveries again, of `ids` only if there are any; how many. Raises UsageError for states
        that do not lead there."""
        for state in states:
            check("delivery", state, "queued")
        leads = [state for state in states if state in sources_of("delivery", "queued")]
        leads = [state for state in leads if state not in ("queued", "sending")]
        where, values = [f"delivery.state IN ({marks(leads)})"], list(leads)  # type: tuple[list[str], list[Any]]
        if not leads:
            return 0
        if destination is not None:
            where.append("delivery.destination = ?")
            values.append(destination)
        if image_id is not None:
            where.append("delivery.image_id = ?")
            values.append(image_id)
        if ids is not None:
            where.append(f"delivery.id IN ({marks(list(ids))})" if ids else "1 = 0")
            values += ids
        if "delivered" not in leads:
            where.append(_OPEN)

        def work(transaction: Transaction) -> int:
            lock = transaction.lock.replace("UPDATE", "UPDATE OF delivery")
            rows = self._select(
                transaction, f"WHERE {' AND '.join(where)} ORDER BY delivery.id{lock}", values
            )
            transaction.update(
                "delivery",
                ("state", "reason", "next_try", "delivered_tai"),
                ("id", "attempts"),
                [("queued", clean(reason), 0.0, None, row.id, row.attempts) for row in rows],
                f"state IN ({quoted(leads)})",
            )
            for row in rows:
                assert "queued" in EDGES["delivery"][row.state]
                self._note(transaction, row, row.state, "queued", {"reason": reason})
            return len(rows)

        return self._database.change(work)

    # -- asking

    def any_waiting(self, destination: str) -> bool:
        """Whether anything is in the queue of a destination; a look into its index, however long the history
        is."""
        return bool(
            self._database.read(
                "SELECT 1 FROM delivery WHERE destination = ? AND state IN ('queued', 'sending')"
                f" AND {_OPEN} LIMIT 1",
                (destination,),
            )
        )

    @staticmethod
    def _select(transaction: Transaction, where: str, values: Sequence[Any]) -> list[DeliveryRow]:
        return [
            DeliveryRow(**dict(zip(_FIELDS, row, strict=True)))
            for row in transaction.rows(f"SELECT {_DELIVERY} {_FROM} {where}", values)
        ]

    def of(self, image_id: int) -> list[DeliveryRow]:
        """The deliveries of an image, by destination and rank."""
        with self._database.reading() as transaction:
            return self._select(
                transaction,
                "WHERE delivery.image_id = ? ORDER BY delivery.destination, delivery.rank, delivery.id",
                (image_id,),
            )

    def counts(
        self, destination: str | None = None, *, dayobs: int | None = None, delivered: bool = True
    ) -> dict[str, dict[str, int]]:
        """How many deliveries of each destination are in each state; of one night only, if that is asked for.
        Without `delivered` only what is on its way, which is quick however long the history is."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        if destination is not None:
            where.append("delivery.destination = ?")
            values.append(destination)
        if dayobs is not None:
            where.append("delivery.image_id IN (SELECT id FROM image WHERE dayobs = ?)")
            values.append(dayobs)
        if not delivered:
            where.append(_OPEN)
        found: dict[str, dict[str, int]] = {}
        for name, state, count in self._database.read(
            f"SELECT destination, state, count(*) FROM delivery WHERE {' AND '.join(where)}"
            " GROUP BY destination, state ORDER BY destination, state",
            values,
        ):
            found.setdefault(name, {})[state] = count
        return found


def _subject(row: DeliveryRow) -> str:
    return f"{row.destination} {row.path}"
