"""Boards whose pixels say where and when they were written; for tests and the processes that they start."""

from __future__ import annotations

from typing import Any

import numpy as np

from raftwright.camera import Geometry
from raftwright.prompt import Pool, PromptCcd, Slab
from raftwright.prompt.layout import BoardMeta, DetectorMeta

SMALL = Geometry(3, 40, 7, 30, 6)
SEGMENTS = 4
"""Of each detector of a test board, which has two."""


def pattern(serial: int, plane: int, geometry: Geometry = SMALL) -> np.ndarray:
    """What `fill` writes: no two places of any two boards look the same."""
    size = geometry.width * geometry.height
    start = (serial * 1_000_003 + plane * 8191) & 0x3FFFFFFF
    return (np.arange(size, dtype=np.int64) + start).astype(np.int32).reshape(geometry.height, geometry.width)


def image_name(serial: int) -> str:
    return f"MC_S_20261122_{serial:06d}"


def meta(serial: int, geometry: Geometry = SMALL, **changes: Any) -> BoardMeta:
    size = geometry.width * geometry.height * 4
    names = tuple(f"Segment{n:02d}" for n in range(SEGMENTS))
    amps = tuple(f"C{n:02d}" for n in range(SEGMENTS))
    detectors = tuple(DetectorMeta(f"R22_S0{n}", 90 + n, n * SEGMENTS, names, amps) for n in range(2))
    fields: dict[str, Any] = {
        "image": image_name(serial),
        "camera": "LSSTCam",
        "location": "22/0",
        "geometry": geometry,
        "bits": 31,
        "fill": -1,
        "planes": tuple(n * (size + 64) for n in range(2 * SEGMENTS)),
        "detectors": detectors,
    }
    return BoardMeta(**{**fields, **changes})


def board_bytes(geometry: Geometry = SMALL) -> int:
    return 2 * SEGMENTS * (geometry.width * geometry.height * 4 + 64)


def write(slab: Slab, serial: int, geometry: Geometry = SMALL) -> None:
    """Fills a slab with the pattern of a board, plane by plane."""
    described = meta(serial, geometry)
    for plane, offset in enumerate(described.planes):
        view = slab.memory[offset : offset + described.plane_bytes].view(np.int32)
        view[:] = pattern(serial, plane, geometry).ravel()


def publish(pool: Pool, serial: int, geometry: Geometry = SMALL, **changes: Any) -> bool:
    """One board, if the pool has room for it."""
    slab = pool.lend(board_bytes(geometry))
    if slab is None:
        return False
    write(slab, serial, geometry)
    return slab.publish(meta(serial, geometry, **changes))


def serial_of(ccd: PromptCcd) -> int:
    return int(ccd.image[-6:])


def is_whole(ccd: PromptCcd) -> bool:
    """Whether every pixel is that of the board it says it is."""
    serial, first = serial_of(ccd), SEGMENTS * int(ccd.name[-1])
    return all(
        np.array_equal(plane, pattern(serial, first + n, ccd.geometry)) for n, plane in enumerate(ccd.planes)
    )
