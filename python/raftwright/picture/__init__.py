"""Pictures of CCDs, rafts and focal planes: mosaics scaled to a screen, framed, labelled, written as PNG.

Works on arrays alone; needs Pillow (the extra `show`) for the drawing only.
"""

from __future__ import annotations

from raftwright.picture.colors import COLOR_MAPS, color_table
from raftwright.picture.levels import overscan_levels
from raftwright.picture.page import Frame, Page, render_png
from raftwright.picture.scaling import SCALES, Limits, find_limits, to_bytes

__all__ = [
    "COLOR_MAPS",
    "SCALES",
    "Frame",
    "Limits",
    "Page",
    "color_table",
    "find_limits",
    "overscan_levels",
    "render_png",
    "to_bytes",
]
