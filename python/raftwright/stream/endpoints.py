"""Endpoints of a server: where its sockets are bound, and how a client reaches them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import NamedTuple

from raftwright.errors import StorageError, UsageError

__all__ = ["Plan", "plan", "reachable"]

_TCP = re.compile(r"\Atcp://(\[[0-9A-Fa-f:.%]+\]|\*|[A-Za-z0-9_.-]+):([0-9]{1,5}|\*)\Z")
_MAX_PATH = 100
"""Bytes of the path of a socket; the system has room for 107."""


class Plan(NamedTuple):
    """What to bind. A port of 0 means: any that is free."""

    control: str
    notices: str
    data: tuple[str, ...]


def plan(bind: str, data_sockets: int) -> Plan:
    """All endpoints of a server from that of its control socket.

    `tcp://HOST:P` has notices at P + 1 and data at P + 2 and on, or all of them anywhere if P is 0;
    `ipc://PATH` has PATH-notices and PATH-data0 and on. Raises UsageError.
    """
    if bind.startswith("ipc://"):
        path = bind[len("ipc://") :]
        if not path or "\0" in path or len(os.fsencode(path)) + len("-notices") > _MAX_PATH:
            raise UsageError(
                f"{ascii(bind)[:140]}: the path of a socket has 1 to {_MAX_PATH - 8} bytes; give another"
            )
        return Plan(bind, f"{bind}-notices", tuple(f"{bind}-data{n}" for n in range(data_sockets)))
    match = _TCP.match(bind)
    if match is None:
        raise UsageError(f"{ascii(bind)[:80]}: no endpoint; give tcp://HOST:PORT (port 0: any) or ipc://PATH")
    host, port = match[1], 0 if match[2] == "*" else int(match[2])
    if port == 0:
        free = f"tcp://{host}:0"
        return Plan(free, free, (free,) * data_sockets)
    if port + 1 + data_sockets > 65535:
        raise UsageError(f"{bind}: {data_sockets + 2} ports are needed from there on; give a lower one")
    return Plan(
        bind,
        f"tcp://{host}:{port + 1}",
        tuple(f"tcp://{host}:{port + 2 + n}" for n in range(data_sockets)),
    )


def announced(endpoint: str) -> str:
    """An endpoint as WELCOME names it: `*` for any address; clients put the host that they know."""
    for anywhere in ("tcp://0.0.0.0:", "tcp://[::]:"):
        if endpoint.startswith(anywhere):
            return "tcp://*:" + endpoint[len(anywhere) :]
    return endpoint


def reachable(endpoint: str, control: str) -> str:
    """An endpoint of WELCOME for a client that reached the control socket at `control`."""
    if not endpoint.startswith("tcp://*:"):
        return endpoint
    match = _TCP.match(control)
    return endpoint if match is None else f"tcp://{match[1]}:{endpoint[len('tcp://*:') :]}"


def refuse_taken(endpoint: str) -> None:
    """Raises StorageError if somebody listens at an ipc endpoint, which libzmq would take from them."""
    if not endpoint.startswith("ipc://"):
        return
    path = endpoint[len("ipc://") :]
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return  # nobody there, or a socket file that a dead server left
    raise StorageError(98, "another server listens there; give another endpoint or stop that one", path)
