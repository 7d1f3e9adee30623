"""Fetching a header that was announced."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.header import fetch_header

DATA = b"PRIMARY:\n- {keyword: EXPTIME, value: 1.5, comment: ''}\n"
MD5 = hashlib.md5(DATA).hexdigest()
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def whole(handler: http.server.BaseHTTPRequestHandler, data: bytes = DATA, code: int = 200) -> None:
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def refuse(handler: http.server.BaseHTTPRequestHandler) -> None:
    whole(handler, b"", 503)


def other(handler: http.server.BaseHTTPRequestHandler) -> None:
    whole(handler, DATA.replace(b"1.5", b"2.5"))


def cut(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(DATA)))
    handler.end_headers()
    handler.wfile.write(DATA[:10])


def nothing(handler: http.server.BaseHTTPRequestHandler) -> None:
    whole(handler, b"", 404)


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"#" * (1 << 20))


def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


class Server:
    """Answers as it is told, one after another, the last for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/CC_O_20261122_000001.yaml"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_server_that_fails_twice(server: Server) -> None:
    """D008."""
    server.answers = [refuse, hang_up, whole]
    assert fetch_header(server.url, len(DATA), MD5) == DATA
    assert server.asked == 3


@pytest.mark.parametrize("wrong", [other, cut, nothing], ids=["digest", "length", "not there yet"])
def test_what_is_not_what_was_announced_is_fetched_again(server: Server, wrong: Answer) -> None:
    """D109, F35."""
    server.answers = [wrong, wrong, whole]
    assert fetch_header(server.url, len(DATA), MD5.upper()) == DATA
    assert server.asked == 3


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (other, FormatError, f"{MD5[:32]} was announced"),
        (refuse, StorageError, "answered 503"),
        (nothing, NotFoundError, "no such header"),
        (endless, FormatError, "no header document"),
    ],
)
def test_at_the_deadline_it_says_why(
    server: Server, answer: Answer, error: type[Exception], said: str
) -> None:
    server.answers = [answer]
    begun = time.monotonic()
    with pytest.raises(error, match=said):
        fetch_header(server.url, len(DATA), MD5, deadline=0.5)
    assert time.monotonic() - begun < 5.0
    assert server.asked > 1 or answer is endless


def test_wrong_size(server: Server) -> None:
    with pytest.raises(FormatError, match="55 bytes came, 99 were announced"):
        fetch_header(server.url, 99, MD5, deadline=1.0)


def test_a_server_that_drips_ends_at_the_deadline(server: Server) -> None:
    gone = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not gone.wait(0.05):
            handler.wfile.write(b"#")

    server.answers = [drip]
    begun = time.monotonic()
    try:
        with pytest.raises(StorageError, match="too slow"):
            fetch_header(server.url, deadline=0.4)
    finally:
        gone.set()
    assert time.monotonic() - begun < 3.0


def test_a_server_that_drips_its_headers_ends_too(server: Server) -> None:
    def dripping(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.answers = [dripping]
    begun = time.monotonic()
    with pytest.raises(StorageError):
        fetch_header(server.url, deadline=0.5)
    assert time.monotonic() - begun < 2.5


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    begun = time.monotonic()
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StorageError):
            fetch_header(path.as_uri(), deadline=0.2)
    assert time.monotonic() - begun < 2.0


def test_nobody_there() -> None:
    with pytest.raises(StorageError, match="cannot be fetched"):
        fetch_header("http://127.0.0.1:9/x.yaml", deadline=0.2)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a header.yaml"
    with pytest.raises(NotFoundError):
        fetch_header(path.as_uri(), deadline=0.1)
    path.write_bytes(DATA)
    assert fetch_header(path.as_uri(), len(DATA), MD5) == DATA


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x/y",
        "http://",
        "http://h:99999/x",
        "http://h/a b",
        "http://h/\r\nX: 1",
        "file:",
        "http://[::1",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL"):
        fetch_header(url)
