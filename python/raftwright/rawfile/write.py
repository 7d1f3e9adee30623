"""From the sources of an image to raw FITS files.

Each source is read, descrambled and compressed by the workers of `raftwright.assembly.read_sources`; as one
completes, the files of its CCDs are built and published: first the FITS file, then its sidecar, at the end
the manifest of the image. A file appears under its name whole, or not at all, and nothing that is there is
replaced.

Doing it again changes nothing: where a file exists, its time of creation is taken over, so that the same
content gives the same bytes. A different content is kept beside the file that is there, as
`<name>.conflict-<crc32c>`, with a sidecar named alike.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from raftwright import _core, assembly
from raftwright.camera import camera as find_camera
from raftwright.daq import check_source
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.rawfile import times
from raftwright.rawfile.cards import CARD, Notes, encode, parse_header
from raftwright.rawfile.conditions import condition_cards
from raftwright.rawfile.document import HeaderDocument, read_header_document
from raftwright.rawfile.names import (
    ImageName,
    check_path,
    image_directory,
    manifest_name,
    raw_file_name,
    sidecar_path,
)
from raftwright.rawfile.primary import Exposure, primary_cards
from raftwright.rawfile.report import Failure, FileReport, Status, WriteReport
from raftwright.rawfile.segments import extension_header
from raftwright.rawfile.sidecar import manifest, sidecar

if TYPE_CHECKING:
    from raftwright.assembly import AssembledSource, Progress
    from raftwright.camera import Camera, Detector
    from raftwright.daq import DaqImage

__all__ = ["write_image"]

_HEAD: Final = 1 << 20  # of a file that is there: its primary header stands in it


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
    name = ImageName.parse(image.info.name)
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
    directory = image_directory(Path(out_dir), name)
    _make_directory(directory, durable)
    writer = _Writer(image, name, camera, document, directory, plain, fill, durable, undefined_cards)
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
        writer.fail("", error)
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


def _make_directory(directory: Path, durable: bool) -> None:
    check_path(directory)
    missing = []
    at = directory
    try:
        while not at.exists() and at != at.parent:
            missing.append(at)
            at = at.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            if durable:
                _sync(made.parent)
        if not directory.is_dir():
            raise NotADirectoryError(20, "Not a directory")
    except OSError as error:
        raise StorageError(
            error.errno, f"cannot make the directory of the image: {error.strerror}", str(directory)
        ) from error


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _created(path: Path) -> int:
    """Time of creation for a file under this name: that of the raw file that is there, or of one kept beside
    a stranger, else now; in whole ms."""
    for there in (path, *sorted(path.parent.glob(f"{path.name}.conflict-*"))):
        moment = _date_of(there)
        if moment is not None:
            return moment
    return times.now() // 1_000_000 * 1_000_000


def _date_of(path: Path) -> int | None:
    """DATE of a raw file; None where there is none."""
    head = b""
    try:
        if path.is_file():  # nothing else is waited for
            with path.open("rb") as stream:
                head = stream.read(_HEAD)
    except OSError:
        pass
    end = next((at for at in range(0, len(head), CARD) if head[at : at + 8] == b"END     "), 0)
    for card in parse_header(head[:end]):
        if card.keyword == "DATE" and isinstance(card.value, str):
            try:
                return times.parse_iso(card.value)
            except FormatError:
                return None  # what is there is no raw file: it will be a conflict, and stay
    return None


class _Writer:
    """Takes completed sources from the workers and publishes the files of their CCDs."""

    def __init__(
        self,
        image: DaqImage,
        name: ImageName,
        camera: Camera,
        document: HeaderDocument | None,
        directory: Path,
        plain: bool,
        fill: int,
        durable: bool,
        undefined_cards: bool,
    ) -> None:
        self._image = image
        self._name = name
        self._camera = camera
        self._document = document
        self._directory = directory
        self._plain = plain
        self._fill = fill
        self._durable = durable
        self._undefined_cards = undefined_cards
        self._lock = threading.Lock()
        self._files: list[tuple[int, FileReport]] = []
        self._failures: list[Failure] = []
        self._notes = Notes()
        self._packed = 0
        self._manifest: tuple[Path, Status] | None = None
        self.errors: list[RaftwrightError] = []
        if document is not None:
            self._notes.extend(document.notes)
        if name.source != camera.code:
            self._notes.add(
                f"{name}: the name begins with {name.source}, those of {camera.name} with {camera.code}"
            )

    def take(self, source: AssembledSource) -> None:
        """Writes the files of a completed source; runs in a worker."""
        with self._lock:
            self._packed += source.readout.received
        for detector in source.board.detectors:
            notes = Notes()
            try:
                report = self._write(source, detector, notes)
            except RaftwrightError as error:
                self.fail(detector.name, error)
            else:
                with self._lock:
                    self._files.append((detector.id, report))
            with self._lock:
                self._notes.extend(notes)

    def fail(self, detector: str, error: RaftwrightError) -> None:
        """Keeps an error of a CCD, or of reading (`detector` empty)."""
        with self._lock:
            self.errors.append(error)
            self._failures.append(Failure(detector, str(error)))

    def _write(self, source: AssembledSource, detector: Detector, notes: Notes) -> FileReport:
        path = self._directory / raw_file_name(self._name, detector.header_raft, detector.header_slot)
        missing = source.missing(detector)
        writer = _core.RawFileWriter()
        self._fill_file(writer, source, detector, _created(path), notes)
        result = writer.publish(str(path), self._durable)
        kept = Path(result["path"])
        beside = sidecar_path(path)
        if kept != path:
            beside = beside.with_name(beside.name + kept.name.removeprefix(path.name))
        text = sidecar(parse_header(writer.primary_cards()), missing)
        side = _core.publish_bytes(str(beside), text, self._durable)
        return FileReport(
            detector=detector.name,
            location=source.board.location,
            path=kept,
            status=cast("Status", result["status"]),
            bytes=int(result["bytes"]),
            adler32=str(result["adler32"]),
            crc32c=str(result["crc32c"]),
            sidecar=Path(side["path"]),
            sidecar_status=cast("Status", side["status"]),
            missing=missing,
        )

    def _fill_file(
        self,
        writer: _core.RawFileWriter,
        source: AssembledSource,
        detector: Detector,
        created: int,
        notes: Notes,
    ) -> None:
        exposure = Exposure(
            name=self._name,
            camera=self._camera,
            image=self._image.info,
            source=source.info,
            geometry=source.geometry,
            created=created,
            document=self._document,
            undefined_cards=self._undefined_cards,
        )
        missing = source.missing_pixels(detector)
        primary = primary_cards(exposure, detector, missing=missing, fill=self._fill, notes=notes)
        writer.add_header_only(encode(primary, notes))
        runs = source.missing(detector)
        add = writer.add_plain if self._plain else writer.add_compressed
        for segment, plane in zip(detector.segments, source.board.planes_of(detector), strict=True):
            header = extension_header(
                self._camera,
                detector,
                segment.index,
                source.geometry,
                document=self._document,
                missing=sum(count for _, count in runs.get(segment.name, ())),
                notes=notes,
            )
            add(header, source.readout, plane)
        for cards in condition_cards(
            detector, self._document, undefined_cards=self._undefined_cards, notes=notes
        ):
            writer.add_header_only(encode(cards, notes))

    def write_manifest(self) -> None:
        """Publishes the list of expected sensors of the image: those of all of its sources."""
        if not self._files:
            return
        detectors: list[Detector] = []
        for source in self._image.info.sources:
            try:
                detectors += self._camera.board(source.location).detectors
            except NotFoundError as error:
                self._notes.add(f"{manifest_name(self._name)}: {error}")
        path = self._directory / manifest_name(self._name)
        try:
            result = _core.publish_bytes(str(path), manifest(self._name, detectors), self._durable)
        except RaftwrightError as error:
            self.fail("", error)
            return
        self._manifest = (Path(result["path"]), cast("Status", result["status"]))

    def report(self, seconds: float) -> WriteReport:
        """What was done."""
        return WriteReport(
            image=str(self._name),
            camera=self._camera.name,
            directory=self._directory,
            files=tuple(report for _, report in sorted(self._files, key=lambda entry: entry[0])),
            manifest=self._manifest[0] if self._manifest is not None else None,
            manifest_status=self._manifest[1] if self._manifest is not None else None,
            fill=self._fill,
            notes=tuple(self._notes),
            failures=tuple(self._failures),
            packed_bytes=self._packed,
            seconds=seconds,
        )
