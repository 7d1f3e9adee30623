"""The archiver: what an image must have, whether it has it, and who gets it.

    DAQ catalogue ─▶ Watch ─▶ ledger ◀─ forwarders' files
                                │ chronicle
                                ▼
                            Gatherer ── sums, verdict, plans ──▶ ledger
                                                                  │ deliveries
                              Lane ─▶ directory     Lane ─▶ S3    Lane ─▶ command

Every arrow to the ledger may be taken twice, and every part may die between two lines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.archiver.settings import Command, Destination, Settings

if TYPE_CHECKING:
    from raftwright.archiver.places import NAME, Places, build
    from raftwright.archiver.service import Archiver

__all__ = ["NAME", "Archiver", "Command", "Destination", "Places", "Settings", "build"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "service" if name == "Archiver" else "places"
        return getattr(importlib.import_module(f"raftwright.archiver.{home}"), name)
    raise AttributeError(f"module 'raftwright.archiver' has no attribute {name!r}")
