"""Sources into readouts: the fast way, without the GIL for a chunk. What goes wrong is mended here."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import zmq

from raftwright import _stream
from raftwright.daq.store import cut_gaps
from raftwright.errors import FormatError, RaftwrightError, UsageError
from raftwright.stream import wire
from raftwright.stream.connection import watch_socket
from raftwright.stream.messages import End, Problem, Pull, decode, encode
from raftwright.stream.wire import Header, Type, WireError

if TYPE_CHECKING:
    from raftwright import _core
    from raftwright.daq import SourceInfo
    from raftwright.stream.client import NetworkStore

__all__ = ["CHUNK_BYTES", "CREDIT", "Fetch", "Outcome", "Receiver", "chunk_bytes"]

_log = logging.getLogger("raftwright.stream")

CHUNK_BYTES: Final = 4 << 20
CREDIT: Final = 16 << 20

Outcome: TypeAlias = Literal["complete", "incomplete", "timed-out", "gone", "refused", "damaged", "cancelled"]

_Range: TypeAlias = tuple[int, int]

_TICK: Final = 0.25
_GRACE: Final = 0.1
"""Seconds for which a message that others overtook is waited for."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_MOST_RANGES: Final = 16
"""Pulls of one fetch at a time."""
_RUN_ROWS: Final = 32  # the core works on runs of so many rows
_PERMANENT: Final = ("range", "malformed", "unknown-type", "version")


def chunk_bytes(row_bytes: int, wanted: int, limits: tuple[int, int]) -> int:
    """Whole runs of 32 rows nearest to `wanted`, else whole rows, within the limits."""
    low, high = limits
    unit = next((rows * row_bytes for rows in (_RUN_ROWS, 1) if rows * row_bytes <= high), high)
    count = max(1, round(wanted / unit))
    count = min(max(count, -(-low // unit)), high // unit)
    return min(max(count * unit, low), high)


class Fetch:
    """One source on its way into a readout. Read by the thread that has the receiver."""

    def __init__(
        self,
        number: int,
        image: str,
        info: SourceInfo,
        readout: _core.Readout,
        deadline: float,
        tag: object,
    ) -> None:
        self.tag = tag
        self.image = image
        self.location = info.location
        self.readout = readout
        self.deadline = deadline
        """As `time.monotonic` has it."""
        self.outcome: Outcome | None = None
        """None while it is under way.

        complete: all bytes, and their CRC is that of the server if it knows one. incomplete: all that the
        source has, which has gaps. timed-out: the deadline. gone: the image was deleted. refused: the server
        will not, or the readout does not take it. damaged: all bytes came, twice, but the CRC of the whole is
        another. cancelled: by `Receiver.cancel`.
        """
        self.reason = ""
        """A sentence on anything but `complete`."""
        self.expected = info.bytes
        self.received = 0
        """Bytes."""
        self.gaps: list[_Range] = []
        """Byte ranges that did not come."""
        self.crc32c: str | None = None
        """Of all that came; None while something is missing."""
        self.source_crc32c: str | None = info.crc32c
        """As the server says."""
        self.retries = 0
        """Pulls that were asked again."""
        self.first_byte = 0.0
        self.last_byte = 0.0

        self._number = number
        self._keys = wire.image_key(image), wire.source_key(info.location)
        self._chunk = 0
        self._pulls: dict[int, list[_Range]] = {}  # request -> ranges that are still expected of it
        self._spans: dict[int, _Range] = {}
        self._graces: dict[int, float] = {}  # request -> when what is missing counts as lost
        self._ended: set[int] = set()  # requests whose END came before some of their chunks
        self._end: End | None = None
        self._due: float | None = None  # when to ask for what is wanted
        self._asked = False
        self._had = 0
        self._failures = 0
        self._problem = ""
        self._restarted = False


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
        messages.
    plain
        Take messages through pyzmq, as is done where its libzmq cannot be used from compiled code.
    """

    def __init__(
        self,
        store: NetworkStore,
        *,
        index: int = 0,
        chunk_bytes: int = CHUNK_BYTES,
        credit: int = CREDIT,
        plain: bool = False,
    ) -> None:
        if chunk_bytes < 1 or credit < 1:
            raise UsageError("chunk_bytes and credit are numbers of bytes; give some")
        self._store = store
        self._index = index
        self._chunk_bytes = chunk_bytes
        self._credit = credit
        self._loop = _stream.ReceiveLoop(_pyzmq_module())
        self._plain = plain or bool(self._loop.problem)
        if self._loop.problem and not plain:
            _log.warning("%s; pixels come through Python, which is slower", self._loop.problem)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._socket: Any = None
        self._monitor: Any = None
        self._handle = 0
        self._fetches: dict[int, Fetch] = {}
        self._owners: dict[int, Fetch] = {}  # request -> fetch
        self._over: deque[Fetch] = deque()
        self._numbers = 0
        self._requests = 0
        self._listening = 0.0  # since when silence counts
        self._left = 0.0
        self._patience = 1.0  # grows while a connection is silent again and again
        self._connect_at = 0.0
        self._connect_pause = _FIRST_PAUSE
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
        fetch._due = time.monotonic()
        self._fetches[fetch._number] = fetch
        return fetch

    def cancel(self, fetch: Fetch) -> None:
        """Gives a fetch up; `run` does not return it. What came stays in its readout."""
        if self._fetches.get(fetch._number) is fetch:
            self._conclude(fetch, "cancelled", "it was cancelled", tell=False)

    def run(self, timeout: float) -> list[Fetch]:
        """Receives. Returns fetches that ended, as soon as there are any; [] after `timeout` or `wake`.

        Raises FormatError if the server speaks another protocol: nothing can be fetched from it.
        """
        now = time.monotonic()
        until = now + timeout
        if now - self._left > 0.05:
            self._listening = now  # nobody listened meanwhile: that was no silence
        try:
            while True:
                self._act(now)
                if self._over:
                    break
                end = self._receive(min(until, self._next(now)))
                now = time.monotonic()
                for event in self._loop.events():
                    self._take(event, now)
                if self._over or end == "woken" or now >= until:
                    break
                if end in ("terminated", "failed"):
                    self._disconnect(now, f"the socket: {end} {self._loop.error}")
        finally:
            self._left = time.monotonic()
        over = list(self._over)
        self._over.clear()
        return over

    def wake(self) -> None:
        """Makes `run` return soon. From any thread."""
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Gives everything up. Doing it again changes nothing."""
        if self._closed:
            return
        for fetch in list(self._fetches.values()):
            self._conclude(fetch, "cancelled", "the receiver was closed", tell=False)
        self._closed = True
        self._shut()
        os.close(self._wake)
        self._wake = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def active(self) -> int:
        """Fetches under way."""
        return len(self._fetches)

    @property
    def outstanding(self) -> int:
        """Bytes that the server may send and did not yet."""
        return self._loop.outstanding

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the start: those of the loop, and what was done about them."""
        names = ("asked", "asked_again", "stalls", "reconnects", "copied_bytes", "restarts", "errors")
        return {**self._loop.counters, **{name: self._counts[name] for name in names}}

    # -- the connection

    def _connected(self, now: float) -> bool:
        if self._socket is not None:
            return True
        if now < self._connect_at:
            return False
        try:
            endpoint = self._store.data_endpoint(self._index)
            socket = self._store.connection.socket(zmq.DEALER, endpoint, {zmq.SNDHWM: 10_000, zmq.RCVHWM: 32})
        except FormatError:
            raise
        except RaftwrightError as error:
            self._connect_at = time.monotonic() + self._connect_pause
            self._connect_pause = min(2 * self._connect_pause, _LONGEST_PAUSE)
            self._said(str(error))
            return False
        self._monitor = watch_socket(socket)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise WireError(
                "malformed", f"{self._store.endpoint}: the server names {ascii(endpoint)[:80]} ({error})"
            ) from None
        self._socket = socket
        self._handle = int(socket.underlying)
        self._connect_pause = _FIRST_PAUSE
        return True

    def _shut(self) -> None:
        if self._monitor is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _disconnect(self, now: float, why: str) -> None:
        """Closes the connection; everything is asked for again by the next one."""
        self._counts["reconnects"] += 1
        _log.info("%s: data connection %d is made anew: %s", self._store.endpoint, self._index, why)
        self._shut()
        self._loop.forget_credit()
        for fetch in self._fetches.values():
            for request in list(fetch._pulls):
                self._forget(fetch, request)
            fetch._ended.clear()
            fetch._due = now + _FIRST_PAUSE
        self._connect_at = now + _FIRST_PAUSE
        try:
            self._store.refresh(1.0)  # it may have been started anew, at other ports
        except FormatError:
            raise
        except RaftwrightError as error:
            self._said(str(error))
        self._listening = time.monotonic()

    def _said(self, problem: str) -> None:
        for fetch in self._fetches.values():
            fetch._problem = problem

    def _lost_connection(self) -> bool:
        """Whether the monitor saw the connection end. libzmq mends it, but what was under way is lost."""
        lost = False
        while self._monitor is not None and self._monitor.poll(0):
            event = int.from_bytes(self._monitor.recv_multipart()[0][:2], "little")
            lost = lost or event == zmq.EVENT_DISCONNECTED
        return lost

    # -- receiving

    def _receive(self, until: float) -> str:
        if self._socket is None:
            return self._sleep(until)
        if not self._plain:
            return self._loop.run(self._handle, self._wake, until)
        wait = max(0.0, until - time.monotonic())
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        ready = dict(poller.poll(round(1e3 * wait)))
        if self._socket in ready:
            try:
                frames = self._socket.recv_multipart(flags=zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                return "failed"
            if len(frames) == 2:
                self._loop.take(frames[0].buffer, frames[1].buffer, time.monotonic())
            else:
                self._loop.refuse_shape()
            for request, more in self._loop.grants():
                self._send(Header(Type.CREDIT, request, length=more))
        return self._woken() if self._wake in ready else "timeout"

    def _sleep(self, until: float) -> str:
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        ready = poller.poll(max(0, round(1e3 * (until - time.monotonic()))))
        return self._woken() if ready else "timeout"

    def _woken(self) -> str:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return "woken"

    def _send(self, header: Header, body: bytes = b"") -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart([wire.pack(header, body), body], flags=zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        return True

    # -- time passes

    def _next(self, now: float) -> float:
        times = [now + _TICK] if self._fetches else []
        for fetch in self._fetches.values():
            times.append(fetch.deadline)
            times.extend(fetch._graces.values())
            if fetch._due is not None:
                # A connection, or room for a pull, is looked for again with the next tick.
                times.append(fetch._due if fetch._due > now else now + 0.02)
        return min(times, default=float("inf"))

    def _act(self, now: float) -> None:
        for fetch in list(self._fetches.values()):
            if now >= fetch.deadline:
                self._time_out(fetch)
                continue
            for request in [r for r, due in fetch._graces.items() if due <= now]:
                self._lose(fetch, request, now)
        if not self._fetches:
            return
        if self._socket is not None and self._lost_connection():
            self._disconnect(now, "it was cut")
        self._look_for_silence(now)
        if self._connected(now):
            for fetch in list(self._fetches.values()):
                if fetch._due is not None and fetch._due <= now:
                    self._ask(fetch, now)

    def _time_out(self, fetch: Fetch) -> None:
        problem = f"; {fetch._problem}" if fetch._problem else ""
        self._conclude(fetch, "timed-out", f"the deadline passed{problem}")

    def _look_for_silence(self, now: float) -> None:
        if self._socket is None or not self._owners:
            return
        welcome = self._store.connection.welcome
        limit = max(3 * welcome.heartbeat, 2.0) if welcome is not None else 3.0
        if now - self._listening < limit:
            return
        silent = self._loop.silent(now - limit)
        if not silent:
            self._patience = 1.0
            return
        if len(silent) == len(self._owners):
            # Nothing came of anybody: it is the connection.
            if self._loop.silent(now - limit * self._patience):
                self._counts["stalls"] += len(silent)
                self._patience = min(2 * self._patience, 4.0)
                self._disconnect(now, f"nothing came for {limit:.1f} s")
            return
        for request in silent:
            fetch = self._owners[request]
            self._counts["stalls"] += 1
            self._give_up(fetch, request)
            self._plan(fetch, now)

    # -- asking

    def _wanted(self, fetch: Fetch) -> list[_Range]:
        """What did not come, is not known to be missing at the server, and is not expected of a pull."""
        wanted = self._loop.uncovered(fetch._number, 0, fetch.expected) if fetch._asked else []
        taken = [part for ranges in fetch._pulls.values() for part in ranges]
        if fetch._end is not None:
            taken += [(begin, end) for begin, end in fetch._end.gaps if begin < end]
        taken.sort()
        return [left for begin, end in wanted for left in cut_gaps(_joined(taken), begin, end - begin)]

    def _plan(self, fetch: Fetch, now: float) -> None:
        """After something of a fetch ended or was lost: is it over, or what is to be asked, and when?"""
        if fetch.outcome is not None:
            return
        wanted = self._wanted(fetch)
        if not wanted and fetch._pulls:
            return
        if not wanted and fetch._end is not None:
            self._finish(fetch, now)
            return
        received = self._loop.progress(fetch._number)[0]
        if received > fetch._had:
            fetch._failures = 0
            delay = 0.0
        else:
            delay = min(_FIRST_PAUSE * 2**fetch._failures, _LONGEST_PAUSE)
            fetch._failures += 1
        fetch._had = received
        if fetch._due is None or fetch._due > now + delay:
            fetch._due = now + delay

    def _ask(self, fetch: Fetch, now: float) -> None:
        welcome = self._store.connection.welcome
        if welcome is None:
            return
        if not fetch._asked:
            row = fetch.readout.size // fetch.readout.height
            fetch._chunk = chunk_bytes(row, self._chunk_bytes, welcome.chunk)
            window = min(max(self._credit, fetch._chunk), welcome.credit)
            self._loop.open(fetch._number, fetch.readout, *fetch._keys, window)
            fetch._asked = True
            first = True
        else:
            first = False
        wanted = self._wanted(fetch)
        if not wanted:
            if fetch._pulls or fetch._end is not None:
                fetch._due = None
                self._plan(fetch, now)
                return
            wanted = [(0, 0)]  # all came; an END is still wanted, for the CRC
        for begin, end in wanted[:_MOST_RANGES]:
            if len(self._owners) >= welcome.pulls:
                return  # stays due
            if not self._pull(fetch, begin, end, welcome.credit, now):
                return
            if not first:
                self._counts["asked_again"] += 1
                fetch.retries += 1
        fetch._due = None

    def _pull(self, fetch: Fetch, begin: int, end: int, most: int, now: float) -> bool:
        self._requests += 1
        request = self._requests
        credit = self._loop.ask(fetch._number, request, begin, end, fetch._chunk, now)
        body = encode(Pull(fetch.image, fetch.location, min(credit, most), fetch._chunk))
        if not self._send(Header(Type.PULL, request, begin, end - begin, *fetch._keys), body):
            self._loop.give_up(request)
            return False
        self._counts["asked"] += 1
        fetch._pulls[request] = [(begin, end)] if end > begin else []
        fetch._spans[request] = (begin, end)
        self._owners[request] = fetch
        return True

    def _forget(self, fetch: Fetch, request: int) -> None:
        self._loop.give_up(request)
        fetch._pulls.pop(request, None)
        fetch._spans.pop(request, None)
        fetch._graces.pop(request, None)
        fetch._ended.discard(request)
        self._owners.pop(request, None)

    def _give_up(self, fetch: Fetch, request: int) -> None:
        self._send(Header(Type.CANCEL, request))
        self._forget(fetch, request)

    # -- what happened

    def _take(self, event: _stream.Event, now: float) -> None:
        kind, _, request, offset, length, text = event
        fetch = self._owners.get(request)
        if kind == "refused":
            self._refused(length, text.decode("utf-8", "replace"))
        elif fetch is None:
            return
        elif kind == "end":
            self._take_end(fetch, request, text, now)
        elif kind == "error":
            self._take_error(fetch, request, text, now)
        elif kind == "gap":
            fetch._graces.setdefault(request, now + _GRACE)
        elif kind == "corrupt":
            self._lose_range(fetch, request, [(offset, offset + length)])
            self._plan(fetch, now)
        elif kind == "failed":
            self._conclude(fetch, "refused", text.decode("utf-8", "replace"))

    def _refused(self, fault: int, text: str) -> None:
        if fault == 4:  # version
            raise WireError(
                "version",
                f"{self._store.endpoint}: the server sends {text} of the protocol, here it is "
                f"{wire.VERSION}; use releases that fit",
            )
        _log.warning(
            "%s: refused a message of data connection %d (%s); more of this kind are only counted",
            self._store.endpoint,
            self._index,
            text,
        )
        self._said(f"the server sent {text}")

    def _take_end(self, fetch: Fetch, request: int, text: bytes, now: float) -> None:
        try:
            end = decode(text, End) if text else None
        except WireError as error:
            fetch._problem = str(error)
            end = None
        if end is not None and end.bytes != fetch.expected:
            self._conclude(
                fetch,
                "refused",
                f"the server has {end.bytes} bytes of it, its description said {fetch.expected}",
            )
            return
        if end is not None:
            fetch._end = end
        if self._loop.missing(request):
            fetch._ended.add(request)
            fetch._graces.setdefault(request, now + _GRACE)
            return
        self._forget(fetch, request)
        self._plan(fetch, now)

    def _lose(self, fetch: Fetch, request: int, now: float) -> None:
        """What was waited for did not come: it is asked for again."""
        del fetch._graces[request]
        count = self._loop.missing(request)
        if request in fetch._ended:
            self._loop.write_off(request, 0)
            self._forget(fetch, request)
            self._plan(fetch, now)
            return
        if not count:
            return
        # Servers send in order: the first chunks that are not there are those that were lost.
        begin, end = fetch._spans[request]
        left = count * fetch._chunk
        lost: list[_Range] = []
        for low, high in self._loop.uncovered(fetch._number, begin, end):
            expected = fetch._pulls[request]
            for first, last in cut_gaps(_complement(expected, low, high), low, high - low):
                last = min(last, first + left)
                if first < last:
                    lost.append((first, last))
                    left -= last - first
        self._loop.write_off(request, sum(high - low for low, high in lost))
        self._lose_range(fetch, request, lost)
        self._plan(fetch, now)

    def _lose_range(self, fetch: Fetch, request: int, lost: list[_Range]) -> None:
        """These ranges are no longer expected of a pull."""
        fetch._pulls[request] = [
            left
            for begin, end in fetch._pulls[request]
            for left in cut_gaps(_joined(sorted(lost)), begin, end - begin)
        ]

    def _take_error(self, fetch: Fetch, request: int, text: bytes, now: float) -> None:
        self._counts["errors"] += 1
        try:
            problem = decode(text, Problem)
        except WireError as error:
            problem = Problem("internal", str(error))
        said = f"{problem.code}: {ascii(problem.message)[1:-1][:300]}"
        self._forget(fetch, request)
        fetch._problem = f"the server said {said}"
        if problem.code in ("gone", "not-found"):
            self._conclude(fetch, "gone", fetch._problem)
        elif problem.code in _PERMANENT:
            self._conclude(fetch, "refused", fetch._problem)
        else:
            self._plan(fetch, now)

    # -- the end

    def _finish(self, fetch: Fetch, now: float) -> None:
        """Everything that the source has came."""
        end = fetch._end
        assert end is not None
        fetch.source_crc32c = end.crc32c.lower() if end.crc32c else None
        crc = self._loop.progress(fetch._number)[3]
        if self._loop.uncovered(fetch._number, 0, fetch.expected):
            self._conclude(fetch, "incomplete", "the source has gaps")
            return
        if crc is None or fetch.source_crc32c is None or f"{crc:08x}" == fetch.source_crc32c:
            self._conclude(fetch, "complete", "")
            return
        said = f"the CRC-32C of all bytes is {crc:08x}, the server says {fetch.source_crc32c}"
        if fetch._restarted:
            self._conclude(fetch, "damaged", said)
            return
        _log.warning("%s %s: %s; it is fetched once more", fetch.image, fetch.location, said)
        for request in list(fetch._pulls):
            self._give_up(fetch, request)
        self._loop.restart(fetch._number)
        self._counts["restarts"] += 1
        fetch._restarted = True
        fetch._end = None
        fetch._had = fetch._failures = 0
        fetch._due = now

    def _conclude(self, fetch: Fetch, outcome: Outcome, reason: str, *, tell: bool = True) -> None:
        for request in list(fetch._pulls):
            self._give_up(fetch, request)
        if fetch._asked:
            fetch.received, fetch.first_byte, fetch.last_byte, crc = self._loop.progress(fetch._number)
            fetch.gaps = self._loop.uncovered(fetch._number, 0, fetch.expected)
            fetch.crc32c = None if crc is None else f"{crc:08x}"
            self._loop.close(fetch._number)
        else:
            fetch.gaps = fetch.readout.gaps()
        self._counts["copied_bytes"] += fetch.readout.copied
        self._counts[outcome] += 1
        fetch.outcome = outcome
        fetch.reason = f"{fetch.image} {fetch.location}: {reason}" if reason else ""
        fetch._due = None
        fetch._graces.clear()
        del self._fetches[fetch._number]
        if tell:
            self._over.append(fetch)


def _joined(ranges: list[_Range]) -> tuple[_Range, ...]:
    """Ordered ranges, those that overlap as one."""
    joined: list[_Range] = []
    for begin, end in ranges:
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(joined)


def _complement(ranges: list[_Range], low: int, high: int) -> tuple[_Range, ...]:
    """The parts of [low, high) outside of ordered ranges."""
    return tuple(cut_gaps(_joined(sorted(ranges)), low, high - low))


def _pyzmq_module() -> str:
    """The file of the extension module that brought libzmq into the process; empty if there is none."""
    import sys

    module = sys.modules.get("zmq.backend.cython._zmq")
    return str(getattr(module, "__file__", "") or "")
