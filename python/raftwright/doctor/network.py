"""Ports, kernel buffers, ZeroMQ, keys, and the DAQ itself."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from raftwright.doctor.finding import Finding, Wishes, read, sized

if TYPE_CHECKING:
    from raftwright.daq import Store

__all__ = ["CHECKS"]

_BUFFER: Final = 16 << 20
_PATIENCE: Final = 5.0
"""Seconds that the DAQ has for an answer."""


def zeromq(wishes: Wishes) -> Iterator[Finding]:
    """The library under the stream."""
    del wishes
    import zmq

    version = ".".join(map(str, zmq.zmq_version_info()))
    said = f"{version}, pyzmq {zmq.pyzmq_version()}"
    old = zmq.zmq_version_info() < (4, 3, 0)
    change = "pip install --upgrade pyzmq" if old else ""
    yield Finding("ZeroMQ", "fail" if old else "ok", said, "4.3 or later", change)
    if not zmq.has("curve"):
        change = "pip install --force-reinstall pyzmq (its wheels have it)"
        yield Finding("encryption", "warn", "this ZeroMQ has no CURVE", "CURVE", change)
    else:
        yield Finding("encryption", "ok", "CURVE", "CURVE")


def kernel_buffers(wishes: Wishes) -> Iterator[Finding]:
    """How much of a fast and long line the kernel may have under way."""
    for short, what in (("r", "receive"), ("w", "send")):
        most = read(wishes, f"proc/sys/net/core/{short}mem_max")
        automatic = (read(wishes, f"proc/sys/net/ipv4/tcp_{short}mem") or "").split()
        if most is None or len(automatic) != 3:
            yield Finding(f"{what} buffers", "ok", "not told", sized(_BUFFER))
            continue
        core, tcp = int(most), int(automatic[2])
        small = []
        if tcp < _BUFFER:
            small.append(f'net.ipv4.tcp_{short}mem="{automatic[0]} {automatic[1]} {_BUFFER}"')
        if core < _BUFFER:
            small.append(f"net.core.{short}mem_max={_BUFFER}")
        said = f"{sized(tcp)} by itself, {sized(core)} on request"
        wanted = f"{sized(_BUFFER)} of each"
        change = f"sudo sysctl -w {' '.join(small)}" if small else ""
        yield Finding(f"{what} buffers", "warn" if small else "ok", said, wanted, change)


def ports(wishes: Wishes) -> Iterator[Finding]:
    """Whether the addresses can be had."""
    host, _, port = wishes.metrics.rpartition(":")
    if port.isdigit():
        yield _port(
            "metrics port", host.strip("[]") or "127.0.0.1", int(port), "--metrics HOST:PORT", page=True
        )
    if wishes.bind is None:
        return
    parts = urlsplit(wishes.bind)
    if parts.scheme == "tcp" and parts.port:
        host = "" if parts.hostname in (None, "*") else str(parts.hostname)
        for offset, what in enumerate(("control", "notices", "data", "second data")):
            yield _port(f"{what} port", host, parts.port + offset, "--bind tcp://HOST:PORT", page=False)


def _port(check: str, host: str, port: int, option: str, *, page: bool) -> Finding:
    place = f"{host or '*'}:{port}"
    wanted = "free"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and page and _ours(host, port):
            return Finding(check, "ok", f"a service of raftwright answers at {place}", wanted)
        said = (
            "in use by another program" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        )
        change = f"ss -ltnp 'sport = :{port}' says by whom; or {option}"
        return Finding(check, "fail", f"{place}: {said.lower()}", wanted, change)
    return Finding(check, "ok", f"{place}, free", wanted)


def _ours(host: str, port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return "raftwright" in (connection.getresponse().getheader("Server") or "")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def keys(wishes: Wishes) -> Iterator[Finding]:
    """Whether secrets are secret, and the pair that is used is there."""
    directory = wishes.key_store or Path.home() / ".config" / "raftwright" / "keys"
    try:
        mode = stat.S_IMODE(os.stat(directory).st_mode)
    except OSError:
        if wishes.keys is not None:
            change = f"raftwright keys new {wishes.keys}"
            yield Finding("keys", "fail", f"no store at {directory}", f"the pair {wishes.keys}", change)
        else:
            yield Finding("keys", "ok", "none: pixels are not encrypted", "any")
        return
    if mode & 0o077:
        yield Finding(
            "key store", "fail", f"{directory} has mode {mode:04o}", "0700", f"chmod 700 {directory}"
        )
        return
    if wishes.keys is None:
        yield Finding("keys", "ok", f"a store at {directory}", "any")
        return
    from raftwright.errors import RaftwrightError
    from raftwright.stream.keys import KeyStore

    try:
        KeyStore(directory).secret(wishes.keys)
    except (RaftwrightError, OSError) as error:
        change = f"raftwright keys new {wishes.keys}"
        yield Finding("keys", "fail", str(error), f"the pair {wishes.keys}", change)
    else:
        yield Finding("keys", "ok", f"the pair {wishes.keys} in {directory}", f"the pair {wishes.keys}")


def daq(wishes: Wishes) -> Iterator[Finding]:
    """Whether the DAQ answers, and how long that takes."""
    if wishes.endpoint is None:
        return
    from raftwright.errors import RaftwrightError

    wanted = "answers, in 0.2 s or less"
    change = f"is `raftwright serve` running there, and the way free? nc -vz {_netcat(wishes.endpoint)}"
    begun = time.monotonic()
    store = None
    try:
        store = _open(wishes, wishes.endpoint)
        connected = time.monotonic()
        images = store.images()
        took = time.monotonic() - connected
    except (RaftwrightError, OSError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        yield Finding("DAQ", "fail", f"{wishes.endpoint}: {said}", wanted, change)
        return
    finally:
        close = getattr(store, "close", None)
        if close is not None:
            close()
    said = f"{len(images)} images at {wishes.endpoint}, asked in {took * 1e3:.0f} ms"
    said += f", connected in {(connected - begun) * 1e3:.0f} ms"
    slow = took > 0.2
    change = "a nearer network, or fewer images" if slow else ""
    yield Finding("DAQ", "warn" if slow else "ok", said, wanted, change)


def _open(wishes: Wishes, endpoint: str) -> Store:
    """The store, connected. Raises what opening it raises."""
    if not endpoint.startswith(("tcp://", "ipc://")) or "?" in endpoint:
        from raftwright.daq import open_store

        return open_store(endpoint)
    from raftwright.stream.client import NetworkStore
    from raftwright.stream.keys import KeyStore

    pair = None if wishes.keys is None else KeyStore(wishes.key_store).secret(wishes.keys)
    store = NetworkStore(endpoint, keys=pair, server_key=wishes.server_key, timeout=_PATIENCE, name="doctor")
    try:
        store.session  # noqa: B018 - asks for it
    except BaseException:
        store.close()
        raise
    return store


def _netcat(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    with contextlib.suppress(ValueError):
        if parts.hostname and parts.port:
            return f"{parts.hostname} {parts.port}"
    return "HOST PORT"


CHECKS = (
    ("ZeroMQ", zeromq),
    ("kernel buffers", kernel_buffers),
    ("ports", ports),
    ("keys", keys),
    ("DAQ", daq),
)
