"""Where pixels go in a mosaic: segments into a CCD, CCDs into a raft or the focal plane.

Pure arithmetic on what the camera file says; nothing is painted here. Mosaics have x to the right and y up,
as LSST's camera geometry has them; row 0 of the array is the lowest. Placements are rectangles for
`raftwright._core.paint_mosaic`: of readout pixels, flipped, then turned, then laid down with the lower left
corner at (out_x, out_y), in unbinned pixels counted from 0.

A CCD lies in the focal plane with its centre at (x_mm, y_mm), to the nearest pixel. When its size differs
from the nominal one (with overscan, or a readout of fewer pixels), positions are stretched by the ratio of
the sizes, so that CCDs neither cover one another nor drift apart; coordinates then hold at their centres.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from raftwright.camera.extension import Card
from raftwright.camera.model import Detector, Geometry
from raftwright.errors import UsageError

__all__ = [
    "FocalPlaneBox",
    "Mosaic",
    "MosaicPart",
    "MosaicWcs",
    "Placement",
    "ccd_mosaic",
    "focal_plane_mosaic",
    "focal_plane_placement",
]


T = TypeVar("T")


class Placement(NamedTuple):
    """A rectangle of a segment's pixels and where it goes. With the segment's plane in place of `segment` it
    is one entry of `paint_mosaic`."""

    segment: int
    """Index of the segment, in HDU order."""
    x0: int
    y0: int
    nx: int
    ny: int
    flip_x: bool
    flip_y: bool
    out_x: int
    out_y: int
    quarter_turns: int


class MosaicWcs(msgspec.Struct, frozen=True):
    """Focal-plane millimetres of a mosaic: `mm = crval + cdelt * PC (pixel - crpix)`, FITS pixels from 1."""

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cdelt: tuple[float, float]
    """Millimetres a pixel."""
    pc: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)
    """PC1_1, PC1_2, PC2_1, PC2_2."""

    def binned(self, factor: int) -> MosaicWcs:
        """The same for a mosaic of which `factor` x `factor` pixels became one."""
        x, y = self.crpix
        return MosaicWcs(
            crpix=((x - 0.5) / factor + 0.5, (y - 0.5) / factor + 0.5),
            crval=self.crval,
            cdelt=(self.cdelt[0] * factor, self.cdelt[1] * factor),
            pc=self.pc,
        )

    def to_mm(self, x: float, y: float) -> tuple[float, float]:
        """Millimetres of a FITS pixel."""
        dx, dy = x - self.crpix[0], y - self.crpix[1]
        pc = self.pc
        return (
            self.crval[0] + self.cdelt[0] * (pc[0] * dx + pc[1] * dy),
            self.crval[1] + self.cdelt[1] * (pc[2] * dx + pc[3] * dy),
        )

    def cards(self) -> list[Card]:
        """The cards of an image header. The axes are linear, so that their names are free."""
        cards = [Card("WCSAXES", 2), Card("WCSNAME", "FOCAL_PLANE", "Focal plane as in the camera geometry")]
        for axis, name in enumerate("XY"):
            n = axis + 1
            cards += [
                Card(f"CTYPE{n}", f"FP_{name}", f"Focal plane {name}"),
                Card(f"CUNIT{n}", "mm"),
                Card(f"CRPIX{n}", self.crpix[axis]),
                Card(f"CRVAL{n}", self.crval[axis]),
                Card(f"CDELT{n}", self.cdelt[axis]),
            ]
        for name, value in zip(("PC1_1", "PC1_2", "PC2_1", "PC2_2"), self.pc, strict=True):
            cards.append(Card(name, value))
        return cards


class FocalPlaneBox(msgspec.Struct, frozen=True):
    """The light-sensitive area of a detector in the focal plane."""

    x_mm: float
    """Centre."""
    y_mm: float
    width: int
    """Pixels along x of the focal plane, the yaw taken in."""
    height: int
    quarter_turns: int
    """Turns counter-clockwise from the detector's own axes."""
    pixel_mm: float


class MosaicPart(msgspec.Struct, frozen=True):
    """One detector in a mosaic: the box it takes (lower left corner from 0, unbinned) and its segments."""

    detector: Detector
    x: int
    y: int
    width: int
    height: int
    placements: tuple[Placement, ...]


class Mosaic(msgspec.Struct, frozen=True):
    """A mosaic laid out: its unbinned shape (rows, columns), its parts and its coordinates."""

    shape: tuple[int, int]
    parts: tuple[MosaicPart, ...]
    wcs: MosaicWcs
    true_scale: bool
    """Nothing was stretched: the coordinates hold for every pixel, to half a pixel."""

    def binned_shape(self, factor: int) -> tuple[int, int]:
        """Shape after binning; the last row and column may be made of fewer pixels."""
        return (-(-self.shape[0] // factor), -(-self.shape[1] // factor))


def focal_plane_placement(detector: Detector, geometry: Geometry | None = None) -> FocalPlaneBox:
    """Where a detector lies in the focal plane; `geometry` is the nominal one unless given."""
    width, height = _ccd_size(detector, geometry or detector.type.geometry, overscan=False)
    if detector.quarter_turns % 2:
        width, height = height, width
    return FocalPlaneBox(
        x_mm=detector.x_mm,
        y_mm=detector.y_mm,
        width=width,
        height=height,
        quarter_turns=detector.quarter_turns,
        pixel_mm=detector.type.pixel_um / 1000.0,
    )


def ccd_mosaic(detector: Detector, geometry: Geometry, *, overscan: bool = False) -> Mosaic:
    """A CCD along its own axes (no yaw): light-sensitive pixels only, or with `overscan` every pixel read,
    each segment in its tile with prescan and overscan where the flips bring them."""
    width, height = _ccd_size(detector, geometry, overscan)
    nominal = _ccd_size(detector, detector.type.geometry, overscan=False)
    pixel = detector.type.pixel_um / 1000.0
    cos, sin = _TURNS[detector.quarter_turns]
    return Mosaic(
        shape=(height, width),
        parts=(MosaicPart(detector, 0, 0, width, height, _ccd_placements(detector, geometry, overscan)),),
        wcs=MosaicWcs(
            crpix=((width + 1) / 2, (height + 1) / 2),
            crval=(detector.x_mm, detector.y_mm),
            cdelt=_turned(pixel * nominal[0] / width, pixel * nominal[1] / height, detector.quarter_turns),
            pc=(cos, -sin, sin, cos),
        ),
        true_scale=(width, height) == nominal,
    )


def focal_plane_mosaic(ccds: Iterable[tuple[Detector, Geometry]], *, overscan: bool = False) -> Mosaic:
    """A raft, the focal plane or any other set of CCDs at their true places, cut to the box around them.

    Raises UsageError without any CCD, or when their pixels differ in size.
    """
    chosen = list(ccds)
    if not chosen:
        raise UsageError("a mosaic of no CCD has no size; choose at least one detector")
    pixels = sorted({detector.type.pixel_um for detector, _ in chosen})
    if len(pixels) > 1:
        raise UsageError(
            f"CCDs with pixels of {pixels[0]} and {pixels[-1]} um have no common mosaic; choose one size"
        )
    pixel = pixels[0] / 1000.0
    sizes = [_turned(*_ccd_size(d, g, overscan), d.quarter_turns) for d, g in chosen]
    boxes = [focal_plane_placement(d) for d, _ in chosen]
    scale_x = max(size[0] / box.width for size, box in zip(sizes, boxes, strict=True))
    scale_y = max(size[1] / box.height for size, box in zip(sizes, boxes, strict=True))
    lefts = [_round(b.x_mm / pixel * scale_x - s[0] / 2) for s, b in zip(sizes, boxes, strict=True)]
    bottoms = [_round(b.y_mm / pixel * scale_y - s[1] / 2) for s, b in zip(sizes, boxes, strict=True)]
    left, bottom = min(lefts), min(bottoms)
    width = max(x + size[0] for x, size in zip(lefts, sizes, strict=True)) - left
    height = max(y + size[1] for y, size in zip(bottoms, sizes, strict=True)) - bottom
    parts = []
    for (detector, geometry), size, x, y in zip(chosen, sizes, lefts, bottoms, strict=True):
        own = _ccd_size(detector, geometry, overscan)
        turned = _turn(
            _ccd_placements(detector, geometry, overscan), own, detector.quarter_turns, x - left, y - bottom
        )
        parts.append(MosaicPart(detector, x - left, y - bottom, size[0], size[1], turned))
    return Mosaic(
        shape=(height, width),
        parts=tuple(parts),
        # Pixel edges, not centres, lie at whole numbers from the focal plane's origin.
        wcs=MosaicWcs(
            crpix=(0.5 - left, 0.5 - bottom), crval=(0.0, 0.0), cdelt=(pixel / scale_x, pixel / scale_y)
        ),
        true_scale=scale_x == 1.0 and scale_y == 1.0,
    )


_TURNS = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))  # cosine and sine of 0 .. 3 quarter turns


def _ccd_size(detector: Detector, geometry: Geometry, overscan: bool) -> tuple[int, int]:
    """Width and height of a CCD along its own axes."""
    nx, ny = detector.type.tiles
    if overscan:
        return nx * geometry.width, ny * geometry.height
    return nx * geometry.columns, ny * geometry.rows


def _ccd_placements(detector: Detector, geometry: Geometry, overscan: bool) -> tuple[Placement, ...]:
    if overscan:
        x0, nx, ny = 0, geometry.width, geometry.height
    else:
        x0, nx, ny = geometry.prescan, geometry.columns, geometry.rows
    return tuple(
        Placement(s.index, x0, 0, nx, ny, s.flip_x, s.flip_y, s.ix * nx, s.iy * ny, 0)
        for s in detector.segments
    )


def _turn(
    placements: Sequence[Placement], size: tuple[int, int], turns: int, left: int, bottom: int
) -> tuple[Placement, ...]:
    """Turns a CCD of a size counter-clockwise and moves its lower left corner."""
    width, height = size
    result = []
    for p in placements:
        right, top = width - p.out_x - p.nx, height - p.out_y - p.ny  # what is left over on the far sides
        x, y = ((p.out_x, p.out_y), (top, p.out_x), (right, top), (p.out_y, right))[turns]
        result.append(p._replace(out_x=left + x, out_y=bottom + y, quarter_turns=turns))
    return tuple(result)


def _turned(x: T, y: T, turns: int) -> tuple[T, T]:
    return (y, x) if turns % 2 else (x, y)


def _round(value: float) -> int:
    return math.floor(round(value, 6) + 0.5)  # noise of the division must not decide a half
