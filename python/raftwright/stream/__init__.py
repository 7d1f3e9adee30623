"""Images over a network: the protocol of docs/protocol.md, its server and its client.

Names are imported when they are first used, so that a client loads no server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.stream.client import NetworkImage, NetworkSource, NetworkStore
    from raftwright.stream.faults import Faults
    from raftwright.stream.fetch import Fetch, Receiver, keep_message_memory
    from raftwright.stream.keys import KeyPair, KeyStore
    from raftwright.stream.server import Server

__all__ = [
    "Faults",
    "Fetch",
    "KeyPair",
    "KeyStore",
    "NetworkImage",
    "NetworkSource",
    "NetworkStore",
    "Receiver",
    "Server",
    "keep_message_memory",
]

_HOMES = {
    "Faults": "raftwright.stream.faults",
    "Fetch": "raftwright.stream.fetch",
    "KeyPair": "raftwright.stream.keys",
    "KeyStore": "raftwright.stream.keys",
    "NetworkImage": "raftwright.stream.client",
    "NetworkSource": "raftwright.stream.client",
    "NetworkStore": "raftwright.stream.client",
    "Receiver": "raftwright.stream.fetch",
    "Server": "raftwright.stream.server",
    "keep_message_memory": "raftwright.stream.fetch",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raftwright.stream' has no attribute {name!r}")
