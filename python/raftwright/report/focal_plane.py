"""A focal plane in text: one character a detector, as the camera looks at the sky, x to the right, y up.

Names alone say where a detector stands, so that no camera has to be loaded: `R22_S11` is raft 2, 2 (row,
column) and in it 1, 1. Guiders and wavefront sensors of a corner raft stand as in the camera, R00 turned by
90 degrees for each corner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["draw_plane"]

_NAME = re.compile(r"R([0-9X])([0-9X])_S([0-9GW])([0-9])\Z")
_CORNER: Final = {"G0": (1, 0), "G1": (0, 1), "W0": (1, 1), "W1": (0, 0)}  # (x, y) from the centre, of R00
_TURNS: Final = {"00": 0, "04": 1, "44": 2, "40": 3}


def _cell(name: str) -> tuple[str, int, int] | None:
    """Raft, and column and row in it."""
    match = _NAME.match(name)
    if match is None:
        return None
    raft = match[1] + match[2]
    if match[3] in "GW":
        x, y = _CORNER.get(match[3] + match[4], (0, 0))
        for _ in range(_TURNS.get(raft, 0)):
            x, y = -y, x
        return raft, 1 + x, 1 + y
    return raft, int(match[4]), int(match[3])


def draw_plane(marks: Mapping[str, str]) -> list[str]:
    """Lines of a map of detectors, each with its mark (one character). Those whose names say no place are
    listed below it."""
    cells: dict[str, dict[tuple[int, int], str]] = {}
    others = []
    for name, mark in marks.items():
        cell = _cell(name)
        if cell is None or not (0 <= cell[1] < 3 and 0 <= cell[2] < 3):
            others.append(f"{name} {mark}")
        else:
            cells.setdefault(cell[0], {})[cell[1], cell[2]] = mark
    grid = {raft: spots for raft, spots in cells.items() if raft.isdigit()}
    lines = []
    if len(grid) == 1 and len(cells) == 1:
        ((raft, spots),) = grid.items()
        rows = _rows(spots)
        lines = [(f"R{raft}  {row}" if n == 1 else f"     {row}").rstrip() for n, row in enumerate(rows)]
    else:
        up = sorted({int(raft[0]) for raft in grid}, reverse=True)
        columns = sorted({int(raft[1]) for raft in grid})
        for row in up:
            parts = [_rows(grid.get(f"{row}{column}", {})) for column in columns]
            lines += ["  ".join(part[n] for part in parts).rstrip() for n in range(3)]
            lines.append("")
        lines = lines[:-1]
        others += [
            f"R{raft}_{x}{y} {mark}"
            for raft, spots in cells.items()
            if raft not in grid
            for (x, y), mark in spots.items()
        ]
    return lines + others


def _rows(spots: Mapping[tuple[int, int], str]) -> list[str]:
    return [" ".join(spots.get((x, y), " ") for x in range(3)) for y in (2, 1, 0)]
