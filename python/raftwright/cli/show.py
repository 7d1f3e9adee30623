"""`raftwright show`: a picture of a CCD, a raft or the focal plane."""

from __future__ import annotations

import math
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raftwright.cli.console import clean, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds, size
from raftwright.cli.inputs import Exposure, open_exposure
from raftwright.cli.mosaic import extent_name, file_stem
from raftwright.cli.options import (
    CameraOption,
    DetectorsOption,
    ElectronsOption,
    ImageOption,
    JsonOption,
    OverwriteOption,
    RaftsOption,
    SalvageOption,
    ThreadsOption,
    names,
)
from raftwright.cli.places import publish_file
from raftwright.cli.progress import progress
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from raftwright.picture import Frame, Limits, Page
    from raftwright.picture.canvas import Canvas

__all__ = ["ColorMap", "Scale", "Stretch", "show"]

_ZOOM_TO = 720
"""Small images are enlarged by whole numbers to about this many screen pixels."""


class Scale(StrEnum):
    """How black and white are found."""

    ZSCALE = "zscale"
    PERCENTILE = "percentile"
    MINMAX = "minmax"


class Stretch(StrEnum):
    """How values between the limits become shades."""

    LINEAR = "linear"
    ASINH = "asinh"


class ColorMap(StrEnum):
    """Colours from low to high values."""

    GRAY = "gray"
    INVERTED = "inverted"
    BLUE = "blue"
    HEAT = "heat"


def show(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Raw files of one image, a directory of them, or a recording."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="[default: <image>_<raft|focal_plane>.png here]",
            show_default=False,
        ),
    ] = None,
    rafts: RaftsOption = None,
    detectors: DetectorsOption = None,
    side: Annotated[
        int, typer.Option("--size", min=64, max=20000, help="Longest side of the mosaic, in screen pixels.")
    ] = 1200,
    scale: Annotated[Scale, typer.Option("--scale", help="How the limits are found.")] = Scale.ZSCALE,
    limits: Annotated[
        str | None,
        typer.Option(
            "--limits", metavar="LOW,HIGH", help="Limits instead, in adu or electrons.", show_default=False
        ),
    ] = None,
    stretch: Annotated[
        Stretch, typer.Option("--stretch", help="The way between the limits.")
    ] = Stretch.LINEAR,
    color_map: Annotated[ColorMap, typer.Option("--colors", help="Colour map.")] = ColorMap.GRAY,
    raw: Annotated[bool, typer.Option("--raw", help="Leave each amplifier's bias in.")] = False,
    electrons: ElectronsOption = False,
    overscan: Annotated[bool, typer.Option("--overscan", help="With prescan and overscan.")] = False,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Frames and names of detectors.")
    ] = True,
    image: ImageOption = None,
    salvage: SalvageOption = False,
    camera: CameraOption = None,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Draw a PNG of a CCD, a raft or the focal plane, with names, amplifiers, a colour bar and directions.

    The bias of every amplifier is subtracted first, as its overscan shows it; --raw leaves it in.
    """
    from raftwright.picture import render_png
    from raftwright.picture.canvas import Canvas, lay_out

    del json
    console.command = "show"
    begun = time.monotonic()
    wanted = None if limits is None else _limits(limits)
    if raw and electrons:
        raise UsageError("--raw and --electrons exclude each other; give one of them")
    _check_pillow()
    exposure = open_exposure(
        paths,
        camera=camera,
        image=image,
        rafts=names(rafts),
        detectors=names(detectors),
        threads=threads,
        salvage=salvage,
    )
    target = out or Path(f"{file_stem(exposure)}.png")
    longest = max(lay_out(exposure.ccds, overscan=overscan).shape)
    factor = max(1, math.ceil(longest / side))
    canvas = Canvas(exposure.ccds, bin=factor, overscan=overscan, debias=not raw, electrons=electrons)
    with progress(f"drawing {exposure.name}") as advance:
        exposure.each(canvas.put, threads=threads, progress=advance)
    page = _page(
        exposure, canvas, scale.value, stretch.value, wanted, color_map.value, labels=labels, side=side
    )
    data = render_png(page)
    result = publish_file(lambda path: _publish(path, data), target, overwrite=overwrite)
    taken = time.monotonic() - begun
    ccds = count(len(exposure.ccds), "CCD")
    console.say(
        f"{exposure.name} of {exposure.camera.name}: {extent_name(exposure)}, {ccds}",
        f"  {result['status']}: {result['path']}, {size(len(data))}",
        f"  {page.pixels.shape[1]} x {page.pixels.shape[0]} pixels, {factor} x {factor} binned, from "
        f"{page.limits.low:.6g} to {page.limits.high:.6g} {page.unit}, {seconds(taken)}",
    )
    if canvas.missing:
        console.say(f"  {count(canvas.missing, 'pixel')} of the CCDs are missing")
    console.answer(
        "ok",
        Exit.OK,
        {
            **{key: value for key, value in result.items() if key != "status"},
            "file_status": result["status"],
            "image": exposure.name,
            "camera": exposure.camera.name,
            "detectors": [detector.name for detector, _ in exposure.ccds],
            "bin": factor,
            "limits": list(page.limits),
            "unit": page.unit,
            "missing_pixels": canvas.missing,
            "seconds": taken,
        },
    )


def _check_pillow() -> None:
    """Says at once, not after a minute of work, that Pillow is not there."""
    from importlib.util import find_spec

    from raftwright.errors import MissingExtraError

    if find_spec("PIL") is None:
        raise MissingExtraError(
            "pictures need Pillow, which is not installed: pip install 'raftwright[show]'"
        )


def _publish(path: str, data: bytes) -> dict[str, object]:
    from raftwright._core import publish_bytes

    return dict(publish_bytes(path, data, False))


def _limits(text: str) -> Limits:
    from raftwright.picture import Limits

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"--limits {text[:40]!r} is no pair of numbers; give the lower and the higher, such as 0,500"
        )
    return Limits(low, high)


def _page(
    exposure: Exposure,
    canvas: Canvas,
    scale: str,
    stretch: str,
    wanted: Limits | None,
    color_map: str,
    *,
    labels: bool,
    side: int,
) -> Page:
    from raftwright.picture import Page, find_limits
    from raftwright.picture.canvas import EMPTY

    single = len(exposure.ccds) == 1
    drawn = canvas.drawn()
    missing = drawn & (canvas.pixels == EMPTY)
    limits = wanted or find_limits(canvas.pixels[drawn & ~missing], scale)
    height, width = canvas.pixels.shape
    zoom = max(1, min(side, _ZOOM_TO) // max(height, width))
    notes = [_described(exposure)]
    if canvas.bin > 1:
        notes.append(f"{canvas.bin} x {canvas.bin} binned")
    notes.append("bias subtracted" if canvas.debias else "bias left in")
    if canvas.electrons:
        notes.append("nominal gains")
    if canvas.overscan:
        notes.append("with overscan")
    notes.append("limits given" if wanted else scale)
    if stretch != "linear":
        notes.append(stretch)
    if canvas.missing:
        notes.append(f"{count(canvas.missing, 'pixel')} missing")
    wcs = canvas.layout.wcs.binned(canvas.bin)
    return Page(
        pixels=canvas.pixels,
        drawn=drawn,
        missing=missing,
        limits=limits,
        title=f"{clean(exposure.name, 60)}   {extent_name(exposure).replace('focal_plane', 'focal plane')}",
        notes=notes,
        unit="electrons" if canvas.electrons else "adu",
        axes=("x of the CCD", "y of the CCD") if single else ("x of the focal plane", "y of the focal plane"),
        frames=_frames(exposure, canvas) if labels else (),
        mm_per_pixel=wcs.cdelt[0] if canvas.layout.true_scale else None,
        zoom=zoom,
        color_map=color_map,
        stretch=stretch,
    )


def _described(exposure: Exposure) -> str:
    """`LSSTCam, 9 CCDs (E2V)`."""
    vendors = sorted({detector.type.vendor for detector, _ in exposure.ccds})
    kinds = f"{'/'.join(vendors)}"
    if len(exposure.ccds) == 1:
        detector = exposure.ccds[0][0]
        return f"{exposure.camera.name} detector {detector.id}, {detector.type.name} {detector.serial}"
    return f"{exposure.camera.name}, {len(exposure.ccds)} CCDs ({kinds})"


def _frames(exposure: Exposure, canvas: Canvas) -> list[Frame]:
    """Amplifiers where there is room for them, CCDs, and rafts where there are several."""
    from raftwright.picture import Frame

    frames: list[Frame] = []
    several = len({detector.raft for detector, _ in exposure.ccds}) > 1
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for part in canvas.layout.parts:
        detector = part.detector
        x0, y0, x1, y1 = canvas.box(part)
        boxes.setdefault(detector.raft, []).append((x0, y0, x1, y1))
        longest = max(canvas.pixels.shape)
        if (x1 - x0) * 4 > longest:  # at most about three CCDs side by side
            for place in part.placements:
                turned = place.quarter_turns % 2
                width, height = (place.ny, place.nx) if turned else (place.nx, place.ny)
                amp = detector.segments[place.segment].amp
                labelled = (amp,) if len(exposure.ccds) == 1 else ()
                frames.append(
                    Frame(
                        place.out_x / canvas.bin,
                        place.out_y / canvas.bin,
                        width / canvas.bin,
                        height / canvas.bin,
                        labelled,
                        "amplifier",
                    )
                )
        if len(exposure.ccds) > 1:
            text = (detector.slot,) if several else (detector.name, detector.slot)
            frames.append(Frame(x0, y0, x1 - x0, y1 - y0, text, "ccd"))
    if several:
        for raft, places in boxes.items():
            x0, y0 = min(box[0] for box in places), min(box[1] for box in places)
            x1, y1 = max(box[2] for box in places), max(box[3] for box in places)
            frames.append(Frame(x0, y0, x1 - x0, y1 - y0, (raft,), "raft"))
    return frames
