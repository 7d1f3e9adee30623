"""A data connection of a client: its socket, the loop that takes its messages, and the end of it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import zmq

from raftwright import _stream
from raftwright.errors import FormatError, RaftwrightError
from raftwright.stream import wire
from raftwright.stream.monitoring import Monitor
from raftwright.stream.wire import Header, Type, WireError

if TYPE_CHECKING:
    from raftwright.stream.client import NetworkStore

__all__ = ["Link"]

_log = logging.getLogger("raftwright.stream")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_WATCHED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_GREETING: Final = 1.0
"""Seconds for which a greeting may hold up the pixels."""


class Link:
    """Belongs to one thread, except for `wake`. `plain` takes messages through pyzmq, one at a time."""

    def __init__(self, store: NetworkStore, index: int, *, plain: bool) -> None:
        self._store = store
        self._index = index
        self.loop = _stream.ReceiveLoop(_pyzmq_module())
        if self.loop.problem and not plain:
            _log.warning("%s; pixels come through Python, which is slower", self.loop.problem)
        self._plain = plain or bool(self.loop.problem)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._socket: Any = None
        self._monitor: Monitor | None = None
        self._handle = 0
        self._next_try = 0.0
        self._pause = _FIRST_PAUSE
        self._stale = False
        """What the server said of its sockets may no longer be so."""

    @property
    def name(self) -> str:
        """For the log."""
        return f"{self._store.endpoint}, data connection {self._index}"

    @property
    def is_open(self) -> bool:
        """Whether there is a socket; the server may be away all the same."""
        return self._socket is not None

    def open(self, now: float) -> str:
        """Makes a socket if there is none and it is time to. Returns why there is none yet, or nothing.

        Raises FormatError if the server speaks another protocol.
        """
        if self._socket is not None:
            return ""
        if now < self._next_try:
            return "the connection is being made"
        try:
            if self._stale or self._store.connection.welcome is None:
                self._store.refresh(_GREETING)
                self._stale = False
            endpoint = self._store.data_endpoint(self._index)
            # When a connection ends, what was under way is lost: then another socket is made.
            options: dict[int, int] = {zmq.SNDHWM: 10_000, zmq.RCVHWM: 32, zmq.RECONNECT_IVL: -1}
            socket = self._store.connection.socket(zmq.DEALER, endpoint, options)
        except FormatError:
            raise
        except RaftwrightError as error:
            self._wait_longer()
            return str(error)
        self._monitor = Monitor(socket, _WATCHED)
        self._socket = socket
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.shut()
            raise WireError("malformed", f"the server names {ascii(endpoint)[:80]} ({error})") from None
        self._handle = int(socket.underlying)
        return ""

    def _wait_longer(self) -> None:
        """Before the next try; until one succeeds."""
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def shut(self) -> None:
        """Closes the socket."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def retire(self) -> None:
        """Closes the socket, whose connection ended while nothing was under way."""
        self.shut()
        self._stale = True

    def start_anew(self) -> str:
        """Closes the socket, and asks where the next one is to go. Returns what is wrong, or nothing.

        Raises FormatError if the server speaks another protocol.
        """
        self.shut()
        self.loop.forget_credit()
        try:
            self._store.refresh(_GREETING)  # it may have been started anew, at other ports
            self._stale = False
        except FormatError:
            raise
        except RaftwrightError as error:
            self._stale = True
            return str(error)
        finally:
            self._wait_longer()
        return ""

    def close(self) -> None:
        """The end."""
        self.shut()
        os.close(self._wake)
        self._wake = -1

    def wake(self) -> None:
        """Makes `receive` return. From any thread."""
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            os.eventfd_write(self._wake, 1)

    def was_cut(self) -> bool:
        """Whether the connection ended since the last look, or could not be made: what was under way is
        lost."""
        cut = False
        for event in () if self._monitor is None else self._monitor.news():
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._pause = _FIRST_PAUSE
            else:
                cut = True
        return cut

    def send(self, header: Header, body: bytes = b"") -> bool:
        """Whether the message could be handed over."""
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart([wire.pack(header, body), body], flags=zmq.DONTWAIT)
        except zmq.ZMQError:
            return False
        return True

    def receive(self, until: float) -> str:
        """Takes messages until there are events: `events`, `timeout`, `woken`, `interrupted`, or `failed`."""
        if self._socket is not None and not self._plain:
            end = self.loop.run(self._handle, self._wake, until)
            return "failed" if end == "terminated" else end
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        if self._socket is not None:
            poller.register(self._socket, zmq.POLLIN)
        ready = dict(poller.poll(max(0, min(3_600_000, round(1e3 * (until - time.monotonic()))))))
        if self._socket in ready and not self._take_one():
            return "failed"
        if self._wake not in ready:
            return "timeout"
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return "woken"

    def _take_one(self) -> bool:
        try:
            frames = self._socket.recv_multipart(flags=zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            return error.errno == zmq.EAGAIN
        if len(frames) == 2:
            self.loop.take(frames[0].buffer, frames[1].buffer, time.monotonic())
        else:
            self.loop.refuse_shape()
        for request, more in self.loop.grants():
            self.send(Header(Type.CREDIT, request, length=more))
        return True


def _pyzmq_module() -> str:
    """The file of the extension module that brought libzmq into the process; empty if there is none."""
    module = sys.modules.get("zmq.backend.cython._zmq")
    return str(getattr(module, "__file__", "") or "")
