"""What the tests of the endpoint share: raw files, a buffer, a storage, and endpoints of them."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftwright.backbone.receiving import Endpoint, Ingest, Register, Settings
from raftwright.camera import camera
from raftwright.daq import simulate_image
from raftwright.rawfile import write_image

__all__ = ["Stand", "fits", "raws", "wait_for"]

REGISTERS = [2, 0, 20, 0, 0, 5, 0, 16, 0, 2, 1]
IMAGE = "MN_O_20261122_000007"


def wait_for(what: Callable[[], Any], timeout: float = 10.0, said: Callable[[], Any] = str) -> Any:
    """The first true answer."""
    until = time.monotonic() + timeout
    while True:
        if answer := what():
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"waited {timeout} s in vain: {said()}")
        time.sleep(0.01)


def raws(image: str = IMAGE) -> dict[str, bytes]:
    """Raw files, sidecars and the manifest of a small image, by their names below the root."""
    return _raws(image)


@functools.cache
def _raws(image: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        camera_ = camera("MiniCam")
        write_image(
            simulate_image(camera_, image, seed=3, registers=REGISTERS), folder, camera=camera_, durable=False
        )
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def fits(image: str = IMAGE) -> tuple[str, bytes]:
    """One raw file: its name, and what is in it."""
    return next((name, data) for name, data in raws(image).items() if name.endswith(".fits"))


class Stand:
    """Directories of an endpoint, and endpoints of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer = path / "buffer"
        self.storage = path / "storage"
        self.staging = path / "staging"
        for each in (self.buffer, self.storage, self.staging):
            each.mkdir()
        self.started: list[Endpoint] = []

    def settings(self, *ingest: Ingest, **more: Any) -> Settings:
        values: dict[str, Any] = {"pause": 0.02, "settle": 0.1, **more}
        return Settings(buffer=str(self.buffer), storage=str(self.storage), ingest=list(ingest), **values)

    def start(self, *ingest: Ingest, lease: float = 10.0, **more: Any) -> Endpoint:
        made = Endpoint(self.settings(*ingest, **more), lease=lease)
        self.started.append(made)
        made.start()
        return made

    def hand_over(self, name: str, data: bytes) -> Path:
        """As the hand-off does it: written elsewhere, then renamed into the buffer."""
        there = self.buffer / name
        there.parent.mkdir(parents=True, exist_ok=True)
        made = self.staging / f"{time.monotonic_ns()}"
        made.write_bytes(data)
        made.rename(there)
        return there

    def register(self) -> Register:
        return Register(self.settings().register_path, self.storage)

    def stored(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.storage)): path.read_bytes()
            for path in sorted(self.storage.rglob("*"))
            if path.is_file() and ".endpoint" not in path.parts
        }

    def in_buffer(self) -> list[str]:
        return [
            os.path.relpath(os.path.join(directory, name), self.buffer)
            for directory, _, names in os.walk(self.buffer)  # which minds no directory that goes meanwhile
            for name in names
            if name != ".raftwright-storage"
        ]

    def close(self) -> None:
        for each in self.started:
            each.stop(5.0)
