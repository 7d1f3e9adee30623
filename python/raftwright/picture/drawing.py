"""The parts of a page around the pixels, drawn with Pillow."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from raftwright.picture.page import MISSING_COLOR, Frame, Page
from raftwright.picture.scaling import shade

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FAINT",
    "FOOT",
    "INK",
    "PAPER",
    "bar_width",
    "draw_bar",
    "draw_foot",
    "draw_frames",
    "extent",
    "font",
    "ticks",
    "wrapped",
]

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Tick = tuple[float, str]

PAPER: Final[Color] = (16, 19, 24)
INK: Final[Color] = (235, 238, 242)
FAINT: Final[Color] = (158, 166, 178)
FOOT: Final = 76
"""Height of what stands under the mosaic."""

_BLACK: Final[Color] = (0, 0, 0)
_LINES: Final[dict[str, Color]] = {
    "raft": (232, 186, 76),
    "ccd": (92, 156, 220),
    "amplifier": (104, 176, 130),
}
_STRENGTH: Final = {"raft": 255, "ccd": 210, "amplifier": 110}
"""Of 255; weaker lines let the pixels under them through."""
_BAR: Final = 18
_ARROW: Final = 34
_SIZES: Final = {"raft": (22, 16, 13), "ccd": (18, 15, 13, 11, 9), "amplifier": (13, 11, 9)}


@functools.cache
def font(size: int) -> Font:
    """Pillow's own font, so that a picture looks the same everywhere."""
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def extent(face: Font, text: str) -> tuple[int, int]:
    """Width and height of a text."""
    left, top, right, bottom = face.getbbox(text or " ")
    return math.ceil(right - min(0.0, left)), math.ceil(bottom - min(0.0, top))


def wrapped(phrases: Sequence[str], face: Font, width: int) -> list[str]:
    """Phrases joined into lines, none wider than `width` if it can be helped."""
    lines: list[str] = []
    for phrase in phrases:
        joined = f"{lines[-1]}  ·  {phrase}" if lines else phrase
        if lines and extent(face, joined)[0] <= width:
            lines[-1] = joined
        else:
            lines.append(phrase)
    return lines


def _round_step(least: float) -> float:
    """The smallest of .. 0.5, 1, 2, 5, 10, 20 .. that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-300)))
    return next((power * f for f in (1.0, 2.0, 5.0) if power * f >= least * 0.999999), power * 10.0)


def ticks(low: float, high: float, most: int) -> list[Tick]:
    """Round values between two limits and their texts; at least one."""
    step = _round_step((high - low) / most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value + 0.0:.{digits}f}") for value in values] or [(low, f"{low:g}")]


def bar_width(face: Font, marks: Sequence[Tick], unit: str) -> int:
    """Width of the colour bar with its numbers."""
    return _BAR + 10 + max(extent(face, text)[0] for text in (unit, *(text for _, text in marks)))


def draw_bar(
    paper: Image.Image,
    draw: ImageDraw.ImageDraw,
    table: NDArray[np.uint8],
    corner: tuple[int, int],
    height: int,
    page: Page,
    marks: Sequence[Tick],
    face: Font,
) -> None:
    """The colour bar: the upper limit at the top, the unit over it."""
    low, high = page.limits
    left, top = corner
    top += 18
    height = max(24, min(height - 18, 520))
    shades = np.linspace(255, 0, height).astype(np.uint8)
    column = np.repeat(table[shades][:, np.newaxis, :], _BAR, axis=1)
    paper.paste(Image.fromarray(np.ascontiguousarray(column)), (left, top))
    draw.rectangle((left - 1, top - 1, left + _BAR, top + height), outline=FAINT)
    draw.text((left, top - 20), page.unit, fill=FAINT, font=face)
    free_below = float("inf")  # numbers that would touch the one above are left out
    for value, text in sorted(marks, reverse=True):
        way = np.array([(value - low) / (high - low)], dtype=np.float32)
        y = top + (1.0 - float(shade(way, page.stretch)[0])) * (height - 1)
        if top + height - y < free_below:
            draw.line((left + _BAR, y, left + _BAR + 4, y), fill=FAINT)
            draw.text((left + _BAR + 8, y), text, fill=FAINT, font=face, anchor="lm")
            free_below = top + height - y - 14


def draw_frames(draw: ImageDraw.ImageDraw, page: Page, left: int, top: int) -> None:
    """Frames first, then labels, so that no line crosses a label. Rafts come last and lie on top."""
    bottom = top + page.pixels.shape[0] * page.zoom
    order = ("amplifier", "ccd", "raft")
    frames = sorted(page.frames, key=lambda frame: order.index(frame.kind))
    boxes = [(frame, _box(frame, page.zoom, left, bottom)) for frame in frames]
    for frame, box in boxes:
        width = 2 if frame.kind == "raft" else 1
        if box[2] - box[0] >= 6 and box[3] - box[1] >= 6:
            draw.rectangle(box, outline=(*_LINES[frame.kind], _STRENGTH[frame.kind]), width=width)
    for frame, box in boxes:
        _label(draw, frame, box)


def _box(frame: Frame, zoom: int, left: int, bottom: int) -> tuple[float, float, float, float]:
    x0, x1 = left + frame.x * zoom, left + (frame.x + frame.width) * zoom
    y0, y1 = bottom - (frame.y + frame.height) * zoom, bottom - frame.y * zoom
    return round(x0), round(y0), max(round(x0), round(x1)), max(round(y0), round(y1))


def _label(draw: ImageDraw.ImageDraw, frame: Frame, box: tuple[float, float, float, float]) -> None:
    """The first label that fits into its frame in the largest letters that do; none if none fits."""
    room_x, room_y = box[2] - box[0] - 6, box[3] - box[1] - 4
    if frame.kind == "ccd" and room_x < 150:  # a small CCD keeps most of itself uncovered
        room_x = max(room_x * 0.4, min(room_x, 22))
    for text in frame.labels:
        for size in _SIZES[frame.kind]:
            face = font(size)
            width, height = extent(face, text)
            if width <= room_x and height <= room_y:
                if frame.kind == "ccd":  # out of the way of what is to be seen
                    place, anchor = (box[0] + 5, box[1] + 3), "la"
                else:
                    place, anchor = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "mm"
                ink = INK if frame.kind == "amplifier" else _LINES[frame.kind]
                draw.text(
                    place,
                    text,
                    fill=_lighter(ink),
                    font=face,
                    anchor=anchor,
                    stroke_width=2,
                    stroke_fill=_BLACK,
                )
                return


def _lighter(color: Color) -> Color:
    return (color[0] + 255) // 2, (color[1] + 255) // 2, (color[2] + 255) // 2


def draw_foot(
    draw: ImageDraw.ImageDraw, page: Page, left: int, top: int, width: int, face: Font, *, has_missing: bool
) -> None:
    """Arrows along the axes, the scale bar, and what the colour of missing pixels means."""
    x: float = left + 4
    y = top + FOOT - 14
    for dx, dy, text in ((_ARROW, 0, page.axes[0]), (0, -_ARROW, page.axes[1])):
        tip = (x + dx, y + dy)
        draw.line((x, y, *tip), fill=INK, width=2)
        across, along = (4 if dy else 0, 4 if dx else 0), (9 if dx else 0, -9 if dy else 0)
        draw.polygon(
            [
                (tip[0] + along[0] * 0.6, tip[1] + along[1] * 0.6),
                (tip[0] - along[0] * 0.4 + across[0], tip[1] - along[1] * 0.4 + across[1]),
                (tip[0] - along[0] * 0.4 - across[0], tip[1] - along[1] * 0.4 - across[1]),
            ],
            fill=INK,
        )
        place, anchor = ((tip[0] + 10, tip[1]), "lm") if dx else ((tip[0] + 8, tip[1] - 2), "lm")
        draw.text(place, text, fill=INK, font=face, anchor=anchor)
    x = left + 4 + _ARROW + 16 + max(extent(face, text)[0] for text in page.axes) + 24
    if page.mm_per_pixel is not None:
        x = _scale_bar(draw, page.mm_per_pixel / page.zoom, x, y, left + width - x, face)
    if has_missing:
        draw.rectangle((x, y - 6, x + 12, y + 6), fill=MISSING_COLOR)
        draw.text((x + 20, y), "missing", fill=INK, font=face, anchor="lm")


def _scale_bar(
    draw: ImageDraw.ImageDraw, mm_a_pixel: float, x: float, y: float, room: float, face: Font
) -> float:
    """A bar of a round length in millimetres; returns where the next thing may stand."""
    length = _round_step(90.0 * mm_a_pixel)
    text = f"{length:g} mm"
    pixels = length / mm_a_pixel
    if pixels + 30 + extent(face, text)[0] > room:
        return x
    draw.line((x, y, x + pixels, y), fill=INK, width=2)
    for end in (x, x + pixels):
        draw.line((end, y - 4, end, y + 4), fill=INK, width=2)
    draw.text((x + pixels + 10, y), text, fill=INK, font=face, anchor="lm")
    return x + pixels + 10 + extent(face, text)[0] + 28
