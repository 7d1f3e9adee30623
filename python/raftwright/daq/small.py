"""Readouts of fewer pixels than a camera has, for demonstrations and tests."""

from __future__ import annotations

import re
from typing import Final

from raftwright.camera import Camera, Geometry
from raftwright.daq.registers import Registers
from raftwright.errors import FormatError, UsageError

__all__ = ["small_registers"]

_SIZE: Final = re.compile(r"([0-9]{1,5})[x×]([0-9]{1,5})\Z")
_SMALL_OVERSCAN: Final = 16


def small_registers(text: str, camera: Camera, place: str = "--size") -> Registers:
    """Registers that read out COLSxROWS pixels, prescan as the camera has it, little overscan.

    Raises UsageError, which begins with `place`.
    """
    match = _SIZE.match(text)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(sides) < 1:
        raise UsageError(
            f"{place} {text[:40]!r} is no size; give light-sensitive columns and rows, such as 64x256"
        )
    nominal = camera.detectors[0].type.geometry
    geometry = Geometry(
        prescan=nominal.prescan,
        columns=sides[0],
        overscan=min(nominal.overscan, _SMALL_OVERSCAN),
        rows=sides[1],
        parallel_overscan=min(nominal.parallel_overscan, _SMALL_OVERSCAN),
    )
    try:
        return Registers.of_geometry(geometry)
    except FormatError as error:
        raise UsageError(f"{place} {text[:40]}: {error}") from None
