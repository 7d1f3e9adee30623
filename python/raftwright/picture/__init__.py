"""Pictures of CCDs, rafts and focal planes: mosaics scaled to a screen, framed, labelled, written as PNG.

Works on arrays alone; needs Pillow (the extra `show`) for the drawing only.
"""

from __future__ import annotations

from raftwright.picture.colors import COLOR_MAPS, color_table
from raftwright.picture.levels import overscan_levels
from raftwright.picture.page import Frame, Page, render_png
from raftwright.picture.scaling import SCALES, STRETCHES, Limits, find_limits, shade, to_bytes

__all__ = [
    "COLOR_MAPS",
    "SCALES",
    "STRETCHES",
    "Frame",
    "Limits",
    "Page",
    "color_table",
    "find_limits",
    "overscan_levels",
    "render_png",
    "shade",
    "to_bytes",
]
