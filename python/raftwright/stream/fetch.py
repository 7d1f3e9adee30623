"""Sources into readouts: the fast way, without the GIL for a chunk. What goes wrong is mended here."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Self

from raftwright._stream import keep_message_memory
from raftwright.errors import FormatError, UsageError
from raftwright.stream import wire
from raftwright.stream.link import Link
from raftwright.stream.messages import End, Problem, Pull, Welcome, decode, encode
from raftwright.stream.progress import Errand, Fetch, Outcome, Range, Request, chunk_bytes, joined, without
from raftwright.stream.wire import Header, Type, WireError

if TYPE_CHECKING:
    from raftwright import _core
    from raftwright._stream import Event
    from raftwright.daq import SourceInfo
    from raftwright.stream.client import NetworkStore
    from raftwright.stream.metering import Meter

__all__ = ["CHUNK_BYTES", "CREDIT", "Fetch", "Outcome", "Receiver", "keep_message_memory"]

_log = logging.getLogger("raftwright.stream")

CHUNK_BYTES: Final = 4 << 20
CREDIT: Final = 16 << 20

_TICK: Final = 0.25
"""Seconds between looks at silence, and at the connection."""
_GRACE: Final = 0.1
"""Seconds for which a message that others overtook is waited for."""
_RECONNECT: Final = 0.1
_MOST_RANGES: Final = 16
"""Pulls of one fetch that are begun at a time."""
_PERMANENT: Final = ("range", "malformed", "unknown-type", "version")
_OWN_COUNTS: Final = ("asked", "asked_again", "stalls", "reconnects", "restarts", "errors", "copied_bytes")
_VERSION_FAULT: Final = 4  # as the core counts faults of headers


class Receiver:
    """One data connection, for many sources at a time. Belongs to one thread, except for `wake`.

    Parameters
    ----------
    store
        Whose server is asked.
    index
        Which of the server's data endpoints is used: index modulo their number.
    chunk_bytes
        Wanted size of a chunk; whole rows are asked for.
    credit
        Bytes that may be on their way for each fetch: with the number of fetches it bounds the memory for
        messages. A process that does little else calls `keep_message_memory` once.
    plain
        Take messages through pyzmq, as is done where its libzmq cannot be used from compiled code.
    meter
        Says how much may be asked for; by default all at once.

    Raises
    ------
    UsageError
        No bytes for a chunk or on their way.
    """

    def __init__(
        self,
        store: NetworkStore,
        *,
        index: int = 0,
        chunk_bytes: int = CHUNK_BYTES,
        credit: int = CREDIT,
        plain: bool = False,
        meter: Meter | None = None,
    ) -> None:
        if chunk_bytes < 1 or credit < 1:
            raise UsageError("chunk_bytes and credit are numbers of bytes; give some")
        self._store = store
        self._chunk_bytes = chunk_bytes
        self._credit = credit
        self._meter = meter
        self._link = Link(store, index, plain=plain)
        self._loop = self._link.loop
        self._errands: dict[int, Errand] = {}
        self._owners: dict[int, Errand] = {}  # request -> errand
        self._over: deque[Fetch] = deque()
        self._numbers = 0
        self._requests = 0
        self._listening = 0.0  # since when silence counts
        self._left = 0.0
        self._patience = 1.0  # grows while connections are silent one after another
        self._counts: Counter[str] = Counter()
        self._closed = False

    # -- what the owner does

    def fetch(
        self,
        image: str,
        info: SourceInfo,
        readout: _core.Readout,
        *,
        deadline: float,
        tag: object = None,
    ) -> Fetch:
        """Begins to pull a source into a readout, until all is there or `deadline` (`time.monotonic`) passes.

        What the readout has already is not asked for. `run` does the work and tells the end.
        Raises UsageError if the readout is not for streams of that length.
        """
        if self._closed:
            raise UsageError("the receiver is closed; make another")
        if readout.size != info.bytes:
            raise UsageError(
                f"{image} {info.location}: the readout is for {readout.size} bytes, but the source has "
                f"{info.bytes}; make one of its registers"
            )
        self._numbers += 1
        fetch = Fetch(self._numbers, image, info, readout, deadline, tag)
        self._errands[fetch.number] = Errand(fetch, time.monotonic())
        return fetch

    def cancel(self, fetch: Fetch) -> None:
        """Gives a fetch up; `run` does not return it. What came stays in its readout."""
        errand = self._errands.get(fetch.number)
        if errand is not None and errand.fetch is fetch:
            self._conclude(errand, "cancelled", "it was cancelled", tell=False)

    def run(self, timeout: float) -> list[Fetch]:
        """Receives. Returns fetches that ended, as soon as there are any; [] after `timeout` or `wake`."""
        if self._closed:
            raise UsageError("the receiver is closed; make another")
        now = time.monotonic()
        until = now + timeout
        if now - self._left > 0.05:
            self._listening = now  # nobody listened meanwhile: that was no silence
        try:
            while True:
                self._act(now)
                if self._over:
                    break
                end = self._link.receive(min(until, self._next(now)))
                now = time.monotonic()
                for event in self._loop.events():
                    self._take(event, now)
                if self._over or end == "woken" or now >= until:
                    break
                if end == "failed":
                    self._start_anew(now, f"the socket failed {self._loop.error}")
        finally:
            self._left = time.monotonic()
        over = list(self._over)
        self._over.clear()
        return over

    def wake(self) -> None:
        """Makes `run` return soon. From any thread."""
        self._link.wake()

    def close(self) -> None:
        """Gives everything up. Doing it again changes nothing."""
        if self._closed:
            return
        for errand in list(self._errands.values()):
            self._conclude(errand, "cancelled", "the receiver was closed", tell=False)
        self._closed = True
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def active(self) -> int:
        """Fetches under way."""
        return len(self._errands)

    @property
    def outstanding(self) -> int:
        """Bytes that the server may send and did not yet."""
        return self._loop.outstanding

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the start: those of the loop, and what was done about them."""
        return {**self._loop.counters, **{name: self._counts[name] for name in _OWN_COUNTS}}

    # -- time passes

    def _next(self, now: float) -> float:
        """When there is something to do."""
        times = [now + _TICK] if self._errands else []
        for errand in self._errands.values():
            times.append(errand.fetch.deadline)
            times.extend(r.grace for r in errand.requests.values() if r.grace is not None)
            if errand.due is not None:
                # A connection, or room for a pull, is looked for again soon.
                times.append(errand.due if errand.due > now else now + 0.02)
        return min(times, default=now + 3600.0)

    def _act(self, now: float) -> None:
        for errand in list(self._errands.values()):
            if now >= errand.fetch.deadline:
                problem = f"; {errand.problem}" if errand.problem else ""
                self._conclude(errand, "timed-out", f"the deadline passed{problem}")
                continue
            late = [n for n, r in errand.requests.items() if r.grace is not None and r.grace <= now]
            for request in late:
                if request in errand.requests:  # the fetch may be over with the one before
                    self._lose(errand, request, now)
        cut = self._link.was_cut()
        if not self._errands:
            if cut:
                self._link.retire()
            return
        if cut:
            self._start_anew(now, "it was cut")
        self._look_for_silence(now)
        if any(errand.due is not None and errand.due <= now for errand in self._errands.values()):
            try:
                problem = self._link.open(now)
            except FormatError as error:
                self._refuse_all(str(error))
                return
            if problem:
                self._note(problem)
                return
            for errand in list(self._errands.values()):
                if errand.due is not None and errand.due <= now:
                    self._ask(errand, now)

    def _look_for_silence(self, now: float) -> None:
        if not self._owners:
            return
        welcome = self._store.connection.welcome
        limit = max(3 * welcome.heartbeat, 2.0) if welcome is not None else 3.0
        if now - self._listening < limit:
            return
        silent = self._loop.silent(now - limit)
        if len(silent) < len(self._owners):
            self._patience = 1.0
            for request in silent:
                errand = self._owners.get(request)
                if errand is None:
                    continue  # its fetch was over with the one before
                self._counts["stalls"] += 1
                self._give_up(errand, request)
                self._plan(errand, now)
        elif len(self._loop.silent(now - limit * self._patience)) == len(silent):
            # Nothing came of anybody: it is the connection.
            self._counts["stalls"] += len(silent)
            self._patience = min(2 * self._patience, 4.0)
            self._start_anew(now, f"nothing came for {limit:.1f} s")

    def _start_anew(self, now: float, why: str) -> None:
        """Another connection; everything that is not there is asked for again."""
        self._counts["reconnects"] += 1
        _log.info("%s: made anew: %s", self._link.name, why)
        for errand in self._errands.values():
            for request in list(errand.requests):
                self._forget(errand, request)
            errand.due = now + _RECONNECT
        try:
            self._note(self._link.start_anew() or why)
        except FormatError as error:
            self._refuse_all(str(error))
        self._listening = time.monotonic()

    def _note(self, problem: str) -> None:
        for errand in self._errands.values():
            errand.problem = problem

    def _refuse_all(self, reason: str) -> None:
        """Nothing can be had of this server."""
        _log.error("%s: %s", self._link.name, reason)
        for errand in list(self._errands.values()):
            self._conclude(errand, "refused", reason)

    # -- asking

    def _wanted(self, errand: Errand) -> list[Range]:
        """What did not come, is not known to be missing at the server, and is not expected of a pull."""
        taken = [part for request in errand.requests.values() for part in request.expected]
        if errand.end is not None:
            taken += errand.end.gaps
        number = errand.fetch.number
        return without(self._loop.uncovered(number, 0, errand.fetch.expected), taken)

    def _plan(self, errand: Errand, now: float) -> None:
        """After something ended or was lost: is the fetch over, or what is to be asked, and when?"""
        wanted = self._wanted(errand)
        if not wanted and errand.requests:
            return
        if not wanted and errand.end is not None:
            self._finish(errand, now)
            return
        due = now + errand.pause(self._loop.progress(errand.fetch.number)[0])
        errand.due = due if errand.due is None else min(due, errand.due)

    def _ask(self, errand: Errand, now: float) -> None:
        welcome = self._store.connection.welcome
        assert welcome is not None
        fetch = errand.fetch
        again = bool(errand.chunk)
        if not again:
            row = fetch.readout.size // fetch.readout.height
            errand.chunk = chunk_bytes(row, self._chunk_bytes, welcome.chunk)
            window = min(max(self._credit, errand.chunk), welcome.credit)
            try:
                self._loop.open(fetch.number, fetch.readout, *errand.keys, window)
            except BaseException:
                errand.chunk = 0
                raise
        wanted = self._wanted(errand)
        if not wanted:
            if errand.requests or errand.end is not None:
                errand.due = None
                self._plan(errand, now)
                return
            wanted = [(0, 0)]  # all is there; an END is still wanted, for the CRC
        for begin, end in wanted[:_MOST_RANGES]:
            if len(self._owners) >= welcome.pulls:
                return  # stays due
            upto = end if self._meter is None else begin + self._meter.take(end - begin, errand.chunk)
            if begin == upto < end or not self._pull(errand, begin, upto, welcome, now):
                return
            if again and self._meter is None:
                self._counts["asked_again"] += 1
                fetch.retries += 1
            if upto < end:
                return
        errand.due = None

    def _pull(self, errand: Errand, begin: int, end: int, welcome: Welcome, now: float) -> bool:
        self._requests += 1
        number = self._requests
        fetch = errand.fetch
        credit = self._loop.ask(fetch.number, number, begin, end, errand.chunk, now)
        body = encode(Pull(fetch.image, fetch.location, min(credit, welcome.credit), errand.chunk))
        if not self._link.send(Header(Type.PULL, number, begin, end - begin, *errand.keys), body):
            self._loop.give_up(number)
            return False
        self._counts["asked"] += 1
        errand.requests[number] = Request(begin, end)
        self._owners[number] = errand
        return True

    def _forget(self, errand: Errand, request: int) -> None:
        self._loop.give_up(request)
        del errand.requests[request], self._owners[request]

    def _give_up(self, errand: Errand, request: int) -> None:
        self._link.send(Header(Type.CANCEL, request))
        self._forget(errand, request)

    # -- what happened

    def _take(self, event: Event, now: float) -> None:
        kind, _, request, offset, length, text = event
        if kind == "refused":
            self._refused(length, text.decode("utf-8", "replace"))
            return
        errand = self._owners.get(request)
        if errand is None:
            return
        match kind:
            case "end":
                self._take_end(errand, request, text, now)
            case "error":
                self._take_error(errand, request, text, now)
            case "gap":
                self._wait_for_more(errand, request, now)
            case "corrupt":
                self._ask_elsewhere(errand, request, [(offset, offset + length)], now)
            case "failed":
                self._conclude(errand, "refused", text.decode("utf-8", "replace"))

    def _refused(self, fault: int, text: str) -> None:
        if fault == _VERSION_FAULT:
            self._refuse_all(
                f"the server sends {text} of the protocol, here it is {wire.VERSION}; use releases that fit"
            )
            return
        _log.warning("%s: refused %s; more of this kind are only counted", self._link.name, text)
        self._note(f"the server sent {text}")

    def _wait_for_more(self, errand: Errand, request: int, now: float) -> None:
        asked = errand.requests[request]
        if asked.grace is None:
            asked.grace = now + _GRACE

    def _take_end(self, errand: Errand, request: int, text: bytes, now: float) -> None:
        try:
            end = decode(text, End) if text else None
        except WireError as error:
            errand.problem = str(error)
            end = None
        if end is not None and end.bytes != errand.fetch.expected:
            said = f"the server has {end.bytes} bytes of it, its description says {errand.fetch.expected}"
            self._conclude(errand, "refused", said)
            return
        if end is not None:
            errand.end = end
        if self._loop.missing(request):
            errand.requests[request].ended = True
            self._wait_for_more(errand, request, now)
            return
        self._forget(errand, request)
        self._plan(errand, now)

    def _lose(self, errand: Errand, request: int, now: float) -> None:
        """What was waited for did not come: it is asked for again."""
        asked = errand.requests[request]
        asked.grace = None
        count = self._loop.missing(request)
        if asked.ended:
            self._loop.write_off(request, 0)
            self._forget(errand, request)
            self._plan(errand, now)
            return
        if not count:
            return
        # Servers send in order: the first chunks that are not there are those that were lost.
        left = count * errand.chunk
        lost: list[Range] = []
        uncovered = self._loop.uncovered(errand.fetch.number, asked.begin, asked.end)
        for begin, end in without(uncovered, without([(asked.begin, asked.end)], asked.expected)):
            end = min(end, begin + left)
            if begin < end:
                lost.append((begin, end))
                left -= end - begin
        self._loop.write_off(request, sum(end - begin for begin, end in lost))
        self._ask_elsewhere(errand, request, lost, now)

    def _ask_elsewhere(self, errand: Errand, request: int, ranges: list[Range], now: float) -> None:
        """These ranges are no longer expected of a pull."""
        asked = errand.requests[request]
        asked.expected = without(asked.expected, list(joined(ranges)))
        self._plan(errand, now)

    def _take_error(self, errand: Errand, request: int, text: bytes, now: float) -> None:
        self._counts["errors"] += 1
        try:
            problem = decode(text, Problem)
        except WireError as error:
            problem = Problem("internal", str(error))
        self._forget(errand, request)
        errand.problem = f"the server said {ascii(problem.code)[1:-1]}: {ascii(problem.message)[1:-1][:300]}"
        if problem.code in ("gone", "not-found"):
            self._conclude(errand, "gone", errand.problem)
        elif problem.code in _PERMANENT:
            self._conclude(errand, "refused", errand.problem)
        else:
            self._plan(errand, now)

    # -- the end

    def _finish(self, errand: Errand, now: float) -> None:
        """Everything that the source has came."""
        fetch, end = errand.fetch, errand.end
        assert end is not None
        fetch.source_crc32c = end.crc32c.lower() if end.crc32c else None
        if self._loop.uncovered(fetch.number, 0, fetch.expected):
            self._conclude(errand, "incomplete", "the source has gaps")
            return
        crc = self._loop.progress(fetch.number)[3]
        if crc is None or fetch.source_crc32c in (None, f"{crc:08x}"):
            self._conclude(errand, "complete", "")
            return
        said = f"the CRC-32C of all bytes is {crc:08x}, the server says {fetch.source_crc32c}"
        if errand.restarted:
            self._conclude(errand, "damaged", said)
            return
        _log.warning("%s %s: %s; it is fetched once more", fetch.image, fetch.location, said)
        self._loop.restart(fetch.number)
        self._counts["restarts"] += 1
        errand.restarted = True
        errand.end = None
        errand.had = errand.failures = 0
        errand.due = now

    def _conclude(self, errand: Errand, outcome: Outcome, reason: str, *, tell: bool = True) -> None:
        fetch = errand.fetch
        for request in list(errand.requests):
            self._give_up(errand, request)
        if errand.chunk:
            fetch.received, fetch.first_byte, fetch.last_byte, crc = self._loop.progress(fetch.number)
            fetch.crc32c = None if crc is None else f"{crc:08x}"
            self._loop.close(fetch.number)
            self._counts["copied_bytes"] += fetch.readout.copied
        fetch.gaps = fetch.readout.gaps()
        fetch.outcome = outcome
        fetch.reason = f"{fetch.image} {fetch.location}: {reason}" if reason else ""
        del self._errands[fetch.number]
        if tell:
            self._over.append(fetch)
