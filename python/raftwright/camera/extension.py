"""Cards of an image extension that follow from the camera: mosaic keywords and coordinate systems.

The formulas are those of LSST's camera control system (LCA-13501 as its files of 2019-10 and later have it),
written for any arrangement of segments. x, y: FITS pixel of the segment as read out (serial, parallel).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from raftwright.camera.model import Camera, Detector, DetectorType, Geometry, SegmentPlace, WcsRow, WcsSystem
from raftwright.errors import CameraError

__all__ = ["Card", "CardValue", "datasec", "detsec", "detsize", "segment_wcs"]

CardValue: TypeAlias = str | int | float | bool | None


class Card(NamedTuple):
    """A header card. The value None is FITS's undefined value; a float is written with point or exponent."""

    keyword: str
    value: CardValue
    comment: str = ""


_TRANSFORMATION_VECTOR = "detector transformation vector"
_TRANSFORMATION_MATRIX = "detector transformation matrix"
_SYSTEM_NAME = "Name of coordinate system"


def datasec(geometry: Geometry) -> str:
    """DATASEC: the light-sensitive pixels of a segment, e.g. `[4:512,1:2000]`."""
    return f"[{geometry.prescan + 1}:{geometry.prescan + geometry.columns},1:{geometry.rows}]"


def detsize(kind: DetectorType, geometry: Geometry) -> str:
    """DETSIZE: the light-sensitive size of the CCD, e.g. `[1:4072,1:4000]`."""
    return f"[1:{kind.header_tiles[0] * geometry.columns},1:{kind.header_tiles[1] * geometry.rows}]"


def detsec(camera: Camera, kind: DetectorType, segment: SegmentPlace, geometry: Geometry) -> str:
    """DETSEC: where the segment lies on the CCD, reversed where it is read so, e.g. `[509:1,1:2000]`."""
    left = segment.header_ix * geometry.columns
    x = (left + geometry.columns, left + 1) if segment.flip_x else (left + 1, left + geometry.columns)
    bottom = segment.header_iy * geometry.rows
    y = (bottom + geometry.rows, bottom + 1) if segment.flip_y else (bottom + 1, bottom + geometry.rows)
    if camera.detsec_down:
        mirror = kind.header_tiles[1] * geometry.rows + 1
        y = (mirror - y[0], mirror - y[1])
    return f"[{x[0]}:{x[1]},{y[0]}:{y[1]}]"


def segment_wcs(camera: Camera, detector: Detector, segment: SegmentPlace, geometry: Geometry) -> list[Card]:
    """The cards of a segment's extension from CHANNEL to the last coordinate system, in order.

    `geometry` is that of the image (its registers), not the nominal one. Coordinates that the camera file
    gives as a table hold for the chip, whatever part of it is read, and do not depend on it.

    Raises CameraError if a system needs what the detector does not have.
    """
    kind = detector.type
    sign_x = -1 if segment.flip_x else 1
    sign_y = -1 if segment.flip_y else 1
    serial, parallel = _ccd_origin(segment, geometry)
    if camera.detsec_down:
        vector_y, matrix_y = kind.header_tiles[1] * geometry.rows + 1 - parallel, -sign_y
    else:
        vector_y, matrix_y = parallel, sign_y
    cards = [
        Card("CHANNEL", segment.index + 1),
        Card("EXTNAME", segment.name),
        Card("CCDSUM", "1 1"),
        Card("DATASEC", datasec(geometry)),
        Card("DETSEC", detsec(camera, kind, segment, geometry)),
        Card("DETSIZE", detsize(kind, geometry)),
        Card("DTV1", serial, _TRANSFORMATION_VECTOR),
        Card("DTV2", vector_y, _TRANSFORMATION_VECTOR),
        Card("DTM1_1", float(sign_x), _TRANSFORMATION_MATRIX),
        Card("DTM2_2", float(matrix_y), _TRANSFORMATION_MATRIX),
        Card("DTM1_2", 0.0, _TRANSFORMATION_MATRIX),
        Card("DTM2_1", 0.0, _TRANSFORMATION_MATRIX),
    ]
    for system in camera.systems:
        if detector.wcs_rows is not None:
            row = detector.wcs_rows[system.letter][segment.header_iy]
        else:
            row = _formula(camera, detector, segment, geometry, system)
        cards += _system_cards(system, row, segment.header_ix)
    return cards


def _ccd_origin(segment: SegmentPlace, geometry: Geometry) -> tuple[int, int]:
    """Origin of CCD coordinates: serial = -+x + origin, parallel = -+y + origin, 1 at the CCD's corner."""
    serial = geometry.columns + 1 + geometry.prescan if segment.flip_x else -geometry.prescan
    parallel = geometry.rows + 1 if segment.flip_y else 0
    return serial + segment.header_ix * geometry.columns, parallel + segment.header_iy * geometry.rows


def _formula(
    camera: Camera, detector: Detector, segment: SegmentPlace, geometry: Geometry, system: WcsSystem
) -> WcsRow:
    serial_0, parallel_0 = _ccd_origin(segment, geometry)
    serial, parallel = float(serial_0), float(parallel_0)
    if system.frame == "segment":
        serial -= segment.header_ix * geometry.columns
        parallel -= segment.header_iy * geometry.rows
    elif system.frame != "ccd":
        chip, cell, raft_cell = detector.type.chip, detector.slot_cell, detector.raft_cell
        if chip is None or cell is None or (raft_cell is None and system.frame == "focal_plane"):
            raise CameraError(
                f"{camera.name}: system {system.letter} of {detector.name} needs `chip` and `cell`; add them"
            )
        across, up = detector.type.header_tiles
        dead_parallel, dead_serial = chip.ccdpx - chip.ccdax, chip.ccdpy - chip.ccday
        pitch_parallel = up * geometry.rows + chip.ginx + dead_parallel
        pitch_serial = across * geometry.columns + chip.giny + dead_serial
        parallel += chip.goutx + dead_parallel / 2 + cell[0] * pitch_parallel
        serial += chip.gouty + dead_serial / 2 + cell[1] * pitch_serial
        if system.frame == "focal_plane" and raft_cell is not None:
            parallel += raft_cell[0] * camera.raft_pitch
            serial += raft_cell[1] * camera.raft_pitch
    sign_x = -1 if segment.flip_x else 1
    sign_y = -1 if segment.flip_y else 1
    if system.first == "parallel":
        return WcsRow(True, sign_y, parallel, 0.0, sign_x, serial, 0.0)
    return WcsRow(False, sign_x, serial, 0.0, sign_y, parallel, 0.0)


def _system_cards(system: WcsSystem, row: WcsRow, column: int) -> list[Card]:
    a = system.letter
    one, two = float(row.sign1), float(row.sign2)
    matrix = (0.0, one, two, 0.0) if row.swapped else (one, 0.0, 0.0, two)
    # Tables have six decimals at most: the rounding takes off what adding such fractions in binary leaves.
    origins = (round(row.origin1 + column * row.step1, 6), round(row.origin2 + column * row.step2, 6))
    return [
        Card(f"WCSNAME{a}", system.name, _SYSTEM_NAME),
        Card(f"CTYPE1{a}", system.axes[0], system.comment),
        Card(f"CTYPE2{a}", system.axes[1], system.comment),
        *(Card(f"PC{ij}{a}", value) for ij, value in zip(("1_1", "1_2", "2_1", "2_2"), matrix, strict=True)),
        Card(f"CDELT1{a}", 1.0),
        Card(f"CDELT2{a}", 1.0),
        Card(f"CRPIX1{a}", 0.0),
        Card(f"CRPIX2{a}", 0.0),
        Card(f"CRVAL1{a}", origins[0]),
        Card(f"CRVAL2{a}", origins[1]),
    ]
