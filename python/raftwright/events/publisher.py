"""Telling events over ZeroMQ. Whoever tells them never waits for those who listen."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import zmq

from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.events.interface import EventLog, Publisher, Row
from raftwright.events.message import ALIVE, Event, encode, prepared, stamp
from raftwright.events.replay import Recent, Replay
from raftwright.events.schema import schema_of

__all__ = ["ZmqPublisher"]

_log = logging.getLogger("raftwright.events")

_QUEUE: Final = 4096
"""Messages that wait for one listener; more are lost for it, and it sees the gap."""
_LOOK: Final = 0.2
_LONGEST_QUESTION: Final = 64 << 10


class ZmqPublisher(Publisher):
    """Publishes events, and tells again what a listener missed. Thread-safe.

    Parameters
    ----------
    bind
        ZeroMQ endpoint, `tcp://127.0.0.1:5580`, `tcp://HOST:*` (a free port) or
        `ipc:///run/raftwright/events`. The questions of listeners come to another, which they are told of: a
        free port of the same address, or the path with `.replay`.
    name
        Who tells it; by default the host's name and the process.
    log
        Durable log whose rows are told with `relay`, and told again from there.
    alive
        Seconds between the messages that say what was last.

    Raises
    ------
    StorageError
        The endpoint cannot be had.
    """

    def __init__(self, bind: str, *, name: str = "", log: EventLog | None = None, alive: float = 5.0) -> None:
        self.name = (name or f"{socket.gethostname()}:{os.getpid()}")[:200]
        self.session = secrets.token_hex(8)
        self._sequences: Counter[str] = Counter()
        self._recent = Recent()
        self._last: dict[str, int | None] = {} if log is None else {log.id: None}
        self._restored: dict[str, int] = {}
        self._log = log
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = self._context.socket(zmq.XPUB)
        self._socket.sndhwm = _QUEUE
        self._socket.linger = 500
        self._socket.maxmsgsize = _LONGEST_QUESTION
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._questions: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._questions.linger = 0
        self._questions.rcvhwm = self._questions.sndhwm = 64
        self._questions.maxmsgsize = _LONGEST_QUESTION
        try:
            self.endpoint = _bound(self._socket, bind)
            """Where listeners connect."""
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise StorageError(
                error.errno,
                f"events cannot be told at {bind} ({error.strerror}); choose another endpoint with --events",
            ) from None
        self._replay_endpoint = self._bind_replay()
        self._replay = Replay(self.session, self._remembered, log, self._row)
        self._closing = threading.Event()
        self._listened = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(alive,), name="events", daemon=True)
        self._thread.start()

    def _bind_replay(self) -> str:
        """As listeners are told of it: of TCP only the port, they have a name of their own for the host."""
        try:
            if self.endpoint.startswith("tcp://"):
                bound = _bound(self._questions, self.endpoint.rpartition(":")[0] + ":*")
                return f"tcp://*:{bound.rpartition(':')[2]}"
            return _bound(self._questions, f"{self.endpoint}.replay")
        except zmq.ZMQError as error:  # the path is too long, or taken
            _log.warning("%s: nobody can ask for what he missed (%s)", self.endpoint, error.strerror)
            return ""

    def publish(self, kind: str, /, **fields: Any) -> None:
        told = prepared(kind, fields)
        with self._lock:
            # It counts as told before it is: a listener must see a gap where nothing left.
            number = self._recent.last + 1
            body = self._encoded(kind, self._sequences[kind] + 1, told, self.session, number)
            self._sequences[kind] += 1
            self._recent.add(number, kind, body)
            self._send(kind, body)

    def relay(self, log: str, rows: Sequence[Row], timeout: float) -> int:
        del timeout  # what a listener does not get, it asks for
        reached = 0
        for row in rows:
            try:
                told = prepared(row.kind, row.fields)
                with self._lock:
                    following = self._sequences[row.kind] + 1
                    body = self._encoded(row.kind, following, told, log, row.number, row.time)
                    self._sequences[row.kind] += 1
                    self._last[log] = row.number
                    self._send(row.kind, body)
            except UsageError:
                if not reached:
                    raise
                break
            reached = row.number
        return reached

    def told(self, log: str, number: int) -> None:
        with self._lock:
            self._last[log] = max(number, self._last.get(log) or 0)

    def went_back(self, log: str, number: int) -> None:
        """As if it were begun anew: what listeners know of its numbers is of another time."""
        with self._lock:
            self.session = secrets.token_hex(8)
            self._sequences.clear()
            self._recent = Recent()
            self._replay = Replay(self.session, self._remembered, self._log, self._row)
            self._last[log] = self._restored[log] = number
            self._send_alive()

    def ready(self, timeout: float) -> bool:
        return self._listened.wait(timeout)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5.0)
        with self._lock:
            if self._socket is not None:
                self._send_alive()
                self._socket.close()
                self._questions.close()
                self._socket = None
                self._context.term()

    # -- its own thread

    def _work(self, every: float) -> None:
        due = time.monotonic() + every
        while not self._closing.is_set():
            asked = self._questions.poll(int(min(_LOOK, every) * 1000))
            for _ in range(16 if asked else 0):
                if not self._answer():
                    break
            with self._lock:
                if self._joined() or time.monotonic() >= due:
                    self._send_alive()
                    due = time.monotonic() + every

    def _answer(self) -> bool:
        try:
            frames = self._questions.recv_multipart(zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        with contextlib.suppress(FormatError, zmq.ZMQError):
            if len(frames) == 2:
                self._questions.send_multipart([frames[0], *self._replay.answer(frames[1])], zmq.NOBLOCK)
        return True

    def _joined(self) -> bool:
        """Whether somebody new listens, who wants to know where things stand."""
        found = False
        if self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                for _ in range(1000):
                    found |= self._socket.recv(zmq.NOBLOCK)[:1] == b"\x01"
        if found:
            self._listened.set()
        return found

    def _remembered(self, number: int, limit: int) -> tuple[list[Any], bool, int]:
        with self._lock:
            return *self._recent.after(number, limit), self._recent.last

    def _row(self, log: str, row: Row) -> bytes:
        """A row as it is told again: it has no sequence then."""
        return self._encoded(row.kind, 0, prepared(row.kind, row.fields), log, row.number, row.time)

    # -- sending, with the lock held

    def _send_alive(self) -> None:
        facts: dict[str, Any] = {
            "sequences": dict(self._sequences),
            "logs": {**self._last, self.session: self._recent.last},
            "replay": self._replay_endpoint,
            **({"restored": self._restored} if self._restored else {}),
        }
        self._send(ALIVE, self._encoded(ALIVE, 0, facts))

    def _encoded(
        self, kind: str, sequence: int, fields: dict[str, Any], log: str = "", number: int = 0, time: str = ""
    ) -> bytes:
        return encode(
            Event(
                kind=kind,
                schema=schema_of(kind),
                sequence=sequence,
                session=self.session,
                publisher=self.name,
                log=log,
                number=number,
                time=time or stamp(),
                fields=fields,
            )
        )

    def _send(self, kind: str, body: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send_multipart([kind.encode(), body], zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1
        except zmq.ZMQError:
            self.dropped += 1
            with contextlib.suppress(zmq.ZMQError):
                self._socket.setsockopt(zmq.LINGER, 0)


def _bound(socket: zmq.Socket[bytes], bind: str) -> str:
    """Where a socket is bound. Raises ZMQError."""
    socket.bind(bind)
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return endpoint.rstrip(b"\0").decode()
