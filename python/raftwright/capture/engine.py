"""The parts of the engine, put together: a service offers it units and hears what became of them."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final

from raftwright.capture.account import Account
from raftwright.capture.dispatch import Dispatcher
from raftwright.capture.heading import Heading
from raftwright.capture.places import Places
from raftwright.capture.receiving import Receivers
from raftwright.capture.schedule import Schedule
from raftwright.capture.writing import Writers

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from typing import Any

    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.troubles import Troubles
    from raftwright.capture.work import Work
    from raftwright.events import Publisher
    from raftwright.ledger.claims import Claim, Claims, Outcome
    from raftwright.metrics import Metrics
    from raftwright.prompt import Pool
    from raftwright.rawfile.report import SourceReport
    from raftwright.stream import NetworkStore
    from raftwright.stream.metering import Meter

__all__ = ["Engine"]

_COUNTS: Final = {
    "chunks": "Chunks received",
    "bytes": "Bytes of chunks received",
    "corrupt": "Chunks that came damaged and were asked for again",
    "lost": "Chunks that did not come and were asked for again",
    "duplicate": "Chunks that came more than once",
    "asked_again": "Ranges that were asked for again",
    "reconnects": "Connections that were made anew",
    "stalls": "Pulls from which nothing came for too long",
    "malformed": "Messages that are not of the protocol",
}


class Engine:
    """Schedule, dispatcher, receivers, writers and account: what is offered to `schedule` is claimed in the
    ledger, received from the store and written.

    `observer` is called with what became of each image of which nothing is under way any more, and `after`
    with each unit that ended, once it is out of hand, and `header_missed` with each of which files were
    written without the header document; all in threads of the engine. `meter` says how fast the store may be
    asked, `admit` how many units may be begun now, and `backlog_share` how much of the memory is for those
    that are not live, and `again` that units are tried whatever pause was to be kept.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        store: NetworkStore,
        claims: Claims,
        metrics: Metrics,
        troubles: Troubles,
        *,
        publisher: Publisher | None = None,
        pool: Pool | None = None,
        observer: Callable[[Mapping[str, Any]], None] | None = None,
        after: Callable[[Work, Outcome], None] | None = None,
        header_missed: Callable[[Work], object] | None = None,
        meter: Meter | None = None,
        admit: Callable[[], int] | None = None,
        backlog_share: float = 0.5,
        again: bool = False,
    ) -> None:
        self._settings = settings
        self._header_missed = header_missed
        self._after = after
        self.schedule = Schedule(settings.memory, settings.credit, backlog_share)
        self.account = Account(claims, self.schedule, metrics, publisher, observer)
        self.heading = Heading(settings, metrics, self._headed)
        self.places = Places()
        self.writers = Writers(settings, claims, metrics, troubles, self.places, self.heading.add, self._told)
        self.receivers = Receivers(settings, store, metrics, self._received, meter)
        self.dispatcher = Dispatcher(
            settings,
            self.schedule,
            claims,
            pool,
            metrics,
            troubles,
            self.places,
            receive=self.receivers.give,
            standing=self.writers.found,
            end=self.writers.enter,
            claimed=self._claimed,
            refused=self.account.look_at,
            admit=admit,
            again=again,
        )
        self._measure(metrics)

    def _measure(self, metrics: Metrics) -> None:
        gauge = metrics.gauge
        gauge("buffers_used_bytes", "Memory reserved for readouts", read=lambda: self.schedule.used)
        gauge("buffers_limit_bytes", "Memory for readouts", read=lambda: self.schedule.memory)
        gauge("credit_bytes", "Bytes asked for and not received", read=lambda: self.receivers.outstanding)
        gauge("units_waiting", "Units that wait", read=self.schedule.waiting)
        gauge("units_without_header", "Units that wait for a header", read=lambda: self.heading.waiting)
        gauge("units_in_hand", "Units that are worked on", read=self.schedule.in_hand)
        for name, help in _COUNTS.items():
            gauge(f"stream_{name}", help, read=functools.partial(self._stream_count, name))

    def _stream_count(self, name: str) -> float:
        return self.receivers.stats.get(name, 0)

    def start(self) -> None:
        """Begins."""
        self.places.start()
        self.writers.start()
        self.heading.start()
        self.receivers.start()
        self.dispatcher.start()

    def stop(self) -> None:
        """Finishes what is under way, `drain` seconds at most, and gives the rest back."""
        self.dispatcher.stop(5.0)
        end = time.monotonic() + self._settings.drain
        while self.schedule.in_hand() and time.monotonic() < end:
            self.schedule.wait(0.1)
        self.receivers.stop(10.0)
        self.heading.stop(5.0)
        self.writers.stop(max(5.0, min(self._settings.drain, 30.0)))
        self.places.stop(1.0)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in hand."""
        return not self.schedule.waiting() and not self.schedule.in_hand()

    @property
    def threads(self) -> list[threading.Thread]:
        """All that have to live while it works."""
        return [
            *self.dispatcher.threads,
            *self.receivers.threads,
            *self.heading.threads,
            *self.writers.threads,
            *self.places.threads,
        ]

    # -- from hand to hand

    def _claimed(self, work: Work, claim: Claim) -> None:
        self.heading.expect(work)
        self.account.claimed(work, claim)

    def _headed(self, work: Work) -> None:
        self.writers.write(work)

    def _received(self, work: Work) -> None:
        self.schedule.shrink(work)
        self.writers.write(work)

    def _told(self, work: Work, outcome: Outcome, report: SourceReport | None) -> None:
        self.heading.leave(work)
        try:
            self.account.ended(work, outcome, report)
        finally:
            self.schedule.release(work)
        if report is not None and self._header_missed is not None and _lacks_header(report):
            self._header_missed(work)
        self.account.look_at(work)
        if self._after is not None:
            self._after(work, outcome)


def _lacks_header(report: SourceReport) -> bool:
    return any(file.header == "missing" for file in report.files)
