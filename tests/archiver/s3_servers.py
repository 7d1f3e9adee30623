"""S3 servers: a true one, and some that fail in their own ways."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from raftwright.archiver import Destination

__all__ = ["Bucket", "Odd", "silent", "true_server"]


class Bucket:
    """What is in a bucket of a server."""

    def __init__(self, endpoint: str, name: str = "raws") -> None:
        import boto3

        self.endpoint = endpoint
        self.name = name
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="x",
            aws_secret_access_key="y",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=name)

    def to(self, name: str = "s3", prefix: str = "raw", **more: Any) -> Destination:
        return s3(name, self.endpoint, f"s3://{self.name}/{prefix}", **more)

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)


def s3(name: str, endpoint: str, root: str = "s3://raws/raw", **more: Any) -> Destination:
    """A destination with dummy keys."""
    values = {
        "access_key": "x",
        "secret_key": "y",
        "timeout": 5.0,
        "backoff": 0.05,
        "longest": 0.3,
        **more,
    }
    return Destination(name=name, kind="s3", root=root, endpoint=endpoint, **values)


@contextlib.contextmanager
def true_server() -> Iterator[str]:
    """moto, in threads of its own; its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Odd:
    """A server that says yes to all and does what the test says with what it gets. `put` decides: it is given
    key and body and returns what is kept (None: nothing), or a status."""

    def __init__(self, put: Callable[[str, bytes], bytes | int | None], *, etag: bool = True) -> None:
        self.put = put
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.kept: list[str] = []
        self.connections = 0
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                odd.connections += 1

            def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _found(self) -> bytes | None:
                return odd.objects.get(self.path)

            def do_HEAD(self) -> None:
                found = self._found()
                if self.path.rstrip("/") == "/raws":
                    self._answer(200)
                elif found is None:
                    self._answer(404)
                else:
                    tag = f'"{hashlib.md5(found).hexdigest()}"' if etag else '"0123-2"'
                    self._answer(200, Content_Length=str(len(found)), ETag=tag)

            def do_GET(self) -> None:
                found = self._found()
                self._answer(404 if found is None else 200, found or b"")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                odd.puts.append(self.path)
                kept = odd.put(self.path, body)
                if isinstance(kept, int):
                    self._answer(kept)
                    return
                if kept is not None:
                    odd.objects[self.path] = kept
                    odd.kept.append(self.path)
                self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Clients that are killed are no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in taken:
                one.close()


def closed_port() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def pause(seconds: float) -> Callable[[str, bytes], bytes]:
    """Keeps what it gets, after a while."""

    def put(key: str, body: bytes) -> bytes:
        del key
        time.sleep(seconds)
        return body

    return put
