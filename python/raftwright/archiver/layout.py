"""What the files of an image are called at a destination, which goes first, and what goes before what.

For each CCD the sidecar goes before the file, so that whoever sees a file has its header; the list of
expected sensors goes before all. What a CCD is for says the camera, never a part of a name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.archiver.settings import CLASSES
from raftwright.archiver.words import fill
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, RaftwrightError
from raftwright.rawfile.names import FileName, ImageName, manifest_name, sidecar_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raftwright.archiver.settings import Destination
    from raftwright.ledger.rows import DeliveryRow, ImageRow

__all__ = ["RANKS", "before", "class_of", "kind_of", "priority", "target", "words"]

RANKS: Final[Mapping[str, int]] = {"manifest": 0, "header": 1, "sidecar": 2, "raw": 3}
_LAST: Final = len(CLASSES)


def kind_of(path: str) -> str:
    """manifest, header, sidecar or raw, by the name of the file. Raises FormatError."""
    name = Path(path).name
    if name.endswith("_expectedSensors.json"):
        return "manifest"
    if name.endswith(".yaml"):
        return "header"
    if name.endswith(".json"):
        return "sidecar"
    FileName.parse(name)
    return "raw"


@functools.lru_cache(maxsize=8)
def _classes(camera: str) -> Mapping[str, str]:
    found = find_camera(camera)
    return {name: d.kind for d in found.detectors for name in (d.name, d.file_stem)}


def class_of(camera: str, detector: str) -> str:
    """What a detector is for: science, wavefront, guider; nothing where the camera does not know it."""
    try:
        return _classes(camera).get(detector, "")
    except RaftwrightError:
        return ""


def priority(destination: Destination, image: ImageRow, detector: str) -> int:
    """Lower goes first: the place of its class in the order of the destination; manifests before all."""
    if not detector:
        return 0
    kind = class_of(image.camera, detector)
    order = list(destination.order)
    return 1 + (order.index(kind) if kind in order else _LAST)


def words(image: ImageRow, path: str, detector: str = "") -> dict[str, str]:
    """What `{obsid}` and the others stand for, of a file of an image."""
    raft, _, sensor = detector.partition("_")
    return {
        "instrument": image.instrument,
        "dayobs": f"{image.dayobs:08d}",
        "obsid": image.obsid,
        "file": Path(path).name,
        "raft": raft or "NR",
        "sensor": sensor or "NS",
    }


def target(destination: Destination, image: ImageRow, path: str, detector: str = "") -> str:
    """Name of a file below the root of the destination. Raises FormatError where it would leave the root."""
    ImageName.parse(image.obsid)
    filled = words(image, path, detector)
    for name, value in filled.items():
        if not value or "/" in value or "\0" in value or value in (".", ".."):
            raise FormatError(f"{ascii(path)[:200]}: {ascii(value)[:80]} cannot be the {name} in a name")
    return fill(destination.layout, filled)


def before(row: DeliveryRow) -> list[tuple[str, str]]:
    """Path and name of what has to be at the destination before this one: for a raw file its sidecar."""
    if kind_of(row.path) != "raw":
        return []
    beside = sidecar_path(Path(row.path))
    return [(str(beside), str(Path(row.target).with_name(beside.name)))]


def manifest_of(image: ImageRow, path: str) -> Path:
    """The list of expected sensors beside a file of the image."""
    return Path(path).with_name(manifest_name(ImageName.parse(image.obsid)))
