"""What a slab says of the board that lies in it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from raftwright.errors import UsageError
from raftwright.prompt.layout import BoardMeta, DetectorMeta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.assembly import AssembledSource

__all__ = ["describe"]


def describe(image: str, camera: str, source: AssembledSource, memory: NDArray[np.uint8]) -> BoardMeta:
    """What a slab says of a finished source whose planes lie in its memory. Raises UsageError where they do
    not."""
    board = source.board
    count = len(board.plane_of)
    base = int(memory.ctypes.data)
    planes = [source.readout.plane(plane).__array_interface__["data"][0] - base for plane in range(count)]
    plane_bytes = source.geometry.width * source.geometry.height * 4
    if any(not 0 <= offset <= memory.nbytes - plane_bytes for offset in planes):
        raise UsageError(f"{image} {source.info.location}: its planes do not lie in this slab")
    detectors = []
    for detector in board.detectors:
        missing = source.missing(detector)
        detectors.append(
            DetectorMeta(
                name=detector.name,
                id=detector.id,
                first=board.planes_of(detector).start,
                segments=tuple(segment.name for segment in detector.segments),
                amps=tuple(segment.amp for segment in detector.segments),
                missing_pixels=source.missing_pixels(detector),
                missing=missing,
            )
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return BoardMeta(
        image=image,
        camera=camera,
        location=source.info.location,
        geometry=source.geometry,
        bits=board.bits,
        fill=source.fill,
        planes=tuple(planes),
        detectors=tuple(detectors),
        completed=now,
    )
