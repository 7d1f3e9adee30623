"""What a registry has lost: it was made anew, or an older copy of it was put back. The ledger knows what was
in it, and the files are where they were, so it is ingested once more; ids of datasets are the same whoever
makes them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raftwright.butler import Ingester
    from raftwright.ledger import Ledger

__all__ = ["queue_lost"]

_log = logging.getLogger("raftwright.oods")

_PAGE: Final = 500
"""Files that are asked for together; back from the newest to a page of which all are there."""


def queue_lost(ledger: Ledger, name: str, ingester: Ingester) -> int:
    """Queues again what the ledger has as ingested and the registry has not; how many files. Raises
    StorageError, and then it may be called again."""
    before, lost = 1 << 62, 0
    while True:
        rows = ledger.read(
            "SELECT id, dataset_id FROM ingest WHERE repository = ? AND state = 'ingested' AND id < ?"
            " ORDER BY id DESC LIMIT ?",
            (name, before, _PAGE),
        )
        there = ingester.known(str(row[1]) for row in rows if row[1])
        gone = [int(row[0]) for row in rows if row[1] and row[1] not in there]
        if gone:
            reason = "the repository has it no more"
            lost += ledger.ingests.again(name, states=("ingested",), reason=reason, ids=gone)
        if not gone or len(rows) < _PAGE:
            break
        before = int(rows[-1][0])
    if lost:
        _log.warning("%d files are ingested again: the repository has them no more", lost)
    return lost
