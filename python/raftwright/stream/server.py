"""A server: publishes a store of images by the stream protocol (docs/protocol.md)."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Any, Final, Self

import zmq

from raftwright.daq.store import Notice, Store
from raftwright.errors import StorageError, UsageError
from raftwright.stream import wire
from raftwright.stream.announcing import Announcer
from raftwright.stream.attendance import Attendance
from raftwright.stream.control import Catalogue, Control
from raftwright.stream.delivery import Delivery
from raftwright.stream.endpoints import announced, plan, refuse_taken
from raftwright.stream.faults import Faults
from raftwright.stream.keys import KeyPair
from raftwright.stream.messages import SOFTWARE, Welcome
from raftwright.stream.peers import Limits
from raftwright.stream.refusals import Refusals
from raftwright.stream.sabotage import FaultySender
from raftwright.stream.sending import Sender
from raftwright.stream.shelf import Shelf
from raftwright.stream.zap import Doorman

__all__ = ["Limits", "Server"]

_log = logging.getLogger("raftwright.stream")

_QUEUE: Final = 1000
"""Messages for one client that may wait at the control and notices sockets."""
_REBIND: Final = 3.0
"""Seconds for which an endpoint that is still being let go of is tried."""


class Server:
    """Publishes a store. Everything runs in threads of its own between `start` and `stop`.

    Parameters
    ----------
    store
        Its methods are called from several threads.
    bind
        Endpoint of the control socket: `tcp://HOST:PORT` (notices at the next port, then data; port 0: any
        that are free) or `ipc://PATH` (PATH-notices, PATH-data0 and on).
    data_sockets
        How many endpoints pixels go through, each with a thread.
    keys
        Those of the server: it then speaks CURVE only.
    allowed
        Public keys of the clients that may connect, or a function that gives them; None: whoever knows the
        server's key.
    faults
        What to do wrong on purpose.
    heartbeat
        Seconds, as in the protocol.
    observer
        Called with each notice of the store, in a thread of the server.

    Raises
    ------
    UsageError
        An endpoint, number or key that cannot be.
    StorageError
        From `start`: an endpoint cannot be bound.
    """

    def __init__(
        self,
        store: Store,
        bind: str = "tcp://127.0.0.1:5570",
        *,
        data_sockets: int = 2,
        keys: KeyPair | None = None,
        allowed: Callable[[], Collection[str]] | Iterable[str] | None = None,
        faults: Faults | None = None,
        io_threads: int = 2,
        heartbeat: float = 1.0,
        name: str = "",
        limits: Limits | None = None,
        observer: Callable[[Notice], None] | None = None,
    ) -> None:
        if not 1 <= data_sockets <= 64 or not 1 <= io_threads <= 64:
            raise UsageError("data sockets and I/O threads are 1 to 64")
        if not 0.05 <= heartbeat <= 60:
            raise UsageError(f"a heartbeat of {heartbeat:g} s; give 0.05 to 60")
        if allowed is not None and keys is None:
            raise UsageError("clients are known by their keys, which needs keys of the server; give them")
        self.name = name or type(store).__name__
        self.session = 1 + secrets.randbelow(2**32 - 1)
        self._plan = plan(bind, data_sockets)
        self._store = store
        self._keys = keys
        self._allowed: Callable[[], Collection[str]] | None
        if allowed is None or callable(allowed):
            self._allowed = allowed
        else:
            known = frozenset(allowed)
            self._allowed = lambda: known
        self._faults = faults
        self._io_threads = io_threads
        self._limits = limits or Limits(heartbeat=heartbeat)
        self._limits.heartbeat = heartbeat
        self._refusals = Refusals(f"server {self.name}")
        self._observer = observer
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] | None = None
        self._attendance: Attendance | None = None
        self._doorman: Doorman | None = None
        self._parts: list[Control | Announcer | Delivery] = []
        self._endpoints: dict[str, Any] = {}
        self._since = 0.0
        self._stopped = False

    # -- begin and end

    def start(self) -> Server:
        """Binds all sockets and begins to serve. Returns itself. Raises StorageError, UsageError."""
        with self._lock:
            if self._context is not None or self._stopped:
                raise UsageError("a server is started once; make another")
            self._context = zmq.Context(self._io_threads)
            self._since = time.monotonic()
            try:
                self._start()
            except zmq.ZMQError as error:
                self._end(0.5)
                raise StorageError(
                    error.errno, f"its sockets cannot be made ({error.strerror}); see raftwright doctor"
                ) from None
            except BaseException:
                self._end(0.5)
                raise
        return self

    def _start(self) -> None:
        assert self._context is not None
        shelf = Shelf(self._store)
        self._attendance = Attendance(self._context)
        if self._allowed is not None:
            self._doorman = Doorman(self._context, self._allowed, self._refusals)
        for endpoint in (self._plan.control, self._plan.notices, *self._plan.data):
            refuse_taken(endpoint)
        wanted = [
            (self._control_socket, self._plan.control),
            (self._notices_socket, self._plan.notices),
            *((self._data_socket, endpoint) for endpoint in self._plan.data),
        ]
        bound: list[Any] = []
        try:
            for make, endpoint in wanted:
                bound.append(self._bind(make, endpoint))
        except BaseException:
            for socket in bound:
                socket.close(linger=0)
            raise
        control_socket, notices_socket, *data_sockets = bound
        self._endpoints = {
            "control": _endpoint(control_socket),
            "notices": _endpoint(notices_socket),
            "data": [_endpoint(socket) for socket in data_sockets],
        }
        chooser = None if self._faults is None else self._faults.chooser("notices")
        announcer = Announcer(
            self._store,
            shelf,
            self.session,
            self._limits.heartbeat,
            chooser=chooser,
            observer=self._observer,
        )
        announcer.start(notices_socket)
        self._parts.append(announcer)
        for n, socket in enumerate(data_sockets):
            delivery = self._delivery(shelf, n)
            delivery.start(socket)
            self._parts.append(delivery)
        control = Control(Catalogue(self._store, shelf), self._welcome, self.session, self._refusals)
        control.start(control_socket)
        self._parts.append(control)

    def _delivery(self, shelf: Shelf, n: int) -> Delivery:
        name = f"stream data {n}"
        sender = Sender(self._limits.memory, self.session)
        if self._faults is not None:
            endpoint = self._endpoints["data"][n]
            sender = FaultySender(
                self._limits.memory,
                self.session,
                self._faults,
                name,
                lambda: self._bind(self._data_socket, endpoint),
            )
        return Delivery(shelf, self._limits, self._refusals, sender, name)

    def stop(self, timeout: float = 5.0) -> None:
        """Ends all threads and closes the sockets, within about `timeout` seconds. May be called twice."""
        with self._lock:
            self._stopped = True
            self._end(timeout)

    def _end(self, timeout: float) -> None:
        context = self._context
        if context is None:
            return
        self._context = None
        until = time.monotonic() + timeout
        for part in self._parts:
            part.stop()
        left = [part for part in self._parts if not part.join(max(0.1, until - time.monotonic()))]
        if self._doorman is not None:
            self._doorman.stop(max(0.1, until - time.monotonic()))
        if self._attendance is not None:
            self._attendance.stop(max(0.1, until - time.monotonic()))
        if left:
            _log.warning("server %s: a thread still waits for its store and is left behind", self.name)
        # A store that hangs must not hang us: then `term` waits for its socket in a thread of its own.
        closer = threading.Thread(target=context.term, daemon=True)
        closer.start()
        closer.join(max(0.5, until - time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what it tells

    @property
    def endpoint(self) -> str:
        """Of the control socket, with the port that it really has. Raises UsageError before `start`."""
        if not self._endpoints:
            raise UsageError("the server has no endpoint before it is started")
        return str(self._endpoints["control"])

    @property
    def endpoints(self) -> dict[str, Any]:
        """`control`, `notices` and a list `data`."""
        return dict(self._endpoints)

    @property
    def memory(self) -> int:
        """Bytes that the buffers of all data sockets may have."""
        return self._limits.memory * len(self._plan.data)

    def status(self) -> dict[str, Any]:
        """Numbers of this moment: traffic, open pulls, bytes in flight, refusals, injected faults."""
        data = [part.status() for part in self._parts if isinstance(part, Delivery)]
        total: dict[str, int] = {}
        for one in data:
            for key, value in one.items():
                total[key] = total.get(key, 0) + value
        return {
            "name": self.name,
            "session": self.session,
            "seconds": round(time.monotonic() - self._since, 3) if self._since else 0.0,
            "endpoints": self.endpoints,
            "data": total,
            "control": next((dict(p.counts) for p in self._parts if isinstance(p, Control)), {}),
            "notices": next((dict(p.counts) for p in self._parts if isinstance(p, Announcer)), {}),
            "admitted": 0 if self._doorman is None else self._doorman.counts["admitted"],
            "connections": {} if self._attendance is None else dict(self._attendance.counts),
            "refused": self._refusals.counts(),
            "faults": {} if self._faults is None else self._faults.counts(),
        }

    def _welcome(self) -> Welcome:
        return Welcome(
            version=wire.VERSION,
            software=SOFTWARE,
            session=self.session,
            store=self.name,
            heartbeat=self._limits.heartbeat,
            chunk=self._limits.chunk,
            credit=self._limits.credit,
            pulls=self._limits.pulls,
            notices=announced(self._endpoints["notices"]),
            data=[announced(endpoint) for endpoint in self._endpoints["data"]],
        )

    # -- sockets

    def _control_socket(self) -> Any:
        return self._socket(
            zmq.ROUTER,
            {
                zmq.ROUTER_MANDATORY: 1,
                zmq.SNDHWM: _QUEUE,
                zmq.RCVHWM: 64,
                zmq.MAXMSGSIZE: wire.MAX_MESSAGE_TO_SERVER,
                zmq.LINGER: 200,
            },
        )

    def _notices_socket(self) -> Any:
        return self._socket(
            zmq.XPUB, {zmq.SNDHWM: 100 * _QUEUE, zmq.RCVHWM: _QUEUE, zmq.MAXMSGSIZE: 4096, zmq.LINGER: 0}
        )

    def _data_socket(self) -> Any:
        # The window bounds what waits for a client; the number of messages is the belt to these braces.
        most = self._limits.window // self._limits.chunk[0] + 64
        return self._socket(
            zmq.ROUTER,
            {
                zmq.ROUTER_MANDATORY: 1,
                zmq.SNDHWM: most,
                zmq.RCVHWM: _QUEUE,
                zmq.MAXMSGSIZE: 65536,
                zmq.LINGER: 500,
            },
        )

    def _socket(self, kind: int, options: dict[int, int]) -> Any:
        assert self._context is not None
        socket = self._context.socket(kind)
        try:
            for option, value in options.items():
                socket.setsockopt(option, value)
            socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
            if self._keys is not None:
                socket.setsockopt(zmq.CURVE_SERVER, 1)
                socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode("ascii"))
                socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode("ascii"))
                socket.setsockopt(zmq.ZAP_DOMAIN, b"raftwright")
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise UsageError(f"a socket cannot be made so ({error}); look at the keys") from None
        return socket

    def _bind(self, make: Callable[[], Any], endpoint: str) -> Any:
        """A socket bound to an endpoint. Raises StorageError, UsageError."""
        until = time.monotonic() + _REBIND
        while True:
            socket = make()
            try:
                if "[" in endpoint:
                    socket.setsockopt(zmq.IPV6, 1)
                socket.bind(endpoint)
                if self._attendance is not None:
                    self._attendance.watch(socket)
                return socket
            except zmq.ZMQError as error:
                socket.close(linger=0)
                number = error.errno or 0
                if number == zmq.EADDRINUSE and self._endpoints and time.monotonic() < until:
                    time.sleep(0.005)  # our own socket there is still being closed
                    continue
                raise StorageError(
                    number, f"cannot be bound ({error.strerror}); give another endpoint", endpoint
                ) from None


def _endpoint(socket: Any) -> str:
    return str(socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode("utf-8", "surrogateescape"))
