"""The messages of raftwright's own services."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, TypeAlias

import msgspec

from raftwright.events.kinds import (
    Bytes,
    Count,
    Crc,
    Dayobs,
    Image,
    Instrument,
    Location,
    Md5,
    Message,
    Part,
    Path,
    Text,
    Word,
)

__all__ = [
    "OWN",
    "CommandRun",
    "Delivered",
    "DeliveryFailed",
    "FileRepaired",
    "FileWritten",
    "HeaderReady",
    "ImageComplete",
    "ImageIncomplete",
    "ImageWritten",
    "LedgerNote",
    "ReplicaChanged",
    "ServiceState",
    "StateChanged",
    "UnitTakenOver",
]

State: TypeAlias = Literal["STANDBY", "DISABLED", "ENABLED", "FAULT", "OFFLINE"]


class _OfImage(Message, frozen=True, kw_only=True):
    """Of an image."""

    instrument: Instrument
    obsid: Image


class _OfCcd(_OfImage, frozen=True, kw_only=True):
    """Of a file of a CCD. `NR` and `NS` where it is of no single one."""

    raft: Part
    sensor: Part


class FileWritten(_OfCcd, frozen=True, kw_only=True):
    """A file of a CCD is whole and durable under its name."""

    KIND: ClassVar[str] = "fileWritten"

    location: Location
    path: Path
    bytes: Bytes
    crc32c: Crc
    version: Count
    adler32: Crc | None = None
    missing_pixels: Bytes = 0
    status: Word = "written"
    header: Word | None = None
    """HDRSTATE of the file: complete, partial or missing."""


class FileRepaired(FileWritten, frozen=True, kw_only=True):
    """A later, better read of a CCD whose file had gaps; `replaces` is the file before, which stays."""

    KIND: ClassVar[str] = "fileRepaired"

    replaces: Path


class ImageWritten(_OfImage, frozen=True, kw_only=True):
    """All files of an image that this forwarder is in charge of are written."""

    KIND: ClassVar[str] = "imageWritten"

    files: Count
    states: dict[str, str] = msgspec.field(default_factory=dict)
    missing_pixels: Bytes = 0


class ImageIncomplete(_OfImage, frozen=True, kw_only=True):
    """A source of an image was given up on for now; its files are written with the gaps marked."""

    KIND: ClassVar[str] = "imageIncomplete"

    raft: Part
    location: Location
    missing_bytes: Bytes
    reason: Text


class UnitTakenOver(_OfImage, frozen=True, kw_only=True):
    """A unit of work of another service, which no longer renews its lease, is now this one's."""

    KIND: ClassVar[str] = "unitTakenOver"

    location: Location
    previous: Text
    owner: Text


class ImageComplete(_OfImage, frozen=True, kw_only=True):
    """The archiver has settled what an image is: all of it, or all that can be had."""

    KIND: ClassVar[str] = "imageComplete"

    expected: Count
    """Detectors that the image must have."""
    present: Count
    """Detectors whose files are there, with sums that hold."""
    state: Literal["complete", "incomplete"] = "complete"
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    """Detector and reason of what is not there."""


class HeaderReady(_OfImage, frozen=True, kw_only=True):
    """The header document of an image stands in the archive."""

    KIND: ClassVar[str] = "headerReady"

    path: Path
    bytes: Bytes
    crc32c: Crc
    version: Count
    md5: Md5 | None = None
    lacking: list[str] = msgspec.field(default_factory=list)
    """Mandatory cards that it does not have."""


class Delivered(_OfCcd, frozen=True, kw_only=True):
    """A file is at a destination, and was looked at there. `NR` and `NS` where it is of no single CCD."""

    KIND: ClassVar[str] = "delivered"

    destination: Word
    name: Path
    """The file's path or key there."""
    bytes: Bytes
    attempt: Count = 1
    seconds: float | None = None


class DeliveryFailed(_OfCcd, frozen=True, kw_only=True):
    """A file could not be brought to a destination; `final` where it is not tried again."""

    KIND: ClassVar[str] = "deliveryFailed"

    destination: Word
    name: Path
    attempt: Count
    reason: Text
    final: bool = False


class ReplicaChanged(_OfImage, frozen=True, kw_only=True):
    """A replica of a file at an endpoint is verified, damaged, lost, healed or removed; or the file could not
    be brought there and waits for somebody (failed, conflict)."""

    KIND: ClassVar[str] = "replica"

    endpoint: Word
    name: Path
    """The file's path or key there; its path in the archive where it did not get there."""
    standing: Literal["verified", "damaged", "lost", "healed", "removed", "failed", "conflict"]
    bytes: Bytes = 0
    attempt: Count = 0
    reason: Text = ""


class CommandRun(_OfImage, frozen=True, kw_only=True):
    """A command after the writing of a file or an image ended, well (`rc` 0) or not."""

    KIND: ClassVar[str] = "commandRun"

    command: Text
    rc: int
    raft: Part = "NR"
    sensor: Part = "NS"
    path: Path = ""
    seconds: float | None = None
    output: Text = ""


class StateChanged(_OfImage, frozen=True, kw_only=True):
    """Something of an image has another state in the ledger: a source, detector, file, header, delivery."""

    KIND: ClassVar[str] = "stateChanged"

    dayobs: Dayobs
    thing: Word
    new: Word
    subject: Path = ""
    """Which of them: `22/0`, `R22_S11`, a path, ..."""
    old: Text = ""
    owner: Text = ""
    """Who wrote it."""
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class LedgerNote(Message, frozen=True, kw_only=True):
    """Something else in the ledger has another state: a role, a name that was set aside."""

    KIND: ClassVar[str] = "ledgerNote"
    IMAGE_FIELD: ClassVar[str] = ""

    thing: Word
    new: Word
    subject: Path = ""
    old: Text = ""
    owner: Text = ""
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class ServiceState(Message, frozen=True, kw_only=True):
    """A service has another state than before."""

    KIND: ClassVar[str] = "serviceState"
    IMAGE_FIELD: ClassVar[str] = ""

    service: Word
    state: State
    previous: State | None = None
    reason: Text = ""
    code: Count = 0
    instrument: Instrument | None = None


OWN: Final[tuple[type[Message], ...]] = (
    *(FileWritten, FileRepaired, ImageWritten, ImageIncomplete, UnitTakenOver),
    *(ImageComplete, HeaderReady, Delivered, DeliveryFailed, ReplicaChanged, CommandRun, ServiceState),
    *(StateChanged, LedgerNote),
)
