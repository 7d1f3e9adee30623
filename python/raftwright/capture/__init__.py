"""The engine of services that take images off a DAQ: from units that are to be done to files and ledger."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.capture.engine import Engine
    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.troubles import Troubles
    from raftwright.capture.work import Work

__all__ = ["CaptureSettings", "Engine", "Troubles", "Work"]

_HOMES = {"CaptureSettings": "settings", "Engine": "engine", "Troubles": "troubles", "Work": "work"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.capture.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.capture' has no attribute {name!r}")
