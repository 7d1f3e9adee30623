"""Small images for the tests of the stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftwright.camera import Camera, camera
from raftwright.daq import SimulatedImage, simulate_image, write_recording

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
"""28 x 16 pixels a segment."""


@pytest.fixture(scope="session")
def comcam() -> Camera:
    return camera("LSSTComCam")


@pytest.fixture
def image(comcam: Camera) -> SimulatedImage:
    """A small exposure of one raft: three science sources of 48384 bytes."""
    return simulate_image(comcam, "CC_O_20261122_000001", seed=5, registers=SMALL)


@pytest.fixture
def recording(image: SimulatedImage, tmp_path: Path) -> Path:
    """The same as a recording in a directory of its own, named as in a store."""
    return write_recording(tmp_path / "store" / image.info.name, image, durable=False).path
