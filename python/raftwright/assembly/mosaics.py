"""Painting mosaics: planes of segments laid out by the camera geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from raftwright import _core
from raftwright.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera.placement import Mosaic

__all__ = ["paint"]

_MOST_BIN = 4096


def paint(
    mosaic: Mosaic,
    planes: Mapping[str, Sequence[NDArray[np.int32]]],
    *,
    bin: int = 1,
    missing: int = -1,
    fill: int = 0,
    threads: int | None = None,
) -> NDArray[np.int32]:
    """Paints a mosaic that `raftwright.camera.placement` laid out.

    Parameters
    ----------
    mosaic
        Which detectors, where.
    planes
        The segments of each detector by its name: (height, width) int32 arrays in HDU order.
    bin
        ``bin`` x ``bin`` pixels become one, their mean, rounded half away from zero.
    missing
        Value of pixels that are left out of the mean.
    fill
        Value of the gaps between the CCDs, and of pixels of which everything is missing.

    Returns
    -------
    numpy.ndarray
        int32, shape ``mosaic.binned_shape(bin)``; row 0 is the lowest, x to the right.

    Raises
    ------
    UsageError
        ``bin`` is not between 1 and 4096, or the planes do not fit the layout.
    """
    if not 1 <= bin <= _MOST_BIN:
        raise UsageError(f"bin must be between 1 and {_MOST_BIN}, not {bin}")
    placements = [
        (planes[part.detector.name][place.segment], *place[1:])
        for part in mosaic.parts
        for place in part.placements
    ]
    count = threads if threads is not None else _core.usable_processors()
    return _core.paint_mosaic(placements, mosaic.binned_shape(bin), bin, missing, fill, count)
