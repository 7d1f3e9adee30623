"""The header service: gathers what is told of an image, makes its header document, keeps it for good.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.header.building import BuiltHeader, build_header
    from raftwright.header.collected import Collected
    from raftwright.header.collector import Collector
    from raftwright.header.fetching import fetch_header
    from raftwright.header.spec import Spec
    from raftwright.header.spec_file import check_spec_file, header_spec, spec_names
    from raftwright.header.store import HeaderLog, HeaderStore

__all__ = [
    "BuiltHeader",
    "Collected",
    "Collector",
    "HeaderLog",
    "HeaderStore",
    "Spec",
    "build_header",
    "check_spec_file",
    "fetch_header",
    "header_spec",
    "spec_names",
]

_HOMES = {
    "BuiltHeader": "raftwright.header.building",
    "Collected": "raftwright.header.collected",
    "Collector": "raftwright.header.collector",
    "HeaderLog": "raftwright.header.store",
    "HeaderStore": "raftwright.header.store",
    "Spec": "raftwright.header.spec",
    "build_header": "raftwright.header.building",
    "check_spec_file": "raftwright.header.spec_file",
    "fetch_header": "raftwright.header.fetching",
    "header_spec": "raftwright.header.spec_file",
    "spec_names": "raftwright.header.spec_file",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raftwright.header' has no attribute {name!r}")
