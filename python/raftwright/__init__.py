"""raftwright: image assembly for mosaic cameras at the speed of memory.

    import raftwright

    image = raftwright.assemble("recordings/MC_O_20261122_000123")
    image["R22_S11"].segments["Segment10"]      # (2048, 576) int32, a view
    image.raft("R22").mosaic(bin=8)             # true gaps, y up

Names are imported when they are first used, so that `import raftwright` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright._version import __version__

if TYPE_CHECKING:
    from raftwright import rice
    from raftwright.assembly import AssembledImage, Ccd, RaftImage, assemble
    from raftwright.camera.model import Camera
    from raftwright.camera.registry import camera
    from raftwright.packing import StreamLayout, scramble, unpack
    from raftwright.prompt import PromptCcd, watch
    from raftwright.rawfile import RawFile, open_raw

__all__ = [
    "AssembledImage",
    "Camera",
    "Ccd",
    "PromptCcd",
    "RaftImage",
    "RawFile",
    "StreamLayout",
    "__version__",
    "assemble",
    "camera",
    "open_raw",
    "rice",
    "scramble",
    "unpack",
    "watch",
]

_HOMES = {
    "AssembledImage": "raftwright.assembly",
    "Camera": "raftwright.camera",
    "Ccd": "raftwright.assembly",
    "PromptCcd": "raftwright.prompt",
    "RaftImage": "raftwright.assembly",
    "RawFile": "raftwright.rawfile",
    "StreamLayout": "raftwright.packing",
    "assemble": "raftwright.assembly",
    "open_raw": "raftwright.rawfile",
    "scramble": "raftwright.packing",
    "unpack": "raftwright.packing",
    "watch": "raftwright.prompt",
}
_MODULES = ("camera", "errors", "rice")  # `raftwright.camera` is a package that can be called


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"raftwright.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raftwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
