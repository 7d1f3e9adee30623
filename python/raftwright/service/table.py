"""The services there are: a name, the module, and the step from the site's first port to its own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from raftwright.errors import NotFoundError

__all__ = ["SERVICES", "Entry", "module_of", "settings_of"]


class Entry(NamedTuple):
    """Where a service is found."""

    module: str
    """Has NAME, Settings and build(settings, common); perhaps SHARED, see `raftwright.service.config`."""
    step: int
    """Added to the port of `life.pages`, `life.control` and `events.url` where these are TCP."""


SERVICES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "simulator": Entry("raftwright.service.simulator", 4),
        "telemetry": Entry("raftwright.header.telemetry", 5),
        "forwarder": Entry("raftwright.forwarder", 0),
        "header": Entry("raftwright.header.service", 1),
        "archiver": Entry("raftwright.archiver", 2),
        "catchup": Entry("raftwright.catchup", 3),
        "oods": Entry("raftwright.oods", 6),
        "handoff": Entry("raftwright.backbone", 8),
        "endpoint": Entry("raftwright.backbone.receiving", 9),
        "mirror": Entry("raftwright.mirror", 7),
    }
)
"""In the order in which they are started; they end in the opposite one."""


def module_of(name: str) -> Any:
    """The module of a service. Raises NotFoundError."""
    if name not in SERVICES:
        raise NotFoundError(f"there is no service {name[:64]!a}; there are {', '.join(SERVICES)}")
    return importlib.import_module(SERVICES[name].module)


def settings_of(name: str) -> Any:
    """The Struct of its section. Raises NotFoundError."""
    return module_of(name).Settings
