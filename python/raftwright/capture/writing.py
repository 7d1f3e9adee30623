"""Writer threads: from a source that came to files, ledger and pixels in shared memory.

A unit comes twice. First its last rows are worked off and its pixels are shown; then it is held until there
is a header document, or for long enough; then its files are written.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from raftwright.assembly import AssembledSource
from raftwright.errors import RaftwrightError, StorageError
from raftwright.ledger.claims import FileRow, Outcome, State
from raftwright.rawfile.report import SourceReport
from raftwright.rawfile.standing import earlier_versions
from raftwright.service.context import bound, carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.capture.places import Places
    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.troubles import Troubles
    from raftwright.capture.work import Work
    from raftwright.ledger.claims import Claims
    from raftwright.metrics import Metrics
    from raftwright.rawfile.report import FileReport
    from raftwright.stream import Fetch

__all__ = ["Writers"]

_log = logging.getLogger("raftwright.capture")

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_LONGEST_RETRY: Final = 600.0
_LIVE, _OLD, _LAST = range(3)
_SOME: Final = "of its detectors only some were asked for"

_Item: TypeAlias = "tuple[Work, Outcome | None, SourceReport | None]"


class Writers:
    """The threads. `hold` is called with each unit of which files are to be written; it says whether it keeps
    the unit, to give it back to `write` later. `told` gets each unit, what became of it, and its files."""

    def __init__(
        self,
        settings: CaptureSettings,
        claims: Claims,
        metrics: Metrics,
        troubles: Troubles,
        places: Places,
        hold: Callable[[Work], bool],
        told: Callable[[Work, Outcome, SourceReport | None], None],
    ) -> None:
        self._settings = settings
        self._claims = claims
        self._metrics = metrics
        self._troubles = troubles
        self._places = places
        self._hold = hold
        self._told = told
        self._queue: queue.PriorityQueue[tuple[int, int, _Item | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=carried(self._run), name=f"write-{n}", daemon=True)
            for n in range(settings.writers)
        ]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def write(self, work: Work) -> None:
        """A unit whose fetch ended, and again once it was held."""
        self._put(work, None, None)

    def enter(self, work: Work, outcome: Outcome) -> None:
        """A unit that ended without anything new on the disk; the ledger is to know."""
        self._put(work, outcome, None)

    def found(self, work: Work) -> None:
        """A unit whose files are all there already."""
        report = _with_standing(work, None)
        whole = len(report.files) == len(work.board.detectors)
        outcome = Outcome(
            state="done" if whole else "open",
            received=work.source.bytes if whole else 0,
            files=_rows(work, report),
            reason="found on disk" if whole else _SOME,
        )
        self._put(work, outcome, report)

    def stop(self, timeout: float) -> None:
        """Works off what waits; a disk that refuses is not waited for any longer."""
        self._stop.set()
        for _ in self._threads:
            self._queue.put((_LAST, next(self._order), None))
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))

    def _put(self, work: Work, outcome: Outcome | None, report: SourceReport | None) -> None:
        """What is live does not wait for the backlog here either."""
        self._queue.put((_LIVE if work.live else _OLD, next(self._order), (work, outcome, report)))

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that write."""
        return self._threads

    def _run(self) -> None:
        while (item := self._queue.get()[2]) is not None:
            work, outcome, report = item
            with bound(**work.about):
                try:
                    if outcome is None and work.assembled is None:
                        outcome = self._finish(work)
                        if outcome is None and self._hold(work):
                            del item, work, outcome, report
                            continue
                    if outcome is None and work.assembled is not None:
                        outcome, report = self._file(work, work.assembled)
                except StorageError as error:
                    outcome = Outcome(state="failed", reason=str(error)[:500], retry_after=self._pause(work))
                except Exception as error:
                    _log.exception("%s %s: writing failed", work.image.name, work.source.location)
                    said = f"{type(error).__name__}: {error}"[:500]
                    outcome = Outcome(state="failed", reason=said, retry_after=self._pause(work))
                _let_go(work)
                del item
                assert outcome is not None
                try:
                    self._enter(work, outcome)
                    self._told(work, outcome, report)
                except Exception:  # a writer that dies is one that all others wait for
                    _log.exception(
                        "%s %s: what became of it could not be told", work.image.name, work.source.location
                    )
                work.fetch = None
            del work, outcome, report

    # -- one unit

    def _finish(self, work: Work) -> Outcome | None:
        """Works off the rest and shows the pixels; an outcome where there is nothing to write."""
        fetch, readout = work.fetch, work.readout
        assert work.claim is not None
        assert work.output is not None
        if fetch is None or readout is None or fetch.outcome in (None, "cancelled"):
            return Outcome(state="open", reason="it was given up at the end of the service")
        if fetch.outcome in ("refused", "damaged") or not fetch.received:
            state: State = "gone" if fetch.outcome == "gone" else "failed"
            return Outcome(state=state, reason=fetch.reason, retry_after=self._pause(work))
        with self._metrics.stage("finish"):
            readout.finish(self._settings.fill)
        source = AssembledSource(
            work.board, work.source, work.source.registers.geometry, readout, self._settings.fill
        )
        if work.slab is not None:
            work.slab.publish_source(work.image.name, work.image.camera, source)
            work.slab = None
        work.assembled = source
        return None

    def _file(self, work: Work, source: AssembledSource) -> tuple[Outcome, SourceReport | None]:
        """Writes the files."""
        fetch = work.fetch
        assert fetch is not None
        assert work.claim is not None
        with self._metrics.stage("write"):
            report = self._write(work, source, work.claim.created)
        outcome = self._judge(work, fetch, report)
        if fetch.last_byte:
            # From the last byte to files that are durable: how long one waits for an image.
            self._metrics.stage("latency").observe(time.monotonic() - fetch.last_byte)
        return outcome, report

    def _write(self, work: Work, source: AssembledSource, created: int) -> SourceReport:
        """Writes again and again while the disk refuses: what is written stays."""
        assert work.output is not None
        until = time.monotonic() + self._settings.patience
        pause = _FIRST_PAUSE
        while True:
            try:
                self._places.make(work.output)
                report = work.output.write(source, created=created, detectors=work.wanted)
            except StorageError as error:
                problem = error
            else:
                refused = [error for error in report.errors if isinstance(error, StorageError)]
                if not refused:
                    self._troubles.over("archive", "files can be written again")
                    if report.errors and work.output.document is not None:
                        self._do_without_header(work, report.errors[0])
                        continue
                    return _with_standing(work, report)
                problem = refused[0]
            self._troubles.failed("archive", problem, f"{work.image.name} {work.source.location}")
            if self._stop.is_set() or time.monotonic() + pause > until:
                raise problem
            self._metrics.counter("write_retries", "Writes that were tried again").add()
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            with contextlib.suppress(RaftwrightError):  # said already
                work.output.make_directory()

    def _do_without_header(self, work: Work, error: RaftwrightError) -> None:
        """Pixels that cannot be written with the header document of their image are written without."""
        assert work.output is not None
        work.output = work.output.headed(None)
        work.header_problem = f"with its header it cannot be written: {error}"
        self._metrics.counter("headers_failed", "Units that could not be written with their header").add()
        _log.error("%s %s: %s", work.image.name, work.source.location, work.header_problem)

    def _judge(self, work: Work, fetch: Fetch, report: SourceReport) -> Outcome:
        files = _rows(work, report)
        reasons = [str(error) for error in report.errors]
        state: State
        if report.failures:
            state = "failed"
        elif any(file.status == "conflict" for file in report.files):
            state = "conflict"
            kept = [str(file.path) for file in report.files if file.status == "conflict"]
            reasons.append(f"other content has its names; kept beside: {', '.join(kept)}")
        elif fetch.outcome == "gone":
            state = "gone"
            reasons.append(fetch.reason)
        elif any(file.missing_pixels for file in report.files):
            state = "incomplete"
            reasons.append(fetch.reason)
        else:
            state = "done"
        if state == "done" and len(report.files) < len(work.board.detectors):
            state = "open"
            reasons.append(_SOME)
        if work.header_problem:
            reasons.append(work.header_problem)
        return Outcome(
            state=state,
            reason="; ".join(reason for reason in reasons if reason)[:2000],
            received=fetch.received,
            files=files,
            retry_after=self._pause(work),
        )

    def _pause(self, work: Work) -> float:
        attempt = 1 if work.claim is None else work.claim.attempt
        return float(min(self._settings.retry * 2 ** min(attempt - 1, 20), _LONGEST_RETRY))

    def _enter(self, work: Work, outcome: Outcome) -> None:
        """Writes into the ledger, again and again while that refuses: a unit that it never hears of would be
        claimed as long as we live. At the end we give up; what is written is found on the disk later."""
        assert work.claim is not None
        pause = _FIRST_PAUSE
        while True:
            try:
                with self._metrics.stage("ledger"):
                    ours = self._claims.end(work.claim, outcome)
                if not ours:
                    self._metrics.counter("late", "Units that somebody else had taken over").add()
                self._troubles.over("ledger", "the ledger can be written again")
                return
            except RaftwrightError as error:
                self._troubles.failed("ledger", error)
                if self._stop.is_set():
                    return
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _let_go(work: Work) -> None:
    work.assembled = None
    work.readout = None
    if work.slab is not None:
        work.slab.discard()
        work.slab = None


def _with_standing(work: Work, report: SourceReport | None) -> SourceReport:
    """What is there of a source: what stood there, and what was written now."""
    files = {file.detector: file for file in (() if report is None else report.files)}
    found = [
        files.get(detector.name) or work.standing.get(detector.name) for detector in work.board.detectors
    ]
    listed = tuple(file for file in found if file is not None)
    if report is None:
        return SourceReport(work.source.location, listed, (), (), ())
    return replace(report, files=listed)


def _rows(work: Work, report: SourceReport) -> tuple[FileRow, ...]:
    """Of all files, and of the versions before them, whose writer may have died before the ledger knew."""
    rows = []
    for file in report.files:
        if file.version > 1 and work.output is not None:
            rows += [_row(work, before) for before in earlier_versions(file, work.output.camera)]
        rows.append(_row(work, file))
    return tuple(rows)


def _row(work: Work, file: FileReport) -> FileRow:
    return FileRow(
        image=work.image.name,
        daq_id=work.image.id,
        location=work.source.location,
        detector=file.detector,
        version=file.version,
        path=str(file.path),
        bytes=file.bytes,
        adler32=file.adler32,
        crc32c=file.crc32c,
        missing=file.missing_pixels,
        status=file.status,
        replaces="" if file.replaces is None else str(file.path.with_name(file.replaces.file)),
    )
