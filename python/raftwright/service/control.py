"""The control socket of a service: commands come in, each gets one answer, and it goes to who asked.

Control format 1, over ZeroMQ (ROUTER here; REQ or DEALER there), JSON in one frame of at most 64 KiB:

    {"format": "raftwright-control/1", "id": "17", "command": "enable", "arguments": {}}
    {"format": "raftwright-control/1", "id": "17", "command": "enable", "service": "forwarder", "ok": true,
     "reason": "", "state": "ENABLED", "data": {...}}

Only `command` has to be there. The answer comes when the command is done, with `ok` false and a reason where
it was refused or failed. What is no request is answered as well. Questions of health are answered at once
while another command is under way.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import zmq
from msgspec import Meta

from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.metrics.page import plain
from raftwright.service.context import bound
from raftwright.service.states import Command
from raftwright.stream.endpoints import refuse_taken
from raftwright.stream.keys import KeyPair, KeyStore, check_key
from raftwright.stream.refusals import Refusals
from raftwright.stream.zap import Doorman

if TYPE_CHECKING:
    from raftwright.service.base import Service

__all__ = ["FORMAT", "Answer", "ControlSocket", "Request", "ask"]

_log = logging.getLogger("raftwright.service")

FORMAT: Final = "raftwright-control/1"
_MOST_BYTES: Final = 64 << 10
_MOST_ANSWER: Final = 16 << 20
_MOST_AT_ONCE: Final = 8
"""Commands under way; more are refused."""
_CLOSING: Final = 2.0
"""Seconds for the answers of commands that are under way at the end."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked."""

    command: Annotated[str, Meta(min_length=1, max_length=64)]
    format: Annotated[str, Meta(max_length=64)] = FORMAT
    id: Annotated[str, Meta(max_length=200)] = ""
    """Comes back with the answer."""
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    ok: bool
    """Whether it is done."""
    reason: str = ""
    """Why it is not."""
    format: str = FORMAT
    id: str = ""
    command: str = ""
    service: str = ""
    state: str = ""
    data: dict[str, Any] = {}


_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)
_encoder = msgspec.json.Encoder()


class ControlSocket:
    """Answers for a service until `close`.

    Raises
    ------
    StorageError, UsageError
        The endpoint cannot be had, or others than this machine could command without keys.
    NotFoundError
        There are no keys of this name.
    """

    def __init__(self, endpoint: str, service: Service, *, keys: str = "", key_store: str = "") -> None:
        self._service = service
        self._doorman: Doorman | None = None
        pair, allowed = _keys(endpoint, keys, key_store)
        self._done: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)
        try:
            if allowed is not None:
                self._doorman = Doorman(self._context, allowed, Refusals(f"{service.name} control"))
            self._socket = self._bind(endpoint, pair)
        except BaseException:
            self._let_go()
            raise
        self._thread = threading.Thread(target=self._run, name=f"{service.name} control"[:60], daemon=True)
        self._thread.start()

    def _bind(self, endpoint: str, pair: KeyPair | None) -> zmq.Socket[bytes]:
        if endpoint.startswith("ipc://"):
            path = Path(endpoint.removeprefix("ipc://"))
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(error.errno, f"cannot be made ({error.strerror})", str(path)) from error
        refuse_taken(endpoint)
        found: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        found.linger = 500
        found.maxmsgsize = _MOST_BYTES
        found.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        if pair is not None:
            found.setsockopt(zmq.CURVE_SERVER, 1)
            found.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode("ascii"))
            found.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode("ascii"))
            found.setsockopt(zmq.ZAP_DOMAIN, b"raftwright")
        try:
            found.bind(endpoint)
        except zmq.ZMQError as error:
            found.close(0)
            raise StorageError(
                error.errno,
                f"the control socket cannot be there ({error.strerror}); choose another",
                endpoint,
            ) from None
        last = found.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(last, bytes)
        self.endpoint = last.rstrip(b"\0").decode("utf-8", "surrogateescape")
        """Where to ask."""
        return found

    def close(self) -> None:
        """Ends it; commands under way have two seconds to be answered. Twice is once."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._call()
        self._thread.join(_CLOSING + 2.0)
        self._let_go()
        if self.endpoint.startswith("ipc://"):
            with contextlib.suppress(OSError):
                Path(self.endpoint.removeprefix("ipc://")).unlink()

    def _let_go(self) -> None:
        if self._doorman is not None:
            self._doorman.stop(1.0)
        self._context.destroy(linger=500)
        self._awake.close()
        self._wake.close()

    def _call(self) -> None:
        with contextlib.suppress(OSError):  # full: it is being called already
            self._wake.send(b"!")

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._awake, zmq.POLLIN)
        until = float("inf")
        try:
            while time.monotonic() < until:
                ready = dict(poller.poll(1000 if until == float("inf") else 20))
                if self._awake.fileno() in ready:
                    with contextlib.suppress(OSError):
                        self._awake.recv(4096)
                if self._socket in ready:
                    self._take()
                self._give()
                if self._closing.is_set():
                    until = min(until, time.monotonic() + _CLOSING)
                    if self._quiet():
                        break
            self._give()
        except zmq.ZMQError as error:
            if not self._closing.is_set():
                _log.error("the control socket failed: %s", error)
        finally:
            self._socket.close(500)

    def _quiet(self) -> bool:
        """Whether no command is under way."""
        held = 0
        while self._slots.acquire(blocking=False):
            held += 1
        for _ in range(held):
            self._slots.release()
        return held == _MOST_AT_ONCE

    def _take(self) -> None:
        try:
            *route, body = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            request = _requests.decode(body)
            if request.format != FORMAT:
                raise FormatError(f"it is of format {request.format!a}, and this speaks {FORMAT}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, FormatError) as error:
            self._done.put([*route, self._encoded(Answer(ok=False, reason=f"no request: {error}"))])
            return
        if request.command == Command.HEALTH:
            self._done.put([*route, self._answer(request)])
        elif not self._slots.acquire(blocking=False):
            said = f"{_MOST_AT_ONCE} commands are under way; try again"
            self._done.put([*route, self._refused(request, said)])
        else:
            name = f"{self._service.name} {request.command}"[:60]
            threading.Thread(target=self._work, args=(route, request), name=name, daemon=True).start()

    def _work(self, route: list[bytes], request: Request) -> None:
        with bound(service=self._service.name):
            try:
                self._done.put([*route, self._answer(request)])
            finally:
                self._slots.release()
                self._call()

    def _give(self) -> None:
        while True:
            try:
                frames = self._done.get_nowait()
            except queue.Empty:
                return
            with contextlib.suppress(zmq.ZMQError):  # who asked is gone
                self._socket.send_multipart(frames, zmq.NOBLOCK)

    def _answer(self, request: Request) -> bytes:
        try:
            data = self._service.command(request.command, request.arguments)
            return self._encoded(
                Answer(
                    ok=True,
                    id=request.id,
                    command=request.command,
                    service=self._service.name,
                    state=self._service.state.value,
                    data=plain(data),
                )
            )
        except (RaftwrightError, OSError) as error:
            return self._refused(request, str(error))
        except Exception as error:
            _log.error("command %s failed", request.command, exc_info=error)
            return self._refused(request, f"{type(error).__name__}: {error}")

    def _refused(self, request: Request, reason: str) -> bytes:
        _log.warning("command %s is refused: %s", request.command, reason)
        return self._encoded(
            Answer(
                ok=False,
                reason=reason,
                id=request.id,
                command=request.command,
                service=self._service.name,
                state=self._service.state.value,
            )
        )

    def _encoded(self, answer: Answer) -> bytes:
        if not answer.service:
            service = self._service
            answer = msgspec.structs.replace(answer, service=service.name, state=service.state.value)
        return _encoder.encode(answer)


def _keys(
    endpoint: str, name: str, store: str
) -> tuple[KeyPair | None, Callable[[], Collection[str]] | None]:
    """The pair of a socket and what gives the keys of those it lets in."""
    if not name:
        if endpoint.startswith("tcp://") and not re.match(
            r"tcp://(127\.[0-9.]+|\[::1\]|localhost):", endpoint
        ):
            raise UsageError(
                f"control at {endpoint[:200]!a}: anybody could command it; give life.keys, or 127.0.0.1"
            )
        return None, None
    keys = KeyStore(store or None)
    pair = keys.secret(name)
    keys.allowed_keys()  # what is wrong with the list is said now
    return pair, keys.allowed_keys


def _listens(endpoint: str, seconds: float) -> bool:
    """Whether there is anybody: ZeroMQ itself would wait for them to come."""
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    try:
        if scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(seconds)
                probe.connect(place)
        elif scheme == "tcp" and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def ask(
    endpoint: str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = 60.0,
    keys: KeyPair | None = None,
    server_key: str = "",
) -> Answer:
    """Commands a service and waits for its answer, which may say no. A server with keys wants both keys.

    Raises NotFoundError where none comes in time, UsageError for what is no endpoint, FormatError for an
    answer that is none.
    """
    context: zmq.Context[Any] = zmq.Context()
    try:
        request = Request(command=command, id=f"{time.monotonic_ns():x}", arguments=dict(arguments or {}))
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.maxmsgsize = _MOST_ANSWER
        if server_key:
            pair = keys or KeyPair(*(key.decode("ascii") for key in zmq.curve_keypair()))
            dealer.setsockopt(zmq.CURVE_SERVERKEY, check_key(server_key).encode("ascii"))
            dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode("ascii"))
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode("ascii"))
        try:
            dealer.connect(endpoint)
        except zmq.ZMQError as error:
            raise UsageError(f"{endpoint[:200]!a} is no endpoint ({error.strerror})") from None
        until = time.monotonic() + timeout
        if not _listens(endpoint, min(timeout, 3.0)):
            raise NotFoundError(f"nobody listens at {endpoint[:200]}; does the service run?")
        # A client that was refused has no connection: what it sends would wait for ever.
        dealer.sndtimeo = max(1, int(1000 * (until - time.monotonic())))
        with contextlib.suppress(zmq.Again):
            dealer.send(_encoder.encode(request))
        while (left := until - time.monotonic()) > 0:
            if not dealer.poll(max(1, int(min(left, 1.0) * 1000))):
                continue
            try:
                answer = _answers.decode(dealer.recv_multipart()[-1])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise FormatError(f"{endpoint}: that is no answer: {error}") from None
            if answer.id in (request.id, ""):
                return answer
        raise NotFoundError(f"nobody answers at {endpoint} within {timeout:g} s; does the service run?")
    finally:
        context.destroy(linger=0)
