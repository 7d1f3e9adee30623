"""The Observatory Operations Data Service: images of the last weeks, through the Butler, POSIX and HTTP.

    ledger's chronicle ─▶ Following ─▶ ledger: ingests ─▶ Ingesting ─▶ Butler repository
    directory, notification ─▶ Arrivals ─▶    │                            │
                                              ▼                            ▼
                                          Retention                  imageInOODS

What is to be ingested is a row of the ledger, and so is what became of it: every part may die between two
lines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.oods.settings import Settings

if TYPE_CHECKING:
    from raftwright.oods.places import NAME, Places, build
    from raftwright.oods.service import Oods

__all__ = ["NAME", "Oods", "Places", "Settings", "build"]

_HOMES = {"NAME": "places", "Oods": "service", "Places": "places", "build": "places"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.oods.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.oods' has no attribute {name!r}")
