"""The forwarder: takes images off a DAQ as they are read out and writes their raw files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.forwarder.service import Forwarder
    from raftwright.forwarder.settings import Settings, read_settings

__all__ = [
    "Forwarder",
    "Settings",
    "read_settings",
]

_HOMES = {
    "Forwarder": "service",
    "NAME": "service",
    "SHARED": "settings",
    "Settings": "settings",
    "build": "service",
    "read_settings": "settings",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.forwarder.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.forwarder' has no attribute {name!r}")
