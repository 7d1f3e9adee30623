"""The ingests of a repository: taken from the ledger in batches, brought in, and written down.

One thread writes to the repository. What arrives meanwhile waits in the ledger, so a registry that is slow
holds nothing else up. While it cannot be reached at all nothing is claimed and nothing is given up."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import RaftwrightError
from raftwright.events.codes import OodsStatus
from raftwright.oods.lost import queue_lost
from raftwright.oods.onsite import local_path

if TYPE_CHECKING:
    from raftwright.butler import Incoming, Ingester, Outcome
    from raftwright.ledger import Ledger
    from raftwright.ledger.ingesting import End
    from raftwright.ledger.rows import IngestRow
    from raftwright.metrics import Metrics
    from raftwright.oods.settings import Settings
    from raftwright.oods.telling import Teller
    from raftwright.service import Task

__all__ = ["Ingesting"]

_log = logging.getLogger("raftwright.oods")

_LOOK: Final = 1.0
"""Seconds between two looks into the queue when nobody says that something is there."""
_LONGEST_OUTAGE: Final = 10.0
"""Seconds between two tries with one file whether the repository is there again, at most."""
_FINAL: Final = frozenset({"ingested", "failed", "conflict", "unsupported"})


class Ingesting:
    """`work` is its task. `exposures` is told (instrument, exposure) of what was ingested."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Callable[[], Settings],
        open_ingester: Callable[[], Ingester],
        teller: Teller,
        *,
        active: Callable[[], bool],
        ingested: Callable[[set[tuple[str, int]]], None],
        settled: Callable[[Mapping[str, Any]], None],
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._open = open_ingester
        self._ingester: Ingester | None = None
        self._teller = teller
        self._active = active
        self._ingested = ingested
        self._settled = settled
        self._wanted = threading.Event()
        self._quiet = threading.Event()
        self._unwritten: list[tuple[End, Outcome | None]] = []
        self._in_hand: Sequence[IngestRow] = ()
        """Claimed; once they have ended they are among those that are unwritten too."""
        self._outages = 0
        self._compare = False
        self.trouble = ""
        """Why nothing can be ingested now; empty where all is well."""
        self.under_way: tuple[str, ...] = ()
        self._states = {
            state: metrics.counter("ingests", "Tries to ingest that ended", state=state)
            for state in ("ingested", "queued", "waiting", "failed", "conflict", "unsupported")
        }
        self._bytes = metrics.counter("ingested_bytes", "Bytes of files that were ingested")
        self._stage = metrics.stage("ingest")
        self._files = metrics.stage("ingest_file_from_queue")
        metrics.gauge(
            "repository_down", "1 where nothing can be ingested", read=lambda: float(bool(self.trouble))
        )

    def wake(self) -> None:
        """There may be something in the queue."""
        self._wanted.set()

    def compare(self) -> None:
        """Look whether the repository has all that the ledger has of it."""
        self._compare = True
        self._wanted.set()

    def quiet(self) -> None:
        """Takes on nothing more."""
        self._quiet.set()
        self._wanted.set()

    # -- the task

    def work(self, task: Task) -> None:
        """Until the task is to stop."""
        self._put_back()
        try:
            while not task.stopping.is_set():
                self._wanted.wait(_LOOK)
                self._wanted.clear()
                self._turn(task)
                task.beat()
        finally:
            self._close()

    def _put_back(self) -> None:
        """What was in hand when the task died: nobody else takes it, since we live."""
        ended = {end[0].id for end, _ in self._unwritten}
        reason = "who ingested it died on the way"
        self._unwritten += [
            ((row, "queued", reason, 0.0, {}), None) for row in self._in_hand if row.id not in ended
        ]

    def _turn(self, task: Task) -> None:
        """Batches until the queue is empty."""
        while not task.stopping.is_set():
            more = self._active() and not self._quiet.is_set()
            if more and self._ingester is None:
                more = self._connect()
            if more and self._compare:
                more = self._look_for_lost()
            try:
                rows = self._step(self._most() if more else 0)
            except RaftwrightError as error:
                self._say(f"the ledger cannot be asked: {error}")
                task.wait(0.5)
                return
            if not rows:
                return
            self._ingest(rows)
            task.beat()
            if self._outages:
                task.wait(self._outage_pause())

    def _most(self) -> int:
        return 1 if self._outages else self._settings().batch  # one file finds out whether it works again

    def _connect(self) -> bool:
        try:
            self._ingester = self._open()
        except RaftwrightError as error:
            self._outage(str(error))
            return False
        return True

    def _look_for_lost(self) -> bool:
        assert self._ingester is not None
        self._compare = False
        try:
            queue_lost(self._ledger, self._settings().name, self._ingester)
        except BaseException as error:
            self._compare = True
            if not isinstance(error, RaftwrightError):
                raise
            self._outage(str(error))
            self._close()
            return False
        self._worked()
        return True

    def _close(self) -> None:
        if self._ingester is not None:
            self._ingester.close()
            self._ingester = None

    def _step(self, most: int) -> list[IngestRow]:
        """Writes down what ended, and claims what is next, in one commit. Raises StorageError."""
        name = self._settings().name
        if not self._unwritten and not most:
            return []
        ends = [end for end, _ in self._unwritten]
        expired: list[IngestRow] = []
        ours, rows = self._ledger.ingests.turn(name, ends, most, expired)
        done, self._unwritten, self._in_hand = self._unwritten, [], rows
        self.under_way = tuple(row.path for row in rows)
        self._tell([one for one, mine in zip(done, ours, strict=True) if mine])
        late = "its exposure did not come in time"
        self._tell([((row, "failed", late, 0.0, {}), None) for row in expired])
        return rows

    def _ingest(self, rows: Sequence[IngestRow]) -> None:
        from raftwright.butler import Incoming

        assert self._ingester is not None
        began = time.monotonic()
        incoming = [
            Incoming(
                path=self._where(row),
                obsid=row.obsid,
                detector=row.detector,
                kind="guider" if row.kind == "guider" else "raw",
                crc32c=row.crc32c,
                bytes=row.bytes or -1,
            )
            for row in rows
        ]
        try:
            outcomes = self._bring(rows, incoming)
        except RaftwrightError as error:
            self._outage(str(error))
            self._close()
            after = self._outage_pause()
            self._unwritten = [((row, "queued", str(error)[:2000], after, {}), None) for row in rows]
            return
        except Exception as error:  # a fault of ours must not stop the others: each is tried again, alone
            _log.error("a batch of %d: %s: %s", len(rows), type(error).__name__, error, exc_info=error)
            self._close()
            reason = f"{type(error).__name__}: {error}"[:2000]
            self._unwritten = [(self._again(row, reason, {}), None) for row in rows]
            return
        self._worked()
        self._stage.observe(time.monotonic() - began)
        self._unwritten = [
            (self._end(row, outcome), outcome) for row, outcome in zip(rows, outcomes, strict=True)
        ]

    def _where(self, row: IngestRow) -> str:
        """The file; in the repository's own store where it was moved there and the registry was lost."""
        stored = local_path(row.uri) if row.uri and self._settings().transfer_of(row.path) == "move" else ""
        return stored if stored and not os.path.lexists(row.path) and os.path.isfile(stored) else row.path

    def _bring(self, rows: Sequence[IngestRow], incoming: Sequence[Incoming]) -> list[Outcome]:
        """An outcome for each. Raises StorageError."""
        assert self._ingester is not None
        wanted = self._settings()
        ways = [wanted.transfer_of(row.path) for row in rows]
        outcomes: dict[int, Outcome] = {}
        for way in dict.fromkeys(ways):
            chosen = [number for number, other in enumerate(ways) if other == way]
            found = self._ingester.ingest([incoming[number] for number in chosen], way)
            for number, outcome in zip(chosen, found, strict=True):
                row = rows[number]
                if way == "move" and outcome.again and not os.path.lexists(row.path):
                    outcome = self._ingester.moved(incoming[number]) or outcome
                outcomes[number] = outcome
        return [outcomes[number] for number in range(len(rows))]

    # -- ends

    def _end(self, row: IngestRow, outcome: Outcome) -> End:
        facts: dict[str, Any] = {"code": int(outcome.code)}
        if outcome.good:
            facts |= {
                "uri": outcome.uri,
                "dataset_id": outcome.dataset_id,
                "run": outcome.run,
                "dataset_type": outcome.dataset_type,
            }
            return row, "ingested", outcome.reason, 0.0, facts
        if outcome.state == "waiting":
            return row, "waiting", outcome.reason, self._settings().guider_wait, facts
        if outcome.state == "failed" and outcome.again:
            return self._again(row, outcome.reason, facts)
        return row, outcome.state, outcome.reason, 0.0, facts

    def _again(self, row: IngestRow, reason: str, facts: Mapping[str, Any]) -> End:
        if row.attempts > self._settings().retries:
            return row, "failed", reason, 0.0, {"code": int(OodsStatus.INGEST_FAILURE), **facts}
        return row, "queued", reason, self._pause(row.attempts), facts

    def _pause(self, tries: int) -> float:
        wanted = self._settings()
        whole: float = min(wanted.backoff * 2.0 ** min(max(tries - 1, 0), 30), wanted.longest)
        return whole * random.uniform(0.5, 1.0)

    def _outage_pause(self) -> float:
        """A repository that was away for long is not kept waiting for as long."""
        return min(self._pause(self._outages), _LONGEST_OUTAGE)

    def _tell(self, done: Sequence[tuple[End, Outcome | None]]) -> None:
        """After it is written down."""
        exposures: set[tuple[str, int]] = set()
        moment = time.time()
        for (row, state, reason, _, facts), outcome in done:
            self._states[state].add()
            if state == "ingested":
                self._bytes.add(row.bytes)
                if outcome is not None and outcome.exposure:
                    exposures.add((outcome.instrument, outcome.exposure))
                self._files.observe(max(0.0, _unix(moment) - row.queued_tai))
            elif state != "queued":
                _log.warning("%s: %s: %s", row.path, state, reason)
            if state in _FINAL:
                good = state == "ingested"
                code = int(facts.get("code") or (0 if good else OodsStatus.INGEST_FAILURE))
                self._teller.of(
                    row, 0 if good else code or 1, "file ingested" if good else f"{state}: {reason}"
                )
            self._settled(
                {
                    "obsid": row.obsid,
                    "detector": row.detector,
                    "path": row.path,
                    "state": state,
                    "reason": reason,
                }
            )
        if exposures:
            self._ingested(exposures)

    # -- troubles

    def _outage(self, reason: str) -> None:
        self._outages += 1
        self._say(reason)

    def _worked(self) -> None:
        self._outages = 0
        if self.trouble:
            _log.info("files are ingested again")
            self.trouble = ""

    def _say(self, reason: str) -> None:
        if not self.trouble:
            _log.error("%s", reason)
        self.trouble = reason


def _unix(moment: float) -> float:
    from raftwright.timescale import TAI_MINUS_UTC

    return moment + TAI_MINUS_UTC
