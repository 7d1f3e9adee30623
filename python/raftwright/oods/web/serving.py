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
            limit_concurrency=web.requests,
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
