"""Raw files that are there already: what they hold, and how a new content stands to them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright import _core
from raftwright.errors import FormatError, StorageError
from raftwright.rawfile import times
from raftwright.rawfile.cards import CARD, parse_header
from raftwright.rawfile.conditions import NAMES
from raftwright.rawfile.names import MAX_VERSION, FileName, ImageName, raw_file_name, sidecar_path
from raftwright.rawfile.read import open_raw
from raftwright.rawfile.report import FileReport
from raftwright.rawfile.sidecar import MISSING, REPLACES, Replaced, Runs, as_runs, read_json, run_mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raftwright.camera import Camera, Detector
    from raftwright.daq import ImageInfo
    from raftwright.rawfile.read import RawFile

__all__ = [
    "Digest",
    "agrees",
    "date_of",
    "date_of_sidecar",
    "digest",
    "earlier_versions",
    "of_image",
    "report_standing",
    "sums_hold",
    "versions",
    "whole_report",
]

_HEAD: Final = 1 << 20  # of a file that is there: its primary header stands in it


@dataclass(frozen=True, slots=True)
class Digest:
    """Size and sums of a file's bytes."""

    bytes: int
    adler32: str
    crc32c: str


def digest(path: Path) -> Digest:
    """Size and sums of a file. Raises StorageError."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            crc, adler = 0, 1
            while piece := stream.read(1 << 20):
                crc, adler = _core.crc32c(piece, crc), _core.adler32(piece, adler)
    except OSError as error:
        raise StorageError(error.errno, f"cannot read it: {error.strerror}", str(path)) from error
    return Digest(size, f"{adler:08x}", f"{crc:08x}")


def versions(directory: Path, name: ImageName, detector: Detector) -> list[tuple[int, Path]]:
    """The versions of a CCD's file that are there, ascending, if the first one is."""
    first = directory / raw_file_name(name, detector.header_raft, detector.header_slot)
    if not os.path.lexists(first):
        return []
    found = [(1, first)]
    for version in range(2, MAX_VERSION + 1):
        path = directory / raw_file_name(name, detector.header_raft, detector.header_slot, version)
        if not os.path.lexists(path):
            break
        found.append((version, path))
    return found


def date_of(path: Path) -> int | None:
    """DATE of a raw file, in nanoseconds TAI; None where there is none."""
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
            return _moment(card.value)
    return None


def date_of_sidecar(path: Path) -> int | None:
    """DATE of a sidecar whose file may not have come; None where there is none."""
    if not path.is_file():
        return None
    try:
        date = read_json(path).get("DATE")
    except (FormatError, StorageError):
        return None
    return _moment(date) if isinstance(date, str) else None


def _moment(text: str) -> int | None:
    try:
        return times.parse_iso(text)
    except FormatError:
        return None  # what is there is no raw file: it will be a conflict, and stay


def of_image(raw: RawFile, image: ImageInfo) -> bool:
    """Whether a raw file says that it is of this image of the DAQ, not of another one of the same name."""
    header = raw.file_header
    tag = header.string("IMAGETAG")
    trigger = header.string("DATE-TRG")
    expected = times.iso(times.parse_iso(image.timestamp)) if image.timestamp else None
    return (
        header.string("OBSID") == image.name
        and (tag is None or not image.id or tag.lstrip("0") == image.id.lower().lstrip("0"))
        and (trigger is None or expected is None or trigger == expected)
    )


def _missing_runs(raw: RawFile) -> Runs | None:
    """Missing pixels as the sidecar lists them; None where it does not say what the header says."""
    if raw.missing_pixels == 0:
        return {}
    try:
        runs = as_runs(read_json(sidecar_path(raw.path)).get(MISSING))
    except (FormatError, StorageError):
        return None
    if runs is None or sum(count for entries in runs.values() for _, count in entries) != raw.missing_pixels:
        return None
    return runs


def agrees(
    raw: RawFile, other: str, camera: Camera, missing: Mapping[str, Sequence[tuple[int, int]]]
) -> bool:
    """Whether two files of a CCD have the same pixels wherever both have any.

    `other` is the path of the second, `missing` what it lacks. False also where one cannot be read.
    """
    import numpy as np

    theirs = _missing_runs(raw)
    if theirs is None:
        return False
    try:
        new = open_raw(other, 1, camera=camera)
        if list(new.segments) != list(raw.segments):
            return False
        for name in new.segments:
            mine, standing = new.segments[name].reshape(-1), raw.segments[name].reshape(-1)
            if mine.shape != standing.shape:
                return False
            lost = run_mask([*theirs.get(name, ()), *missing.get(name, ())], mine.size)
            if lost is None or not np.array_equal(mine[~lost], standing[~lost]):
                return False
    except FormatError:
        return False
    return True


def sums_hold(raw: RawFile) -> bool:
    """Whether a file of ours has all of its HDUs and nothing behind them, and all of their sums hold."""
    fits = raw.fits
    names = {fits.info(hdu)["name"] for hdu in range(len(fits))}
    if fits.trailing or not names.issuperset(NAMES):
        return False
    return all(all(fits.sums(hdu)) for hdu in range(len(fits)))


def report_standing(
    raw: RawFile, version: int, detector: Detector, status: str = "kept"
) -> FileReport | None:
    """What there is to say of a file that stands; None where its sidecar does not fit it."""
    runs = _missing_runs(raw)
    if runs is None:
        return None
    beside = sidecar_path(raw.path)
    replaces = None
    try:
        before = read_json(beside).get(REPLACES)
    except (FormatError, StorageError):
        return None
    if isinstance(before, dict):
        try:
            replaces = Replaced(
                version - 1, str(before["file"]), str(before["crc32c"]), int(before["missing"])
            )
        except (KeyError, ValueError, TypeError):
            return None
    sums = digest(raw.path)
    return FileReport(
        detector=detector.name,
        location=detector.location,
        path=raw.path,
        status="unchanged" if status == "unchanged" else "kept",
        bytes=sums.bytes,
        adler32=sums.adler32,
        crc32c=sums.crc32c,
        sidecar=beside,
        sidecar_status="unchanged" if status == "unchanged" else "kept",
        missing=runs,
        version=version,
        replaces=replaces,
        header=raw.file_header.string("HDRSTATE") or "",
    )


def earlier_versions(report: FileReport, camera: Camera) -> list[FileReport]:
    """The versions before one that is there, ascending, but for those that cannot be read.

    Raises StorageError.
    """
    try:
        name = FileName.parse(report.path.name)
    except FormatError:
        return []  # kept beside a stranger
    detector = camera.detector(report.detector)
    found = []
    for version, path in versions(report.path.parent, name.image, detector):
        if version < report.version:
            try:
                before = report_standing(open_raw(path, 1, camera=camera), version, detector)
            except FormatError:
                continue
            if before is not None:
                found.append(before)
    return found


def whole_report(directory: Path, image: ImageInfo, camera: Camera, detector: Detector) -> FileReport | None:
    """The newest file of a CCD, if it is of this image, complete, and all of its sums hold.

    None otherwise: then the image has to be read. Raises StorageError.
    """
    there = versions(directory, ImageName.parse(image.name), detector)
    if not there:
        return None
    version, path = there[-1]
    if not path.is_file() or not sidecar_path(path).is_file():
        return None
    try:
        raw = open_raw(path, 1, camera=camera)
        if raw.missing_pixels or "MISSPIX" not in raw.file_header or not of_image(raw, image):
            return None
        if raw.detector.name != detector.name or len(raw.segments) != len(detector.segments):
            return None
        if not sums_hold(raw):
            return None
        return report_standing(raw, version, detector, "unchanged")
    except FormatError:
        return None
