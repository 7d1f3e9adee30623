"""Receiver threads: each has a data connection and many sources on it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from raftwright.service.context import carried
from raftwright.stream import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.work import Work
    from raftwright.metrics import Metrics
    from raftwright.stream import NetworkStore
    from raftwright.stream.metering import Meter

__all__ = ["Receivers"]

_log = logging.getLogger("raftwright.capture")

_TICK: Final = 0.5


class Receivers:
    """The threads. `ended` is called, in one of them, with each unit whose fetch ended, however it did."""

    def __init__(
        self,
        settings: CaptureSettings,
        store: NetworkStore,
        metrics: Metrics,
        ended: Callable[[Work], None],
        meter: Meter | None = None,
    ) -> None:
        self._lanes = [_Lane(n, settings, store, metrics, ended, meter) for n in range(settings.receivers)]

    def start(self) -> None:
        """Begins."""
        for lane in self._lanes:
            lane.thread.start()

    def give(self, work: Work) -> None:
        """A unit to be received, by the thread that has the least to do."""
        min(self._lanes, key=lambda lane: lane.load).give(work)

    def stop(self, timeout: float) -> None:
        """Gives up what is not finished in time."""
        end = time.monotonic() + timeout
        for lane in self._lanes:
            lane.stopping.set()
            lane.wake()
        for lane in self._lanes:
            lane.thread.join(max(0.1, end - time.monotonic()))

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that receive."""
        return [lane.thread for lane in self._lanes]

    @property
    def outstanding(self) -> int:
        """Bytes that were asked for and did not come yet."""
        return sum(lane.outstanding for lane in self._lanes)

    @property
    def stats(self) -> dict[str, int]:
        """Counts of all receivers together."""
        total: dict[str, int] = {}
        for lane in self._lanes:
            for name, value in lane.stats.items():
                total[name] = total.get(name, 0) + value
        return total


class _Lane:
    """One thread and its receiver."""

    def __init__(
        self,
        number: int,
        settings: CaptureSettings,
        store: NetworkStore,
        metrics: Metrics,
        ended: Callable[[Work], None],
        meter: Meter | None,
    ) -> None:
        self._number = number
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._ended = ended
        self._meter = meter
        self._inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._receiver: Receiver | None = None
        self._works: set[Work] = set()
        self.load = 0
        """Bytes that it has been given and that did not end."""
        self._count = threading.Lock()
        self.stats: dict[str, int] = {}
        self.outstanding = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=carried(self._run), name=f"receive-{number}", daemon=True)

    def give(self, work: Work) -> None:
        with self._count:
            self.load += work.source.bytes
        self._inbox.put(work)
        self.wake()

    def wake(self) -> None:
        receiver = self._receiver
        if receiver is not None:
            receiver.wake()

    def _run(self) -> None:
        while True:
            try:
                with Receiver(
                    self._store,
                    index=self._number,
                    chunk_bytes=self._settings.chunk,
                    credit=self._settings.credit,
                    meter=self._meter,
                ) as receiver:
                    self._receiver = receiver
                    self._work(receiver)
                return
            except Exception:
                _log.exception("a receiver failed; it begins anew")
                for work in list(self._works):
                    self._over(work)
                if self.stopping.wait(0.5):
                    return
            finally:
                self._receiver = None

    def _work(self, receiver: Receiver) -> None:
        while not self.stopping.is_set():
            self._begin(receiver)
            for fetch in receiver.run(_TICK if self._inbox.empty() else 0.0):
                work = fetch.tag
                if work in self._works:
                    if fetch.last_byte > fetch.first_byte > 0:
                        seconds = fetch.last_byte - fetch.first_byte
                        self._metrics.stage("receive").observe(seconds, bytes=fetch.received)
                    self._over(work)
            self.stats = receiver.stats
            self.outstanding = receiver.outstanding
        for work in list(self._works):
            if work.fetch is not None:
                receiver.cancel(work.fetch)
            self._over(work)

    def _begin(self, receiver: Receiver) -> None:
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return
            assert work.readout is not None
            self._works.add(work)
            work.fetch = receiver.fetch(
                work.image.name,
                work.source,
                work.readout,
                deadline=time.monotonic() + (work.deadline or self._settings.deadline),
                tag=work,
            )

    def _over(self, work: Work) -> None:
        self._works.discard(work)
        with self._count:
            self.load -= work.source.bytes
        self._ended(work)
