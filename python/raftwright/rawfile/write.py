"""From the sources of an image to raw FITS files.

Each source is read, descrambled and compressed by the workers of `raftwright.assembly.read_sources`; as one
completes, the files of its CCDs are written by `raftwright.rawfile.output`, at the end the manifest of the
image.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from raftwright import assembly
from raftwright.camera import camera as find_camera
from raftwright.daq import check_source
from raftwright.errors import RaftwrightError
from raftwright.rawfile.cards import Notes
from raftwright.rawfile.document import HeaderDocument, read_header_document
from raftwright.rawfile.names import ImageName
from raftwright.rawfile.output import ImageOutput
from raftwright.rawfile.report import Failure, FileReport, Status, WriteReport

if TYPE_CHECKING:
    from raftwright.assembly import AssembledSource, Progress
    from raftwright.camera import Camera
    from raftwright.daq import DaqImage

__all__ = ["write_image"]


def write_image(
    source: DaqImage | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    camera: Camera | str | os.PathLike[str] | None = None,
    header: HeaderDocument | str | os.PathLike[str] | bytes | None = None,
    plain: bool = False,
    fill: int = -1,
    threads: int | None = None,
    locations: Iterable[str] | None = None,
    rafts: Iterable[str] | None = None,
    progress: Progress | None = None,
    durable: bool = True,
    undefined_cards: bool = False,
) -> WriteReport:
    """Writes `<out_dir>/<dayobs>/<image>/<image>_<raft>_<slot>.fits` for every CCD, sidecars and the
    manifest.

    Parameters
    ----------
    source
        An image of a store, or the directory of a recording.
    out_dir
        Root of the output; made if need be.
    camera
        Camera, its name or its file; by default what the image says.
    header
        Header document: read already, a path, or the bytes of its YAML.
    plain
        Uncompressed image extensions instead of RICE_1.
    fill
        int32 value of pixels that never arrived. The default, -1, is no value that a pixel can have.
    threads
        Workers; every processor by default.
    locations, rafts
        Boards (`["22/0"]`) or rafts (`["R22"]`) to write; all by default. The manifest lists all of the
        image.
    progress
        Called with (bytes done, bytes in all).
    durable
        Sync files and directories to disk before they count as written.
    undefined_cards
        Write every card of the keyword table, undefined where nothing is known (see `primary`).

    Returns
    -------
    WriteReport
        Missing pixels and conflicts are in the report, not errors: ask `complete` and `conflicts`.

    Raises
    ------
    FormatError
        The image's name does not parse, a source contradicts its description, the document is no YAML.
    NotFoundError
        No such camera, location or raft.
    StorageError
        The file system refuses.

    A source that is not there or not of its stated size refuses the whole image, before anything is made.
    After that, what fails holds up no other CCD: the rest is written, then the first error is raised, with
    the report as its attribute `report`.
    """
    started = time.monotonic()
    assembly.check_fill(fill)
    image = assembly.open_image(source)
    ImageName.parse(image.info.name)
    if camera is None:
        camera = image.info.camera
    if isinstance(camera, str | os.PathLike):
        camera = find_camera(camera)
    if isinstance(header, str | os.PathLike):
        header = Path(header)
    document = read_header_document(header) if isinstance(header, Path | bytes) else header
    boards = assembly.select_boards(image, camera, locations=locations, rafts=rafts)
    for board in boards:  # before anything is made
        check_source(image.source(board.location).info, board)
    output = ImageOutput(
        image.info,
        out_dir,
        camera,
        document=document,
        plain=plain,
        fill=fill,
        durable=durable,
        undefined_cards=undefined_cards,
    )
    output.make_directory()
    writer = _Writer(output, fill)
    try:
        assembly.read_sources(
            image,
            boards,
            writer.take,
            pixels=plain,
            compressed=not plain,
            fill=fill,
            threads=threads,
            progress=progress,
        )
    except RaftwrightError as error:
        writer.fail(error)
    writer.write_manifest()
    report = writer.report(time.monotonic() - started)
    if writer.errors:
        first = writer.errors[0]
        first.report = report  # type: ignore[attr-defined]
        if len(writer.errors) > 1 or report.files:
            first.add_note(
                f"{len(report.files)} files are there, {len(report.failures)} failed: see its report"
            )
        raise first
    return report


class _Writer:
    """Takes completed sources from the workers and keeps account of their files."""

    def __init__(self, output: ImageOutput, fill: int) -> None:
        self._output = output
        self._fill = fill
        self._lock = threading.Lock()
        self._files: list[tuple[int, FileReport]] = []
        self._failures: list[Failure] = []
        self._notes = Notes()
        self._notes.extend(output.notes)
        self._packed = 0
        self._manifest: tuple[Path, Status] | None = None
        self.errors: list[RaftwrightError] = []

    def take(self, source: AssembledSource) -> None:
        """Writes the files of a completed source; runs in a worker."""
        report = self._output.write(source)
        ids = {detector.name: detector.id for detector in source.board.detectors}
        with self._lock:
            self._packed += source.readout.received
            self._files += [(ids[file.detector], file) for file in report.files]
            self._failures += report.failures
            self.errors += report.errors
            self._notes.extend(report.notes)

    def fail(self, error: RaftwrightError) -> None:
        """Keeps an error of reading, or of the manifest."""
        with self._lock:
            self.errors.append(error)
            self._failures.append(Failure("", str(error)))

    def write_manifest(self) -> None:
        """Publishes the list of expected sensors, if there is a file."""
        if not self._files:
            return
        try:
            path, status, notes = self._output.write_manifest()
        except RaftwrightError as error:
            self.fail(error)
            return
        self._notes.extend(notes)
        self._manifest = (path, status)

    def report(self, seconds: float) -> WriteReport:
        """What was done."""
        return WriteReport(
            image=str(self._output.name),
            camera=self._output.camera.name,
            directory=self._output.directory,
            files=tuple(report for _, report in sorted(self._files, key=lambda entry: entry[0])),
            manifest=self._manifest[0] if self._manifest is not None else None,
            manifest_status=self._manifest[1] if self._manifest is not None else None,
            fill=self._fill,
            notes=tuple(self._notes),
            failures=tuple(self._failures),
            packed_bytes=self._packed,
            seconds=seconds,
        )
