"""A page: the mosaic with its title, frames, labels, colour bar, scale bar and arrows, as PNG bytes.

Screen coordinates run down from the top left; the mosaic's rows run up. Sizes are in screen pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from raftwright.errors import MissingExtraError
from raftwright.picture.colors import color_table
from raftwright.picture.scaling import Limits, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Frame", "Page", "render_png"]

MISSING_COLOR: Final = (196, 40, 72)
GAP_COLOR: Final = (30, 35, 43)

_MARGIN: Final = 16


class Frame(NamedTuple):
    """A rectangle of the mosaic, in binned pixels from its lower left corner, with what to call it: `labels`
    are tried one after the other until one fits."""

    x: float
    y: float
    width: float
    height: float
    labels: tuple[str, ...]
    kind: Literal["raft", "ccd", "amplifier"] = "ccd"


@dataclass(frozen=True)
class Page:
    """What is drawn."""

    pixels: NDArray[Any]
    """(height, width) numbers, row 0 at the bottom."""
    drawn: NDArray[np.bool_]
    """Of the same shape: False where no detector lies."""
    missing: NDArray[np.bool_]
    """Of the same shape: True where a detector lies but no pixel arrived."""
    limits: Limits
    title: str
    stretch: str = "linear"
    notes: Sequence[str] = ()
    """Remarks under the title, as short phrases."""
    unit: str = "adu"
    axes: tuple[str, str] = ("x", "y")
    """Names of the directions to the right and up."""
    frames: Sequence[Frame] = ()
    mm_per_pixel: float | None = None
    """For the scale bar; None draws none."""
    zoom: int = 1
    """Screen pixels a mosaic pixel."""
    color_map: str = "gray"


def render_png(page: Page) -> bytes:
    """The page as the content of a PNG file.

    Raises MissingExtraError when Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw

        from raftwright.picture import drawing
    except ImportError:
        raise MissingExtraError(
            "pictures need Pillow, which is not installed: pip install 'raftwright[show]'"
        ) from None
    table = color_table(page.color_map)
    mosaic = Image.fromarray(_colored(page, table))
    width, height = mosaic.size
    title, text, small = drawing.font(18), drawing.font(13), drawing.font(12)
    marks = drawing.ticks(page.limits.low, page.limits.high, 6)
    side = drawing.bar_width(small, marks, page.unit)
    inner = max(width + _MARGIN + side, drawing.extent(title, page.title)[0], 300)
    lines = drawing.wrapped(page.notes, text, inner)
    head = _MARGIN + 28 + 18 * len(lines) + 6
    paper = Image.new("RGB", (inner + 2 * _MARGIN, head + height + drawing.FOOT), drawing.PAPER)
    draw = ImageDraw.Draw(paper, "RGBA")  # so that colours may be translucent
    draw.text((_MARGIN, _MARGIN - 4), page.title, fill=drawing.INK, font=title)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 24 + 18 * number), line, fill=drawing.FAINT, font=text)
    paper.paste(mosaic, (_MARGIN, head))
    drawing.draw_frames(draw, page, _MARGIN, head)
    drawing.draw_bar(paper, draw, table, (_MARGIN * 2 + width, head), height, page, marks, small)
    drawing.draw_foot(draw, page, _MARGIN, head + height, inner, text, has_missing=bool(page.missing.any()))
    stream = io.BytesIO()
    paper.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def _colored(page: Page, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width, 3) of the screen, row 0 at the top."""
    colors = table[to_bytes(page.pixels, page.limits, page.stretch)]
    colors[page.missing] = MISSING_COLOR
    colors[~page.drawn] = GAP_COLOR
    colors = colors[::-1]
    if page.zoom > 1:
        colors = np.repeat(np.repeat(colors, page.zoom, axis=0), page.zoom, axis=1)
    return np.ascontiguousarray(colors)
