"""The catch-up archiver: what the DAQ has and the archive lacks is found and fetched."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.catchup.selection import Selection
    from raftwright.catchup.service import NAME, CatchUp, build
    from raftwright.catchup.settings import SHARED, Settings

__all__ = ["NAME", "SHARED", "CatchUp", "Selection", "Settings", "build"]

_HOMES = {
    "CatchUp": "service",
    "NAME": "service",
    "SHARED": "settings",
    "Selection": "selection",
    "Settings": "settings",
    "build": "service",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.catchup.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.catchup' has no attribute {name!r}")
