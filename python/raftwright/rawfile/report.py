"""What writing an image came to, file by file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from raftwright.assembly import PixelRuns
from raftwright.errors import FormatError, RaftwrightError
from raftwright.rawfile.sidecar import Replaced

__all__ = ["Failure", "FileReport", "SourceReport", "Status", "WriteReport", "as_failure"]

_log = logging.getLogger("raftwright.rawfile")

Status = Literal["written", "unchanged", "kept", "conflict"]
"""`unchanged`: the file was there with the same bytes. `kept`: a file of the same image was there that agrees
and lacks no more pixels; it stays, alone, and is what is reported. `conflict`: it was there with others,
which stayed; the new content was kept beside it."""


@dataclass(frozen=True)
class FileReport:
    """One raw file and its sidecar.

    `path` and `sidecar` are where the content is: the names asked for, or those beside them after a conflict.
    """

    detector: str
    location: str
    path: Path
    status: Status
    bytes: int
    adler32: str
    crc32c: str
    sidecar: Path
    sidecar_status: Status
    missing: Mapping[str, PixelRuns] = field(default_factory=dict)
    """Missing pixels of each segment that has any: (first, count) in readout positions."""
    version: int = 1
    replaces: Replaced | None = None
    """The version before, which stays: it lacks more pixels."""
    header: str = ""
    """HDRSTATE: complete, partial, missing; empty where nothing is said of a header document."""

    @property
    def missing_pixels(self) -> int:
        """Pixels that did not arrive."""
        return sum(count for runs in self.missing.values() for _, count in runs)

    @property
    def conflict(self) -> bool:
        """Whether the name of the file or of its sidecar was taken by another content."""
        return "conflict" in (self.status, self.sidecar_status)


@dataclass(frozen=True)
class Failure:
    """A CCD of which no file could be made, or the manifest (`detector` empty), and why."""

    detector: str
    error: str


def as_failure(error: Exception, what: str) -> RaftwrightError:
    """An error of one file; a bug, or what nobody thought of, holds up no other file either."""
    if isinstance(error, RaftwrightError):
        return error
    _log.error("%s: its file cannot be made", what, exc_info=error)
    return FormatError(
        f"{what}: its file cannot be made ({type(error).__name__}: {error}); the log has where, report it"
    )


@dataclass(frozen=True)
class SourceReport:
    """What became of the files of one source."""

    location: str
    files: tuple[FileReport, ...]
    failures: tuple[Failure, ...]
    errors: tuple[RaftwrightError, ...]
    """Of the failures, in the same order."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class WriteReport:
    """What `write_image` did.

    Attributes
    ----------
    image, camera
        Names.
    directory
        Where the files are.
    files
        The raw files, ordered by the camera's detectors.
    manifest, manifest_status
        The list of expected sensors.
    fill
        The value that missing pixels were given.
    notes
        What of the header document could not be used, or had to be changed.
    failures
        CCDs without a file; `write_image` raises when there are any, with the report as the error's `report`.
    packed_bytes, seconds
        Size of the streams that were read, and how long all of it took.
    """

    image: str
    camera: str
    directory: Path
    files: tuple[FileReport, ...]
    manifest: Path | None
    manifest_status: Status | None
    fill: int
    notes: tuple[str, ...]
    failures: tuple[Failure, ...]
    packed_bytes: int
    seconds: float

    @property
    def missing_pixels(self) -> int:
        """Pixels of all files that did not arrive."""
        return sum(file.missing_pixels for file in self.files)

    @property
    def complete(self) -> bool:
        """Whether every CCD has a file and every file all of its pixels."""
        return not self.failures and self.missing_pixels == 0

    @property
    def conflicts(self) -> tuple[FileReport, ...]:
        """Files whose names were taken by another content."""
        return tuple(file for file in self.files if file.conflict)

    @property
    def bytes(self) -> int:
        """Size of the raw files."""
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        content = asdict(self)
        for entry, file in zip(content["files"], self.files, strict=True):
            entry["path"], entry["sidecar"] = str(file.path), str(file.sidecar)
            entry["missing_pixels"] = file.missing_pixels
        content["directory"] = str(self.directory)
        content["manifest"] = str(self.manifest) if self.manifest is not None else None
        content.update(missing_pixels=self.missing_pixels, complete=self.complete, bytes=self.bytes)
        return content
