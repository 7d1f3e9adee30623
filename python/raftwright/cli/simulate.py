"""`raftwright simulate`: an invented image as a recording."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, pixel_rate, pixels, rate, seconds, size
from raftwright.cli.options import (
    DryRunOption,
    JsonOption,
    LocationsOption,
    Pattern,
    PatternOption,
    RaftsOption,
    SeedOption,
    SizeOption,
    SyncOption,
    ThreadsOption,
    names,
)
from raftwright.cli.places import check_output_directory
from raftwright.cli.progress import progress
from raftwright.errors import FormatError, UsageError

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.daq import SimulatedImage

__all__ = ["image_name", "simulate"]


def simulate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE]",
            help="Name of the image.  [default: <code>_S_<today's dayobs>_000001]",
            show_default=False,
        ),
    ] = None,
    camera: Annotated[
        str, typer.Option("--camera", metavar="NAME|FILE", help="Built-in camera or camera file.")
    ] = "LSSTComCam",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The recording becomes DIR/IMAGE.")
    ] = Path("."),
    seed: SeedOption = 1,
    pattern: PatternOption = Pattern.SKY,
    small: SizeOption = None,
    rafts: RaftsOption = None,
    locations: LocationsOption = None,
    threads: ThreadsOption = None,
    durable: SyncOption = True,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Simulate an image and record it as the DAQ would deliver it, with bias, noise, sky and stars.

    Nothing is left to chance: the camera, the name and the seed decide every pixel, so that any of them can
    be checked later.
    """
    from raftwright.camera import camera as find_camera
    from raftwright.daq import simulate_image, write_recording
    from raftwright.daq.small import small_registers

    del json
    console.command = "simulate"
    found = find_camera(camera)
    image = simulate_image(
        found,
        image_name(name, found.code),
        seed=seed,
        locations=_places(locations, found),
        rafts=names(rafts),
        pattern=pattern.value,
        registers=None if small is None else small_registers(small, found),
    )
    target = out / image.info.name
    check_output_directory(out)
    if dry_run:
        console.say(f"would simulate {_what(image, found)}", f"and record it as {target}")
        console.say(*_table(image, found))
        console.answer("ok", Exit.OK, {"dry_run": True, **_content(image, found), "path": target})
        return
    begun = time.monotonic()
    with progress(f"simulating {image.info.name}") as advance:
        done = write_recording(target, image, threads=threads, durable=durable, progress=advance)
    taken = time.monotonic() - begun
    total = _pixels(image, found)
    console.say(
        f"{'recorded' if done.status == 'written' else 'already there, unchanged:'} {_what(image, found)}",
        f"  in {done.path}",
        f"  {size(done.bytes)} in {seconds(taken)}: {pixel_rate(total, taken)}, "
        f"{rate(done.bytes, taken)} packed",
    )
    content = {"recording_status": done.status, **_content(image, found), "path": done.path, "seconds": taken}
    content["sources"] = [
        {**entry, "crc32c": source.crc32c, "file": source.file}
        for entry, source in zip(content["sources"], done.info.sources, strict=True)
    ]
    console.answer("ok", Exit.OK, content)


def image_name(given: str | None, code: str) -> str:
    """The name given, or the first simulated image (controller S) of the day that it is at UTC - 12 h."""
    from raftwright.rawfile import ImageName

    if given is not None:
        try:
            return str(ImageName.parse(given))
        except FormatError as error:  # it could be recorded, but never assembled
            raise UsageError(str(error)) from None
    day = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=12)
    return f"{code}_S_{day:%Y%m%d}_000001"


def _places(locations: list[str] | None, camera: Camera) -> list[str] | None:
    """Locations, also where boards were named (`R22/Reb0`)."""
    given = names(locations)
    return None if given is None else [camera.board(place).location for place in given]


def _pixels(image: SimulatedImage, camera: Camera) -> int:
    return sum(
        source.registers.pixels * camera.board(source.location).channels for source in image.info.sources
    )


def _what(image: SimulatedImage, camera: Camera) -> str:
    info = image.info
    boards = [camera.board(source.location) for source in info.sources]
    ccds = sum(len(board.detectors) for board in boards)
    return (
        f"{info.name}: {count(ccds, 'CCD')} of {camera.name} from {count(len(boards), 'board')}, "
        f"{pixels(_pixels(image, camera))}, {size(sum(source.bytes for source in info.sources))} packed"
    )


def _table(image: SimulatedImage, camera: Camera) -> list[str]:
    rows: list[tuple[object, ...]] = [("location", "board", "CCDs", "segments of", "bytes")]
    for source in image.info.sources:
        board = camera.board(source.location)
        slots = " ".join(detector.slot for detector in board.detectors)
        shape = f"{source.registers.width} x {source.registers.height}"
        rows.append((source.location, board.path, slots, shape, source.bytes))
    return ["  " + line for line in columns(rows, right=(4,))]


def _content(image: SimulatedImage, camera: Camera) -> dict[str, Any]:
    info = image.info
    return {
        "image": info.name,
        "camera": camera.name,
        "pixels": _pixels(image, camera),
        "bytes": sum(source.bytes for source in info.sources),
        "sources": [
            {
                "location": source.location,
                "kind": source.kind,
                "detectors": [detector.name for detector in camera.board(source.location).detectors],
                "width": source.registers.width,
                "height": source.registers.height,
                "bytes": source.bytes,
            }
            for source in info.sources
        ],
    }
