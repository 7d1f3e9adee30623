"""`raftwright assemble`: a recording becomes raw files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, percent, pixel_rate, rate, seconds, size
from raftwright.cli.inputs import open_daq
from raftwright.cli.options import (
    CameraOption,
    DryRunOption,
    ImageOption,
    JsonOption,
    LocationsOption,
    RaftsOption,
    SalvageOption,
    SyncOption,
    ThreadsOption,
    names,
)
from raftwright.cli.places import check_output_directory
from raftwright.cli.progress import progress

if TYPE_CHECKING:
    from raftwright.camera import Board, Camera
    from raftwright.daq import DaqImage
    from raftwright.rawfile import WriteReport

__all__ = ["assemble"]

_MOST_LISTED = 12


def assemble(
    recording: Annotated[
        str,
        typer.Argument(
            metavar="RECORDING", help="Directory of a recording, or a store such as simulated:LATISS."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="<dayobs>/<image>/ is made in it.")],
    image: ImageOption = None,
    header: Annotated[
        Path | None,
        typer.Option(
            "--header", metavar="DOC.yaml", help="Header document of the image.", show_default=False
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Write uncompressed images.")] = False,
    fill: Annotated[int, typer.Option("--fill", metavar="VALUE", help="Value of missing pixels.")] = -1,
    salvage: SalvageOption = False,
    rafts: RaftsOption = None,
    locations: LocationsOption = None,
    camera: CameraOption = None,
    threads: ThreadsOption = None,
    durable: SyncOption = True,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Write the raw FITS files of a recording, one a CCD, with sidecars and the list of expected sensors.

    Missing pixels are filled, counted in the headers and listed in the sidecars; then the exit code is 3.
    Files that are there already with the same content stay as they are; with another content they stay too,
    what is new is kept beside them, and the exit code is 4.
    """
    from raftwright.assembly import select_boards
    from raftwright.camera import camera as find_camera
    from raftwright.rawfile import write_image

    del json
    console.command = "assemble"
    source = open_daq(recording, image, salvage=salvage)
    found = find_camera(camera or source.info.camera)
    boards = select_boards(source, found, locations=names(locations), rafts=names(rafts))
    check_output_directory(out)
    if dry_run:
        _rehearse(source, found, boards, out, header)
        return
    with progress(f"assembling {source.info.name}") as advance:
        report = write_image(
            source,
            out,
            camera=found,
            header=header,
            plain=plain,
            fill=fill,
            threads=threads,
            locations=[board.location for board in boards],
            progress=advance,
            durable=durable,
        )
    total = sum(
        s.registers.pixels * b.channels
        for b in boards
        for s in source.info.sources
        if s.location == b.location
    )
    code = Exit.OK
    if report.missing_pixels:
        code = Exit.INCOMPLETE
    if report.conflicts or report.manifest_status == "conflict":
        code = Exit.CONFLICT
    _tell(report, total)
    status = {Exit.OK: "ok", Exit.INCOMPLETE: "incomplete", Exit.CONFLICT: "conflict"}[code]
    console.answer(status, code, {**report.to_dict(), "pixels": total})
    raise typer.Exit(code)


def _tell(report: WriteReport, total: int) -> None:
    console.say(
        f"{report.image} of {report.camera}: {count(len(report.files), 'CCD')}, "
        f"{size(report.packed_bytes)} packed"
    )
    states = [file.status for file in report.files]
    for status, words in (("written", "wrote"), ("unchanged", "found unchanged")):
        files = [file for file in report.files if file.status == status]
        if files:
            octets = sum(file.bytes for file in files)
            console.say(f"  {words} {count(len(files), 'raw file')}, {size(octets)}, and the sidecars")
    console.say(f"  in {report.directory}")
    if "written" in states:
        console.say(
            f"  {seconds(report.seconds)}: {pixel_rate(total, report.seconds)}, "
            f"{rate(report.packed_bytes, report.seconds)} packed in, {rate(report.bytes, report.seconds)} out"
        )
    _tell_missing(report, total)
    _tell_conflicts(report)
    if report.manifest_status == "conflict":
        console.error(
            f"{report.manifest}: another list of sensors was there and stays; this one is kept beside it"
        )
    for note in report.notes[:_MOST_LISTED]:
        console.note(note)
    if len(report.notes) > _MOST_LISTED:
        console.note(f"{len(report.notes) - _MOST_LISTED} more notes; --json gives all")


def _tell_conflicts(report: WriteReport) -> None:
    kept = [
        path
        for file in report.conflicts
        for path, state in ((file.path, file.status), (file.sidecar, file.sidecar_status))
        if state == "conflict"
    ]
    if not kept:
        return
    console.say(*(f"  kept beside: {path.name}" for path in kept[:_MOST_LISTED]))
    if len(kept) > _MOST_LISTED:
        console.say(f"  and {len(kept) - _MOST_LISTED} more")
    console.error(
        f"{report.directory}: {count(len(kept), 'file was', 'files were')} there with another content and "
        f"{'stays' if len(kept) == 1 else 'stay'}; what is new lies beside as {kept[0].name}"
        f"{' and so on' if len(kept) > 1 else ''}; compare them and move one away"
    )


def _tell_missing(report: WriteReport, total: int) -> None:
    if not report.missing_pixels:
        console.say("  no pixel is missing")
        return
    console.say(
        f"  {count(report.missing_pixels, 'pixel')} missing ({percent(report.missing_pixels, total)}), "
        f"filled with {report.fill}, listed in the sidecars:"
    )
    short = [file for file in report.files if file.missing_pixels]
    rows = [
        (file.detector, f"{file.missing_pixels:,}", count(len(file.missing), "segment"))
        for file in short[:_MOST_LISTED]
    ]
    console.say(*("    " + line for line in columns(rows, right=(1, 2))))
    if len(short) > _MOST_LISTED:
        console.say(f"    and {count(len(short) - _MOST_LISTED, 'more CCD', 'more CCDs')}")


def _rehearse(source: DaqImage, camera: Camera, boards: list[Board], out: Path, header: Path | None) -> None:
    """Everything that can be refused is refused; nothing is written."""
    from raftwright.daq import check_source
    from raftwright.rawfile import ImageName, raw_file_name, read_header_document
    from raftwright.rawfile.names import image_directory

    name = ImageName.parse(source.info.name)
    if header is not None:
        read_header_document(header)
    directory = image_directory(out, name)
    files: list[dict[str, Any]] = []
    incomplete = 0
    for board in boards:
        stream = source.source(board.location)
        length = check_source(stream.info, board)
        incomplete += length - sum(end - begin for begin, end in stream.available(0, length))
        for detector in board.detectors:
            path = directory / raw_file_name(name, detector.header_raft, detector.header_slot)
            files.append({"detector": detector.name, "path": path, "exists": path.exists()})
    there = sum(1 for file in files if file["exists"])
    console.say(
        f"would write {count(len(files), 'raw file')} of {name} ({camera.name})",
        f"  in {directory}",
        *(
            f"    {file['path'].name}{'  (there already)' if file['exists'] else ''}"
            for file in files[:_MOST_LISTED]
        ),
        *([f"    and {len(files) - _MOST_LISTED} more"] if len(files) > _MOST_LISTED else []),
    )
    if incomplete:
        console.say(f"  {size(incomplete)} of the streams are missing: their pixels would be filled")
    content = {
        "dry_run": True,
        "image": str(name),
        "camera": camera.name,
        "directory": directory,
        "files": files,
    }
    console.answer("ok", Exit.OK, {**content, "already_there": there, "missing_bytes": incomplete})
