"""Listening to events over ZeroMQ, and seeing which were lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import zmq

from raftwright.errors import FormatError, UsageError
from raftwright.events.interface import Cursors, Subscriber
from raftwright.events.message import ALIVE, MAX_BYTES, MISSED, Event, decode

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters

__all__ = ["ZmqSubscriber"]

_QUEUE: Final = 4096
_MOST_SESSIONS: Final = 64


class ZmqSubscriber(Subscriber):
    """Listens to one or several publishers. It belongs to one thread.

    Where events were lost it yields one of kind ``missed`` with the fields ``of`` (the kind of the lost
    events), ``count`` and ``publisher``; ``of`` is empty and ``count`` 0 where a publisher began anew and
    nobody knows.

    Parameters
    ----------
    connect
        Endpoints of publishers; they need not be there yet.
    kinds
        Only these; all by default.

    Raises
    ------
    UsageError
        An endpoint is none.
    """

    def __init__(
        self,
        *connect: str,
        kinds: Iterable[str] | None = None,
        group: str = "",
        cursors: Cursors | None = None,
        dead: DeadLetters | None = None,
    ) -> None:
        if not connect:
            raise UsageError("a subscriber needs an endpoint, e.g. tcp://127.0.0.1:5580")
        self.missed = 0
        """Events that are known to be lost."""
        self.malformed = 0
        """Messages that were no events; they are ignored."""
        self._last: dict[str, dict[str, int]] = {}  # session -> kind -> sequence
        self._session_of: dict[str, str] = {}  # publisher -> session
        self._kinds = frozenset(kinds) if kinds is not None else None
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = _QUEUE
        self._socket.linger = 0
        self._socket.maxmsgsize = MAX_BYTES
        for kind in ("",) if self._kinds is None else (*self._kinds, ALIVE):
            self._socket.subscribe(kind)
        for endpoint in connect:
            try:
                self._socket.connect(endpoint)
            except zmq.ZMQError as error:
                self.close()
                raise UsageError(f"{endpoint[:200]!a} is no endpoint ({error.strerror})") from None

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            # Never for ever in one call: signals are looked at in between.
            wait = 1.0 if end is None else min(1.0, end - time.monotonic())
            if wait <= 0 and not self._socket.poll(0):
                return
            if wait > 0 and not self._socket.poll(max(1, int(wait * 1000))):
                continue
            found = list(self._receive())
            if found and timeout is not None:
                end = time.monotonic() + timeout
            for event in found:
                yield event
                if timeout is not None:  # the caller's own time is not ours
                    end = time.monotonic() + timeout

    def done(self, event: Event) -> None:
        pass

    def refuse(self, event: Event, reason: str) -> None:
        pass

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _receive(self) -> Iterator[Event]:
        try:
            event = decode(self._socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return
        except FormatError:
            self.malformed += 1
            return
        last = self._last.get(event.session)
        if last is None:
            last = self._begin(event)
            if event.publisher in self._session_of:
                yield self._lost(event, "", 0)
            self._session_of[event.publisher] = event.session
        if event.kind == ALIVE:
            yield from self._compare(event, last)
            return
        if self._kinds is not None and event.kind not in self._kinds:
            return  # ZeroMQ filters by the beginning of a topic
        before = last.get(event.kind)
        if before is not None and event.sequence > before + 1:
            yield self._lost(event, event.kind, event.sequence - before - 1)
        if before is None and "" in last and event.sequence > 1:  # it began while we were listening
            yield self._lost(event, event.kind, event.sequence - 1)
        if before is None or event.sequence > before:
            last[event.kind] = event.sequence
        yield event

    def _begin(self, event: Event) -> dict[str, int]:
        if len(self._last) >= _MOST_SESSIONS:
            del self._last[next(iter(self._last))]
            self._session_of = {p: s for p, s in self._session_of.items() if s in self._last}
        return self._last.setdefault(event.session, {})

    def _compare(self, event: Event, last: dict[str, int]) -> Iterator[Event]:
        """An `alive` tells the last sequence of each kind: the end of a series may be lost too."""
        said = event.fields.get("sequences")
        if not isinstance(said, dict):
            self.malformed += 1
            return
        first = "" not in last
        last[""] = 1  # from here on, a kind that is new to us begins with 1
        for kind, sequence in said.items():
            if not isinstance(sequence, int) or (self._kinds is not None and kind not in self._kinds):
                continue
            before = last.get(kind)
            if before is None and not first:
                before = 0
            if before is not None and sequence > before:
                yield self._lost(event, kind, sequence - before)
            last[kind] = max(sequence, before or 0)

    def _lost(self, event: Event, kind: str, count: int) -> Event:
        self.missed += count
        return Event(
            kind=MISSED,
            sequence=0,
            session=event.session,
            publisher=event.publisher,
            time=event.time,
            fields={"of": kind, "count": count, "publisher": event.publisher},
        )
