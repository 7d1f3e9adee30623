"""The benchmark's data: one full science board of simulated sky, held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from raftwright import _core
from raftwright.camera import camera as find_camera
from raftwright.daq import MemoryImage, simulate_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raftwright.camera import Board, Camera

__all__ = ["BenchBoard", "full_board"]

_LINE_PIXELS = 16  # of a cache line


@dataclass(frozen=True)
class BenchBoard:
    """One board's stream and what is needed to work on it."""

    camera: Camera
    board: Board
    image: MemoryImage
    packed: bytes

    @property
    def width(self) -> int:
        return self.image.info.sources[0].registers.width

    @property
    def height(self) -> int:
        return self.image.info.sources[0].registers.height

    @property
    def pixels(self) -> int:
        return self.board.channels * self.width * self.height

    def padded_planes(self) -> NDArray[np.int32]:
        """An array (channels, samples) whose rows lie one cache line more than their size apart, touched."""
        samples = self.width * self.height
        pitch = samples + _LINE_PIXELS
        slab = np.zeros(self.board.channels * pitch + _LINE_PIXELS, np.int32)
        first = (-slab.ctypes.data // 4) % _LINE_PIXELS
        return slab[first : first + self.board.channels * pitch].reshape(-1, pitch)[:, :samples]

    @cached_property
    def planes(self) -> NDArray[np.int32]:
        """The pixels by the plainest decoder: shape (channels, height, width)."""
        flat = _core.unpack_reference(self.board.layout, self.packed)
        return flat.reshape(-1, self.height, self.width)


def full_board(camera: str = "LSSTCam", location: str = "22/0", seed: int = 1) -> BenchBoard:
    """A full board of simulated sky with realistic noise and stars."""
    found = find_camera(camera)
    board = found.board(location)
    simulated = simulate_image(found, f"{found.code}_S_20260101_000001", seed=seed, locations=[location])
    source = simulated.source(location)
    packed = source.read(0, source.info.bytes)
    return BenchBoard(found, board, MemoryImage(simulated.info, {location: packed}), packed)
