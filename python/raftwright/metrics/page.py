"""The page of a running service: figures for Prometheus, its status as JSON, and whether it is well.

    GET /metrics    Prometheus text
    GET /status     one JSON object
    GET /health     200 while the process answers and is well; 503 with the reasons, a line each
    GET /ready      200 once it works, 503 before and while it stops

There is no key and no password: it belongs on the loopback or into a network of machines that trust each
other. Nothing can be changed through it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from raftwright._version import __version__
from raftwright.errors import StorageError, UsageError
from raftwright.metrics.figures import Metrics, render

__all__ = ["StatusServer", "plain", "process_facts"]

_MOST_CONNECTIONS: Final = 16
_LONGEST: Final = 10.0
"""Seconds that one request may take; then its connection is cut."""


class StatusServer:
    """Serves the figures and the status of a service from threads of its own, until `close`.

    Parameters
    ----------
    metrics
        The figures.
    address
        `HOST:PORT`; port 0 takes a free one, see `url`.
    status
        Gives the service's own status as JSON. What `raftwright status` makes tables of: `service`
        ("forwarder", "server"), `name`, `state`, `buffers` and `credit` ({"used": bytes, "limit": bytes}),
        `images` (counts by word), `incomplete` (list of {"image", "location", "missing_bytes",
        "next_try_s"}), `problems` (list of sentences). Anything else is shown as it is. `process` and
        `metrics` are added.
    ready
        Whether the service does its work. By default it does.
    health
        Why it is not well, a sentence each; none by default. Must answer at once.

    Raises
    ------
    UsageError
        The address is none.
    StorageError
        It cannot be had: the port is taken, or the host is not this one's.
    """

    def __init__(
        self,
        metrics: Metrics,
        address: str = "127.0.0.1:0",
        status: Callable[[], Mapping[str, Any]] | None = None,
        *,
        ready: Callable[[], bool] | None = None,
        health: Callable[[], list[str]] | None = None,
    ) -> None:
        host, port = _split(address)
        self.metrics = metrics
        self._status = status or dict
        self._ready = ready or (lambda: True)
        self._health = health or list
        try:
            self._server = _Server(self, host, port)
        except OSError as error:
            # Named differently from a file: its `filename` is the address.
            said = f"the status page cannot be at {address} ({error.strerror}); choose another with --metrics"
            raise StorageError(error.errno, said) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="status page", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:9557`."""
        host, port = self._server.server_address[:2]
        text = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://[{text}]:{port}" if ":" in text else f"http://{text}:{port}"

    def status(self) -> dict[str, Any]:
        """What `/status` gives."""
        try:
            own = dict(self._status())
        except Exception as error:  # the page of a service that fails is when it is needed
            own = {"problems": [f"the status itself failed: {type(error).__name__}: {error}"]}
        return {"version": __version__, "process": process_facts(), **own, "metrics": self.metrics.snapshot()}

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Code, content type and body of a GET."""
        path = path.partition("?")[0].rstrip("/") or "/"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", render(self.metrics)
        if path == "/status":
            return 200, "application/json", (json.dumps(plain(self.status()), indent=1) + "\n").encode()
        if path == "/health":
            try:
                said = self._health()
            except Exception as error:
                said = [f"health itself failed: {type(error).__name__}: {error}"]
            text = "".join(f"{line}\n" for line in said) or "ok\n"
            return (503 if said else 200), "text/plain; charset=utf-8", text.encode()
        if path == "/ready":
            well = False
            with contextlib.suppress(Exception):
                well = bool(self._ready())
            return (200, "text/plain", b"ready\n") if well else (503, "text/plain", b"not ready\n")
        if path == "/":
            return 200, "text/plain", b"/metrics\n/status\n/health\n/ready\n"
        return 404, "text/plain", b"there are /metrics, /status, /health and /ready\n"

    def close(self) -> None:
        """Ends it; at most a second. Twice is once."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def process_facts() -> dict[str, Any]:
    """Of this process: `host`, `pid`, resident bytes, threads, open files."""
    facts: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    facts["threads"] = threading.active_count()
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm", encoding="ascii") as file:
            facts["resident_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        facts["open_files"] = len(os.listdir("/proc/self/fd"))
    return facts


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Few threads, each for a bounded time."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, page: StatusServer, host: str, port: int) -> None:
        self.page = page
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._since[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def _ended(self, request: Any) -> None:
        with self._lock:
            known = self._since.pop(request, None) is not None
        if known:
            self._slots.release()

    def service_actions(self) -> None:
        limit = time.monotonic() - _LONGEST
        with self._lock:
            late = [request for request, since in self._since.items() if since < limit]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked went away: nothing to say."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version = f"raftwright/{__version__}"
    sys_version = ""
    timeout = 5.0

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            code, kind, body = server.page.answer(self.path)
        except Exception as error:
            code, kind, body = 500, "text/plain", f"{type(error).__name__}: {error}\n".encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as http.server looks for it

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads that."""


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise UsageError(f"{address[:100]!a} is no address; give HOST:PORT, e.g. 127.0.0.1:9557")
    return ("0.0.0.0" if host == "*" else host or "127.0.0.1"), int(port)


def plain(value: Any) -> Any:
    """What JSON has no form for: numbers that are not finite are null, anything strange is text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)
