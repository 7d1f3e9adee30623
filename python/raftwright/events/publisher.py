"""Telling events over ZeroMQ. Whoever tells them never waits for those who listen."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import zmq

from raftwright.errors import StorageError, UsageError
from raftwright.events.interface import EventLog, Publisher, Row
from raftwright.events.message import ALIVE, Event, encode, prepared, stamp
from raftwright.events.schema import schema_of

__all__ = ["ZmqPublisher"]

_QUEUE: Final = 4096
"""Messages that wait for one listener; more are lost for it, and it sees the gap."""


class ZmqPublisher(Publisher):
    """Publishes events. Thread-safe.

    Parameters
    ----------
    bind
        ZeroMQ endpoint, `tcp://127.0.0.1:5580`, `tcp://HOST:*` (a free port) or
        `ipc:///run/raftwright/events`.
    name
        Who tells it; by default the host's name and the process.
    log
        Durable log whose rows are told with `relay`.
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
        self.dropped = 0
        """Events that not even ZeroMQ's queue took. What it loses for one listener is not among them."""
        self._sequences: Counter[str] = Counter()
        self._number = 0
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = self._context.socket(zmq.PUB)
        self._socket.sndhwm = _QUEUE
        self._socket.linger = 500
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise StorageError(
                error.errno,
                f"events cannot be told at {bind} ({error.strerror}); choose another endpoint with --events",
            ) from None
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.endpoint = endpoint.rstrip(b"\0").decode()
        """Where listeners connect."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._stay_alive, args=(alive,), name="events", daemon=True)
        self._thread.start()

    def publish(self, kind: str, /, **fields: Any) -> None:
        told = prepared(kind, fields)
        with self._lock:
            # It counts as told before it is: a listener must see a gap where nothing left.
            self._number += 1
            body = self._encoded(kind, self._sequences[kind] + 1, told, self.session, self._number)
            self._sequences[kind] += 1
            self._send(kind, body)

    def relay(self, log: str, rows: Sequence[Row], timeout: float) -> int:
        reached = 0
        for row in rows:
            try:
                told = prepared(row.kind, row.fields)
                with self._lock:
                    body = self._encoded(
                        row.kind, self._sequences[row.kind] + 1, told, log, row.number, row.time
                    )
                    self._sequences[row.kind] += 1
                    self._send(row.kind, body)
            except UsageError:
                if not reached:
                    raise
                break
            reached = row.number
        return reached

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5.0)
        with self._lock:
            if self._socket is not None:
                self._send_alive()
                self._socket.close()
                self._socket = None
                self._context.term()

    def _stay_alive(self, every: float) -> None:
        while not self._closing.wait(every):
            with self._lock:
                self._send_alive()

    def _send_alive(self) -> None:
        self._send(ALIVE, self._encoded(ALIVE, 0, {"sequences": dict(self._sequences)}))

    def _encoded(
        self, kind: str, sequence: int, fields: dict[str, Any], log: str = "", number: int = 0, time: str = ""
    ) -> bytes:
        return encode(
            Event(
                kind=kind,
                schema=schema_of(kind),
                log=log,
                number=number,
                sequence=sequence,
                session=self.session,
                publisher=self.name,
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
