"""`raftwright watch`: each CCD that a forwarder of this machine completes, as it comes."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.figures import count
from raftwright.cli.options import CameraOption, DetectorsOption, JsonOption, duration, names

if TYPE_CHECKING:
    from raftwright.prompt import PromptCcd

__all__ = ["watch"]


class Since(StrEnum):
    """From when on."""

    NEW = "new"
    ALL = "all"


def watch(
    pool: Annotated[
        str,
        typer.Argument(
            metavar="[POOL|DIR]", help="Name of the pool (--prompt of the forwarder), or its path."
        ),
    ] = "default",
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", metavar="NAME", help="Only these; * and ? stand for anything.", show_default=False
        ),
    ] = None,
    detectors: DetectorsOption = None,
    since: Annotated[
        Since, typer.Option("--since", help="What comes from now on, or all that is there.")
    ] = Since.NEW,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="TIME", help="End after this time without a CCD.", show_default=False
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="End after so many CCDs.", show_default=False),
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Median and scatter of the light-sensitive pixels of each.")
    ] = False,
    camera: CameraOption = None,
    json: JsonOption = False,
) -> None:
    """Print each CCD as soon as its last row is there. The same in Python: `for ccd in raftwright.watch():
    ...`

    It reads shared memory and holds up nobody: boards that were gone before it looked are counted. With
    --json it prints one object a line.
    """
    from raftwright.prompt import watch as open_watch

    del json
    console.command = "watch"
    seconds = None if timeout is None else duration(timeout, "--timeout")
    seen, missed = 0, 0
    with open_watch(
        pool,
        images=names(image),
        detectors=names(detectors),
        timeout=seconds,
        since=since.value,
        camera=camera,
    ) as ccds:
        if not (ccds.directory / "pool").exists():
            console.note(f"no forwarder has made the pool {ccds.directory} yet; waiting for it")
        for ccd in ccds:
            with ccd:
                _tell(ccd, statistics)
            seen += 1
            if ccds.missed != missed:
                console.note(f"{count(ccds.missed - missed, 'board')} gone before anybody looked")
                missed = ccds.missed
            if seen == number:
                break
        console.say(f"{count(seen, 'CCD')} seen, {count(ccds.missed, 'board')} missed")
        console.event("end", {"ccds": seen, "boards_missed": ccds.missed})


def _tell(ccd: PromptCcd, statistics: bool) -> None:
    facts: dict[str, Any] = {
        "image": ccd.image,
        "detector": ccd.name,
        "id": ccd.id,
        "location": ccd.location,
        "completed": ccd.completed,
        "missing_pixels": ccd.missing_pixels,
        "time": time.time(),
    }
    said = f"{ccd.completed}  {ccd.image}  {ccd.name}"
    if statistics:
        middle, scatter = _statistics(ccd)
        facts["median"], facts["scatter"] = middle, scatter
        said += f"  median {middle:9.1f}  scatter {scatter:7.2f}"
    if ccd.missing_pixels:
        said += f"  {count(ccd.missing_pixels, 'pixel')} missing"
    console.say(said)
    console.flush()
    console.event("ccd", facts)


def _statistics(ccd: PromptCcd) -> tuple[float, float]:
    """Median of every eighth light-sensitive pixel in both directions, and 1.4826 times that of the
    deviations."""
    import numpy as np

    shape = ccd.geometry
    parts = [
        plane[: shape.rows : 8, shape.prescan : shape.prescan + shape.columns : 8].ravel()
        for plane in ccd.planes
    ]
    pixels = np.concatenate(parts)
    if ccd.missing_pixels:
        pixels = pixels[pixels != ccd.fill]
    if not pixels.size:
        return float("nan"), float("nan")
    middle = float(np.median(pixels))
    return middle, 1.4826 * float(np.median(np.abs(pixels - middle)))
