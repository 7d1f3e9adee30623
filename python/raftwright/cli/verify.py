"""`raftwright verify`: are raw files what they should be."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, pixel_rate, pixels, seconds
from raftwright.cli.inputs import find_raw_files, open_daq
from raftwright.cli.options import CameraOption, ImageOption, JsonOption, SalvageOption, ThreadsOption
from raftwright.cli.progress import progress
from raftwright.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from raftwright.rawfile import VerifyReport

__all__ = ["verify"]

_MOST_LISTED = 40


def verify(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Raw files, or directories of them.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RECORDING|STORE",
            help="Compare every pixel with this recording, or with the image of that name in a store.",
            show_default=False,
        ),
    ] = None,
    image: ImageOption = None,
    salvage: SalvageOption = False,
    camera: CameraOption = None,
    threads: ThreadsOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as faults.")] = False,
    json: JsonOption = False,
) -> None:
    """Verify raw files: checksums, structure, cards, sidecars, lists of expected sensors, and every pixel.

    Faults are listed on the standard output, one a line, and the exit code is 5.
    """
    from raftwright import rawfile

    del json
    console.command = "verify"
    for path in paths:
        if not os.path.lexists(path):
            raise NotFoundError(
                f"{path}: there is no such file or directory; name a raw file or a directory of some"
            )
    recording = None
    if against is not None:
        recording = open_daq(against, image or _image_of(paths, against), salvage=salvage)
    begun = time.monotonic()
    with progress("verifying", unit="files") as advance:
        report = rawfile.verify(paths, recording, camera=camera, threads=threads, progress=advance)
    taken = time.monotonic() - begun
    faults = bool(report.errors) or (strict and bool(report.warnings))
    code = Exit.FAULTS if faults else Exit.OK
    _tell(report, taken)
    console.answer("faults" if faults else "ok", code, {**report.to_dict(), "seconds": taken})
    if faults:
        bad = len({finding.file for finding in report.findings if strict or finding.severity == "error"})
        warned = len(report.warnings) if strict else 0
        console.error(
            f"{count(len(report.errors) + warned, 'fault')} in {count(bad, 'file')}; {_first(report)}"
        )
    raise typer.Exit(code)


def _first(report: VerifyReport) -> str:
    finding = (report.errors or report.warnings)[0]
    return f"the first: {finding}"


def _image_of(paths: Sequence[str], store: str) -> str | None:
    """The one image that the files are of, where there are several to choose from in a store."""
    from raftwright.daq.recording import is_recording
    from raftwright.rawfile import FileName

    if os.path.isdir(store) and is_recording(store):
        return None
    names = set()
    for path in find_raw_files(paths):
        try:
            names.add(str(FileName.parse(path).image))
        except FormatError:
            return None
    return names.pop() if len(names) == 1 else None


def _tell(report: VerifyReport, taken: float) -> None:
    file = ""
    for finding in report.findings[:_MOST_LISTED]:
        if finding.file != file:
            file = finding.file
            console.say(file)
        where = "".join(f"{part}: " for part in (finding.hdu, finding.place) if part)
        console.say(f"  {finding.severity}: {where}{finding.problem}; {finding.remedy}")
    if len(report.findings) > _MOST_LISTED:
        console.say(f"and {len(report.findings) - _MOST_LISTED} more findings; --json gives all")
    looked = sum(file.pixels for file in report.files)
    console.say(
        f"verified {count(len(report.files), 'file')}, {pixels(looked)}, in {seconds(taken)}: "
        f"{pixel_rate(looked, taken)}"
    )
    if report.containers:
        console.say(f"  {count(report.containers, 'container')}, each member by its sums")
    if report.against is not None:
        console.say(f"  {count(report.compared, 'pixel')} compared with the recording of {report.against}")
    if report.missing_pixels:
        console.say(f"  {count(report.missing_pixels, 'pixel')} are stated as missing")
    errors, warnings = count(len(report.errors), "fault"), count(len(report.warnings), "warning")
    console.say(
        f"  {errors if report.errors else 'no fault'}, {warnings if report.warnings else 'no warning'}"
    )
