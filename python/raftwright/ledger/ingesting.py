"""The queue of a Butler repository: which files belong into it, who brings them in, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import UsageError
from raftwright.ledger.clock import LONGEST_WAIT, steady, tai
from raftwright.ledger.database import Change, Row, Transaction, clean, parts, quoted
from raftwright.ledger.rows import IngestPlan, IngestRow, dayobs_of
from raftwright.ledger.states import check, sources_of

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.leases import Leases

__all__ = [
    "FROM",
    "INGEST",
    "UNDER_WAY",
    "End",
    "IngestQueue",
    "lock_images_in",
    "move_in",
    "note",
    "select_in",
]

_FIELDS: Final = IngestRow.__struct_fields__
_OF_IMAGE: Final = {
    "obsid": "coalesce(image.obsid, '')",
    "instrument": "coalesce(image.instrument, '')",
    "exposure_id": "coalesce(image.exposure_id, 0)",
}
INGEST: Final = ", ".join(_OF_IMAGE.get(name, f"ingest.{name}") for name in _FIELDS)
FROM: Final = "FROM ingest LEFT JOIN image ON image.id = ingest.image_id"
UNDER_WAY: Final = "ingest.state NOT IN ('ingested', 'removed')"  # as the index of the queue has it
_LONGEST_STAY: Final = 7 * 86400.0
"""Seconds that something may wait for its exposure."""
_FACTS: Final[Mapping[str, type]] = {
    "uri": str,
    "dataset_id": str,
    "run": str,
    "dataset_type": str,
    "code": int,
    "bytes": int,
}
"""What may be told of an ingest when it ends."""
End = tuple[IngestRow, str, str, float, Mapping[str, Any]]
"""How an ingest ended: row, state, reason, seconds until the next try (`queued`) or that it waits at most
(`waiting`), and what is known of it: uri, dataset_id, run, dataset_type, code, bytes."""


class IngestQueue:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def plan(self, plans: Iterable[IngestPlan]) -> int:
        """Enters what is to be ingested; how many are new. The same path with the same sum is not planned
        twice for a repository, whatever became of it. What comes of a pinned image, or of a pinned
        detector, is pinned too."""
        listed = list(plans)

        def work(transaction: Transaction) -> int:
            images: dict[int, Row] = {}
            for part in parts(sorted({plan.image_id for plan in listed if plan.image_id})):
                among, values = transaction.among("id", part)
                for row in transaction.rows(
                    "SELECT id, obsid, dayobs, coalesce(begin_tai, trigger_tai, announced_tai) FROM image"
                    f" WHERE {among}",
                    values,
                ):
                    images[row[0]] = row[1:]
            moment, new = tai(), 0
            of_image: dict[tuple[str, int], list[IngestPlan]] = {}
            for plan in listed:
                if plan.image_id and plan.image_id not in images:
                    raise UsageError(f"{plan.path}: the ledger has no image of the number {plan.image_id}")
                of_image.setdefault((plan.repository, plan.image_id), []).append(plan)
            for (repository, image_id), some in of_image.items():
                obsid, dayobs, observed = images.get(image_id, ("", 0, moment))
                entered = self._plan_in(transaction, some, moment, observed)
                if entered:
                    image = (image_id or None, obsid, dayobs)
                    transaction.note(Change("ingest", repository, "", "queued", *image, {"files": entered}))
                new += entered
            return new

        return self._database.change(work)

    @staticmethod
    def _plan_in(
        transaction: Transaction, plans: Sequence[IngestPlan], moment: float, observed: float
    ) -> int:
        columns = IngestPlan.__struct_fields__
        pinned = _pinned_in(transaction, plans[0].repository, plans[0].image_id)
        rows = []
        for plan in plans:
            values = {name: getattr(plan, name) for name in columns}
            values["path"] = clean(plan.path)
            if plan.observed_tai is None:
                values["observed_tai"] = observed
            rows.append((*values.values(), moment, int("" in pinned or plan.detector in pinned)))
        return transaction.insert("ingest", (*columns, "queued_tai", "pinned"), rows)

    # -- the queue of a repository

    def claim(self, repository: str, most: int) -> list[IngestRow]:
        """Up to so many files that are ours to ingest now: by priority, then the oldest image. Those that
        others began and did not live to end are among them; what has waited too long has failed by then."""
        return self.turn(repository, (), most)[1]

    def end_many(self, ends: Sequence[End]) -> list[bool]:
        """How ingests of ours ended, in one commit; False, and nothing is written, for one that is no longer
        ours. See `End`.

        What ends as `waiting` does so until a raw of its image is ingested in the repository (then it is
        queued; at once, where one is already), until `release`, or until its time is over: then it failed.
        """
        return self.turn("", ends, 0)[0]

    def end(
        self, row: IngestRow, state: str, reason: str = "", retry_after: float = 0.0, **facts: Any
    ) -> bool:
        """The same for one."""
        return self.end_many([(row, state, reason, retry_after, facts)])[0]

    def turn(
        self, repository: str, ends: Sequence[End], most: int, expired: list[IngestRow] | None = None
    ) -> tuple[list[bool], list[IngestRow]]:
        """`end_many` and `claim` in one commit. What waited too long and has failed now is added to
        `expired`."""
        for row, state, _, _, facts in ends:
            check("ingest", "ingesting", state, f"{row.repository} {row.path}")
            if state == "ingesting":
                raise UsageError(f"{row.repository} {row.path}: an attempt does not end in `ingesting`")
            if unknown := set(facts) - set(_FACTS):
                raise UsageError(
                    f"{row.path}: {sorted(unknown)} are no facts of an ingest; there are {', '.join(_FACTS)}"
                )
        held: list[tuple[str, int, int]] = []
        late: list[IngestRow] = []

        def work(transaction: Transaction) -> tuple[list[bool], list[IngestRow]]:
            self._leases.let_go(held)
            held.clear()
            late.clear()
            done = self._end_in(transaction, ends)
            rows: list[IngestRow] = []
            if most > 0:
                late.extend(self._expire_in(transaction, repository))
                rows = self._claim_in(transaction, repository, most)
            held.extend(("ingest", row.id, row.attempts) for row in rows)
            self._leases.hold(held)
            return done, rows

        try:
            found = self._database.change(work)
        except BaseException:
            self._leases.let_go(held)
            raise
        self._leases.let_go(("ingest", row.id, row.attempts) for row, *_ in ends)
        if expired is not None:
            expired += late
        return found

    def _claim_in(self, transaction: Transaction, repository: str, most: int) -> list[IngestRow]:
        self._leases.renew_in(transaction)
        self._take_back_in(transaction, repository)
        moment, me = tai(), self._leases.me.name
        rows = select_in(
            transaction,
            f"WHERE ingest.repository = ? AND ingest.state = 'queued' AND {UNDER_WAY}"
            " AND (ingest.next_try <= ? OR ingest.next_try > ?)"
            " ORDER BY ingest.priority, ingest.image_id, ingest.id LIMIT ?"
            + transaction.skip.replace("UPDATE", "UPDATE OF ingest"),
            (repository, moment, moment + LONGEST_WAIT, most),
        )
        transaction.update(
            "ingest",
            ("state", "owner", "attempts", "next_try"),
            ("id", "attempts"),
            [("ingesting", me, row.attempts + 1, 0.0, row.id, row.attempts) for row in rows],
            "state = 'queued'",
            exact=True,
        )
        claimed = []
        for row in rows:
            note(transaction, row, "queued", "ingesting", {"attempt": row.attempts + 1})
            fields = {name: getattr(row, name) for name in _FIELDS}
            fields |= {"state": "ingesting", "owner": me, "attempts": row.attempts + 1, "next_try": 0.0}
            claimed.append(IngestRow(**fields))
        return claimed

    def _take_back_in(self, transaction: Transaction, repository: str) -> None:
        """Queues again what is being ingested by nobody who lives."""
        rows = select_in(
            transaction,
            f"WHERE ingest.repository = ? AND ingest.state = 'ingesting' AND {UNDER_WAY} ORDER BY ingest.id",
            (repository,),
        )
        living = self._leases.living(transaction) if rows else frozenset()  # after the rows, as in claims
        deserted = [
            row for row in rows if not self._leases.busy(row.owner, living, ("ingest", row.id, row.attempts))
        ]
        self._end_in(
            transaction, [(row, "queued", "who ingested it is no more", 0.0, {}) for row in deserted]
        )

    def _expire_in(self, transaction: Transaction, repository: str) -> list[IngestRow]:
        """What has waited for its exposure until its time was over."""
        lock = transaction.skip.replace("UPDATE", "UPDATE OF ingest")
        rows = select_in(
            transaction,
            f"WHERE ingest.repository = ? AND ingest.state = 'waiting' AND {UNDER_WAY}"
            f" AND ingest.next_try <= ? ORDER BY ingest.id{lock}",
            (repository, steady()),
        )
        reason = "its exposure did not come in time"
        move_in(transaction, rows, "failed", reason)
        return rows

    def _end_in(self, transaction: Transaction, ends: Sequence[End]) -> list[bool]:
        if not ends:
            return []
        moment = tai()
        there: dict[int, Row] = {}
        for part in parts(sorted(row.id for row, *_ in ends)):
            among, values = transaction.among("id", part)
            for found in transaction.rows(
                f"SELECT id, state, owner, attempts FROM ingest WHERE {among} ORDER BY id{transaction.lock}",
                values,
            ):
                there[found[0]] = found[1:]
        results: list[bool] = []
        mine: list[End] = []
        for end in ends:
            row, state = end[:2]
            was, owner, attempts = there.get(row.id, ("", "", 0))
            ours = owner == row.owner and attempts == row.attempts
            if ours and was == "ingesting":
                mine.append(end)
                results.append(True)
            else:
                # Written already, and the answer of that commit was lost; or somebody else's by now.
                results.append(ours and was == state)
        present = self._present_in(transaction, mine)
        updates: list[Row] = []
        for row, state, reason, retry_after, facts in mine:
            said, next_try, new = clean(reason), 0.0, state
            if state == "waiting" and (row.repository, row.image_id) in present:
                new, retry_after = "queued", max(retry_after, 1.0)  # its exposure came meanwhile
            if new == "queued" and retry_after > 0:
                next_try = moment + min(retry_after, LONGEST_WAIT)
            elif new == "waiting":
                next_try = steady() + min(retry_after or _LONGEST_STAY, _LONGEST_STAY)
            known: dict[str, Any] = {}
            for name, kind in _FACTS.items():
                value = getattr(row, name) if facts.get(name) is None else facts[name]
                known[name] = clean(str(value)) if kind is str else int(value)
            ingested = moment if new == "ingested" else row.ingested_tai
            updates.append((new, said, next_try, ingested, *known.values(), row.id, row.attempts))
            detail: dict[str, Any] = {"attempt": row.attempts, **({"reason": said} if said else {})}
            detail |= {name: known[name] for name in ("dataset_id", "code") if name in facts}
            note(transaction, row, "ingesting", new, detail)
        transaction.update(
            "ingest",
            ("state", "reason", "next_try", "ingested_tai", *_FACTS),
            ("id", "attempts"),
            updates,
            "state = 'ingesting'",
            exact=True,
        )
        self._release_in(
            transaction,
            sorted(
                {
                    (row.repository, row.image_id)
                    for row, state, *_ in mine
                    if state == "ingested" and row.kind == "raw" and row.image_id
                }
            ),
        )
        return results

    @staticmethod
    def _present_in(transaction: Transaction, ends: Sequence[End]) -> set[tuple[str, int]]:
        """(repository, image) of those that want to wait whose exposure is there already. Rows of images are
        locked, so that of what waits and what it waits for one sees the other."""
        images = {
            row.image_id
            for row, state, *_ in ends
            if row.image_id and (state == "waiting" or (state == "ingested" and row.kind == "raw"))
        }
        waiting = {row.image_id for row, state, *_ in ends if row.image_id and state == "waiting"}
        found: set[tuple[str, int]] = set()
        lock_images_in(transaction, images)
        for part in parts(sorted(waiting)):
            among, values = transaction.among("image_id", part)
            found.update(
                (row[0], row[1])
                for row in transaction.rows(
                    "SELECT DISTINCT repository, image_id FROM ingest"
                    f" WHERE {among} AND kind = 'raw' AND state = 'ingested'",
                    values,
                )
            )
        return found

    def _release_in(self, transaction: Transaction, images: Sequence[tuple[str, int]]) -> int:
        released = 0
        for repository in sorted({repository for repository, _ in images}):
            for part in parts([image_id for name, image_id in images if name == repository]):
                among, values = transaction.among("ingest.image_id", part)
                rows = select_in(
                    transaction,
                    f"WHERE ingest.repository = ? AND ingest.state = 'waiting' AND {UNDER_WAY} AND {among}"
                    f" ORDER BY ingest.id{transaction.lock.replace('UPDATE', 'UPDATE OF ingest')}",
                    (repository, *values),
                )
                released += move_in(transaction, rows, "queued", "its exposure is there")
        return released

    def release(self, repository: str, image_ids: Iterable[int]) -> int:
        """Queues what waits for these exposures; how many. Whoever ends a raw as `ingested` need not do
        it."""
        images = [(repository, image_id) for image_id in sorted(set(image_ids))]
        return self._database.change(lambda transaction: self._release_in(transaction, images))

    def expire(self, repository: str) -> None:
        """Fails what has waited too long, as each `claim` does."""
        self._database.change(lambda transaction: len(self._expire_in(transaction, repository)))

    def give_back(self) -> None:
        """Queues everything that is being ingested by us, at the end."""

        def work(transaction: Transaction) -> None:
            rows = select_in(
                transaction,
                f"WHERE ingest.state = 'ingesting' AND {UNDER_WAY} AND ingest.owner = ? ORDER BY ingest.id",
                (self._leases.me.name,),
            )
            self._end_in(transaction, [(row, "queued", "given back", 0.0, {}) for row in rows])

        self._database.change(work)

    def again(
        self,
        repository: str | None = None,
        image_id: int | None = None,
        states: Collection[str] = ("failed",),
        reason: str = "asked for again",
        ids: Collection[int] | None = None,
    ) -> int:
        """Queues ingests again, of `ids` only if there are any; how many. Raises UsageError for states that
        do not lead there."""
        for state in states:
            check("ingest", state, "queued")
        leads = sorted(set(states) - {"queued", "ingesting"})
        if not leads or (ids is not None and not ids):
            return 0
        where, values = [f"ingest.state IN ({quoted(leads)})"], []  # type: tuple[list[str], list[Any]]
        if not set(leads) & {"ingested", "removed"}:
            where.append(UNDER_WAY)
        for column, value in (("repository", repository), ("image_id", image_id)):
            if value is not None:
                where.append(f"ingest.{column} = ?")
                values.append(value)

        def work(transaction: Transaction) -> int:
            lock = transaction.lock.replace("UPDATE", "UPDATE OF ingest")
            done = 0
            for part in [None] if ids is None else list(parts(sorted(set(ids)))):
                among, more = transaction.among("ingest.id", part) if part is not None else ("1 = 1", ())
                rows = select_in(
                    transaction,
                    f"WHERE {' AND '.join(where)} AND {among} ORDER BY ingest.id{lock}",
                    (*values, *more),
                )
                done += move_in(transaction, rows, "queued", reason)
            return done

        return self._database.change(work)

    def rewritten(self, row: IngestRow, size: int, stored: str) -> bool:
        """What is not ingested yet is another object by now: that is what will be ingested, and what failed
        gets another chance. False, and nothing is written, where somebody has begun with it meanwhile."""
        may = ("queued", "waiting", "failed", "conflict", "unsupported")

        def work(transaction: Transaction) -> bool:
            lock = transaction.lock.replace("UPDATE", "UPDATE OF ingest")
            rows = select_in(
                transaction, f"WHERE ingest.id = ? AND ingest.state IN ({quoted(may)}){lock}", (row.id,)
            )
            reason = "another object has its name now"
            for one in rows:
                transaction.update("ingest", ("bytes", "stored"), ("id",), [(size, clean(stored), one.id)])
                if one.state in ("failed", "conflict", "unsupported"):
                    move_in(transaction, [one], "queued", reason)
                else:
                    note(transaction, one, one.state, one.state, {"reason": reason})
            return bool(rows)

        return self._database.change(work)


def _pinned_in(transaction: Transaction, repository: str, image_id: int) -> set[str]:
    """Detectors of an image that are pinned, so that what comes of them later is too: another version shares
    its dataset with the one before. `""` is among them where all is pinned that there is of the image."""
    if not image_id:
        return set()
    there = transaction.rows(
        "SELECT DISTINCT detector, pinned FROM ingest WHERE image_id = ? AND repository = ?",
        (image_id, repository),
    )
    pinned = {str(detector) for detector, is_pinned in there if is_pinned} - {""}
    return pinned | {""} if there and all(is_pinned for _, is_pinned in there) else pinned


def lock_images_in(transaction: Transaction, image_ids: Collection[int]) -> None:
    """Of two who do it for the same image, the later one sees what the other did; in the order of their
    numbers, so that none waits for one who waits for him."""
    if not transaction.lock:
        return  # only one at a time writes
    for part in parts(sorted(image_ids)):
        among, values = transaction.among("id", part)
        transaction.rows(f"SELECT id FROM image WHERE {among} ORDER BY id{transaction.lock}", values)


def select_in(transaction: Transaction, where: str, values: Sequence[Any]) -> list[IngestRow]:
    return [
        IngestRow(**dict(zip(_FIELDS, row, strict=True)))
        for row in transaction.rows(f"SELECT {INGEST} {FROM} {where}", values)
    ]


def note(transaction: Transaction, row: IngestRow, old: str, new: str, detail: dict[str, Any]) -> None:
    """What is ingested, and where, says the subject: `REPOSITORY PATH`."""
    subject = f"{row.repository} {row.path}"
    dayobs = dayobs_of(row.obsid) if row.obsid else 0
    transaction.note(Change("ingest", subject, old, new, row.image_id or None, row.obsid, dayobs, detail))


def move_in(transaction: Transaction, rows: Sequence[IngestRow], new: str, reason: str) -> int:
    """Takes a step with rows that are locked; how many."""
    said, moment = clean(reason), tai()
    updates: list[Row] = []
    for row in rows:
        check("ingest", row.state, new, f"{row.repository} {row.path}")
        removed = moment if new == "removed" else None
        updates.append((new, said if new != "ingested" else "", 0.0, removed, row.id, row.attempts))
        note(transaction, row, row.state, new, {"reason": said} if said else {})
    transaction.update(
        "ingest",
        ("state", "reason", "next_try", "removed_tai"),
        ("id", "attempts"),
        updates,
        f"state IN ({quoted(sources_of('ingest', new))})",
        exact=True,
    )
    return len(updates)
