"""Listening to events over ZeroMQ: what was lost is asked for, and what cannot be had is told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec
import zmq

from raftwright.errors import FormatError, UsageError
from raftwright.events.following import Following
from raftwright.events.interface import Cursors, Subscriber
from raftwright.events.message import ALIVE, MAX_BYTES, MISSED, Event, decode, read
from raftwright.events.positions import Positions
from raftwright.events.replay import read_answer

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters

__all__ = ["ZmqSubscriber"]

_QUEUE: Final = 4096
_MOST_SESSIONS: Final = 64
_AT_ONCE: Final = 256
_PATIENCE: Final = 2.0
"""Seconds that a question may take."""


class _Source:
    """One start of a publisher: what we make of it, and the socket for questions while there is one."""

    def __init__(self, following: Following, url: str) -> None:
        self.following = following
        self.url = url
        self.socket: zmq.Socket[bytes] | None = None
        self.asked = 0
        self.deadline = 0.0


class ZmqSubscriber(Subscriber):
    """Listens to one or several publishers. It belongs to one thread.

    Where events were lost and cannot be had any more it yields one of kind ``missed`` with the fields ``of``
    (the kind of the lost events), ``count`` and ``publisher``; ``of`` is empty and ``count`` 0 where a
    publisher began anew and nobody knows.

    Parameters
    ----------
    connect
        Endpoints of publishers; they need not be there yet.
    kinds
        Only these; all by default.
    group
        Name under which the cursors stand.
    cursors
        Remember how far it is in durable logs; without, it hears what is told from now on.
    dead
        Where messages go that are no events.

    Raises
    ------
    UsageError
        An endpoint is none.
    """

    def __init__(
        self,
        *connect: str,
        kinds: frozenset[str] | None = None,
        group: str = "",
        cursors: Cursors | None = None,
        dead: DeadLetters | None = None,
    ) -> None:
        super().__init__(dead)
        if not connect:
            raise UsageError("a subscriber needs an endpoint, e.g. tcp://127.0.0.1:5580")
        self._kinds = kinds
        self._positions = Positions(group, cursors)
        self._sources: dict[str, _Source] = {}
        self._session_of: dict[str, str] = {}  # publisher -> session
        self._ready: deque[Event] = deque()
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: dict[zmq.Socket[bytes], str] = {}
        for url in connect:
            socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
            socket.rcvhwm = _QUEUE
            socket.maxmsgsize = MAX_BYTES
            for kind in ("",) if kinds is None else (*kinds, ALIVE):
                socket.subscribe(kind)
            self._connect(socket, url)
            self._sockets[socket] = url

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._ready:
                event = self._ready.popleft()
                if event.kind == MISSED:
                    self.missed += event["count"]
                else:
                    self._positions.given(event)
                yield event
                if timeout is not None:  # the caller's own time is not ours
                    end = time.monotonic() + timeout
            # Never for ever in one call: signals are looked at in between.
            wait = 1.0 if end is None else min(1.0, end - time.monotonic())
            if not self._look(wait) and wait <= 0:
                return

    def done(self, event: Event) -> None:
        self._positions.done(event)

    def close(self) -> None:
        self._positions.store(now=True)
        self._context.destroy(linger=0)

    # -- sockets

    def _connect(self, socket: zmq.Socket[bytes], url: str) -> None:
        socket.linger = 0
        try:
            socket.connect(url)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UsageError(f"{url[:200]!a} is no endpoint ({error.strerror})") from None
        self._poller.register(socket, zmq.POLLIN)

    def _look(self, wait: float) -> bool:
        """Waits for messages and deals with them; whether there were any."""
        waiting = [source for source in self._sources.values() if source.socket is not None]
        if waiting:
            wait = min(wait, min(source.deadline for source in waiting) - time.monotonic())
        ready = dict(self._poller.poll(max(0, int(wait * 1000 + 0.999))))
        for socket, url in self._sockets.items():
            if socket in ready:
                self._receive(socket, url)
        for source in waiting:
            if source.socket in ready:
                self._receive_answer(source)
            elif time.monotonic() >= source.deadline:
                self._took(source, source.following.failed())
        self._positions.store()
        return bool(ready)

    def _receive(self, socket: zmq.Socket[bytes], url: str) -> None:
        for _ in range(_AT_ONCE):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                event = decode(frames)
            except FormatError as error:
                self._set_aside(frames[-1], str(error), url)
                continue
            self._heard(event, url)

    def _heard(self, event: Event, url: str) -> None:
        source = self._sources.get(event.session)
        if source is None:
            source = self._sources[event.session] = self._begin(event, url)
        if event.kind == ALIVE:
            if not isinstance(event.fields.get("sequences"), dict):
                self.malformed += 1
                return
            source.following.replay = _endpoint(event.fields.get("replay"), url)
            self._took(source, source.following.alive(event))
        elif self._kinds is None or event.kind in self._kinds:  # ZeroMQ filters by the beginning of a topic
            before = source.following.repeated
            self._took(source, source.following.event(event))
            self.repeated += source.following.repeated - before

    def _begin(self, event: Event, url: str) -> _Source:
        if len(self._sources) >= _MOST_SESSIONS:
            self._end(next(iter(self._sources)))
        following = Following(event, self._kinds, self._positions)
        before = self._session_of.get(event.publisher)
        if before is not None:
            self._ready.extend(following.begun_anew())
        self._session_of[event.publisher] = event.session
        return _Source(following, url)

    def _end(self, session: str) -> None:
        source = self._sources.pop(session)
        self._ready.extend(source.following.over())
        self._hang_up(source)
        self._positions.forget([session])
        self._session_of = {name: of for name, of in self._session_of.items() if of != session}

    # -- questions

    def _took(self, source: _Source, events: list[Event]) -> None:
        """What came of a message: events for the caller, and perhaps a question."""
        self._ready.extend(events)
        question = source.following.question
        if question is None:
            self._hang_up(source)
        elif question.id != source.asked:
            source.asked = question.id
            source.deadline = time.monotonic() + _PATIENCE
            if source.socket is None:
                source.socket = self._context.socket(zmq.DEALER)
                self._connect(source.socket, source.following.replay)
            source.socket.send(msgspec.json.encode(question), zmq.NOBLOCK)

    def _receive_answer(self, source: _Source) -> None:
        while source.socket is not None:
            try:
                frames = source.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            try:
                answer, bodies = read_answer(frames)
            except FormatError as error:
                self._set_aside(frames[0], str(error), source.url)
                self._took(source, source.following.failed())
                return
            events = []
            for body in bodies:
                try:
                    events.append(read(body))
                except FormatError as error:
                    self._set_aside(body, str(error), source.url)
            self._took(source, source.following.answer(answer, events))

    def _hang_up(self, source: _Source) -> None:
        if source.socket is not None:
            self._poller.unregister(source.socket)
            source.socket.close(linger=0)
            source.socket = None


def _endpoint(said: object, url: str) -> str:
    """Where the publisher answers, as seen from here; empty where that cannot be meant."""
    if not isinstance(said, str):
        return ""
    if url.startswith("tcp://") and said.startswith("tcp://*:") and said[8:].isdecimal():
        return f"{url.rpartition(':')[0]}:{said[8:]}"
    if url.startswith("ipc://") and said.startswith("ipc://") and len(said) < 300:
        return said
    return ""
