"""Cameras, and the reference data beside the repository where it is present."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from raftwright.camera import Camera, camera


@pytest.fixture(scope="session")
def shared_data(require_shared: Callable[..., Path]) -> Path:
    """The folder of reference data."""
    return require_shared("data")


@pytest.fixture(scope="session")
def detector_rows(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "detectors.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def amp_rows(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "amps.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def lsstcam() -> Camera:
    return camera("LSSTCam")


@pytest.fixture(scope="session")
def minicam() -> Camera:
    return camera("MiniCam")
