"""What the ledger is told of an image: from the DAQ's description and the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftwright.errors import RaftwrightError
from raftwright.ledger.rows import DetectorFacts, ImageFacts, SourceFacts
from raftwright.rawfile.times import parse_iso

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.daq import ImageInfo

__all__ = ["facts_of"]


def facts_of(image: ImageInfo, camera: Camera) -> ImageFacts:
    """The sources that an image has, and the detectors that it must have because of them.

    A source that the camera does not know is entered too: nothing of it can be had, and the ledger says so.
    """
    detectors: list[DetectorFacts] = []
    for source in image.sources:
        try:
            board = camera.board(source.location)
        except RaftwrightError:
            continue
        detectors += [DetectorFacts(each.name, source.location, "SCIENCE") for each in board.detectors]
    return ImageFacts(
        obsid=image.name,
        daq_id=image.id,
        camera=camera.name,
        instrument=camera.name,
        folder=image.folder,
        trigger_tai=parse_iso(image.timestamp) / 1e9 if image.timestamp else None,
        sources=tuple(SourceFacts(each.location, each.kind, each.bytes) for each in image.sources),
        detectors=tuple(detectors),
    )
