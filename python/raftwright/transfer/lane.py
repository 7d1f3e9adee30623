"""The queue of one destination: what waits in the ledger goes out in order, some at a time, and never holds
others.

A lane has threads, limits and troubles of its own. Each file is brought in a thread that may be left behind:
when a place hangs for longer than the timeout, the delivery is given back to the queue and its thread
forgotten; what that does when it wakes up is harmless, because names are never taken twice. While a place
takes nothing at all (an outage), nothing is given up: one file tries again and again, with longer pauses.
What the place refuses of a file alone is tried so many times, and then is a dead letter until somebody asks
for it."""

from __future__ import annotations

import logging
import queue
import random
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from raftwright.errors import ConflictError, RaftwrightError
from raftwright.service import bound
from raftwright.transfer.outcome import OutageError, Sent

if TYPE_CHECKING:
    from raftwright.ledger.rows import DeliveryRow
    from raftwright.metrics import Metrics
    from raftwright.service import Task

__all__ = ["Ended", "Lane", "Limits", "Queue"]

_log = logging.getLogger("raftwright.transfer")

_LOOK: Final = 1.0
"""Seconds between two looks into the queue when nobody says that something is there."""
_SOON: Final = 0.05
_TOGETHER: Final = 0.005
"""Seconds that the end of a file may wait for those beside it: a commit costs as much as a small file."""
_RETRIES: Final = 100
_REMEMBERED: Final = 100_000
"""Files of which the refusals are counted."""
_LEFT_BEHIND: Final = 2
"""So many times its concurrency of threads may hang before a lane takes on nothing more."""

_NO_WORD: Final = re.compile(r"[^a-z0-9]+")

End: TypeAlias = Literal["delivered", "queued", "failed", "conflict"]


class Queue(Protocol):
    """The deliveries of the ledger, as a lane needs them."""

    def turn(
        self, destination: str, ends: Sequence[tuple[DeliveryRow, str, str, float, int]], most: int
    ) -> tuple[list[bool], list[DeliveryRow]]: ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a destination or command is granted. Times in seconds."""

    concurrency: int
    timeout: float
    retries: int
    backoff: float
    longest: float
    in_a_row: int = 0
    """So many files that are refused one after another are taken as an outage; 0: never."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a try ended; what a lane tells."""

    row: DeliveryRow
    state: End
    """`queued`: it is tried again."""
    reason: str = ""
    sent: Sent | None = None
    seconds: float = 0.0
    retry_after: float = 0.0
    outage: bool = False
    error: Exception | None = None


@dataclass(eq=False)
class _Run:
    """A try under way."""

    row: DeliveryRow
    began: float = field(default_factory=time.monotonic)
    left: bool = False
    """Given up: its thread may hang for ever."""
    ended: bool = False
    """Its thread has come to its end."""


class Lane:
    """A queue and those who work on it. `work` is its task; everything else may be called from any thread.

    Parameters
    ----------
    send
        Does what a row says: brings the file there. Raises ConflictError, OutageError, and others for trouble
        with the file.
    probe
        Raises OutageError where nothing would go there now.
    told
        Called in the lane's own thread with each try that ended and is written down.
    active
        Whether it is to take on work.
    any_waiting
        Whether the queue has anything at all; cheaper than to ask for it.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        deliveries: Queue,
        send: Callable[[DeliveryRow], Sent],
        *,
        probe: Callable[[], None],
        told: Callable[[Ended], None],
        active: Callable[[], bool],
        any_waiting: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.limits = limits
        self._deliveries = deliveries
        self._send = send
        self._probe = probe
        self._told = told
        self._active = active
        self._any_waiting = any_waiting
        self._runs: set[_Run] = set()
        self._left: set[object] = set()
        self._done: queue.SimpleQueue[tuple[_Run, Sent | None, Exception | None] | None] = queue.SimpleQueue()
        self._unwritten: deque[tuple[_Run, Ended]] = deque()
        self._poked = True
        self._quiet = threading.Event()
        self._next_look = 0.0
        self._retries: list[float] = []
        """When tries are due again that ended here; what others gave back is found by looking."""
        self._outages = 0
        self._refused = 0
        """Files that were refused in a row."""
        self._refusals: OrderedDict[int, int] = OrderedDict()
        """How often a file was, since it was queued. Tries that met an outage are none of these."""
        self._resume = 0.0
        self._down = ""
        self._doubt = ""
        self._deaf = ""
        self._files = {
            state: metrics.counter("deliveries", "Tries to deliver that ended", destination=name, state=state)
            for state in ("delivered", "queued", "failed", "conflict")
        }
        self._bytes = metrics.counter("delivered_bytes", "Bytes moved to destinations", destination=name)
        self._stage = metrics.stage(f"deliver_{_NO_WORD.sub('_', name.lower())}")
        metrics.gauge("in_flight", "Files under way", read=lambda: float(len(self._runs)), destination=name)
        metrics.gauge(
            "lane_down", "1 where a destination takes nothing", read=self._is_down, destination=name
        )

    # -- from outside

    def poke(self) -> None:
        """There may be something new in the queue."""
        if not self._poked:
            self._poked = True
            self._done.put(None)

    def quiet(self) -> None:
        """Takes on nothing more."""
        self._quiet.set()
        self._done.put(None)

    def in_flight(self) -> list[str]:
        """Names of what is under way."""
        return [f"{self.name} {run.row.target or run.row.path}" for run in list(self._runs)]

    def waiting(self) -> float:
        """Whether a look into the queue is due, for the watch over progress."""
        return float(time.monotonic() - self._next_look > _LOOK and not self._quiet.is_set())

    def status(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "in_flight": len(self._runs),
            "left_behind": len(self._left),
            "trouble": self.trouble,
            **{state: int(counter.value) for state, counter in self._files.items()},
        }

    @property
    def trouble(self) -> str:
        """Why nothing goes there now: for the place, or for the ledger; empty where all is well."""
        return self._down or self._deaf or self._doubt

    def doubt(self, reason: str) -> None:
        """Somebody looked at the place before there was anything to send: what would keep it; empty where all
        is well. It is told, and nothing is held back for it."""
        self._doubt = reason

    def _is_down(self) -> float:
        return float(bool(self.trouble))

    # -- its task

    def work(self, task: Task) -> None:
        """Until the task is to stop. What is under way then stays claimed, and is taken over later."""
        while not task.stopping.is_set():
            self._take_results(self._pause())
            self._give_up_late()
            try:
                self._turn()
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("%s: the ledger does not answer: %s", self.name, error)
                self._deaf = f"the ledger does not answer: {error}"
                self._next_look = time.monotonic() + _LOOK
            task.beat()

    def _pause(self) -> float:
        if self._unwritten or self._quiet.is_set():
            return _SOON
        now = time.monotonic()
        ends = [run.began + self.limits.timeout for run in self._runs if not (run.left or run.ended)]
        until = [self._next_look, *ends]
        return max(0.0, min(_LOOK, min(until) - now))

    def _take_results(self, pause: float) -> None:
        """Waits for the first; files that end at nearly the same time are written down at once."""
        try:
            item = self._done.get(timeout=pause) if pause > 0 else self._done.get_nowait()
            until = time.monotonic() + _TOGETHER
            while True:
                if item is not None:
                    self._ended(*item)
                left = until - time.monotonic()
                more = 0 < len(self._unwritten) < len(self._runs) and left > 0
                item = self._done.get(timeout=left) if more else self._done.get_nowait()
        except queue.Empty:
            pass

    # -- taking on, and writing down

    def _turn(self) -> None:
        """Writes down what ended and takes on what is next, in one commit. A delivery stays under way until
        the ledger knows its end: where that cannot be written, no more is taken on. Raises StorageError."""
        ended = list(self._unwritten)
        room = self._room(len(ended))
        if room:
            self._poked = False
            if not ended and not self._any_waiting():
                room, self._deaf = 0, ""
        if not ended and not room:
            return
        ours, rows = self._deliveries.turn(
            self.name,
            [
                (one.row, one.state, one.reason, one.retry_after, one.sent.bytes if one.sent else 0)
                for _, one in ended
            ],
            room,
        )
        self._deaf = ""
        self._unwritten.clear()
        if len(rows) == room:
            self._poked = True  # there may be more
        for row in rows:
            self._start(row)
        for (run, one), mine in zip(ended, ours, strict=True):
            self._written(run, one, mine)

    def _room(self, ended: int) -> int:
        """How many may be taken on now, where so many that ended are written down with it."""
        now = time.monotonic()
        if self._quiet.is_set() or not (ended or self._poked or now >= self._next_look):
            return 0
        self._retries = [due for due in self._retries if due > now][:_RETRIES]
        self._next_look = min([now + _LOOK, *self._retries])
        room = self.limits.concurrency - len(self._runs) + ended
        if room <= 0 or not self._active():
            return 0
        if len(self._left) >= _LEFT_BEHIND * self.limits.concurrency:
            self._say(f"{len(self._left)} files hang there; nothing more is sent until one comes back")
            return 0
        if not self._outages:
            return room
        if ended or now < self._resume or self._runs:
            self._next_look = min(self._next_look, max(self._resume, now + _SOON))
            return 0
        try:
            self._probed()
        except OutageError as error:
            self._outage(str(error))
            return 0
        return 1  # one file finds out

    def _probed(self) -> None:
        """A probe that hangs is an outage too, and holds up nobody but this lane."""
        answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        mark = object()

        def ask() -> None:
            try:
                self._probe()
                answer.put(None)
            except Exception as error:
                answer.put(error)
            finally:
                self._left.discard(mark)

        self._left.add(mark)
        threading.Thread(target=ask, name=f"probe {self.name}"[:60], daemon=True).start()
        try:
            error = answer.get(timeout=min(self.limits.timeout, 10.0))
        except queue.Empty:
            raise OutageError(f"{self.name}: does not answer") from None
        if error is not None:
            raise error if isinstance(error, OutageError) else OutageError(f"{type(error).__name__}: {error}")

    def _start(self, row: DeliveryRow) -> None:
        run = _Run(row)
        self._runs.add(run)
        threading.Thread(
            target=self._try, args=(run,), name=f"{self.name} {Path(row.path).name}"[:60], daemon=True
        ).start()

    def _try(self, run: _Run) -> None:
        """In a thread of its own."""
        with bound(obsid=run.row.obsid, destination=self.name):
            try:
                sent = self._send(run.row)
            except Exception as error:
                self._done.put((run, None, error))
            else:
                self._done.put((run, sent, None))

    # -- ends

    def _ended(self, run: _Run, sent: Sent | None, error: Exception | None) -> None:
        run.ended = True
        if run.left:
            self._left.discard(run)
            self._poked = True
            return
        seconds = time.monotonic() - run.began
        if sent is not None:
            self._worked()
            ended = Ended(row=run.row, state="delivered", sent=sent, seconds=seconds)
        else:
            assert error is not None
            ended = self._failure(run, error, seconds)
        self._unwritten.append((run, ended))

    def _give_up_late(self) -> None:
        now = time.monotonic()
        late = [
            run for run in self._runs if not (run.left or run.ended) and now - run.began > self.limits.timeout
        ]
        for run in late:
            run.left = True
            self._left.add(run)
            error = OutageError(f"no end within {self.limits.timeout:g} s; given up")
            self._unwritten.append((run, self._failure(run, error, now - run.began)))

    def _failure(self, run: _Run, error: Exception, seconds: float) -> Ended:
        reason = (
            str(error)
            if isinstance(error, (RaftwrightError, OSError))
            else f"{type(error).__name__}: {error}"
        )
        if not isinstance(error, (RaftwrightError, OSError)):
            _log.error("%s: %s", self.name, reason, exc_info=error)
        state: End = "queued"
        after = 0.0
        outage = isinstance(error, OutageError)
        if isinstance(error, ConflictError):
            state = "conflict"
        elif outage:
            self._outage(reason)
            # Later than the lane goes on: what only this file meets must not keep the others from it.
            after = max(0.0, self._resume - time.monotonic()) + self._backoff(run.row.attempts)
        else:
            refusals = self._refuse(run.row.id, reason)
            if refusals > self.limits.retries:
                state = "failed"
            else:
                after = self._backoff(refusals)
        return Ended(
            row=run.row,
            state=state,
            reason=reason[:2000],
            seconds=seconds,
            retry_after=after,
            outage=outage,
            error=error,
        )

    def _backoff(self, tries: int) -> float:
        whole: float = min(self.limits.backoff * 2 ** min(max(tries - 1, 0), 30), self.limits.longest)
        return whole * random.uniform(0.5, 1.0)

    def _refuse(self, number: int, reason: str) -> int:
        """Counts what is refused, and says how often this file was. Many files in a row are a trouble of the
        place, which is left in peace."""
        self._refused += 1
        refusals = self._refusals[number] = self._refusals.pop(number, 0) + 1
        while len(self._refusals) > _REMEMBERED:
            self._refusals.popitem(last=False)
        if self.limits.in_a_row and self._refused >= self.limits.in_a_row:
            self._outage(f"{self._refused} files in a row were refused, the last one: {reason}")
        return refusals

    def _outage(self, reason: str) -> None:
        self._say(reason)
        if time.monotonic() < self._resume:
            return  # one of several that were under way when it began
        self._outages += 1
        pause = self._backoff(self._outages)
        self._resume = time.monotonic() + pause
        self._next_look = min(self._resume, time.monotonic() + _LOOK)

    def _worked(self) -> None:
        self._outages = self._refused = 0
        self._resume = 0.0
        self._doubt = ""
        if self._down:
            _log.info("%s: files go there again", self.name)
            self._down = ""

    def _say(self, reason: str) -> None:
        if not self._down:
            _log.error("%s: %s", self.name, reason)
        self._down = reason

    def _written(self, run: _Run, ended: Ended, mine: bool) -> None:
        """The ledger knows how a try ended."""
        self._runs.discard(run)
        self._files[ended.state].add()
        if ended.state == "queued":
            self._retries.append(time.monotonic() + ended.retry_after)
        else:
            self._refusals.pop(ended.row.id, None)
        if ended.sent is not None:
            self._bytes.add(ended.sent.bytes)
            self._stage.observe(ended.seconds)
        if mine:
            self._tell(ended)

    def _tell(self, ended: Ended) -> None:
        with bound(obsid=ended.row.obsid, destination=self.name):
            if ended.state in ("failed", "conflict"):
                _log.error("%s: %s: %s: %s", self.name, ended.row.path, ended.state, ended.reason)
            try:
                self._told(ended)
            except RaftwrightError as error:
                _log.error("%s", error)
