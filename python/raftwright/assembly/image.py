"""Images as arrays: CCDs, rafts and the focal plane, as views on what the core assembled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from raftwright.assembly.mosaics import paint
from raftwright.camera.placement import Mosaic, ccd_mosaic, focal_plane_mosaic
from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.assembly.source import AssembledSource, PixelRuns
    from raftwright.camera import Camera, Detector, Geometry, Raft
    from raftwright.daq import ImageInfo

__all__ = ["AssembledImage", "Ccd", "RaftImage"]

_NO_PIXEL = -(2**31)  # marks nothing as missing: no pixel of at most 31 bits has this value


class _Segments(Mapping[str, "NDArray[np.int32]"]):
    """The segments of a CCD by name (``Segment10``) or amplifier (``C10``), in the order of their HDUs."""

    def __init__(self, source: AssembledSource, detector: Detector) -> None:
        self._source = source
        self._detector = detector

    def __getitem__(self, name: str) -> NDArray[np.int32]:
        segment = self._detector.segment(name)
        return self._source.readout.plane(self._source.board.planes_of(self._detector)[segment.index])

    def __iter__(self) -> Iterator[str]:
        return (segment.name for segment in self._detector.segments)

    def __len__(self) -> int:
        return len(self._detector.segments)

    def __repr__(self) -> str:
        return f"<{len(self)} segments of {self._detector.name}: {', '.join(self)}>"


class Ccd:
    """One detector of an assembled image. Its arrays are views: they keep the image's memory alive."""

    def __init__(self, source: AssembledSource, detector: Detector) -> None:
        self._source = source
        self.detector = detector

    @property
    def name(self) -> str:
        """``R22_S11``."""
        return self.detector.name

    @property
    def geometry(self) -> Geometry:
        """Sizes of its segments, from the readout registers."""
        return self._source.geometry

    @property
    def segments(self) -> Mapping[str, NDArray[np.int32]]:
        """Segment name -> int32 array of shape (height, width), nominally (2048, 576), in readout order and
        without copy: the first pixel read is ``[0, 0]``. Counts (adu), 0 .. 2^18 - 1 for the LSST cameras;
        missing pixels have the fill value."""
        return _Segments(self._source, self.detector)

    @property
    def missing(self) -> dict[str, PixelRuns]:
        """Missing pixels of each segment that has any: (first, count) in positions ``y * width + x``."""
        return self._source.missing(self.detector)

    @property
    def missing_pixels(self) -> int:
        """How many pixels are missing."""
        return self._source.missing_pixels(self.detector)

    @property
    def fill(self) -> int:
        """The value that missing pixels were given."""
        return self._source.fill

    def mosaic(self, *, overscan: bool = False, bin: int = 1) -> NDArray[np.int32]:
        """The CCD as one int32 image along its own axes, x to the right and row 0 at the bottom as LSST's
        camera geometry has them: shape (4000, 4072) for ITL, (4004, 4096) for E2V, (4096, 4608) with
        ``overscan``, divided by ``bin``. See `raftwright.assembly.paint`."""
        layout = ccd_mosaic(self.detector, self.geometry, overscan=overscan)
        return paint(layout, {self.name: self.planes}, bin=bin, missing=_marker([self]), fill=self.fill)

    @property
    def planes(self) -> list[NDArray[np.int32]]:
        """The segments' arrays in the order of their HDUs."""
        readout = self._source.readout
        return [readout.plane(plane) for plane in self._source.board.planes_of(self.detector)]

    def __repr__(self) -> str:
        missing = f", {self.missing_pixels} pixels missing" if self.missing_pixels else ""
        return (
            f"<CCD {self.name} ({self.detector.type.name}), {len(self.detector.segments)} segments{missing}>"
        )


def _marker(ccds: Sequence[Ccd]) -> int:
    """The value that stands for missing pixels, if any is missing: a fill value may be a pixel's too."""
    return next((ccd.fill for ccd in ccds if ccd.missing_pixels), _NO_PIXEL)


class _Ccds:
    """Some CCDs at their places in the focal plane."""

    def __init__(self, ccds: Sequence[Ccd]) -> None:
        self.ccds = tuple(ccds)

    def layout(self, *, overscan: bool = False) -> Mosaic:
        """Where each CCD goes in the mosaic, and the mosaic's coordinates in millimetres."""
        return focal_plane_mosaic([(ccd.detector, ccd.geometry) for ccd in self.ccds], overscan=overscan)

    def mosaic(self, *, bin: int = 1, overscan: bool = False, fill: int = 0) -> NDArray[np.int32]:
        """All CCDs at their true places, gaps included, as one int32 image; gaps have the value ``fill``."""
        planes = {ccd.name: ccd.planes for ccd in self.ccds}
        return paint(self.layout(overscan=overscan), planes, bin=bin, missing=_marker(self.ccds), fill=fill)


class RaftImage(_Ccds):
    """The CCDs of one raft."""

    def __init__(self, raft: Raft, ccds: Sequence[Ccd]) -> None:
        super().__init__(ccds)
        self.raft = raft

    def __getitem__(self, slot: str) -> Ccd:
        for ccd in self.ccds:
            if slot in (ccd.detector.slot, ccd.name):
                return ccd
        raise NotFoundError(
            f"no CCD {slot!r} of raft {self.raft.name} in this image; there are "
            + ", ".join(ccd.detector.slot for ccd in self.ccds)
        )

    def __repr__(self) -> str:
        return f"<raft {self.raft.name}: {len(self.ccds)} CCDs>"


class AssembledImage(_Ccds):
    """An image as int32 arrays: ``image["R22_S11"].segments["Segment10"]``."""

    def __init__(self, camera: Camera, info: ImageInfo, sources: Sequence[AssembledSource]) -> None:
        order = {location: number for number, location in enumerate(camera.boards)}
        self.sources = tuple(sorted(sources, key=lambda source: order[source.board.location]))
        super().__init__([Ccd(source, d) for source in self.sources for d in source.board.detectors])
        self.camera = camera
        self.info = info

    @property
    def name(self) -> str:
        """The image's name, e.g. ``MC_O_20261122_000123``."""
        return self.info.name

    @cached_property
    def missing_pixels(self) -> int:
        """How many pixels of all CCDs are missing."""
        return sum(ccd.missing_pixels for ccd in self.ccds)

    def __getitem__(self, detector: str | int) -> Ccd:
        """A CCD by name or detector id. Raises NotFoundError."""
        wanted = self.camera.detector(detector)
        for ccd in self.ccds:
            if ccd.detector is wanted:
                return ccd
        raise NotFoundError(
            f"{self.name} has no data of {wanted.name}: board {wanted.location} was not read or not asked for"
        )

    def __iter__(self) -> Iterator[Ccd]:
        return iter(self.ccds)

    def __len__(self) -> int:
        return len(self.ccds)

    def raft(self, name: str) -> RaftImage:
        """The CCDs of a raft. Raises NotFoundError when the image has none of it."""
        raft = self.camera.raft(name)
        ccds = [ccd for ccd in self.ccds if ccd.detector.raft == raft.name]
        if not ccds:
            raise NotFoundError(f"{self.name} has no data of raft {raft.name}")
        return RaftImage(raft, ccds)

    def __repr__(self) -> str:
        missing = f", {self.missing_pixels} pixels missing" if self.missing_pixels else ""
        return f"<{self.camera.name} image {self.name}: {len(self.ccds)} CCDs{missing}>"
