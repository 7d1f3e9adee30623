"""A source after assembly: one board's pixels, and what of them is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raftwright._core import Readout
    from raftwright.camera import Board, Detector, Geometry
    from raftwright.daq import SourceInfo

__all__ = ["AssembledSource", "PixelRuns"]

PixelRuns = list[tuple[int, int]]
"""Missing pixels of a segment: (first, count) in readout positions ``y * width + x``."""


@dataclass(frozen=True)
class AssembledSource:
    """One board's readout, finished: every pixel is either what the DAQ sent or the fill value.

    Attributes
    ----------
    board
        What the camera says stands at the source's location.
    info
        The DAQ's description of the source.
    geometry
        Sizes of a segment as the readout registers give them.
    readout
        The core's finished readout: planes in the board's order (detector by detector, HDU order).
    fill
        The value that missing pixels were given.
    """

    board: Board
    info: SourceInfo
    geometry: Geometry
    readout: Readout
    fill: int
    _missing: dict[str, dict[str, PixelRuns]] = field(default_factory=dict, repr=False)

    @cached_property
    def complete(self) -> bool:
        """Whether every byte of the stream arrived."""
        return not self.readout.gaps()

    def missing(self, detector: Detector) -> dict[str, PixelRuns]:
        """Missing pixels of each segment of a detector that has any; exact to the pixel."""
        if self.complete:
            return {}
        if detector.name not in self._missing:
            runs: dict[str, PixelRuns] = {}
            for segment, plane in zip(detector.segments, self.board.planes_of(detector), strict=True):
                missing = self.readout.missing(plane)
                if missing:
                    runs[segment.name] = missing
            self._missing[detector.name] = runs
        return self._missing[detector.name]

    def missing_pixels(self, detector: Detector) -> int:
        """Number of missing pixels of a detector."""
        return sum(count for runs in self.missing(detector).values() for _, count in runs)
