"""The control connection of a client: greeting, queries and their replies, reconnection."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, TypeVar

import zmq

from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.stream import wire
from raftwright.stream.keys import KeyPair, check_key
from raftwright.stream.messages import SOFTWARE, Hello, Problem, Query, T, Welcome, decode, encode
from raftwright.stream.monitoring import Monitor
from raftwright.stream.wire import Header, Type, WireError

__all__ = ["Connection"]

R = TypeVar("R")

_log = logging.getLogger("raftwright.stream")

_PATIENCE: Final = 3.0
"""Seconds that a greeting has, from the first packet to WELCOME: seven round trips with keys."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_RECONNECT: Final = (100, 2000)
"""Milliseconds, the first and the longest, from one of libzmq's tries to connect to the next."""
_FRESH: Final = 0.5
"""Seconds for which a greeting is as good as a new one."""
_ENDPOINT: Final = ("tcp://", "ipc://")

_TROUBLE: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the server does not let this key in",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed; are keys used on both sides, and is "
    "the server's key right?",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
    zmq.EVENT_CONNECT_RETRIED: "nobody listens there",
    zmq.EVENT_DISCONNECTED: "the other side closed the connection; are keys used on both sides, and "
    "is the server's key right?",
}
_NOBODY: Final = _TROUBLE[zmq.EVENT_CONNECT_RETRIED]


class _SilenceError(Exception):
    """No answer came."""


class _RestartedError(Exception):
    """The server is another one than greeted us."""


class Connection:
    """Queries to one server. Thread-safe: one query is under way at a time.

    Raises UsageError for an endpoint or keys that cannot be. Nothing is connected before the first query.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        keys: KeyPair | None = None,
        server_key: str | None = None,
        timeout: float = 10.0,
        name: str = "",
        io_threads: int = 2,
    ) -> None:
        if not endpoint.startswith(_ENDPOINT) or len(endpoint) < 8 or not endpoint.isprintable():
            raise UsageError(
                f"{ascii(endpoint)[:80]}: no endpoint of a server; give tcp://HOST:PORT or ipc://PATH"
            )
        if not 0.05 <= timeout <= 3600:
            raise UsageError(f"a timeout of {timeout:g} s; give 0.05 to 3600")
        if keys is not None and server_key is None:
            raise UsageError("keys were given but not the server's public key, which is needed too")
        self.endpoint = endpoint
        self.timeout = timeout
        self._name = name
        self._server_key = None if server_key is None else check_key(server_key, "the server's key")
        self._keys = keys
        if server_key is not None and keys is None:  # a server without a list of clients takes any
            public, secret = zmq.curve_keypair()
            self._keys = KeyPair(public.decode("ascii"), secret.decode("ascii"))
        self.context: zmq.Context[Any] = zmq.Context(io_threads)
        self._lock = threading.Lock()
        self._socket: Any = None
        self._monitor: Monitor | None = None
        self._trouble = ""
        self._hello: tuple[int, float] | None = None
        """Request and time of a greeting that is under way on the socket."""
        self._welcome: Welcome | None = None
        self._greeted = 0.0
        self._request = 0
        self._closed = False
        self._closing = threading.Event()
        self._refused = 0
        self._refusal = ""
        self.counts = {"queries": 0, "reconnects": 0, "refused": 0, "sessions": 0}

    # -- sockets

    def socket(self, kind: int, endpoint: str, options: dict[int, int]) -> Any:
        """A socket with this client's keys, connected. Raises StorageError."""
        if self._closed:
            raise UsageError("the store was closed; open it again")
        try:
            socket = self.context.socket(kind)
        except zmq.ZMQError as error:
            raise StorageError(error.errno, f"a socket cannot be made ({error})", endpoint) from None
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT[0])
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT[1])
            socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_TO_CLIENT)
            for option, value in options.items():
                socket.setsockopt(option, value)
            if "[" in endpoint:
                socket.setsockopt(zmq.IPV6, 1)
            if self._server_key is not None and self._keys is not None:
                socket.setsockopt(zmq.CURVE_SERVERKEY, self._server_key.encode("ascii"))
                socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode("ascii"))
                socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode("ascii"))
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise UsageError(f"a socket cannot be made so ({error}); look at the keys") from None
        return socket

    def _open(self) -> None:
        self._shut()
        self._socket = self.socket(zmq.DEALER, self.endpoint, {zmq.SNDHWM: 64, zmq.RCVHWM: 64})
        self._monitor = Monitor(self._socket, sum(_TROUBLE))
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            self._shut()
            raise UsageError(
                f"{ascii(self.endpoint)[:80]}: no endpoint of a server ({error.strerror}); give "
                "tcp://HOST:PORT or ipc://PATH"
            ) from None

    def _shut(self) -> None:
        self._hello = None
        self._unwatch()
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _unwatch(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def close(self) -> None:
        """Closes the connection; those who still have data sockets close them themselves."""
        self._closing.set()  # whoever waits for an answer lets go of the lock
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._shut()
        # `term` waits for sockets of others: not here. Twice at a time it aborts the process.
        threading.Thread(target=self.context.term, name="stream close", daemon=True).start()

    # -- greeting and queries

    @property
    def welcome(self) -> Welcome | None:
        """Of the last greeting; None before the first."""
        return self._welcome

    def greet(self, timeout: float | None = None, *, anew: bool = False) -> Welcome:
        """The server's WELCOME, asked for again with `anew`. Raises as `query`."""
        begun = time.monotonic()
        until = begun + (self.timeout if timeout is None else timeout)
        with self._held(until):
            # Who waited for the one that greeted need not do it again.
            stale = anew and self._greeted < begun - _FRESH
            if self._welcome is None or self._socket is None or self._hello is not None or stale:
                self._retrying(lambda: self._connect(until), until)
            assert self._welcome is not None
            return self._welcome

    def query(self, query: Query, kind: type[T], timeout: float | None = None) -> T:
        """Asks the catalogue; a connection that was lost is made again, until the time is over.

        Raises NotFoundError, UsageError (a range), FormatError (the server speaks another protocol), and
        StorageError (no answer, or the server's store has a problem).
        """
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        try:
            body = encode(query)
        except UnicodeEncodeError:
            raise NotFoundError(
                f"{self.endpoint}: a name with characters that cannot be; give another"
            ) from None

        def ask() -> T:
            if self._socket is None or self._welcome is None or self._hello is not None:
                self._connect(until)
            if self._monitor is None:
                self._monitor = Monitor(self._socket, sum(_TROUBLE))
            answer = self._wait(self._ask(Type.QUERY, body), Type.QUERY, Type.REPLY, until)
            return decode(answer, kind)

        with self._held(until):
            self.counts["queries"] += 1
            return self._retrying(ask, until)

    @contextlib.contextmanager
    def _held(self, until: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise StorageError(
                errno.ETIMEDOUT, "no answer to others who asked before; does the server run?", self.endpoint
            )
        try:
            yield
        finally:
            self._unwatch()  # nobody reads it while there are no questions; the next one makes another
            self._lock.release()

    def _retrying(self, work: Callable[[], R], until: float) -> R:
        pause = _FIRST_PAUSE
        self._refused, self._refusal, self._trouble = 0, "", ""
        while True:
            if self._closing.is_set():
                raise UsageError("the store was closed; open it again")
            try:
                return work()
            except WireError as error:
                self._shut()
                raise FormatError(
                    f"{self.endpoint}: {error}; is it a server of raftwright's, and of this version?"
                ) from None
            except _RestartedError:
                self._shut()
                continue
            except _SilenceError:
                now = time.monotonic()
                left = until - now
                if (
                    not self._look()
                    and left <= 0
                    and self._hello is not None
                    and now < self._hello[1] + _PATIENCE
                ):
                    raise self._no_answer() from None  # the line is long: who asks next waits for the rest
                self._shut()
                self.counts["reconnects"] += 1
                if left <= 0:
                    raise self._no_answer() from None
                self._closing.wait(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _no_answer(self) -> StorageError:
        reason = "no answer"
        if self._refused:
            reason += f", but {self._refused} messages that are not of the protocol ({self._refusal})"
        elif self._trouble:
            reason += f", {self._trouble}"
        return StorageError(errno.ETIMEDOUT, f"{reason}; does the server run?", self.endpoint)

    def _look(self) -> bool:
        """Whether the monitor tells of trouble, which is noted."""
        found = False
        for event in () if self._monitor is None else self._monitor.news():
            if event in _TROUBLE:
                found = True
                if not self._trouble.startswith(("the handshake", "the server")):
                    self._trouble = _TROUBLE[event]
        return found

    def _connect(self, until: float) -> None:
        """Greets, or waits for the end of a greeting that was begun before."""
        if self._hello is None or time.monotonic() > self._hello[1] + _PATIENCE:
            self._open()
            hello = Hello([*wire.SPOKEN], SOFTWARE, self._name)
            self._hello = self._ask(Type.HELLO, encode(hello)), time.monotonic()
        elif self._monitor is None:
            self._monitor = Monitor(self._socket, sum(_TROUBLE))
        request, since = self._hello
        answer = self._wait(request, Type.HELLO, Type.WELCOME, min(until, since + _PATIENCE))
        self._hello = None
        welcome = decode(answer, Welcome)
        if welcome.version not in wire.SPOKEN:
            raise WireError(
                "version",
                f"the server chose version {welcome.version} of the protocol, which is not spoken here",
            )
        if welcome.chunk[0] > welcome.chunk[1] or welcome.chunk[0] > welcome.credit:
            raise WireError("malformed", "the server's limits contradict each other")
        if self._welcome is not None and self._welcome.session != welcome.session:
            self.counts["sessions"] += 1
            _log.warning("%s: the server was started anew", self.endpoint)
        known = "" if self._welcome is None else self._welcome.software
        if welcome.software not in (SOFTWARE, known, ""):
            shown = ascii(welcome.software)[1:-1][:80]
            _log.info("%s: the server runs %s, here it is %s", self.endpoint, shown, SOFTWARE)
        self._welcome = welcome
        self._greeted = time.monotonic()
        self._unwatch()

    def _ask(self, kind: Type, body: bytes) -> int:
        """Sends a request; its number."""
        self._request += 1
        self._send(Header(kind, request=self._request), body)
        return self._request

    def _wait(self, request: int, kind: Type, wanted: Type, until: float) -> bytes:
        """The answer to a request. Raises what the server says, and silence."""
        heartbeat = self._welcome.heartbeat if self._welcome is not None else _PATIENCE / 3
        heard = asked = time.monotonic()
        while True:
            now = time.monotonic()
            silent = kind is Type.QUERY and now - heard > max(3 * heartbeat, 0.3)
            if self._closing.is_set() or now >= until or silent:
                raise _SilenceError
            if self._look() and (kind is Type.QUERY or self._trouble != _NOBODY):
                raise _SilenceError  # what it was sent into is over, though libzmq connects again
            if now - max(heard, asked) > heartbeat and kind is Type.QUERY:
                asked = now
                self._send(Header(Type.PING, request=request))
            if not self._socket.poll(max(1, round(1e3 * min(until - now, heartbeat / 2)))):
                continue
            header, answer = self._receive()
            if header is None:
                continue
            if kind is Type.QUERY and self._welcome is not None and header.session != self._welcome.session:
                raise _RestartedError
            if header.request != request:
                continue  # of a query that was given up
            if header.type is Type.ERROR:
                self._raise(decode(answer, Problem))
            if header.type is Type.PONG:
                heard = now
            elif header.type is wanted:
                return answer
            else:
                self._refuse(f"{header.type.name} instead of {wanted.name}")

    def _send(self, header: Header, body: bytes = b"") -> None:
        try:
            self._socket.send_multipart([wire.pack(header, body), body], flags=zmq.DONTWAIT)
        except zmq.ZMQError:
            raise _SilenceError from None

    def _receive(self) -> tuple[Header | None, bytes]:
        try:
            frames = self._socket.recv_multipart(flags=zmq.DONTWAIT)
            if len(frames) != 2:
                raise WireError("malformed", f"a message of {len(frames)} frames instead of 2")
            header = wire.unpack(frames[0])
            wire.check_body(header, frames[1])
        except WireError as error:
            if error.code == "version":
                raise
            self._refuse(str(error))
            return None, b""
        except zmq.ZMQError:
            raise _SilenceError from None
        return header, frames[1]

    def _refuse(self, reason: str) -> None:
        if self.counts["refused"] == 0:
            _log.warning(
                "%s: refused a message (%s); more are only counted", self.endpoint, ascii(reason)[:200]
            )
        self.counts["refused"] += 1
        self._refused += 1
        self._refusal = self._refusal or reason

    def _raise(self, problem: Problem) -> NoReturn:
        said = ascii(problem.message)[1:-1][:300] or "the server gave no reason"
        match problem.code:
            case "version":
                raise WireError(
                    "version",
                    f"the server speaks versions {problem.spoken} of the protocol, here it is "
                    f"{list(wire.SPOKEN)} ({said})",
                )
            case "not-found" | "gone":
                raise NotFoundError(f"{self.endpoint}: {said}")
            case "range":
                raise UsageError(f"{self.endpoint}: {said}")
            case "malformed" | "unknown-type" | "limit":
                raise WireError("malformed", f"the server refused a query as {problem.code}: {said}")
            case "busy":
                raise StorageError(errno.EBUSY, f"the server has too much to do ({said})", self.endpoint)
        raise StorageError(errno.EIO, f"the server has a problem: {said}", self.endpoint)
