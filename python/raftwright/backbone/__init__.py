"""The hand-off to the data backbone: verified replicas, and the side that receives them.

    files of an image ─▶ Packer ─▶ its container, where an endpoint takes those

    ledger ─▶ Planner ─▶ queue of each endpoint ─▶ Lane ─▶ copy there, read back there, named, held
                ▲                                    ▲ a good copy, where the archive has none
                │ damaged, lost                      │
              Scrub ◀── reads every replica again, on a schedule

Every arrow to the ledger may be taken twice, and every part may die between two lines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.backbone.settings import Containers, Endpoint, Scrub, Settings

if TYPE_CHECKING:
    from raftwright.backbone.places import NAME, Places, build
    from raftwright.backbone.service import HandOff

__all__ = ["NAME", "Containers", "Endpoint", "HandOff", "Places", "Scrub", "Settings", "build"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "service" if name == "HandOff" else "places"
        return getattr(importlib.import_module(f"raftwright.backbone.{home}"), name)
    raise AttributeError(f"module 'raftwright.backbone' has no attribute {name!r}")
