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
from raftwright.rawfile.container import METADATA_INDEX, open_container
from raftwright.rawfile.names import FileName, ImageName, manifest_name, sidecar_path
from raftwright.rawfile.sidecar import read_json

__all__ = [
    "DATASET",
    "LONGEST",
    "ZIP",
    "check_name",
    "container_facts",
    "dataset_id",
    "dataset_name",
    "expected_files",
    "image_of",
    "instrument_of",
    "is_raw",
    "rubin_fields",
]

DATASET: Final = "Dataset/{instrument}/raw/Obs/{dayobs}/{obsid}"
ZIP: Final = {"rubin_butler": "zip_file"}
"""What `ctrl_ingestd` reads of a container."""
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


def container_facts(path: Path, image: ImageName, camera: str = "") -> tuple[str, bool]:
    """The camera's name, and whether a container has every file that its own manifest wants. Raises
    FormatError (no container, or of another image), NotFoundError (the camera), StorageError."""
    with open_container(path) as container:
        if container.image != image:
            raise FormatError(f"{path}: is a container of {container.image}")
        manifest, instrume = manifest_name(image), None
        try:
            index = json.loads(container.read(METADATA_INDEX))
            for header in (index.get("__COMMON__"), *index.values()):
                if isinstance(header, dict) and isinstance(header.get("INSTRUME"), str):
                    instrume = header["INSTRUME"]
                    break
            sensors = None
            if manifest in container.members:
                sensors = json.loads(container.read(manifest, _MANIFEST)).get("expectedSensors")
        except (ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{path}: its index or its manifest cannot be read: {error}") from None
        names = _expected(image, sensors)
        whole = names is not None and names <= container.members.keys()
    if camera:
        return find_camera(camera).name, whole
    if instrume is None:
        raise NotFoundError(f"{path.name}: no header in it says which camera took it; name the camera")
    return camera_by_instrume(instrume).name, whole


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
    return _expected(image, sensors)


def _expected(image: ImageName, sensors: object) -> set[str] | None:
    if not isinstance(sensors, dict) or not sensors:
        return None
    found = {manifest_name(image)}
    for sensor, kind in sensors.items():
        stem = f"{image}_{sensor}" + ("_guider" if kind == "GUIDER" else "")
        found |= {f"{stem}.fits", f"{stem}.json"}
    return found


def dataset_id(instrument: str, detector: int, exposure: int, run: str, dataset_type: str) -> str:
    """The id that every Butler gives to a raw."""
    of = f"dataset_type={dataset_type},run={run},detector={detector},exposure={exposure}"
    return str(uuid.uuid5(_IDS, f"{of},instrument={instrument}"))


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
    sidecar = {
        "id": dataset_id(instrument, detector, exposure, run, dataset_type),
        "datasetType": {
            "name": dataset_type,
            "storageClass": storage_class,
            "dimensions": ["instrument", "detector", "exposure"],
        },
        "dataId": {"dataId": {"instrument": instrument, "detector": detector, "exposure": exposure}},
        "run": run,
    }
    return {"rubin_butler": "raw_file", "rubin_sidecar": json.dumps(sidecar, separators=(",", ":"))}
