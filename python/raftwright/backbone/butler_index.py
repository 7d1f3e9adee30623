"""The index by which a Butler takes a container as it is: `Butler.ingest_zip`, as `ctrl_ingestd` calls it.

It is written here without a Butler: its form is that of lsst.daf.butler's zip index, version 1."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.backbone.rucio_naming import dataset_id
from raftwright.camera import camera as find_camera
from raftwright.ledger.images import exposure_id
from raftwright.rawfile.names import FileName, newest

if TYPE_CHECKING:
    from raftwright.backbone.settings import ButlerIndex
    from raftwright.ledger.rows import FileRow

__all__ = ["BUTLER_INDEX", "butler_index"]

BUTLER_INDEX: Final = "_butler_zip_index.json"


def butler_index(files: Iterable[FileRow], instrument: str, settings: ButlerIndex) -> bytes:
    """Of the raw files of an image that no later version stands for; guiders are none of them. Raises
    FormatError, CameraError, NotFoundError (the camera, a detector)."""
    listed = {file.path: file for file in files if file.kind == "raw"}
    camera = find_camera(instrument)
    run = settings.run.replace("{instrument}", instrument)
    refs: dict[str, Any] = {}
    artifacts: dict[str, Any] = {}
    for path in sorted(newest(map(Path, listed))):
        name = FileName.parse(path)
        exposure = exposure_id(name.image)
        if name.guider or exposure <= 0:
            continue
        detector = camera.detector(f"{name.raft}_{name.slot}").id
        number = dataset_id(instrument, detector, exposure, run, settings.dataset_type)
        refs[number] = {
            "dataset_type_name": settings.dataset_type,
            "run": run,
            "data_id": {"instrument": instrument, "detector": detector, "exposure": exposure},
        }
        artifacts[path.name] = {
            "info": {
                "formatter": settings.formatter,
                "path": path.name,
                "storage_class": settings.storage_class,
                "component": None,
                "checksum": None,
                "file_size": listed[str(path)].bytes,
            },
            "ids": [number],
        }
    dataset_type = {
        "name": settings.dataset_type,
        "storageClass": settings.storage_class,
        "dimensions": ["instrument", "detector", "exposure"],
        "parentStorageClass": None,
        "isCalibration": False,
    }
    index = {
        "index_version": "V1",
        "refs": {
            "container_version": "V1",
            "universe_version": settings.universe,
            "universe_namespace": "daf_butler",
            "dataset_types": {settings.dataset_type: dataset_type},
            "compact_refs": refs,
            "dimension_records": None,
        },
        "artifact_map": artifacts,
    }
    return json.dumps(index, separators=(",", ":")).encode("ascii")
