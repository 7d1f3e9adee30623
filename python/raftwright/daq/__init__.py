"""Where pixels come from: stores of images, their sources, and recordings of them.

`open_store` opens any store by a text; `RecordedStore` and `open_recording` read recordings and
`write_recording` makes them; `SimulatedStore` and `simulate_image` invent images. Who writes another store
checks it with `raftwright.daq.contract`.

Stores are imported when they are first used: a client of the network needs none that invents images.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.daq.info import ImageInfo, SourceInfo, check_source
from raftwright.daq.memory import MemoryImage, MemorySource
from raftwright.daq.registers import Registers
from raftwright.daq.store import DaqImage, Notice, Source, Store, open_store

if TYPE_CHECKING:
    from raftwright.daq.cadence import CadenceImage, CadenceSource, CadenceStore
    from raftwright.daq.frames import Frames, ReplayedFrames, SimulatedFrames
    from raftwright.daq.recorder import Recorded, write_recording
    from raftwright.daq.recording import RecordedImage, RecordedSource, RecordedStore, open_recording
    from raftwright.daq.simulated import (
        Pattern,
        SimulatedImage,
        SimulatedSource,
        SimulatedStore,
        simulate_image,
    )
    from raftwright.daq.sky import SkyModel

__all__ = [
    "CadenceImage",
    "CadenceSource",
    "CadenceStore",
    "DaqImage",
    "Frames",
    "ImageInfo",
    "MemoryImage",
    "MemorySource",
    "Notice",
    "Pattern",
    "Recorded",
    "RecordedImage",
    "RecordedSource",
    "RecordedStore",
    "Registers",
    "ReplayedFrames",
    "SimulatedFrames",
    "SimulatedImage",
    "SimulatedSource",
    "SimulatedStore",
    "SkyModel",
    "Source",
    "SourceInfo",
    "Store",
    "check_source",
    "open_recording",
    "open_store",
    "simulate_image",
    "write_recording",
]

_HOMES = {
    "CadenceImage": "cadence",
    "CadenceSource": "cadence",
    "CadenceStore": "cadence",
    "Frames": "frames",
    "Pattern": "simulated",
    "Recorded": "recorder",
    "RecordedImage": "recording",
    "RecordedSource": "recording",
    "RecordedStore": "recording",
    "ReplayedFrames": "frames",
    "SimulatedFrames": "frames",
    "SimulatedImage": "simulated",
    "SimulatedSource": "simulated",
    "SimulatedStore": "simulated",
    "SkyModel": "sky",
    "open_recording": "recording",
    "simulate_image": "simulated",
    "write_recording": "recorder",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.daq.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.daq' has no attribute {name!r}")
