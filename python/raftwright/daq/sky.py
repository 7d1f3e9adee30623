"""What a simulated exposure shows: stars and cosmic rays on a CCD, and their places in its segments.

Random numbers are SplitMix64 of a counter (Steele, Lea & Flood 2014), written out here: unlike those of a
library's generator they will never change, so that a seed means the same image for ever.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from raftwright.camera import Detector, Geometry, Segment
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_SEED", "SkyModel", "cosmic_rays", "describe_segment", "hashed", "in_segment", "star_field"]

MAX_SEED = 2**64 - 1

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MEGAPIXEL = 1e6
_MAX_OBJECTS = 1_000_000


class SkyModel(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to see, and how the electronics answer."""

    sky: float = 1200.0
    """Sky, electrons a pixel."""
    stars: float = 60.0
    """Stars and galaxies a megapixel."""
    faintest: float = 4000.0
    """Flux of the faintest of them, electrons."""
    brightest: float = 2e7
    """Flux of the brightest possible one, electrons."""
    slope: float = 0.65
    """N(> flux) falls as flux to the minus `slope`."""
    seeing: float = 1.6
    """Gaussian width of a star, pixels."""
    galaxies: float = 0.15
    """Fraction of them that are wider, up to four times."""
    rays: float = 4.0
    """Cosmic rays a megapixel."""
    bias: float = 23000.0
    """Mean bias of a segment, adu."""
    spread: float = 150.0
    """How far the bias of a segment may be from the mean, adu."""
    ramp: float = 0.02
    """Largest slope of the bias along the rows, adu a row."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value <= 1e8:  # NaN too
                raise UsageError(f"sky model: {name} is {ascii(value)[:40]}; give a number from 0 to 1e8")
        if (
            not 0.05 <= self.seeing <= 100
            or not 0.05 <= self.slope <= 10
            or not 0 < self.faintest <= self.brightest
            or self.galaxies > 1
        ):
            raise UsageError(
                "sky model: seeing must be from 0.05 to 100 pixels, slope from 0.05 to 10, galaxies at "
                "most 1, and faintest above 0 and not above brightest"
            )


def hashed(*parts: object) -> int:
    """64 bits that depend on every part: the first 8 bytes of BLAKE2b over their texts."""
    text = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _uniform(key: int, count: int) -> NDArray[np.float64]:
    """Numbers in (0, 1): SplitMix64 of key + gamma * 1, 2, …"""
    z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _number(density: float, width: int, height: int, chance: float) -> int:
    mean = density * width * height / _MEGAPIXEL
    return min(int(mean + chance), _MAX_OBJECTS)


def star_field(key: int, width: int, height: int, model: SkyModel) -> NDArray[np.float64]:
    """Stars and galaxies of a CCD: (n, 4) with x, y (the lower left pixel is 0, 0), flux in electrons, width.

    Small CCDs have at least three stars, so that there is something to see, unless the model has none.
    """
    count = _number(model.stars, width, height, float(_uniform(key, 1)[0]))
    if model.stars > 0:
        count = max(count, 3)
    u = _uniform(key ^ 1, 4 * count).reshape(count, 4)
    flux = np.minimum(model.faintest * u[:, 2] ** (-1.0 / model.slope), model.brightest)
    wider = np.maximum(u[:, 3] - (1.0 - model.galaxies), 0.0) / max(model.galaxies, 1e-9)
    return np.column_stack(
        (u[:, 0] * width - 0.5, u[:, 1] * height - 0.5, flux, model.seeing * (1.0 + 3.0 * wider))
    )


def cosmic_rays(key: int, width: int, height: int, model: SkyModel) -> NDArray[np.float64]:
    """Cosmic rays of a CCD: (n, 5) with x0, y0, x1, y1 and electrons a pixel of their length."""
    count = _number(model.rays, width, height, float(_uniform(key ^ 3, 1)[0]))
    u = _uniform(key ^ 2, 5 * count).reshape(count, 5)
    x, y, angle = u[:, 0] * width - 0.5, u[:, 1] * height - 0.5, 2.0 * math.pi * u[:, 2]
    length = np.minimum(2.0 / u[:, 3], 300.0)  # grazing ones are rare and long
    return np.column_stack(
        (x, y, x + length * np.cos(angle), y + length * np.sin(angle), 800.0 + 3000.0 * u[:, 4] ** 3)
    )


def in_segment(points: NDArray[np.float64], segment: Segment, geometry: Geometry) -> NDArray[np.float64]:
    """CCD coordinates (n, 2) as those of a segment's plane: its tile, its flips, its prescan."""
    x = points[:, 0] - segment.ix * geometry.columns
    y = points[:, 1] - segment.iy * geometry.rows
    if segment.flip_x:
        x = geometry.columns - 1 - x
    if segment.flip_y:
        y = geometry.rows - 1 - y
    return np.column_stack((x + geometry.prescan, y))


def describe_segment(
    detector: Detector,
    segment: Segment,
    geometry: Geometry,
    stars: NDArray[np.float64],
    rays: NDArray[np.float64],
    model: SkyModel,
    key: int,
) -> dict[str, Any]:
    """A segment as `raftwright._core.SimulatedReadout` wants it; light that cannot reach it is left out."""
    gain = float(np.clip(segment.gain, 0.01, 1000.0))
    wobble = _uniform(key ^ (0x100 + segment.index), 2)
    local_stars, local_rays = stars, rays
    if len(stars):
        placed = in_segment(stars[:, :2], segment, geometry)
        near = _near(placed, geometry, 5.0 * stars[:, 3] + 2.0)
        local_stars = np.column_stack((placed, stars[:, 2] / gain, stars[:, 3]))[near]
    if len(rays):
        begin, end = in_segment(rays[:, 0:2], segment, geometry), in_segment(rays[:, 2:4], segment, geometry)
        middle, half = (begin + end) / 2, np.hypot(*(end - begin).T) / 2
        local_rays = np.column_stack((begin, end, rays[:, 4] / gain))[_near(middle, geometry, half + 2.0)]
    return {
        "detector": detector.id,
        "segment": segment.index,
        "bias": model.bias + model.spread * 2.0 * (float(wobble[0]) - 0.5),
        "bias_slope": model.ramp * 2.0 * (float(wobble[1]) - 0.5),
        "read_noise": float(np.clip(segment.read_noise, 0.0, 1e4)) / gain,
        "sky": model.sky / gain,
        "gain": gain,
        "saturation": float(np.clip(segment.saturation, 0.0, 1e8)),
        "active_x0": geometry.prescan,
        "active_x1": geometry.prescan + geometry.columns,
        "active_y0": 0,
        "active_y1": geometry.rows,
        "stars": local_stars.astype(np.float32),
        "tracks": local_rays.astype(np.float32),
    }


def _near(points: NDArray[np.float64], geometry: Geometry, reach: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points of a plane are within reach of its light-sensitive area."""
    x, y = points[:, 0] - geometry.prescan, points[:, 1]
    return (x > -reach) & (x < geometry.columns + reach) & (y > -reach) & (y < geometry.rows + reach)
