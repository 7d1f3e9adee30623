"""The server: an event loop in a thread of its own, until it is closed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import MissingExtraError, StorageError

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtraError(
        "the OODS over HTTP needs uvicorn; install it with `pip install 'raftwright[web]'`"
    ) from error

from raftwright.oods.web.app import make_app
from raftwright.oods.web.catalogue import Catalogue
from raftwright.oods.web.previews import Previews

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.oods.web.settings import Web

__all__ = ["WebServer"]

_START: Final = 10.0
_END: Final = 5.0
_HEAD: Final = 10.0
"""Seconds that a connection may take until it has asked something whole."""
_UNREAD: Final = 60.0
"""Seconds for which who asked may take nothing of the answer."""
_LOOK: Final = 1.0


class WebServer:
    """Answers from the moment it is made; `before` puts something in front of the application. Raises
    StorageError where the address cannot be had."""

    def __init__(
        self, ledger: Ledger, repository: str, web: Web, before: Callable[[Any], Any] | None = None
    ) -> None:
        host, port = web.address
        self._socket = _listen(host, port)
        app: Any = make_app(Catalogue(ledger, repository), Previews(web.pictures, web.remembered), web)
        if before is not None:
            app = before(app)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            http=_Patience,
            limit_concurrency=web.requests + 1,  # below it are those that are answered
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(_END),
            h11_max_incomplete_event_size=64 << 10,
            server_header=False,
            lifespan="off",
        )
        self._server = _Server(config)
        self.thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="oods web", daemon=True
        )
        self.thread.start()
        until = time.monotonic() + _START
        while not self._server.started:
            if not self.thread.is_alive() or time.monotonic() > until:
                self.close()
                raise StorageError(98, "does not begin to answer; see the log", web.listen)
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """Ends what is under way, a few seconds at most."""
        self._server.should_exit = True
        if self.thread.ident is not None:
            self.thread.join(_END)
        if self.thread.is_alive():
            self._server.force_exit = True
            self.thread.join(_END)
        self._socket.close()


class _Patience(H11Protocol):
    """Lets go of who connects and asks nothing, asks byte by byte, or does not take the answer: each holds
    one of the few places."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since, self._unread = self.loop.time(), 0
        self._look = self.loop.call_later(_LOOK, self._patience)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _patience(self) -> None:
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        cycle: Any = self.cycle  # None until something is asked
        answered = cycle is not None and not cycle.response_complete
        if (answered and not unread) or unread != self._unread:
            self._since = now
        self._unread = unread
        if now - self._since > (_UNREAD if unread else _HEAD):
            self.transport.abort()
            return
        self._look = self.loop.call_later(_LOOK, self._patience)


class _Server(uvicorn.Server):
    """Leaves signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _listen(host: str, port: int) -> socket.socket:
    made: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        if made is not None:
            made.close()
        raise StorageError(
            error.errno,
            f"cannot be listened at ({error.strerror}); choose another in oods.web.listen",
            f"{host}:{port}",
        ) from error
    return made
