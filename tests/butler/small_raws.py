"""Small raws, written as the forwarder writes them, and guiders' files as the guider's own program does."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.io import fits

from raftwright.camera import Camera
from raftwright.camera import camera as find_camera
from raftwright.daq import simulate_image
from raftwright.rawfile import write_image

E2V = (10, 0, 20, 0, 0, 4, 0, 16, 0, 3, 2)
SKY: dict[str, Any] = {
    "IMGTYPE": "OBJECT",
    "EXPTIME": 30,
    "SHUTTIME": 30.125,
    "DARKTIME": 30.5,
    "DATE-BEG": "2026-11-23T01:02:03.456",
    "DATE-END": "2026-11-23T01:02:33.956",
    "TIMESYS": "TAI",
    "GROUPID": "2026-11-23T01:01:55.123",
    "CURINDEX": 1,
    "MAXINDEX": 1,
    "RADESYS": "ICRS",
    "TRACKSYS": "RADEC",
    "RASTART": 53.5,
    "DECSTART": -27.5,
    "ROTPA": 12.5,
    "ROTCOORD": "sky",
    "ELSTART": 61.0,
    "AZSTART": 100.0,
    "FILTER": "r_57",
    "OBJECT": "ECDFS",
    "PROGRAM": "BLOCK-1",
    "REASON": "field survey",
    "OBSGEO-X": 1818938.94,
    "OBSGEO-Y": -5208470.95,
    "OBSGEO-Z": -3195172.08,
}
BIAS: dict[str, Any] = {
    "IMGTYPE": "BIAS",
    "EXPTIME": 0,
    "DATE-BEG": "2026-11-23T01:02:03.456",
    "TIMESYS": "TAI",
}
RAFT = ("22/0", "22/1", "22/2")


def document(values: dict[str, Any]) -> bytes:
    """Header document of these values."""
    records = [{"keyword": key, "value": value, "comment": ""} for key, value in values.items()]
    return yaml.safe_dump({"PRIMARY": records}).encode()


class Raws:
    """An archive."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(
        self,
        name: str = "MC_O_20261122_000123",
        camera: str | Camera = "LSSTCam",
        locations: Sequence[str] = ("22/1",),
        header: dict[str, Any] | None = SKY,
        seed: int = 7,
        root: Path | None = None,
    ) -> list[Path]:
        """Files of an image; `header` None: the header service said nothing."""
        known = find_camera(camera)
        made = simulate_image(find_camera(camera), name, locations=list(locations), registers=E2V, seed=seed)
        given = None if header is None else document(header)
        report = write_image(made, root or self.root, header=given, threads=1, durable=False, camera=known)
        return [file.path for file in report.files]

    def all_of(self, name: str = "MC_O_20261122_000123", **settings: Any) -> list[Path]:
        """All 205 CCDs."""
        return self.image(name, locations=list(find_camera("LSSTCam").boards), **settings)

    def guider(self, name: str = "MC_O_20261122_000123", stem: str = "R00_SG0", stamps: int = 3) -> Path:
        """A guider's file."""
        path = self.root / name.split("_")[2] / name / f"{name}_{stem}_guider.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        raft, slot = stem.split("_")
        primary = fits.PrimaryHDU()
        cards = {"OBSID": name, "RAFTBAY": raft, "CCDSLOT": slot, "INSTRUME": "lsstCam", "N_STAMPS": stamps}
        cards |= {"ROICOLS": 50, "ROIROWS": 40, "STAMPCLS": "lsst.meas.algorithms.Stamps"}
        primary.header.update(cards)
        images = [
            fits.ImageHDU(np.full((40, 50), number, np.int32), name="IMAGE", ver=number)
            for number in range(1, stamps + 1)
        ]
        for image in images:
            image.header["STMPTIME"] = f"2026-11-23T01:02:0{image.ver}.000"
        fits.HDUList([primary, *images]).writeto(path)
        return path


def forked(work: Callable[[], None]) -> int:
    """A process that does this and ends; its pid. It shares what is imported, which takes seconds anew."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def ended(pid: int, seconds: float = 60.0) -> int:
    """Waits for it; what it ended with, negative for a signal."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"process {pid} did not end within {seconds} s")
