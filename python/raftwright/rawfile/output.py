"""The raw files of an image, written source by source: in any order, from any thread, by any process.

`ImageOutput` is made for an image once; `write` takes one assembled source and writes the files of its CCDs.
A file appears under its name whole and with its sidecar, or not at all, and nothing that is there is
replaced.

Doing it again changes nothing: where a file exists, its time of creation is taken over, so that the same
content gives the same bytes; so it is, too, when two processes write the same file at once. What differs is

- a *version*, with `versions=True`: the file that is there is of the same image, lacks more pixels, and
  agrees in the others. The new content is `<stem>.v2.fits`; both say so;
- *kept*, with `versions=True`: as above, but the file that is there lacks no more pixels, and its sums hold.
  It stays alone, whatever the new one's header says: what it lacks of its header comes in a later sidecar;
- a *conflict* otherwise: the content is kept beside as `<name>.conflict-<crc32c>`, with a sidecar named
  alike.
"""

from __future__ import annotations

import copy
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from raftwright import _core
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.rawfile import times
from raftwright.rawfile.cards import Card, Notes, encode, parse_header
from raftwright.rawfile.conditions import condition_cards
from raftwright.rawfile.names import (
    ImageName,
    image_directory,
    manifest_name,
    raw_file_name,
    sidecar_path,
)
from raftwright.rawfile.primary import Exposure, primary_cards
from raftwright.rawfile.publishing import Pair, commit_pair, locked, make_directory, sync_directory
from raftwright.rawfile.read import open_raw
from raftwright.rawfile.report import Failure, FileReport, SourceReport, Status, as_failure
from raftwright.rawfile.segments import extension_header
from raftwright.rawfile.sidecar import Replaced, manifest, sidecar
from raftwright.rawfile.standing import (
    agrees,
    date_of,
    date_of_sidecar,
    digest,
    of_image,
    report_standing,
    sums_hold,
    versions,
    whole_report,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from raftwright.assembly import AssembledSource
    from raftwright.camera import Board, Camera, Detector, Geometry
    from raftwright.daq import ImageInfo
    from raftwright.rawfile.document import HeaderDocument

__all__ = ["ImageOutput"]

_MOST_RACES: Final = 16


class _Content(NamedTuple):
    """A file and its sidecar, put together."""

    writer: _core.RawFileWriter
    text: bytes
    version: int
    replaced: Replaced | None
    header: str


class ImageOutput:
    """Writes the raw files of one image. Thread-safe.

    Parameters
    ----------
    image
        As the DAQ describes it.
    out_dir
        Root of the output; `make_directory` makes `<dayobs>/<image>` in it.
    camera
        By default the one that the image names.
    document, plain, fill, durable, undefined_cards
        As in `write_image`.
    versions
        Whether a content with more pixels than the file that is there becomes a version of it.
    header
        `missing` where a document is due and there is none: HDRSTATE says so.

    Raises FormatError for a name that does not parse, NotFoundError for a camera that there is not.
    """

    def __init__(
        self,
        image: ImageInfo,
        out_dir: str | os.PathLike[str],
        camera: Camera | None = None,
        *,
        document: HeaderDocument | None = None,
        plain: bool = False,
        fill: int = -1,
        durable: bool = True,
        undefined_cards: bool = False,
        versions: bool = False,
        header: str = "",
    ) -> None:
        self.image = image
        self.name = ImageName.parse(image.name)
        self.camera = camera if camera is not None else find_camera(image.camera)
        self.directory = image_directory(Path(out_dir), self.name)
        self.document = document
        self._plain = plain
        self._fill = fill
        self._durable = durable
        self._undefined_cards = undefined_cards
        self._versions = versions
        self._header = header

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of the image as a whole: of its document, and of its name."""
        notes = Notes()
        if self.document is not None:
            notes.extend(self.document.notes)
        if self.name.source != self.camera.code:
            notes.add(
                f"{self.name}: the name begins with {self.name.source}, those of {self.camera.name} with "
                f"{self.camera.code}"
            )
        return tuple(notes)

    def headed(self, document: HeaderDocument | None) -> ImageOutput:
        """The same with a header document, or without one that is due."""
        other = copy.copy(self)
        other.document = document
        other._header = "missing" if document is None else ""
        return other

    def make_directory(self) -> None:
        """Raises StorageError, UsageError."""
        make_directory(self.directory, self._durable)

    def write_manifest(self) -> tuple[Path, Status, tuple[str, ...]]:
        """Publishes the list of expected sensors of the image: those of all of its sources. Where it is, what
        became of it, and notes. Raises StorageError."""
        notes = Notes()
        detectors: list[Detector] = []
        for source in self.image.sources:
            try:
                detectors += self.camera.board(source.location).detectors
            except NotFoundError as error:
                notes.add(f"{manifest_name(self.name)}: {error}")
        path = self.directory / manifest_name(self.name)
        result = _core.publish_bytes(str(path), manifest(self.name, detectors), self._durable)
        return Path(result["path"]), cast("Status", result["status"]), tuple(notes)

    def warm(self, board: Board, geometry: Geometry) -> None:
        """Makes what the files of a board need and does not depend on its pixels."""
        for detector in board.detectors:
            for segment in detector.segments:
                extension_header(self.camera, detector, segment.index, geometry, document=self.document)

    def standing(self, board: Board) -> dict[str, FileReport]:
        """The files of a board that are there, of this image and complete, and whose sums all hold, by
        detector.

        Raises StorageError.
        """
        found = {
            detector.name: whole_report(self.directory, self.image, self.camera, detector)
            for detector in board.detectors
        }
        return {name: report for name, report in found.items() if report is not None}

    def write(
        self,
        source: AssembledSource,
        *,
        created: int | None = None,
        detectors: Collection[str] | None = None,
    ) -> SourceReport:
        """Writes the files of one source, of all of its CCDs or of some.

        `created` is the time of creation of files that are not there yet (nanoseconds TAI; default: now). A
        CCD that fails holds up no other: see the report.
        """
        notes = Notes()
        moment = (created if created is not None else times.now()) // 1_000_000 * 1_000_000
        files: dict[str, FileReport] = {}
        failed: dict[str, RaftwrightError] = {}
        ready: list[tuple[Detector, Pair, _Content]] = []
        taken: list[Detector] = []
        for detector in source.board.detectors:
            if detectors is not None and detector.name not in detectors:
                continue
            try:
                path = self._path(detector)
                if os.path.lexists(path):
                    taken.append(detector)
                else:
                    content = self._first(source, detector, moment, notes)
                    ready.append((detector, self._stage(content, path), content))
            except Exception as error:
                failed[detector.name] = as_failure(error, f"{self.name} {detector.name}")
        if ready:
            taken += self._commit(source, ready, files, failed)
        del ready
        for detector in taken:
            try:
                files[detector.name] = self._settle(source, detector, moment, notes)
            except Exception as error:
                failed[detector.name] = as_failure(error, f"{self.name} {detector.name}")
        order = [detector.name for detector in source.board.detectors]
        return SourceReport(
            location=source.board.location,
            files=tuple(files[name] for name in order if name in files),
            failures=tuple(Failure(name, str(failed[name])) for name in order if name in failed),
            errors=tuple(failed[name] for name in order if name in failed),
            notes=tuple(notes),
        )

    def _path(self, detector: Detector, version: int = 1) -> Path:
        name = raw_file_name(self.name, detector.header_raft, detector.header_slot, version)
        return self.directory / name

    def _first(self, source: AssembledSource, detector: Detector, moment: int, notes: Notes) -> _Content:
        """The content for a name that is free. A sidecar may be there, of a writer that died before its file
        had its name: its time is taken over too."""
        left = date_of_sidecar(sidecar_path(self._path(detector)))
        return self._build(source, detector, left if left is not None else moment, notes)

    def _stage(self, content: _Content, path: Path) -> Pair:
        beside = sidecar_path(path)
        return Pair(
            path=path,
            file=content.writer.stage(str(path), self._durable),
            sidecar=beside,
            text=content.text,
            beside=_core.stage_bytes(str(beside), content.text, self._durable),
        )

    def _commit(
        self,
        source: AssembledSource,
        ready: list[tuple[Detector, Pair, _Content]],
        files: dict[str, FileReport],
        failed: dict[str, RaftwrightError],
    ) -> list[Detector]:
        """Names files that are ready, all at once; returns those whose names are taken."""
        taken = []
        done = []
        try:
            for _, pair, _ in ready:  # all of them are on their way to the disk already
                pair.file.sync()
                pair.beside.sync()
            with locked(self.directory) as alone:
                for detector, pair, content in ready:
                    try:
                        if commit_pair(pair, alone):
                            done.append((detector, pair, content))
                        else:
                            taken.append(detector)
                    except RaftwrightError as error:
                        failed[detector.name] = error
            if done and self._durable:
                self._sync()
        except StorageError as error:
            for detector, _, _ in ready:
                failed.setdefault(detector.name, error)
            return []
        for detector, pair, content in done:
            files[detector.name] = self._written(source, detector, pair, content)
        return taken

    def _sync(self) -> None:
        try:
            sync_directory(self.directory)
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot make it durable: {error.strerror}", str(self.directory)
            ) from error

    def _written(
        self, source: AssembledSource, detector: Detector, pair: Pair, content: _Content
    ) -> FileReport:
        return FileReport(
            detector=detector.name,
            location=source.board.location,
            path=pair.path,
            status="written",
            bytes=pair.file.bytes,
            adler32=pair.file.adler32,
            crc32c=pair.file.crc32c,
            sidecar=pair.sidecar,
            sidecar_status="written",
            missing=source.missing(detector),
            version=content.version,
            replaces=content.replaced,
            header=content.header,
        )

    def _settle(self, source: AssembledSource, detector: Detector, moment: int, notes: Notes) -> FileReport:
        """Writes a file whose name is taken, or was a moment ago."""
        for _ in range(_MOST_RACES):
            there = versions(self.directory, self.name, detector)
            if not there:
                content = self._first(source, detector, moment, notes)
                pair = self._stage(content, self._path(detector))
                report = self._commit_one(source, detector, pair, content)
            else:
                report = self._same_as(source, detector, there, moment, notes)
                if report is None and self._versions:
                    report, raced = self._next_version(source, detector, there[-1], moment, notes)
                    if raced:
                        continue
                if report is None:
                    report = self._keep_beside(source, detector, moment, notes)
            if report is not None:
                return report
        raise StorageError(
            errno.EBUSY,
            "other writers take its names again and again; do it later",
            str(self._path(detector)),
        )

    def _commit_one(
        self, source: AssembledSource, detector: Detector, pair: Pair, content: _Content
    ) -> FileReport | None:
        with locked(self.directory) as alone:
            done = commit_pair(pair, alone)
        if not done:
            return None
        if self._durable:
            self._sync()
        return self._written(source, detector, pair, content)

    def _same_as(
        self,
        source: AssembledSource,
        detector: Detector,
        there: list[tuple[int, Path]],
        moment: int,
        notes: Notes,
    ) -> FileReport | None:
        """The version that has these bytes already, its sidecar with it; None where none has."""
        replaced = None
        for version, path in there if self._versions else there[:1]:
            created = self._created(path, moment)
            content = self._build(source, detector, created, notes, version, replaced)
            if content.writer.compare(str(path), self._durable) == "same":
                return self._publish(source, detector, path, content)
            if version < there[-1][0]:
                replaced = self._replaced(version, path)
        return None

    def _created(self, path: Path, moment: int) -> int:
        """Time of creation of the file that is there, or of one kept beside a stranger, else the one
        given."""
        for there in (path, *sorted(path.parent.glob(f"{path.name}.conflict-*"))):
            found = date_of(there)
            if found is not None:
                return found
        return moment

    def _replaced(self, version: int, path: Path) -> Replaced | None:
        try:
            missing = open_raw(path, 1, camera=self.camera).missing_pixels
        except FormatError:
            return None
        return Replaced(version, path.name, digest(path).crc32c, missing)

    def _next_version(
        self,
        source: AssembledSource,
        detector: Detector,
        latest: tuple[int, Path],
        moment: int,
        notes: Notes,
    ) -> tuple[FileReport | None, bool]:
        """A new version, or the one that is there where it lacks no more; else nothing: they contradict each
        other. And whether another writer was quicker."""
        version, path = latest
        missing = source.missing_pixels(detector)
        try:
            raw = open_raw(path, 1, camera=self.camera)
        except FormatError:
            return None, False
        if not of_image(raw, self.image):
            return None, False
        replaced = Replaced(version, path.name, digest(path).crc32c, raw.missing_pixels)
        left = date_of_sidecar(sidecar_path(self._path(detector, version + 1)))
        content = self._build(
            source, detector, left if left is not None else moment, notes, version + 1, replaced
        )
        pair = self._stage(content, self._path(detector, version + 1))
        if not agrees(raw, pair.file.readable_path, self.camera, source.missing(detector)):
            return None, False
        if missing >= raw.missing_pixels:
            if not sums_hold(raw):
                return None, False
            return report_standing(raw, version, detector), False
        report = self._commit_one(source, detector, pair, content)
        return report, report is None

    def _keep_beside(
        self, source: AssembledSource, detector: Detector, moment: int, notes: Notes
    ) -> FileReport:
        path = self._path(detector)
        content = self._build(source, detector, self._created(path, moment), notes)
        return self._publish(source, detector, path, content)

    def _publish(
        self, source: AssembledSource, detector: Detector, path: Path, content: _Content
    ) -> FileReport:
        """Under a name that is taken: found to be the same, or kept beside it."""
        result = content.writer.publish(str(path), self._durable)
        kept = Path(result["path"])
        beside = sidecar_path(path)
        if kept != path:
            beside = beside.with_name(beside.name + kept.name.removeprefix(path.name))
        side = _core.publish_bytes(str(beside), content.text, self._durable)
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
            missing=source.missing(detector),
            version=content.version,
            replaces=content.replaced,
            header=content.header,
        )

    def _build(
        self,
        source: AssembledSource,
        detector: Detector,
        created: int,
        notes: Notes,
        version: int = 1,
        replaced: Replaced | None = None,
    ) -> _Content:
        exposure = Exposure(
            name=self.name,
            camera=self.camera,
            image=self.image,
            source=source.info,
            geometry=source.geometry,
            created=created,
            document=self.document,
            undefined_cards=self._undefined_cards,
            header=self._header,
        )
        writer = _core.RawFileWriter()
        primary = primary_cards(
            exposure,
            detector,
            missing=source.missing_pixels(detector),
            fill=self._fill,
            version=version,
            replaces=replaced.file if replaced is not None else None,
            notes=notes,
        )
        writer.add_header_only(encode(primary, notes))
        runs = source.missing(detector)
        add = writer.add_plain if self._plain else writer.add_compressed
        for segment, plane in zip(detector.segments, source.board.planes_of(detector), strict=True):
            header = extension_header(
                self.camera,
                detector,
                segment.index,
                source.geometry,
                document=self.document,
                missing=sum(count for _, count in runs.get(segment.name, ())),
                notes=notes,
            )
            add(header, source.readout, plane)
        for cards in condition_cards(
            detector, self.document, undefined_cards=self._undefined_cards, notes=notes
        ):
            writer.add_header_only(encode(cards, notes))
        text = sidecar(parse_header(writer.primary_cards()), runs, replaced)
        return _Content(writer, text, version, replaced, _header_state(primary))


def _header_state(cards: list[Card]) -> str:
    return next((str(card.value or "") for card in cards if card.keyword == "HDRSTATE"), "")
