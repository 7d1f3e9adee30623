"""`raftwright mosaic`: a CCD, a raft or the focal plane as one FITS image."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, pixels, seconds, size
from raftwright.cli.inputs import Exposure, open_exposure
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

if TYPE_CHECKING:
    from raftwright.picture.canvas import Canvas
    from raftwright.rawfile.cards import Card

__all__ = ["extent_name", "file_stem", "mosaic"]

_BLANK = -1


def mosaic(
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
            metavar="FILE.fits",
            help="[default: <image>_<raft|focal_plane>.fits here]",
            show_default=False,
        ),
    ] = None,
    bin: Annotated[
        int | None,
        typer.Option(
            "--bin",
            metavar="N",
            min=1,
            max=4096,
            help="N x N pixels become one, their mean.  [default: 8, a CCD 1]",
            show_default=False,
        ),
    ] = None,
    overscan: Annotated[bool, typer.Option("--overscan", help="With prescan and overscan.")] = False,
    debias: Annotated[
        bool, typer.Option("--debias", help="Subtract each segment's bias, from its overscan.")
    ] = False,
    electrons: ElectronsOption = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write an uncompressed image, in the primary HDU.")
    ] = False,
    rafts: RaftsOption = None,
    detectors: DetectorsOption = None,
    image: ImageOption = None,
    salvage: SalvageOption = False,
    camera: CameraOption = None,
    threads: ThreadsOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a mosaic: CCDs at their true places with the gaps between them, x to the right and y up.

    Its coordinates (WCS) are millimetres in the focal plane. Gaps and missing pixels are undefined (BLANK).
    One CCD alone is laid out along its own axes.
    """
    from raftwright.picture.canvas import Canvas

    del json
    console.command = "mosaic"
    begun = time.monotonic()
    exposure = open_exposure(
        paths,
        camera=camera,
        image=image,
        rafts=names(rafts),
        detectors=names(detectors),
        threads=threads,
        salvage=salvage,
    )
    factor = bin or (1 if len(exposure.ccds) == 1 else 8)
    canvas = Canvas(exposure.ccds, bin=factor, overscan=overscan, debias=debias, electrons=electrons)
    target = out or Path(f"{file_stem(exposure)}.fits")
    with progress(f"painting {exposure.name}") as advance:
        exposure.each(canvas.put, threads=threads, progress=advance)
    result = _write(canvas, exposure, target, plain=plain, overwrite=overwrite)
    height, width = canvas.pixels.shape
    binned = f" ({factor} x {factor} binned)" if factor > 1 else ""
    console.say(
        f"{exposure.name} of {exposure.camera.name}: {count(len(exposure.ccds), 'CCD')}, {width} x {height} "
        f"pixels{binned}, {size(result['bytes'])}",
        f"  {result['status']}: {result['path']}",
        f"  {pixels(canvas.pixels.size)} in {seconds(time.monotonic() - begun)}",
    )
    if canvas.missing:
        console.say(f"  {count(canvas.missing, 'pixel')} of the CCDs are missing")
    if not canvas.layout.true_scale:
        why = "with overscan" if overscan else "for a readout of another size than the CCD's own"
        console.note(f"{why} the mosaic is stretched: its millimetres hold at the centres of the CCDs")
    console.answer(
        "ok",
        Exit.OK,
        {
            **{key: value for key, value in result.items() if key != "status"},
            "file_status": result["status"],
            "image": exposure.name,
            "camera": exposure.camera.name,
            "detectors": [detector.name for detector, _ in exposure.ccds],
            "shape": [height, width],
            "bin": factor,
            "missing_pixels": canvas.missing,
            "true_scale": canvas.layout.true_scale,
            "seconds": time.monotonic() - begun,
        },
    )


def extent_name(exposure: Exposure) -> str:
    """What the CCDs are together: `R22_S11`, `R22` or `focal_plane`."""
    if len(exposure.ccds) == 1:
        return exposure.ccds[0][0].name
    rafts = sorted({detector.raft for detector, _ in exposure.ccds})
    return rafts[0] if len(rafts) == 1 else "focal_plane"


def file_stem(exposure: Exposure) -> str:
    """`<image>_<extent>` as a plain file name: an image's name comes from a file and may be anything."""
    text = re.sub(r"[^A-Za-z0-9_+-]", "_", f"{exposure.name[:80]}_{extent_name(exposure)}")
    return text.lstrip("-") or "mosaic"


def _write(canvas: Canvas, exposure: Exposure, path: Path, *, plain: bool, overwrite: bool) -> dict[str, Any]:
    from raftwright import _core
    from raftwright.picture.canvas import EMPTY
    from raftwright.rawfile.cards import Card, encode

    # Without subtraction no pixel is negative, and -1 is what raw files have for missing ones.
    blank = EMPTY if canvas.debias else _BLANK
    if blank != EMPTY:
        canvas.pixels[canvas.pixels == EMPTY] = blank
    height, width = canvas.pixels.shape
    size_cards = [Card("NAXIS", 2), Card("NAXIS1", width), Card("NAXIS2", height)]
    sums = [Card("CHECKSUM", "0" * 16, "checksum of the HDU"), Card("DATASUM", "0", "checksum of the data")]
    content = [
        Card("BLANK", blank, "gaps and missing pixels"),
        Card("BUNIT", "electron" if canvas.electrons else "adu"),
        Card("BINNING", canvas.bin, "pixels of a CCD along one of the mosaic"),
        Card("OVERSCAN", canvas.overscan, "prescan and overscan are included"),
        Card("DEBIAS", canvas.debias, "bias, from the overscan, was subtracted"),
        Card("MISSPIX", canvas.missing, "pixels of the CCDs that did not arrive"),
        Card("TRUESCAL", canvas.layout.true_scale, "millimetres hold for every pixel"),
        *(Card(*card) for card in canvas.layout.wcs.binned(canvas.bin).cards()),
    ]
    simple = Card("SIMPLE", True, "conforms to the FITS standard")
    writer = _core.RawFileWriter()
    if plain:  # one HDU, as the simplest of readers expects it
        image = [
            simple,
            Card("BITPIX", 32, "array data type"),
            *size_cards,
            *_identity(exposure),
            *content,
            *sums,
        ]
        writer.add_plain_array(encode(image), canvas.pixels)
    else:
        primary = [simple, Card("BITPIX", 8, "no data in this HDU"), Card("NAXIS", 0), Card("EXTEND", True)]
        writer.add_header_only(encode([*primary, *_identity(exposure), *sums]))
        image = [
            Card("XTENSION", "IMAGE", "image extension"),
            Card("BITPIX", 32, "array data type"),
            *size_cards,
        ]
        image += [Card("PCOUNT", 0), Card("GCOUNT", 1), Card("EXTNAME", "MOSAIC")]
        writer.add_compressed_array(
            encode([*image, *content, *sums]), canvas.pixels, _core.usable_processors()
        )
    return publish_file(writer.publish, path, overwrite=overwrite)


def _identity(exposure: Exposure) -> list[Card]:
    from raftwright.rawfile.cards import Card

    return [
        Card("OBSID", exposure.name, "name of the image"),
        Card("INSTRUME", exposure.camera.instrume),
        Card("TELESCOP", exposure.camera.telescop),
        Card("EXTENT", extent_name(exposure), "CCD, raft or focal plane"),
        Card("NCCD", len(exposure.ccds), "CCDs in the mosaic"),
    ]
