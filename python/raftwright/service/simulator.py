"""A simulated camera as a service: images on a cadence, published as the DAQ would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from raftwright.service.base import Life, Service
from raftwright.service.units import Bytes, Period, Seconds

if TYPE_CHECKING:
    from raftwright.daq import CadenceStore, Notice
    from raftwright.service.common import Common
    from raftwright.stream.server import Server

__all__ = ["NAME", "SHARED", "Settings", "Simulator", "build"]

NAME: Final = "simulator"
SHARED: Final = {"bind": "daq.endpoint", "camera": "site.camera"}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `simulator`."""

    bind: Annotated[str, Meta(min_length=1)]
    """Endpoint, `tcp://HOST:PORT` or `ipc://PATH`; that of `daq` by default."""
    camera: Annotated[str, Meta(min_length=1)]
    """LSSTComCam, LATISS, LSSTCam or a camera file; that of `site` by default."""
    rafts: list[str] | None = None
    locations: list[str] | None = None
    every: Period = 17.0
    """From image to image."""
    readout: Seconds = 2.0
    """That an image takes."""
    images: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """How many in all; 0: no end."""
    keep: Annotated[int, Meta(ge=1)] = 100
    """How many stay; older ones go."""
    start: Annotated[int, Meta(ge=0, le=999_999)] = 1
    """Number of the first."""
    day: Annotated[str, Meta(pattern=r"\A([0-9]{8})?\Z")] = ""
    """In the names; dayobs of the start by default."""
    seed: int = 1
    pattern: Literal["sky", "coordinates"] = "sky"
    size: str = ""
    """Light-sensitive pixels of a segment, COLSxROWS; those of the camera by default."""
    distinct: Annotated[int, Meta(ge=0, le=1000)] = 0
    """So many different images only, in turn; 0: all differ."""
    losing: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the sources that have a gap."""
    memory: Bytes = 1_000_000_000
    """For pixels kept at hand."""
    first: Seconds = 3.0
    """From the start to the first image: others want to listen by then."""
    epoch: str = ""
    """File that keeps when the first image began: with it a new start goes on as if there had been none."""


class Simulator(Service):
    """A `CadenceStore` and a `Server` of it."""

    NAME = NAME

    def __init__(self, settings: Settings, life: Life) -> None:
        super().__init__(settings, life)
        self.server: Server | None = None
        self.store: CadenceStore | None = None
        self.taken = 0
        """Images that are complete."""

    def open(self) -> None:
        """Prepares the first image and serves. Raises UsageError, NotFoundError, StorageError."""
        from raftwright.camera import camera
        from raftwright.daq import CadenceStore, SimulatedFrames
        from raftwright.daq.epoch import read_epoch
        from raftwright.daq.small import small_registers
        from raftwright.stream.server import Server

        settings: Settings = self.settings
        found = camera(settings.camera)
        frames = SimulatedFrames(
            found,
            settings.seed,
            rafts=settings.rafts,
            locations=settings.locations,
            pattern=settings.pattern,
            registers=small_registers(settings.size, found, "simulator.size:") if settings.size else None,
            distinct=settings.distinct or None,
            losing=settings.losing,
        )
        began, day = read_epoch(settings.epoch or None, settings.day or None, settings.first)
        self.store = CadenceStore(
            frames,
            every=settings.every,
            readout=settings.readout,
            count=settings.images or None,
            keep=settings.keep,
            start=settings.start,
            day=day,
            epoch=began,
            delay=settings.first,
            memory=settings.memory,
        )
        self.server = Server(self.store, settings.bind, name=self.name, observer=self._note)
        self.server.start()

    def _note(self, notice: Notice) -> None:
        if notice.kind == "complete":
            self.taken += 1
            self.tell("taken", {"image": notice.image})

    def close(self) -> None:
        """Ends the server, then the camera."""
        if self.server is not None:
            self.server.stop()
        if self.store is not None:
            self.store.close()

    @property
    def idle(self) -> bool:
        """Whether all of its images were taken."""
        settings: Settings = self.settings
        last = settings.start + settings.images - 1
        return bool(settings.images) and self.store is not None and self.store.is_complete(last)

    def report(self) -> Mapping[str, Any]:
        """Images taken, and the numbers of the server."""
        if self.server is None:
            return {}
        return {"camera": self.settings.camera, "images": {"taken": self.taken}, **self.server.status()}


def build(settings: Settings, common: Common) -> Simulator:
    """The simulated camera of a site."""
    return Simulator(settings, common.life(NAME))
