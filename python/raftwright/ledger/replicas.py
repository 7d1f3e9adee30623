"""Replicas: verified copies of files at endpoints, and what may go because there are enough of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import UsageError
from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Row, Transaction, clean, parts, quoted
from raftwright.ledger.deliveries import Deliveries
from raftwright.ledger.files import FILE_FIELDS, FILE_FROM, FILE_SELECT
from raftwright.ledger.rows import DeliveryPlan, DeliveryRow, FileRow, ReplicaRow, dayobs_of
from raftwright.ledger.states import check, sources_of

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.leases import Leases

__all__ = ["ENDPOINT", "ReplicaQueue", "Replicas"]

ENDPOINT: Final = "endpoint:"
"""The queue of replicas is that of the deliveries to `endpoint:NAME`."""

_FIELDS: Final = ReplicaRow.__struct_fields__
_ELSEWHERE: Final = {"obsid": "image.obsid", "path": "file.path"}
_REPLICA: Final = ", ".join(_ELSEWHERE.get(name, f"replica.{name}") for name in _FIELDS)
_FROM: Final = "FROM replica JOIN image ON image.id = replica.image_id JOIN file ON file.id = replica.file_id"
_GOOD: Final = "file.status IN ('written', 'unchanged', 'kept')"
_BACKLOG: Final = 10_000
"""Priority of what has waited for long: by image alone."""
_AHEAD: Final = 60.0
"""Seconds by which clocks of machines may differ."""
_SAME: Final = "replica.state = 'verified' AND replica.crc32c = file.crc32c AND replica.bytes = file.bytes"
_ELSEWHERE_ONLY: Final = (
    "file.status IN ('removed', 'lost', 'damaged') AND EXISTS (SELECT 1 FROM replica"
    " WHERE replica.file_id = file.id AND replica.endpoint = ? AND replica.state IN ('damaged', 'lost'))"
    " AND EXISTS (SELECT 1 FROM replica"
    f" WHERE replica.file_id = file.id AND replica.endpoint <> ? AND {_SAME})"
)
"""Files that the archive has no more, that were at an endpoint, and are at another one still."""
_ALONE: Final = (
    "SELECT file.id, replica.endpoint, replica.custodial FROM file LEFT JOIN replica"
    f" ON replica.file_id = file.id AND {_SAME} AND replica.checked_tai >= ?"
)
"""Files, and their copies as files."""
_IN_CONTAINERS: Final = (
    "SELECT file.id, replica.endpoint, replica.custodial FROM file JOIN member ON member.file_id = file.id"
    " AND member.crc32c = file.crc32c AND member.bytes = file.bytes"
    " JOIN file AS box ON box.id = member.container_id JOIN replica ON replica.file_id = box.id"
    f" AND {_SAME.replace('file.', 'box.')} AND replica.checked_tai >= ?"
)
"""Copies of them in containers: of files that are in a container as they are now, where that is good."""
_NOWHERE: Final = (
    "SELECT bad.endpoint, count(*) FROM replica AS bad JOIN file AS gone ON gone.id = bad.file_id"
    " WHERE bad.state <> 'verified' AND bad.state IN ('damaged', 'lost') AND gone.status = 'removed'"
    f" AND NOT EXISTS ({_ALONE.replace('LEFT JOIN', 'JOIN')} WHERE file.id = gone.id)"
    f" AND NOT EXISTS ({_IN_CONTAINERS} WHERE file.id = gone.id) GROUP BY bad.endpoint"
)


class ReplicaQueue(Deliveries):
    """The queue of an endpoint, as deliveries go: `claim(destination, most)`, `end_many`, `turn`, with
    `endpoint:NAME` for the destination. A delivery that ends as `delivered` and its replica are written in
    one commit."""

    def __init__(self, database: Database, leases: Leases, *, custodial: bool = False) -> None:
        super().__init__(database, leases)
        self._custodial = int(custodial)

    def _delivered_in(self, transaction: Transaction, rows: Sequence[DeliveryRow]) -> None:
        """Enters their replicas."""
        rows = [row for row in rows if row.destination.startswith(ENDPOINT)]
        moment = tai()
        files: dict[str, Row] = {}
        known: dict[tuple[int, str], Row] = {}
        for part in parts(sorted({row.path for row in rows})):
            among, values = transaction.among("path", part)
            found = transaction.rows(
                f"SELECT path, id, adler32, crc32c, bytes FROM file WHERE {among}", values
            )
            files.update((each[0], each[1:]) for each in found)
        for part in parts(sorted(file[0] for file in files.values())):
            among, values = transaction.among("file_id", part)
            for each in transaction.rows(
                f"SELECT file_id, endpoint, id, state FROM replica WHERE {among}"
                f" ORDER BY file_id, endpoint{transaction.lock}",
                values,
            ):
                known[each[0], each[1]] = each[2:]
        new: dict[tuple[int, str], Row] = {}
        again: list[Row] = []
        for row in rows:
            if row.path not in files:
                continue  # what is delivered is no file of the ledger
            file_id, adler32, crc32c, size = files[row.path]
            endpoint = row.destination.removeprefix(ENDPOINT)
            key = (file_id, endpoint)
            if row.crc32c not in ("", crc32c):
                adler32, size = "", row.bytes  # it was delivered before the file was mended
            replica_id, old = known.get(key, (0, ""))
            values = (row.target, size, row.crc32c or crc32c, adler32)
            if key in known:
                again.append((*values, "verified", "", self._custodial, moment, replica_id))
            else:
                new[key] = (row.image_id, *key, *values, self._custodial, moment, moment)
            if old != "verified":
                detail = {"bytes": size, "attempt": row.attempts, "path": row.path}
                _note(transaction, (endpoint, row.target, row.image_id, row.obsid), old, "verified", detail)
        columns = ("image_id", "file_id", "endpoint", "target", "bytes", "crc32c", "adler32")
        transaction.insert(
            "replica",
            (*columns, "custodial", "verified_tai", "checked_tai"),
            list(new.values()),
            new=True,
        )
        transaction.update(
            "replica",
            (*columns[3:], "state", "reason", "custodial", "checked_tai"),
            ("id",),
            again,
        )


class Replicas:
    """Thread-safe; raises StorageError when the ledger cannot be read or written.

    Endpoints have their plain names here, as in the configuration; only `delivery.destination` has them
    with `endpoint:` before.
    """

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases
        self._deliveries = Deliveries(database, leases)

    # -- planning

    def missing(
        self,
        endpoint: str,
        kinds: Collection[str] = ("raw", "sidecar", "manifest", "header"),
        limit: int = 1000,
        after_file_id: int = 0,
        instruments: Collection[str] = (),
        *,
        image_ids: Collection[int] | None = None,
        until_file_id: int = 0,
        verified: bool = True,
        removed: bool = False,
    ) -> list[FileRow]:
        """Files that are to go to an endpoint and are neither there nor on their way, by their number: with
        `image_id`, `id` (for `after_file_id`), `path`, `bytes` and sums.

        A file is to go there when it is sound and, unless `verified` is False, its sums were found to hold in
        the archive; or where the archive has it no more, its replica there is damaged or lost, and another
        endpoint has a good one. It is there when its replica is `verified` with the same sum; one that was
        `removed` on purpose is not missing, unless asked for with `removed`. On its way is what is queued,
        being sent, failed or in conflict there.

        Of everything, this looks at each file after `after_file_id` (up to `until_file_id`, if that is not
        0): some microseconds each. Of `image_ids` only at theirs.
        """
        if image_ids is not None and not image_ids:
            return []
        found: list[FileRow] = []
        there = f"({_SAME})" if removed else f"({_SAME} OR replica.state = 'removed')"
        with self._database.reading() as transaction:
            for some in [None] if image_ids is None else list(parts(sorted(set(image_ids)))):
                sound = f"{_GOOD} AND file.verified_tai IS NOT NULL" if verified else _GOOD
                where = ["file.id > ?", f"({sound} OR {_ELSEWHERE_ONLY})"]
                values: list[Any] = [after_file_id, endpoint, endpoint]
                if until_file_id:
                    where.append("file.id <= ?")
                    values.append(until_file_id)
                for column, chosen in (
                    ("file.image_id", some),
                    ("file.kind", sorted(kinds)),
                    ("image.instrument", sorted(instruments) or None),
                ):
                    if chosen is not None:
                        among, more = transaction.among(column, chosen)
                        where.append(among)
                        values += more
                where.append(
                    f"NOT EXISTS (SELECT 1 FROM replica WHERE replica.file_id = file.id"
                    f" AND replica.endpoint = ? AND {there})"
                )
                where.append(
                    "NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.image_id = file.image_id"
                    " AND delivery.destination = ? AND delivery.path = file.path"
                    " AND delivery.crc32c = file.crc32c AND delivery.state <> 'delivered')"
                )
                values += [endpoint, ENDPOINT + endpoint, limit - len(found)]
                found += [
                    FileRow(**dict(zip(FILE_FIELDS, row, strict=True)))
                    for row in transaction.rows(
                        f"SELECT {FILE_SELECT} {FILE_FROM} WHERE {' AND '.join(where)}"
                        " ORDER BY file.id LIMIT ?",
                        values,
                    )
                ]
                if len(found) >= limit:
                    break
        return found

    def last_file(self) -> int:
        """The number of the last file that the ledger knows; 0: it knows none."""
        return int(self._database.read("SELECT coalesce(max(id), 0) FROM file")[0][0])

    def plan(self, endpoint: str, plans: Iterable[DeliveryPlan], reason: str = "") -> int:
        """Queues deliveries to an endpoint (`plan.destination` is set to it); how many are queued that were
        not. What was delivered once, and is missing there now, is queued again."""
        destination = ENDPOINT + endpoint
        listed = [
            DeliveryPlan(
                **{
                    **{name: getattr(plan, name) for name in DeliveryPlan.__struct_fields__},
                    "destination": destination,
                }
            )
            for plan in plans
        ]
        if not listed:
            return 0
        new = self._deliveries.plan(listed)
        if new == len(listed):
            return new
        ids = self._delivered(destination, listed)
        if ids:
            new += self._deliveries.again(
                destination, states=["delivered"], ids=ids, reason=reason or "it is there no more"
            )
        return new

    def _delivered(self, destination: str, plans: Sequence[DeliveryPlan]) -> list[int]:
        """Deliveries that ended well of which there is no replica."""
        wanted = {(plan.image_id, plan.path, plan.crc32c) for plan in plans}
        ids: list[int] = []
        with self._database.reading() as transaction:
            for part in parts(sorted({plan.image_id for plan in plans})):
                among, values = transaction.among("delivery.image_id", part)
                rows = transaction.rows(
                    "SELECT delivery.id, delivery.image_id, delivery.path, delivery.crc32c FROM delivery"
                    " LEFT JOIN file ON file.path = delivery.path LEFT JOIN replica"
                    " ON replica.file_id = file.id AND replica.endpoint = ?"
                    f" WHERE {among} AND delivery.destination = ? AND delivery.state = 'delivered'"
                    f" AND (replica.id IS NULL OR NOT ({_SAME}))",
                    (destination.removeprefix(ENDPOINT), *values, destination),
                )
                ids += [row[0] for row in rows if tuple(row[1:]) in wanted]
        return ids

    def queue(self, endpoint: str, *, custodial: bool = False) -> ReplicaQueue:
        """The queue of an endpoint, for whoever brings files there; `custodial`: what is there cannot be
        changed by anybody, and the replica says so. Its destination is `ENDPOINT + endpoint`."""
        del endpoint  # every queue knows its destination from its deliveries
        return ReplicaQueue(self._database, self._leases, custodial=custodial)

    def demote(self, endpoint: str, after: float) -> int:
        """Lets what has been in the queue of an endpoint for so many seconds go after what is new, the oldest
        image first; how many they are."""
        where = (
            "destination = ? AND state = 'queued' AND state <> 'delivered'"
            " AND priority < ? AND queued_tai < ?"
        )
        values = (ENDPOINT + endpoint, _BACKLOG, tai() - after)
        if not self._database.read(f"SELECT 1 FROM delivery WHERE {where} LIMIT 1", values):
            return 0
        return self._database.change(
            lambda transaction: transaction.run(
                f"UPDATE delivery SET priority = {_BACKLOG} WHERE {where}", values
            )
        )

    # -- asking

    def of(self, image_id: int) -> list[ReplicaRow]:
        """The replicas of an image's files, by endpoint and path."""
        return self._select("WHERE replica.image_id = ? ORDER BY replica.endpoint, file.path", (image_id,))

    def in_containers(self, image_id: int) -> dict[int, set[str]]:
        """Of an image's files, by number: endpoints that have a good copy in a container."""
        found: dict[int, set[str]] = {}
        for file_id, endpoint, _ in self._database.read(
            f"{_IN_CONTAINERS} WHERE file.image_id = ?", (0.0, image_id)
        ):
            found.setdefault(file_id, set()).add(endpoint)
        return found

    def of_files(self, file_ids: Iterable[int]) -> list[ReplicaRow]:
        """The replicas of some files, by file and endpoint."""
        found: list[ReplicaRow] = []
        with self._database.reading() as transaction:
            for part in parts(sorted(set(file_ids))):
                among, values = transaction.among("replica.file_id", part)
                found += _rows(
                    transaction, f"WHERE {among} ORDER BY replica.file_id, replica.endpoint", values
                )
        return found

    def at(
        self, endpoint: str, after_id: int = 0, limit: int = 1000, states: Collection[str] = ()
    ) -> list[ReplicaRow]:
        """The replicas at an endpoint, by their number; the next ones follow `after_id`."""
        chosen = f" AND replica.state IN ({quoted(_known(states))})" if states else ""
        return self._select(
            f"WHERE replica.id > ? AND replica.endpoint = ?{chosen} ORDER BY replica.id LIMIT ?",
            (after_id, endpoint, limit),
        )

    def counts(
        self, endpoint: str | None = None, dayobs: int | None = None, *, verified: bool = True
    ) -> dict[str, dict[str, int]]:
        """How many replicas are in each state at each endpoint; of one night only, if that is asked for.
        Without `verified` only those that are damaged, lost or removed, which is quick however many there
        are."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        if endpoint is not None:
            where.append("replica.endpoint = ?")
            values.append(endpoint)
        if dayobs is not None:
            where.append("replica.image_id IN (SELECT id FROM image WHERE dayobs = ?)")
            values.append(dayobs)
        if not verified:
            where.append("replica.state <> 'verified'")  # as the index of them has it
        found: dict[str, dict[str, int]] = {}
        for name, state, count in self._database.read(
            f"SELECT endpoint, state, count(*) FROM replica WHERE {' AND '.join(where)}"
            " GROUP BY endpoint, state ORDER BY endpoint, state",
            values,
        ):
            found.setdefault(name, {})[state] = count
        return found

    def nowhere(self) -> dict[str, int]:
        """By endpoint: replicas that are damaged or lost, of files that were taken away from the archive and
        of which no endpoint has a good copy, in a container either."""
        return {str(name): int(count) for name, count in self._database.read(_NOWHERE, (0.0, 0.0))}

    def safe(
        self,
        file_ids: Iterable[int],
        required: Sequence[str] | int,
        custodial: int = 0,
        *,
        least: int = 0,
        but: Collection[str] = (),
        checked_since: float = 0.0,
    ) -> set[int]:
        """Those of some files that may go, because there are enough good copies of them elsewhere: the rule
        of retention. A good copy of a container is one of each file that is in it as it is now.

        Parameters
        ----------
        file_ids : iterable of int
            Files of the ledger. What it does not know is never safe.
        required : sequence of str, or int
            Endpoints each of which must have it, or how many different ones must.
        custodial : int
            How many of all that have it must be custodial.
        least : int
            How many endpoints must have it, beside those that are named.
        but : collection of str
            Endpoints that do not count: those at which the file is going to be deleted.
        checked_since : float
            TAI; copies that were last read before do not count.

        Raises
        ------
        UsageError
            Less than none is required, or one name for many (`str` instead of a sequence of it).
        """
        if isinstance(required, str):
            raise UsageError(f"{required!a}: give the endpoints as a list of names")
        named = frozenset() if isinstance(required, int) else frozenset(required)
        asked_for = required if isinstance(required, int) else 0
        number = max(least, asked_for)
        if min(asked_for, least, custodial) < 0:
            raise UsageError("less than no copy cannot be required; give 0 or more")
        asked = {each for each in file_ids if each > 0}
        having: dict[int, dict[str, int]] = {}
        with self._database.reading() as transaction:
            for part in parts(sorted(asked)):
                among, values = transaction.among("file.id", part)
                for query in (_ALONE, _IN_CONTAINERS):
                    for file_id, endpoint, kept in transaction.rows(
                        f"{query} WHERE {among}", (checked_since, *values)
                    ):
                        there = having.setdefault(file_id, {})
                        if endpoint is not None and endpoint not in but:
                            there[endpoint] = max(int(kept), there.get(endpoint, 0))
        return {
            file_id
            for file_id, there in having.items()
            if named <= there.keys() and len(there) >= number and sum(there.values()) >= custodial
        }

    # -- looking after them

    def due(self, endpoint: str, before_tai: float, limit: int = 1000) -> list[ReplicaRow]:
        """Replicas at an endpoint that were last read before some time, the oldest first: for the scrub. Then
        those that were read in the future: a clock was wrong, and they would never be due."""
        found: list[ReplicaRow] = []
        for order, time in (("<", before_tai), (">", tai() + _AHEAD)):
            if len(found) < limit:
                found += self._select(
                    "WHERE replica.endpoint = ? AND replica.state = 'verified'"
                    f" AND replica.checked_tai {order} ? ORDER BY replica.checked_tai, replica.id LIMIT ?",
                    (endpoint, time, limit - len(found)),
                )
        return found

    def checked(self, rows: Iterable[ReplicaRow]) -> int:
        """They were read and are what they should be; how many of them the ledger says so of now. One that
        is damaged or lost is `healed`."""
        ids = [row.id for row in rows]

        def work(transaction: Transaction) -> int:
            done, moment = 0, tai()
            for part in parts(sorted(ids)):
                among, values = transaction.among("id", part)
                done += transaction.run(
                    f"UPDATE replica SET checked_tai = ? WHERE {among} AND state = 'verified'",
                    (moment, *values),
                )
            return done

        return self._database.change(work)

    def damaged(self, row: ReplicaRow, reason: str) -> bool:
        """Its sums do not hold there. False where the ledger says so already."""
        return self._move(row, "damaged", reason)

    def lost(self, row: ReplicaRow, reason: str) -> bool:
        """It is not there any more. False where the ledger says so already."""
        return self._move(row, "lost", reason)

    def all_lost(self, endpoint: str, reason: str, most: int = 1000) -> int:
        """All that is known to be at an endpoint is not there any more; how many replicas that was now,
        `most` at a time: call it until there are none."""
        said = clean(reason)

        def work(transaction: Transaction) -> int:
            rows = transaction.rows(
                "SELECT replica.id, replica.target, replica.image_id, image.obsid, replica.state FROM replica"
                " JOIN image ON image.id = replica.image_id WHERE replica.endpoint = ?"
                " AND replica.state IN ('verified', 'damaged') ORDER BY replica.id LIMIT ?",
                (endpoint, most),
            )
            moment = tai()
            transaction.update(
                "replica",
                ("state", "reason", "checked_tai"),
                ("id",),
                [("lost", said, moment, row[0]) for row in rows],
            )
            for _, target, image_id, obsid, old in rows:
                _note(transaction, (endpoint, target, image_id, obsid), old, "lost", {"reason": said})
            return len(rows)

        return self._database.change(work)

    def healed(self, row: ReplicaRow, how: str) -> bool:
        """It was made good, and read there; `how` is for the history."""
        return self._move(row, "verified", how)

    def removed(self, row: ReplicaRow, reason: str = "") -> bool:
        """It was taken away on purpose."""
        return self._move(row, "removed", reason)

    def _move(self, row: ReplicaRow, new: str, reason: str) -> bool:
        said = clean(reason)

        def work(transaction: Transaction) -> bool:
            found = transaction.one(f"SELECT state FROM replica WHERE id = ?{transaction.lock}", (row.id,))
            if found is None:
                raise UsageError(f"{row.endpoint} {row.target}: the ledger knows no such replica")
            old = found[0]
            check("replica", old, new, f"{row.endpoint} {row.target}")
            if old == new:
                return False
            transaction.run(
                "UPDATE replica SET state = ?, reason = ?, checked_tai = ?"
                f" WHERE id = ? AND state IN ({quoted(sources_of('replica', new))})",
                (new, "" if new == "verified" else said, tai(), row.id),
            )
            subject = (row.endpoint, row.target, row.image_id, row.obsid)
            _note(transaction, subject, old, new, {"reason": said} if said else {})
            return True

        return self._database.change(work)

    def _select(self, where: str, values: Sequence[Any]) -> list[ReplicaRow]:
        with self._database.reading() as transaction:
            return _rows(transaction, where, values)


def _rows(transaction: Transaction, where: str, values: Sequence[Any]) -> list[ReplicaRow]:
    return [
        ReplicaRow(**dict(zip(_FIELDS, row, strict=True)))
        for row in transaction.rows(f"SELECT {_REPLICA} {_FROM} {where}", values)
    ]


def _known(states: Collection[str]) -> Collection[str]:
    for state in states:
        check("replica", state, state)
    return states


def _note(
    transaction: Transaction, replica: tuple[str, str, int, str], old: str, new: str, detail: dict[str, Any]
) -> None:
    """Which replica, says the subject: `ENDPOINT TARGET`."""
    endpoint, target, image_id, obsid = replica
    transaction.note(
        Change("replica", f"{endpoint} {target}", old, new, image_id, obsid, dayobs_of(obsid), detail)
    )
