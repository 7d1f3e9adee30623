"""What Rucio is told of a file: its name, its exposure's dataset, the fields that `ctrl_ingestd` reads."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any, Final

from raftwright.camera import camera as find_camera
from raftwright.camera.registry import camera_by_instrume
from raftwright.errors import FormatError, NotFoundError, RaftwrightError
from raftwright.ledger.images import exposure_id
from raftwright.rawfile.names import FileName, ImageName, manifest_name, sidecar_path
from raftwright.rawfile.sidecar import read_json

__all__ = [
    "DATASET",
    "LONGEST",
    "check_name",
    "dataset_name",
    "expected_files",
    "image_of",
    "instrument_of",
    "is_raw",
    "rubin_fields",
]

DATASET: Final = "Dataset/{instrument}/raw/Obs/{dayobs}/{obsid}"
LONGEST: Final = 250
"""Characters of a name, with Rucio's generic schema."""

_NAME: Final = re.compile(r"[/A-Za-z0-9][/A-Za-z0-9._-]*\Z")
_IMAGE: Final = re.compile(r"[A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6}(?![0-9])")
_IDS: Final = uuid.UUID("840b31d9-05cd-5161-b2c8-00d32b280d0f")
"""Name space of the Butler's dataset ids."""
_MANIFEST: Final = 1 << 20


def check_name(name: str) -> str:
    """Why a name cannot be one of Rucio's, or nothing."""
    if len(name) > LONGEST:
        return f"the name has {len(name)} characters, Rucio takes {LONGEST}"
    if not _NAME.match(name) or "//" in name or "/../" in f"/{name}/":
        return "Rucio takes names of letters, digits and / . _ - only"
    return ""


def image_of(filename: str) -> ImageName | None:
    """The image that a file belongs to, by its name; None where it says none."""
    match = _IMAGE.match(filename)
    if match is None:
        return None
    try:
        return ImageName.parse(match[0])
    except FormatError:
        return None


def is_raw(filename: str) -> bool:
    """Whether a Butler can take it as a raw: no guider, and of an image that has an exposure number."""
    try:
        name = FileName.parse(filename)
    except FormatError:
        return False
    return not name.guider and exposure_id(name.image) > 0


def instrument_of(path: Path, image: ImageName, camera: str = "") -> str:
    """The camera's name: from the file's own sidecar, or another one of its image beside it. Raises
    NotFoundError where nothing tells yet, FormatError, StorageError."""
    if camera:
        return find_camera(camera).name
    for sidecar in (sidecar_path(path), *sorted(path.parent.glob(f"{image}_*.json"))):
        try:
            instrume = read_json(sidecar).get("INSTRUME")
        except (RaftwrightError, OSError):
            continue
        if isinstance(instrume, str):
            return camera_by_instrume(instrume).name
    raise NotFoundError(f"{path.name}: no sidecar of its image is there yet, so its camera is not known")


def dataset_name(template: str, instrument: str, image: ImageName) -> str:
    """The dataset of an exposure."""
    words = {"instrument": instrument, "dayobs": image.dayobs, "obsid": str(image)}
    return re.sub(r"\{([a-z]+)\}", lambda match: words[match[1]], template)


def expected_files(directory: Path, image: ImageName) -> set[str] | None:
    """Names of all files that its manifest wants of an exposure, with its own; None where it is not there."""
    path = directory / manifest_name(image)
    try:
        if path.stat().st_size > _MANIFEST:
            return None
        sensors = read_json(path).get("expectedSensors")
    except (RaftwrightError, OSError):
        return None
    if not isinstance(sensors, dict) or not sensors:
        return None
    found = {path.name}
    for sensor, kind in sensors.items():
        stem = f"{image}_{sensor}" + ("_guider" if kind == "GUIDER" else "")
        found |= {f"{stem}.fits", f"{stem}.json"}
    return found


def rubin_fields(
    path: Path, instrument: str, run: str, dataset_type: str, storage_class: str, camera: str = ""
) -> dict[str, Any]:
    """`rubin_butler` and `rubin_sidecar` of a raw file: with them the far side ingests it without reading
    it. The id is the one that every Butler gives to that raw. Raises FormatError, CameraError, NotFoundError.
    """
    name = FileName.parse(path)
    detector = find_camera(camera or instrument).detector(f"{name.raft}_{name.slot}").id
    exposure = exposure_id(name.image)
    run = run.replace("{instrument}", instrument)
    of = f"dataset_type={dataset_type},run={run},detector={detector},exposure={exposure}"
    sidecar = {
        "id": str(uuid.uuid5(_IDS, f"{of},instrument={instrument}")),
        "datasetType": {
            "name": dataset_type,
            "storageClass": storage_class,
            "dimensions": ["instrument", "detector", "exposure"],
        },
        "dataId": {"dataId": {"instrument": instrument, "detector": detector, "exposure": exposure}},
        "run": run,
    }
    return {"rubin_butler": "raw_file", "rubin_sidecar": json.dumps(sidecar, separators=(",", ":"))}
