"""What catching up writes into the ledger itself, before and instead of a fetch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.catchup.disk import move_aside
from raftwright.errors import RaftwrightError
from raftwright.ledger.claims import Outcome, UnitKey
from raftwright.ledger.database import Change
from raftwright.ledger.states import EDGES, sources_of

if TYPE_CHECKING:
    from raftwright.catchup.comparing import Known, Lack, Need
    from raftwright.ledger import Ledger
    from raftwright.ledger.database import Transaction
    from raftwright.ledger.rows import ImageRow

__all__ = ["give_up", "judge", "open_again", "prepare"]

_log = logging.getLogger("raftwright.catchup")

_SAID: Final = {
    "lost": "it is not there any more",
    "damaged": "it is not what was written",
    "no sidecar": "its sidecar is not there any more",
}
_CLOSED: Final = frozenset({"done", "conflict"})
_UNTRIED: Final = frozenset({"expected", "open", "failed", "incomplete", "claimed"})
_ASK_AGAIN: Final = 600.0


def prepare(ledger: Ledger, known: Known, need: Need) -> None:
    """Makes the ledger say that something of a source is missing, so that it can be claimed, and moves
    damaged files aside. Raises StorageError."""
    for lack in need.lacks:
        if lack.why == "damaged":
            _set_aside(ledger, known.image, lack)
        elif lack.why in _SAID and lack.path:
            ledger.files.lost(lack.path, _SAID[lack.why])
    row = known.sources.get(need.location)
    if row is not None and row.state in _CLOSED:
        open_again(
            ledger, known.image, need.location, f"of {len(need.lacks)} detectors there are no whole files"
        )


def _set_aside(ledger: Ledger, image: ImageRow, lack: Lack) -> None:
    ledger.files.verified(lack.path, False, _SAID["damaged"])
    aside = move_aside(Path(lack.path), lack.crc32c)
    if aside is None:
        return
    _log.warning("%s: damaged; kept as %s", lack.path, aside.name)
    detail = {"detector": lack.detector, "kept_as": str(aside)}
    change = Change("file", lack.path, "damaged", "moved aside", image.id, image.obsid, image.dayobs, detail)
    ledger.database.change(lambda transaction: transaction.note(change))


def open_again(ledger: Ledger, image: ImageRow, location: str, reason: str) -> bool:
    """A source that has ended is to be fetched again; whether it was ended. Raises StorageError."""
    leads = [state for state in sources_of("source", "open") if state in _CLOSED]
    marks = ", ".join(f"'{state}'" for state in leads)

    def work(transaction: Transaction) -> bool:
        row = transaction.one(
            f"SELECT state FROM source WHERE image_id = ? AND location = ?{transaction.lock}",
            (image.id, location),
        )
        if row is None or row[0] not in leads or "open" not in EDGES["source"][row[0]]:
            return False
        transaction.run(
            "UPDATE source SET state = 'open', reason = ?, next_try = 0 WHERE image_id = ? AND location = ?"
            f" AND state IN ({marks})",
            (reason, image.id, location),
        )
        transaction.note(
            Change(
                *("source", location, row[0], "open", image.id, image.obsid, image.dayobs),
                {"reason": reason},
            )
        )
        return True

    return ledger.database.change(work)


def give_up(ledger: Ledger, known: Known, need: Need) -> bool:
    """Leaves the reason why a source cannot be had; whether that is news. Raises StorageError."""
    row = known.sources.get(need.location)
    if row is None or row.reason == need.reason:
        return False
    if need.gone and row.state in (*_UNTRIED, "done"):
        state = "gone"
    elif not need.gone and row.state in ("expected", "open"):
        state = "failed"
    else:
        return False
    prepare(ledger, known, need)
    key = UnitKey(known.image.obsid, known.image.daq_id, need.location)
    for claim in ledger.claims.claim([(key, known.image.folder, row.expected)], again=True):
        return ledger.claims.end(
            claim,
            Outcome(
                state="gone" if state == "gone" else "failed",
                reason=need.reason,
                received=row.received,
                retry_after=_ASK_AGAIN,
            ),
        )
    return False


def judge(ledger: Ledger, image: ImageRow) -> None:
    """Says what an image is now, where no archiver does."""
    for name in (f"archiver:{image.instrument}", "archiver:*"):
        if ledger.roles.holder(name):
            return
    try:
        ledger.images.judge(image.id)
    except RaftwrightError as error:
        _log.error("%s: %s", image.obsid, error)
