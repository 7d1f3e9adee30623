"""`raftwright replay`: raw files become a recording again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, rate, seconds, size
from raftwright.cli.inputs import find_raw_files
from raftwright.cli.options import CameraOption, DryRunOption, JsonOption, SyncOption, ThreadsOption
from raftwright.cli.places import check_output_directory
from raftwright.cli.progress import progress
from raftwright.errors import FormatError, UsageError

if TYPE_CHECKING:
    from raftwright.rawfile import RawFile, ReplayReport

__all__ = ["replay"]

_MOST_LISTED = 12


def replay(
    fits: Annotated[
        list[str], typer.Argument(metavar="FITS...", help="Raw files of one image, or directories of them.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="The recording becomes DIR/IMAGE.")
    ] = Path("."),
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="IMAGE", help="Another name for the image.", show_default=False),
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            "--date", metavar="TIME", help="Another time of its trigger: TAI, ISO 8601.", show_default=False
        ),
    ] = None,
    fill: Annotated[int, typer.Option("--fill", metavar="VALUE", help="Value of CCDs without a file.")] = 0,
    camera: CameraOption = None,
    threads: ThreadsOption = None,
    durable: SyncOption = True,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Turn existing raw files back into the streams that the DAQ would have delivered.

    The CCDs of a board share a stream: give them together. A CCD of a board without a file is filled, and the
    recording says so. Pixels that were missing stay missing.
    """
    from raftwright import rawfile

    del json
    console.command = "replay"
    files = find_raw_files(fits)
    check_output_directory(out)
    if dry_run:
        _rehearse(files, out, name, date, camera)
        return
    begun = time.monotonic()
    with progress("replaying") as advance:
        report = rawfile.replay(
            files,
            out,
            camera=camera,
            name=name,
            date=date,
            fill=fill,
            threads=threads,
            durable=durable,
            progress=advance,
        )
    taken = time.monotonic() - begun
    _tell(report, taken)
    content = report.to_dict()
    content["recording_status"] = content.pop("status")
    console.answer("ok", Exit.OK, {**content, "seconds": taken})


def _tell(report: ReplayReport, taken: float) -> None:
    ccds = sum(len(source.files) for source in report.sources)
    origin = f" from files of {report.original}" if report.original not in (None, report.image) else ""
    console.say(
        f"{'recorded' if report.status == 'written' else 'already there, unchanged:'} {report.image} of "
        f"{report.camera}: {count(ccds, 'CCD')} of {count(len(report.sources), 'board')}{origin}",
        f"  in {report.path}",
        f"  {size(report.bytes)} packed in {seconds(taken)}: {rate(report.bytes, taken)}",
    )
    for note in report.notes[:_MOST_LISTED]:
        console.note(note)
    if len(report.notes) > _MOST_LISTED:
        console.note(f"{len(report.notes) - _MOST_LISTED} more notes; --json gives all")


def _rehearse(files: list[Path], out: Path, name: str | None, date: str | None, camera: str | None) -> None:
    """Everything that can be refused without the pixels is refused; nothing is written."""
    from raftwright.rawfile import ImageName, open_raw, times

    raws: list[RawFile] = [open_raw(path, camera=camera) for path in files]
    images = sorted({str(raw.header.string("OBSID")) for raw in raws})
    if len(images) > 1:
        raise FormatError(f"{files[0]} and others: files of {len(images)} images; replay one image at a time")
    wanted = name or raws[0].header.string("OBSID")
    if wanted is None:
        raise UsageError(f"{files[0]}: no OBSID says what image it is of; give --name")
    image = str(ImageName.parse(wanted))
    if date is not None:
        times.parse_iso(date)
    boards: dict[str, dict[str, Any]] = {}
    for raw in raws:
        board = raw.camera.board(raw.detector.location)
        entry = boards.setdefault(
            board.location,
            {"location": board.location, "all": [d.name for d in board.detectors], "detectors": []},
        )
        entry["detectors"].append(raw.detector.name)
    for entry in boards.values():
        entry["filled"] = [detector for detector in entry.pop("all") if detector not in entry["detectors"]]
    console.say(f"would record {image} of {raws[0].camera.name} as {out / image}")
    for entry in boards.values():
        filled = f"; filled: {' '.join(entry['filled'])}" if entry["filled"] else ""
        console.say(f"  {entry['location']}: {' '.join(entry['detectors'])}{filled}")
    content = {"dry_run": True, "image": image, "camera": raws[0].camera.name, "path": out / image}
    console.answer("ok", Exit.OK, {**content, "sources": list(boards.values())})
