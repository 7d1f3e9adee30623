"""Where pixels come from: stores of images, their sources, and recordings of them.

`open_store` opens any store by a text; `RecordedStore` and `open_recording` read recordings and
`write_recording` makes them; `SimulatedStore` and `simulate_image` invent images. Who writes another store
checks it with `raftwright.daq.contract`.
"""

from __future__ import annotations

from raftwright.daq.cadence import CadenceImage, CadenceSource, CadenceStore
from raftwright.daq.frames import Frames, ReplayedFrames, SimulatedFrames
from raftwright.daq.info import ImageInfo, SourceInfo, check_source
from raftwright.daq.memory import MemoryImage, MemorySource
from raftwright.daq.recorder import Recorded, write_recording
from raftwright.daq.recording import RecordedImage, RecordedSource, RecordedStore, open_recording
from raftwright.daq.registers import Registers
from raftwright.daq.simulated import Pattern, SimulatedImage, SimulatedSource, SimulatedStore, simulate_image
from raftwright.daq.sky import SkyModel
from raftwright.daq.store import DaqImage, Notice, Source, Store, open_store

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
