"""Mirrors of trees that somebody else writes.

    tree ──▶ Finder ── passes, notices, rsync logs ──▶ Manifest ──▶ Outbox ─▶ Lane ─▶ Bringer ──▶ far side
                                                          ▲                                 │ versions
                                                          └───────── Tidier, Ingesting ◀────┘

Both sides tell the truth, the manifest remembers what they said: it may be lost, and every part may die
between two lines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.mirror.settings import Ingest, Settings, TreeSettings

if TYPE_CHECKING:
    from raftwright.mirror.service import NAME, Mirror, build

__all__ = ["NAME", "Ingest", "Mirror", "Settings", "TreeSettings", "build"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("raftwright.mirror.service"), name)
    raise AttributeError(f"module 'raftwright.mirror' has no attribute {name!r}")
