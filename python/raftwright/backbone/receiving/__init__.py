"""The side that receives hand-overs: takes in, checks, stores, ingests, and remembers each attempt.

    buffer ─▶ Intake ─▶ storage ─▶ register ─▶ Ingester ─▶ null | butler | rucio | yours
                 └─▶ aside (conflicts, refused)

What has to be done stands in the register; every part may die between two lines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from raftwright.backbone.receiving.settings import Ingest, Settings

if TYPE_CHECKING:
    from raftwright.backbone.receiving.plugins import Item, Plugin, Result, Where
    from raftwright.backbone.receiving.register import Register
    from raftwright.backbone.receiving.service import Endpoint, build

__all__ = [
    "NAME",
    "SHARED",
    "Endpoint",
    "Ingest",
    "Item",
    "Plugin",
    "Register",
    "Result",
    "Settings",
    "Where",
    "build",
]

NAME: Final = "endpoint"
SHARED: Final = {"storage": "archive.root"}

_HOMES: Final = {
    "Endpoint": "service",
    "Item": "plugins",
    "Plugin": "plugins",
    "Register": "register",
    "Result": "plugins",
    "Where": "plugins",
    "build": "service",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.backbone.receiving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.backbone.receiving' has no attribute {name!r}")
