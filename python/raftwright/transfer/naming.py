"""What the files of an image are called at a place, which goes first, and what goes before what.

For each CCD the sidecar goes before the file, so that whoever sees a file has its header; the list of
expected sensors goes before all. What a CCD is for says the camera, never a part of a name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from raftwright.errors import FormatError, RaftwrightError
from raftwright.rawfile.names import FileName, ImageName, container_version, manifest_name, sidecar_path
from raftwright.transfer.words import check_words, fill, words_of

if TYPE_CHECKING:
    from raftwright.ledger.rows import DeliveryRow, ImageRow

__all__ = [
    "CLASSES",
    "CONTAINER",
    "KINDS",
    "LAYOUT",
    "RANKS",
    "Class",
    "Instrument",
    "What",
    "before",
    "check_layout",
    "class_of",
    "kind_of",
    "manifest_of",
    "priority",
    "target",
    "words",
]

What: TypeAlias = Literal["manifest", "header", "sidecar", "raw"]
"""Kinds of files, in the order in which those of a CCD leave."""
Class: TypeAlias = Literal["wavefront", "science", "guider"]
Instrument: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z")]

CONTAINER: Final = "container"
"""All files of an image in one: the hand-off makes it, and brings it where it is asked for."""
KINDS: Final[tuple[What, ...]] = ("manifest", "header", "sidecar", "raw")
CLASSES: Final[tuple[Class, ...]] = ("wavefront", "science", "guider")
LAYOUT: Final = "{instrument}/{dayobs}/{obsid}/{file}"
"""Names at a place, unless it says otherwise: those of the observatory's buckets."""
RANKS: Final[Mapping[str, int]] = {kind: rank for rank, kind in enumerate((*KINDS, CONTAINER))}

_WORDS: Final = frozenset({"instrument", "dayobs", "obsid", "file", "raft", "sensor"})


def check_layout(layout: str) -> None:
    """Raises FormatError for one that is no relative name, or would give two files one name."""
    check_words(layout, _WORDS, "layout")
    if not {"obsid", "file"} <= set(words_of(layout)):
        raise FormatError("layout: has to have {obsid} and {file}, so that no two files have one name")
    path = PurePosixPath(layout)
    if path.is_absolute() or ".." in path.parts or "{file}" not in path.name or "\0" in layout:
        raise FormatError(f"layout: {layout[:200]!a} is no relative name that ends with {{file}}")


def kind_of(path: str) -> str:
    """manifest, header, sidecar, container or raw, by the name of the file. Raises FormatError."""
    name = Path(path).name
    if name.endswith(".zip"):
        container_version(name)
        return CONTAINER
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
    from raftwright.camera import camera as find_camera

    found = find_camera(camera)
    return {name: d.kind for d in found.detectors for name in (d.name, d.file_stem)}


def class_of(camera: str, detector: str) -> str:
    """What a detector is for: science, wavefront, guider; nothing where the camera does not know it."""
    try:
        return _classes(camera).get(detector, "")
    except RaftwrightError:
        return ""


def priority(order: Sequence[Class], camera: str, detector: str) -> int:
    """Lower goes first: the place of the detector's class in the order; manifests before all."""
    if not detector:
        return 0
    places: dict[str, int] = {kind: place for place, kind in enumerate(order, 1)}
    return places.get(class_of(camera, detector), 1 + len(CLASSES))


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


def target(layout: str, image: ImageRow, path: str, detector: str = "") -> str:
    """Name of a file below the root of a place. Raises FormatError where it would leave the root."""
    ImageName.parse(image.obsid)
    filled = words(image, path, detector)
    for name, value in filled.items():
        if not value or "/" in value or "\0" in value or value in (".", ".."):
            raise FormatError(f"{ascii(path)[:200]}: {ascii(value)[:80]} cannot be the {name} in a name")
    return fill(layout, filled)


def before(row: DeliveryRow) -> list[tuple[str, str]]:
    """Path and name of what has to be at the place before this one: for a raw file its sidecar."""
    if kind_of(row.path) != "raw":
        return []
    beside = sidecar_path(Path(row.path))
    return [(str(beside), str(Path(row.target).with_name(beside.name)))]


def manifest_of(image: ImageRow, path: str) -> Path:
    """The list of expected sensors beside a file of the image."""
    return Path(path).with_name(manifest_name(ImageName.parse(image.obsid)))
