"""Cameras as data: what a camera is, and the cameras that are built in.

    import raftwright

    lsstcam = raftwright.camera("LSSTCam")            # or the path of a camera file
    lsstcam.detector("R22_S11").board                 # 'Reb1'
    lsstcam.board("22/1").layout                      # how its stream is packed

This package is itself callable: `raftwright.camera("LSSTCam")` is `raftwright.camera.camera("LSSTCam")`,
and `from raftwright.camera import Camera` works as ever. A function under the package's name would hide the
package from `import raftwright.camera.placement as placement`; a module that can be called hides nothing.
Type checkers know the function's type from an import in `raftwright/__init__.py` that only they see.
"""

from __future__ import annotations

import os
import sys
import types

from raftwright.camera.document import CameraFileError, Problem
from raftwright.camera.extension import Card, CardValue, datasec, detsec, detsize, segment_wcs
from raftwright.camera.model import (
    Board,
    Camera,
    ChipConstants,
    Detector,
    DetectorType,
    Geometry,
    Kind,
    Raft,
    Segment,
    SegmentPlace,
    WcsRow,
    WcsSystem,
)
from raftwright.camera.placement import (
    FocalPlaneBox,
    Mosaic,
    MosaicPart,
    MosaicWcs,
    Placement,
    ccd_mosaic,
    focal_plane_mosaic,
    focal_plane_placement,
)
from raftwright.camera.registry import camera, camera_by_instrume, camera_names, check_file

__all__ = [
    "Board",
    "Camera",
    "CameraFileError",
    "Card",
    "CardValue",
    "ChipConstants",
    "Detector",
    "DetectorType",
    "FocalPlaneBox",
    "Geometry",
    "Kind",
    "Mosaic",
    "MosaicPart",
    "MosaicWcs",
    "Placement",
    "Problem",
    "Raft",
    "Segment",
    "SegmentPlace",
    "WcsRow",
    "WcsSystem",
    "camera",
    "camera_by_instrume",
    "camera_names",
    "ccd_mosaic",
    "check_file",
    "datasec",
    "detsec",
    "detsize",
    "focal_plane_mosaic",
    "focal_plane_placement",
    "segment_wcs",
]


class _CallablePackage(types.ModuleType):
    """This package, so that calling it gives a camera."""

    def __call__(self, name_or_path: str | os.PathLike[str] | Camera) -> Camera:
        """A camera by name or from its file: see `raftwright.camera.camera`."""
        return camera(name_or_path)


sys.modules[__name__].__class__ = _CallablePackage
