"""The pedestal of an amplifier, taken from its overscan: with it every amplifier has a shade of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raftwright.camera import Geometry

__all__ = ["overscan_levels"]

_SKIPPED: Final = 4
"""Overscan columns after the last light-sensitive one that still carry its deferred charge."""

_SMOOTHED: Final = 129
"""Rows that a level is the mean of: the pedestal drifts slowly, the noise does not."""


def overscan_levels(
    plane: NDArray[np.int32], geometry: Geometry, missing: int | None = None
) -> NDArray[np.int32]:
    """Pedestal of each row of a segment (height, width), in counts: shape (height, 1).

    The median of the row's serial overscan, averaged over the rows around. Pixels with the value `missing` do
    not count; rows of which nothing arrived take the level of their neighbours. Without overscan, or when all
    of it is missing, 0: then there is nothing to go by.
    """
    height = plane.shape[0]
    first = geometry.prescan + geometry.columns
    values = plane[:, first + (_SKIPPED if geometry.overscan > 2 * _SKIPPED else 0) :].astype(np.float64)
    if values.shape[1] == 0:
        return np.zeros((height, 1), dtype=np.int32)
    good = np.arange(height)
    if missing is not None:
        values[values == missing] = np.nan
        good = np.flatnonzero(np.isfinite(values).any(axis=1))
        if good.size == 0:
            return np.zeros((height, 1), dtype=np.int32)
    rows = np.nanmedian(values[good], axis=1) if missing is not None else np.median(values, axis=1)
    levels = np.interp(np.arange(height), good, rows)
    half = min(_SMOOTHED, height) // 2
    sums = np.cumsum(np.concatenate(([0.0], levels)))
    begin = np.maximum(np.arange(height) - half, 0)
    end = np.minimum(np.arange(height) + half + 1, height)
    means: NDArray[np.float64] = (sums[end] - sums[begin]) / (end - begin)
    return np.rint(means).astype(np.int32).reshape(height, 1)
