"""Colour maps as tables of 256 colours, interpolated between a few anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from raftwright.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COLOR_MAPS", "color_table"]

_ANCHORS: Final[dict[str, tuple[str, ...]]] = {
    "gray": ("000000", "ffffff"),
    "inverted": ("ffffff", "000000"),
    # Lightness rises evenly from end to end in both of these, so that they also print in grey.
    "blue": ("05060f", "0f1c4a", "1c3f86", "2f6fb4", "58a2cf", "96cfe0", "d3eeee", "ffffff"),
    "heat": ("000004", "280b54", "65156e", "9f2a63", "d44842", "f57d15", "fac127", "fcffa4"),
}

COLOR_MAPS: Final = tuple(_ANCHORS)
"""Names of the colour maps; the first is the default."""


def color_table(name: str) -> NDArray[np.uint8]:
    """The (256, 3) uint8 table (red, green, blue) of a colour map. Raises UsageError."""
    anchors = _ANCHORS.get(name)
    if anchors is None:
        raise UsageError(f"there is no colour map {name[:40]!r}; there are {', '.join(COLOR_MAPS)}")
    colors = np.array([[int(a[i : i + 2], 16) for i in (0, 2, 4)] for a in anchors], dtype=np.float64)
    places = np.linspace(0.0, 1.0, len(anchors))
    wanted = np.linspace(0.0, 1.0, 256)
    table = np.stack([np.interp(wanted, places, colors[:, c]) for c in range(3)], axis=1)
    return np.rint(table).astype(np.uint8)
