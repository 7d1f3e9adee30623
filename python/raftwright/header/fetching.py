"""Fetching a header document that was announced: again and again until it is the one, or the deadline."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import stat
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Final

from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.rawfile.document import MAX_BYTES

__all__ = ["fetch_header"]

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_ONE_TRY: Final = 5.0
_PIECE: Final = 1 << 16


def fetch_header(url: str, size: int | None = None, md5: str | None = None, deadline: float = 30.0) -> bytes:
    """The header document at a URL (`http://` or `file://`), with this size and MD5 where they are given.

    A server that refuses, is silent, or gives something else is asked again, with pauses that grow, for
    `deadline` seconds in all.

    Raises
    ------
    FormatError
        What it gave to the last had another size or digest than was announced, or was too large.
    NotFoundError
        It was not there to the last.
    StorageError
        The server did not answer to the last.
    UsageError
        That is no URL of a header.
    """
    parts = _parts(url)
    until = time.monotonic() + deadline
    pause = _FIRST_PAUSE
    while True:
        try:
            return _checked(url, _get(url, parts, until), size, md5)
        except (FormatError, NotFoundError, StorageError):
            if until - time.monotonic() <= pause:
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _parts(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url[:200]!a} is no URL: {error}") from None
    usable = (parts.scheme == "http" and parts.hostname) or (parts.scheme == "file" and parts.path)
    if not usable or port == 0 or any(ord(c) < 33 or ord(c) > 126 for c in url):
        raise UsageError(
            f"{url[:200]!a} is no URL of a header; give http://HOST:PORT/NAME.yaml or file:///PATH"
        )
    return parts


def _checked(url: str, data: bytes, size: int | None, md5: str | None) -> bytes:
    if size is not None and len(data) != size:
        raise FormatError(f"{url}: {len(data)} bytes came, {size} were announced")
    if md5 is not None:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != md5.strip().lower():
            raise FormatError(f"{url}: its MD5 is {found}, {md5[:32]} was announced")
    return data


def _get(url: str, parts: urllib.parse.SplitResult, until: float) -> bytes:
    if parts.scheme == "file":
        return _read(Path(urllib.parse.unquote(parts.path)))
    left = max(0.05, min(_ONE_TRY, until - time.monotonic()))
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=left)
    watch, reply, cut = None, None, threading.Event()
    try:
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.connect()
        watch = threading.Timer(2 * left, _cut, [connection.sock, cut])
        watch.daemon = True
        watch.start()
        connection.request("GET", path, headers={"Accept": "application/yaml", "Connection": "close"})
        reply = connection.getresponse()
        if reply.status == 404:
            raise NotFoundError(f"{url}: there is no such header")
        if reply.status != 200:
            raise StorageError(None, f"the server answered {reply.status}", url)
        body = _body(url, reply, until)
        if cut.is_set():
            raise StorageError(None, "too slow", url)
        return body
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, StorageError):
            raise
        number = error.errno if isinstance(error, OSError) else None
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(number, f"cannot be fetched ({reason})", url) from None
    finally:
        if watch is not None:
            watch.cancel()
        if reply is not None:
            reply.close()  # it keeps the socket where not all of it was read
        connection.close()


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    """Ends a try whose answer comes byte by byte: each byte would be waited for anew."""
    cut.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _body(url: str, reply: http.client.HTTPResponse, until: float) -> bytes:
    """All of it, in bounded time: a server that drips is one that is silent."""
    body = bytearray()
    end = min(until, time.monotonic() + 2 * _ONE_TRY)
    while True:
        piece = reply.read1(_PIECE)
        if not piece:
            break
        body += piece
        if len(body) > MAX_BYTES:
            raise FormatError(f"{url}: more than {MAX_BYTES} bytes; that is no header document")
        if time.monotonic() > end:
            raise StorageError(None, "too slow", url)
    if reply.length:
        raise StorageError(None, f"ended {reply.length} bytes early", url)
    if not body:
        raise StorageError(None, "gave nothing", url)
    return bytes(body)


def _read(path: Path) -> bytes:
    try:
        # What is no file, a pipe say, is not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise StorageError(None, "is no file", str(path))
            data = stream.read(MAX_BYTES + 1)
    except StorageError:
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there is no such header") from None
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise StorageError(number, "cannot be read", str(path)) from error
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes; that is no header document")
    return data
