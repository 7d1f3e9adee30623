"""Whether a ledger contradicts itself: `raftwright ledger check`. Whether it is true says the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.ledger.database import Transaction

if TYPE_CHECKING:
    from raftwright.ledger.ledger import Ledger

__all__ = ["Fault", "check_ledger", "counts_of"]

_SHOWN: Final = 3

_CONTRADICTIONS: Final = (
    (
        "images are complete, and a detector of them is not",
        """SELECT obsid FROM image WHERE state = 'complete' AND EXISTS
            (SELECT 1 FROM detector WHERE detector.image_id = image.id AND detector.state <> 'present')""",
        "`raftwright repair` judges them anew",
    ),
    (
        "detectors are present, and no file of them is there",
        """SELECT image.obsid || ' ' || detector.detector
            FROM detector JOIN image ON image.id = detector.image_id
            WHERE detector.state = 'present' AND NOT EXISTS
            (SELECT 1 FROM file WHERE file.image_id = image.id AND file.detector = detector.detector
            AND file.kind = 'raw' AND file.status NOT IN ('lost', 'damaged', 'conflict'))""",
        "`raftwright ledger rebuild` enters what there is",
    ),
    (
        "images count other sources or detectors than they have",
        """SELECT obsid FROM image WHERE
            expected_detectors <> (SELECT count(*) FROM detector WHERE detector.image_id = image.id)
            OR expected_sources <> (SELECT count(*) FROM source WHERE source.image_id = image.id)""",
        "they are counted anew when they are announced again",
    ),
    *(
        (
            f"rows of {table} belong to images that are not there",
            f"""SELECT image_id FROM {table} WHERE image_id IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM image WHERE image.id = {table}.image_id)""",
            "`raftwright ledger rebuild` into a new ledger",
        )
        for table in ("file", "delivery", "attempt", "event", "replica", "tag")
    ),
    (
        "rows of ingest belong to images that are not there",
        """SELECT image_id FROM ingest WHERE image_id <> 0
            AND NOT EXISTS (SELECT 1 FROM image WHERE image.id = ingest.image_id)""",
        "`raftwright ledger rebuild` into a new ledger",
    ),
    *(
        (
            f"rows of {table} belong to files that are not there",
            f"""SELECT {table}.{name} FROM {table} WHERE {table}.file_id <> 0 AND NOT EXISTS
                (SELECT 1 FROM file WHERE file.id = {table}.file_id AND file.image_id = {table}.image_id)""",
            "`raftwright ledger rebuild` into a new ledger",
        )
        for table, name in (("replica", "target"), ("ingest", "path"))
    ),
    (
        "containers have files in them that are not there, or of another image",
        """SELECT member.container_id || ' ' || member.file_id FROM member WHERE NOT EXISTS
            (SELECT 1 FROM file JOIN file AS box ON box.image_id = file.image_id
            WHERE file.id = member.file_id AND box.id = member.container_id
            AND file.kind <> 'container' AND box.kind = 'container')""",
        "`raftwright ledger rebuild` into a new ledger",
    ),
    (
        "containers are there with nothing in them",
        """SELECT path FROM file WHERE kind = 'container' AND status IN ('written', 'unchanged', 'kept')
            AND NOT EXISTS (SELECT 1 FROM member WHERE member.container_id = file.id)""",
        "`raftwright handoff pack` makes them anew once `raftwright audit` has moved them aside",
    ),
    (
        "files were delivered to endpoints, and no replica of them is known",
        """SELECT delivery.destination || ' ' || delivery.path
            FROM delivery JOIN file ON file.path = delivery.path
            WHERE delivery.state = 'delivered' AND substr(delivery.destination, 1, 9) = 'endpoint:'
            AND NOT EXISTS (SELECT 1 FROM replica WHERE replica.file_id = file.id
            AND replica.endpoint = substr(delivery.destination, 10))""",
        "the hand-off sends them again when it looks for what is missing",
    ),
    (
        "files are in repositories without a time at which they came",
        "SELECT repository || ' ' || path FROM ingest WHERE state = 'ingested' AND ingested_tai IS NULL",
        "somebody wrote into the ledger by hand; `raftwright audit` says what is there",
    ),
    (
        "files are replaced by files that are not there",
        """SELECT path FROM file WHERE replaced_by <> ''
            AND NOT EXISTS (SELECT 1 FROM file AS later WHERE later.path = file.replaced_by)""",
        "`raftwright ledger rebuild` enters what there is",
    ),
    (
        "images are in another state than their last event says",
        """SELECT obsid FROM image WHERE state <>
            (SELECT new FROM event WHERE event.image_id = image.id AND event.thing = 'image'
            ORDER BY number DESC LIMIT 1)""",
        "somebody wrote into the ledger by hand; look at `raftwright image`",
    ),
)


class Fault(msgspec.Struct, frozen=True):
    """Something that contradicts something else."""

    what: str
    count: int
    examples: tuple[str, ...]
    remedy: str


def check_ledger(ledger: Ledger) -> list[Fault]:
    """Looks at everything; of ten million files that takes minutes. Raises StorageError."""
    faults: list[Fault] = []
    with ledger.database.reading() as transaction:
        if ledger.database.dialect == "sqlite":
            faults += _of_sqlite(transaction)
        for what, query, remedy in _CONTRADICTIONS:
            (count,) = transaction.rows(f"SELECT count(*) FROM ({query}) AS found")[0]
            if count:
                examples = tuple(str(row[0]) for row in transaction.rows(f"{query} LIMIT {_SHOWN}"))
                faults.append(Fault(what, count, examples, remedy))
    return faults


def _of_sqlite(transaction: Transaction) -> list[Fault]:
    faults = []
    said = [str(row[0]) for row in transaction.rows("PRAGMA integrity_check(20)")]
    if said != ["ok"]:
        remedy = "move it away and make a new one with `raftwright ledger rebuild`"
        faults.append(Fault("places in the file are damaged", len(said), tuple(said[:_SHOWN]), remedy))
    loose = transaction.rows("PRAGMA foreign_key_check")
    if loose:
        examples = tuple(sorted({f"{row[0]} without its {row[2]}" for row in loose})[:_SHOWN])
        remedy = "`raftwright ledger rebuild` into a new one"
        faults.append(Fault("rows belong to rows that are not there", len(loose), examples, remedy))
    return faults


def counts_of(ledger: Ledger) -> dict[str, dict[str, int]]:
    """How many of everything, by state where it has one."""
    found: dict[str, dict[str, int]] = {}
    with ledger.database.reading() as transaction:
        for thing in ("image", "source", "detector", "delivery", "replica", "ingest"):
            rows = transaction.rows(f"SELECT state, count(*) FROM {thing} GROUP BY state ORDER BY state")
            found[thing] = {str(state): int(count) for state, count in rows}
        rows = transaction.rows("SELECT kind, count(*) FROM file GROUP BY kind ORDER BY kind")
        found["file"] = {str(kind): int(count) for kind, count in rows}
        for thing in ("header", "event", "attempt", "tag", "quarantine", "role"):
            (count,) = transaction.rows(f"SELECT count(*) FROM {thing}")[0]
            found[thing] = {"all": int(count)}
        living = ledger.leases.living(transaction)
        names = {str(name) for (name,) in transaction.rows("SELECT name FROM owner")}
        found["owner"] = {"alive": len(names & living), "dead": len(names - living)}
    return found
