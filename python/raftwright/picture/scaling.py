"""From pixel values to shades: which values become black and white, and the way between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from raftwright.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCALES", "STRETCHES", "Limits", "find_limits", "shade", "to_bytes"]

SCALES: Final = ("zscale", "percentile", "minmax")
"""Ways to find the limits; the first is the default."""

STRETCHES: Final = ("linear", "asinh")
"""Ways from the lower to the upper limit; the first is the default."""

_SOFTENING: Final = 10.0
"""asinh is linear in the first tenth of the way and logarithmic in the rest."""

_SAMPLE: Final = 1 << 18
"""Pixels looked at: enough for limits, and the time does not grow with the image."""

_ZSCALE_SAMPLE: Final = 10_000
_CONTRAST: Final = 0.25
_REJECT: Final = 2.5  # standard deviations
_ROUNDS: Final = 5
_LEFT_OVER: Final = 0.5  # of the sample must survive the rejection


class Limits(NamedTuple):
    """Values that are drawn black and white."""

    low: float
    high: float


def find_limits(pixels: NDArray[Any], scale: str = "zscale") -> Limits:
    """Limits for a set of pixels of any shape (missing ones and gaps left out by the caller).

    `zscale` is the algorithm of IRAF's `display` task (contrast 0.25): a straight line fitted to the sorted
    values around the median, so that a few stars or defects do not decide. `percentile` is 0.5 to 99.5 %.
    Always low < high, also for a constant image and for none. Raises UsageError for another scale.
    """
    if scale not in SCALES:
        raise UsageError(f"there is no scale {scale[:40]!r}; there are {', '.join(SCALES)}")
    values = pixels.ravel()
    if values.size and scale == "minmax":
        values = np.array([values.min(), values.max()])
    elif values.size > _SAMPLE:
        values = values[:: -(-values.size // _SAMPLE)]
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return Limits(0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    tried: list[tuple[float, float]] = [(low, high)]
    if scale != "minmax":
        tried.insert(0, (float(np.percentile(values, 0.5)), float(np.percentile(values, 99.5))))
    if scale == "zscale":
        tried.insert(0, _zscale(values))
    # An image that is nearly constant has a next best scale.
    low, high = next(((a, b) for a, b in tried if b > a), (low - 0.5, low + 0.5))
    return Limits(low, high)


def _zscale(values: NDArray[np.float64]) -> tuple[float, float]:
    sample = np.sort(values[:: max(1, values.size // _ZSCALE_SAMPLE)])
    count = sample.size
    lowest, highest = float(sample[0]), float(sample[-1])
    if count < 5:
        return lowest, highest
    x = np.arange(count, dtype=np.float64)
    good = np.ones(count, dtype=bool)
    slope = 0.0
    for _ in range(_ROUNDS):
        slope, origin = np.polyfit(x[good], sample[good], 1)
        rest = sample - (slope * x + origin)
        keep = np.abs(rest) <= _REJECT * float(np.std(rest[good]))
        # Neighbours of what was thrown out go too, as in the original.
        thrown = np.convolve(~keep, np.ones(max(1, count // 100), dtype=int), mode="same") > 0
        if np.array_equal(~thrown, good) or np.count_nonzero(~thrown) < max(5.0, _LEFT_OVER * count):
            break
        good = ~thrown
    if np.count_nonzero(good) < max(5.0, _LEFT_OVER * count):
        return lowest, highest
    middle = (count - 1) // 2
    median = float(np.median(sample))
    steep = float(slope) / _CONTRAST
    return max(lowest, median - middle * steep), min(highest, median + (count - 1 - middle) * steep)


def shade(way: NDArray[np.float32], stretch: str) -> NDArray[np.float32]:
    """Shade, 0 to 1, of values given as parts of the way from the lower to the upper limit.

    Raises UsageError for an unknown stretch.
    """
    if stretch not in STRETCHES:
        raise UsageError(f"there is no stretch {stretch[:40]!r}; there are {', '.join(STRETCHES)}")
    bounded = np.clip(way, np.float32(0.0), np.float32(1.0))
    if stretch == "linear":
        return bounded
    softened: NDArray[np.float32] = np.arcsinh(bounded * np.float32(_SOFTENING))
    return softened / np.float32(math.asinh(_SOFTENING))


def to_bytes(pixels: NDArray[Any], limits: Limits, stretch: str = "linear") -> NDArray[np.uint8]:
    """Values as 0 (at or below the lower limit) to 255, uint8 of the same 2-D shape."""
    out = np.empty(pixels.shape, dtype=np.uint8)
    factor = np.float32(1.0 / (limits.high - limits.low))
    low = np.float32(limits.low)
    rows = max(1, (1 << 22) // max(1, pixels.shape[-1]))
    for first in range(0, pixels.shape[0], rows):
        way = np.nan_to_num((pixels[first : first + rows].astype(np.float32) - low) * factor)
        out[first : first + rows] = (shade(way, stretch) * np.float32(255.0)).astype(np.uint8)
    return out
