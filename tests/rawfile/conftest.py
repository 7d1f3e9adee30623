"""Images of every kind of board, small and quick, and the judges of FITS files."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from astropy.io import fits

from raftwright.camera import Camera
from raftwright.camera import camera as find_camera
from raftwright.daq import DaqImage, MemoryImage, simulate_image

# A verifier's remark on a value that is undefined, which is what null and NaN of a header document become.
NULL = "has a null value."


@dataclass(frozen=True)
class Kind:
    """A kind of board, with registers of a small readout."""

    id: str
    camera: str
    location: str
    name: str
    registers: tuple[int, ...]
    files: tuple[str, ...]
    segments: int = 16

    @property
    def width(self) -> int:
        return self.registers[0] + self.registers[2] + self.registers[5]

    @property
    def height(self) -> int:
        return self.registers[7] + self.registers[9]


ITL = (3, 0, 50, 0, 0, 11, 0, 30, 0, 5, 1)
E2V = (10, 0, 52, 0, 0, 4, 0, 31, 0, 3, 2)
KINDS = (
    Kind("science-E2V", "LSSTCam", "22/0", "MC_O_20261122_000001", E2V, ("R22_S00", "R22_S01", "R22_S02")),
    Kind("science-ITL", "LSSTCam", "01/2", "MC_O_20261122_000002", ITL, ("R01_S20", "R01_S21", "R01_S22")),
    Kind("guider", "LSSTCam", "40/1", "MC_O_20261122_000003", ITL, ("R40_SG0", "R40_SG1")),
    Kind("wavefront", "LSSTCam", "44/0", "MC_O_20261122_000004", ITL, ("R44_SW0", "R44_SW1"), 8),
    Kind("AuxTel", "LATISS", "00/0", "AT_O_20261122_000005", ITL, ("R00_S00",)),
    Kind("ComCam", "LSSTComCam", "22/1", "CC_O_20261122_000006", ITL, ("R22_S10", "R22_S11", "R22_S12")),
    Kind("MiniCam", "MiniCam", "", "MN_O_20261122_000007", (2, 0, 20, 0, 0, 5, 0, 16, 0, 2, 1), ()),
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.id)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of board in turn."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def science() -> Kind:
    """One science board."""
    return KINDS[0]


def simulated(kind: Kind, **changes: object) -> DaqImage:
    camera = find_camera(kind.camera)
    location = kind.location or next(iter(camera.boards))
    settings = {"locations": [location], "registers": kind.registers, "seed": 7, **changes}
    return simulate_image(camera, kind.name, **settings)  # type: ignore[arg-type]


@pytest.fixture
def image() -> Callable[..., DaqImage]:
    """Function from a kind to a small simulated image of it."""
    return simulated


@pytest.fixture
def with_gaps() -> Callable[[DaqImage, list[tuple[int, int]]], DaqImage]:
    """Function that takes byte ranges out of the only source of an image."""

    def take_out(image: DaqImage, gaps: list[tuple[int, int]]) -> DaqImage:
        source = image.info.sources[0]
        stream = bytearray(image.source(source.location).read(0, source.bytes))
        for begin, end in gaps:
            stream[begin:end] = b"\xa5" * (end - begin)
        changed = msgspec.structs.replace(source, gaps=tuple(gaps), crc32c=None)
        info = msgspec.structs.replace(image.info, sources=(changed,))
        return MemoryImage(info, {source.location: bytes(stream)})

    return take_out


@pytest.fixture
def camera_of() -> Callable[[Kind], Camera]:
    """Function from a kind to its camera."""
    return lambda kind: find_camera(kind.camera)


@pytest.fixture
def fitsverify(require_tool: Callable[[str], str]) -> Callable[[Path], list[str]]:
    """Function from a file to everything that fitsverify has to say against it."""
    program = require_tool("fitsverify")

    def judge(path: Path) -> list[str]:
        done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
        text = done.stdout + done.stderr
        assert "Verification found" in text or "verification" in text.lower(), text
        return [
            line.strip()
            for line in text.splitlines()
            if line.startswith("***") and "Verification found" not in line
        ]

    return judge


@pytest.fixture
def astropy_accepts() -> Callable[[Path], None]:
    """Function that reads a file whole with astropy, checksums and all, and fails on any warning."""

    def judge(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(path, checksum=True) as file:
                file.verify("exception")
                for hdu in file:
                    assert hdu.data is None or hdu.data.size >= 0

    return judge
