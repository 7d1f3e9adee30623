"""A mosaic that is painted CCD by CCD as they come: a focal plane needs no more memory than its picture.

Every CCD is binned by itself on the grid of the whole mosaic. A binned pixel on which two CCDs meet (their
gaps are more than a hundred pixels wide) is the mean of the two.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from raftwright import _core
from raftwright.camera import ccd_mosaic, focal_plane_mosaic
from raftwright.errors import UsageError
from raftwright.picture.levels import overscan_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raftwright.camera import Detector, Geometry, Mosaic, MosaicPart

__all__ = ["EMPTY", "Canvas", "CcdPixels"]

EMPTY: Final = -(2**31)
"""Value of a mosaic's pixel on which nothing fell: no sum or difference of pixels comes near it."""

_MOST_BIN: Final = 4096
_MOST_PIXELS: Final = 1 << 32


@dataclass(frozen=True)
class CcdPixels:
    """The pixels of one CCD."""

    detector: Detector
    geometry: Geometry
    planes: Sequence[NDArray[np.int32]]
    """(height, width) of each segment, in HDU order, readout order."""
    fill: int | None
    """Value of missing pixels; None where none are missing."""
    missing: int
    """How many are missing."""


class Canvas:
    """A mosaic under way. `put` may be called from many threads."""

    def __init__(
        self,
        ccds: Sequence[tuple[Detector, Geometry]],
        *,
        bin: int,
        overscan: bool = False,
        debias: bool = False,
        electrons: bool = False,
    ) -> None:
        """One CCD is laid out along its own axes, several at their places in the focal plane.

        `debias` subtracts each segment's pedestal; `electrons` also multiplies by its gain. Raises UsageError
        for a mosaic that cannot be made.
        """
        if not 1 <= bin <= _MOST_BIN:
            raise UsageError(f"bin must be between 1 and {_MOST_BIN}, not {bin}")
        self.layout: Mosaic = lay_out(ccds, overscan=overscan)
        self.bin = bin
        self.overscan = overscan
        self.debias = debias or electrons
        self.electrons = electrons
        self.missing = 0
        """Missing pixels of the CCDs so far."""
        height, width = self.layout.binned_shape(bin)
        if height * width > _MOST_PIXELS:
            gigabytes = height * width * 4 / 1e9
            raise UsageError(
                f"a mosaic of {width} x {height} pixels would take {gigabytes:.0f} GB; raise bin"
            )
        self.pixels: NDArray[np.int32] = np.full((height, width), EMPTY, dtype=np.int32)
        self._parts = {part.detector.name: part for part in self.layout.parts}
        self._lock = threading.Lock()

    @staticmethod
    def shape_of(
        ccds: Sequence[tuple[Detector, Geometry]], bin: int, *, overscan: bool = False
    ) -> tuple[int, int]:
        """Height and width that it would have."""
        return lay_out(ccds, overscan=overscan).binned_shape(bin)

    def put(self, ccd: CcdPixels) -> None:
        """Paints a CCD."""
        part = self._parts[ccd.detector.name]
        planes, fill = ccd.planes, ccd.fill
        if self.debias:
            gains = [segment.gain if self.electrons else 1.0 for segment in ccd.detector.segments]
            planes = [
                _leveled(plane, gain, ccd.geometry, fill) for plane, gain in zip(planes, gains, strict=True)
            ]
            fill = EMPTY
        left, bottom, right, top = self.box(part)
        placements = [
            (
                planes[p.segment],
                *p[1:7],
                p.out_x - left * self.bin,
                p.out_y - bottom * self.bin,
                p.quarter_turns,
            )
            for p in part.placements
        ]
        tile = _core.paint_mosaic(
            placements, (top - bottom, right - left), self.bin, EMPTY if fill is None else fill, EMPTY, 1
        )
        with self._lock:
            self.missing += ccd.missing
            there = self.pixels[bottom:top, left:right]
            free, given = there == EMPTY, tile != EMPTY
            both = ~free & given
            there[free] = tile[free]
            there[both] = (there[both].astype(np.int64) + tile[both]) // 2

    def box(self, part: MosaicPart) -> tuple[int, int, int, int]:
        """Left, bottom, right, top of a part in pixels of the mosaic."""
        return (
            part.x // self.bin,
            part.y // self.bin,
            -(-(part.x + part.width) // self.bin),
            -(-(part.y + part.height) // self.bin),
        )

    def drawn(self) -> NDArray[np.bool_]:
        """Where a CCD lies."""
        mask = np.zeros(self.pixels.shape, dtype=bool)
        for part in self.layout.parts:
            left, bottom, right, top = self.box(part)
            mask[bottom:top, left:right] = True
        return mask


def lay_out(ccds: Sequence[tuple[Detector, Geometry]], *, overscan: bool = False) -> Mosaic:
    """One CCD along its own axes, several at their places in the focal plane."""
    if len(ccds) == 1:
        return ccd_mosaic(*ccds[0], overscan=overscan)
    return focal_plane_mosaic(ccds, overscan=overscan)


def _leveled(
    plane: NDArray[np.int32], gain: float, geometry: Geometry, fill: int | None
) -> NDArray[np.int32]:
    """A segment without its pedestal, times its gain; missing pixels become EMPTY."""
    out = plane - overscan_levels(plane, geometry, fill)
    if gain != 1.0:
        out = np.rint(out * np.float32(gain)).astype(np.int32)
    if fill is not None:
        out[plane == fill] = EMPTY
    return out
