"""What the tests of catching up share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import raftwright
from hand_daq import HandImage
from raftwright.catchup import CatchUp
from raftwright.stream.server import Server

CHUNK = 28 * 108
"""Bytes of a row."""

Serve = Callable[..., Server]
CatchingUp = Callable[..., CatchUp]


def wait_for(what: Callable[[], Any], timeout: float = 15.0) -> Any:
    until = time.monotonic() + timeout
    while not (answer := what()):
        assert time.monotonic() < until, f"waited {timeout} s in vain"
        time.sleep(0.02)
    return answer


def fits_in(out: Path) -> set[str]:
    """Names of the raw files of an archive."""
    return {path.name for path in out.rglob("*.fits")}


def path_of(out: Path, image: HandImage, detector: str) -> Path:
    name = image.base.name
    return out / "20261122" / name / f"{name}_{detector}.fits"


def is_right(image: HandImage, path: Path, detector: str) -> bool:
    """Whether the file of a CCD has the DAQ's pixels."""
    truth = raftwright.assemble(image.simulated, threads=1)[detector]
    raw = raftwright.open_raw(path, threads=1)
    return all((raw.segments[name] == truth.segments[name]).all() for name in raw.segments)
