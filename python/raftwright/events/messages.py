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
    "ServiceState",
    "StateChanged",
    "UnitTakenOver",
]

State: TypeAlias = Literal["STANDBY", "DISABLED", "ENABLED", "FAULT", "OFFLINE"]


class FileWritten(Message, frozen=True, kw_only=True):
    """A file of a CCD is whole and durable under its name."""

    KIND: ClassVar[str] = "fileWritten"

    instrument: Instrument
    obsid: Image
    raft: Part
    sensor: Part
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


class ImageWritten(Message, frozen=True, kw_only=True):
    """All files of an image that this forwarder is in charge of are written."""

    KIND: ClassVar[str] = "imageWritten"

    instrument: Instrument
    obsid: Image
    files: Count
    states: dict[str, str] = msgspec.field(default_factory=dict)
    missing_pixels: Bytes = 0


class ImageIncomplete(Message, frozen=True, kw_only=True):
    """A source of an image was given up on for now; its files are written with the gaps marked."""

    KIND: ClassVar[str] = "imageIncomplete"

    instrument: Instrument
    obsid: Image
    raft: Part
    location: Location
    missing_bytes: Bytes
    reason: Text


class UnitTakenOver(Message, frozen=True, kw_only=True):
    """A unit of work of another service, which no longer renews its lease, is now this one's."""

    KIND: ClassVar[str] = "unitTakenOver"

    instrument: Instrument
    obsid: Image
    location: Location
    previous: Text
    owner: Text


class ImageComplete(Message, frozen=True, kw_only=True):
    """The archiver has settled what an image is: all of it, or all that can be had."""

    KIND: ClassVar[str] = "imageComplete"

    instrument: Instrument
    obsid: Image
    expected: Count
    """Detectors that the image must have."""
    present: Count
    """Detectors whose files are there, with sums that hold."""
    state: Literal["complete", "incomplete"] = "complete"
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    """Detector and reason of what is not there."""


class HeaderReady(Message, frozen=True, kw_only=True):
    """The header document of an image stands in the archive."""

    KIND: ClassVar[str] = "headerReady"

    instrument: Instrument
    obsid: Image
    path: Path
    bytes: Bytes
    crc32c: Crc
    version: Count
    md5: Md5 | None = None
    lacking: list[str] = msgspec.field(default_factory=list)
    """Mandatory cards that it does not have."""


class Delivered(Message, frozen=True, kw_only=True):
    """A file is at a destination, and was looked at there. `NR` and `NS` where it is of no single CCD."""

    KIND: ClassVar[str] = "delivered"

    instrument: Instrument
    obsid: Image
    raft: Part
    sensor: Part
    destination: Word
    name: Path
    """The file's path or key there."""
    bytes: Bytes
    attempt: Count = 1
    seconds: float | None = None


class DeliveryFailed(Message, frozen=True, kw_only=True):
    """A file could not be brought to a destination; `final` where it is not tried again."""

    KIND: ClassVar[str] = "deliveryFailed"

    instrument: Instrument
    obsid: Image
    raft: Part
    sensor: Part
    destination: Word
    name: Path
    attempt: Count
    reason: Text
    final: bool = False


class CommandRun(Message, frozen=True, kw_only=True):
    """A command after the writing of a file or an image ended, well (`rc` 0) or not."""

    KIND: ClassVar[str] = "commandRun"

    instrument: Instrument
    obsid: Image
    command: Text
    rc: int
    raft: Part = "NR"
    sensor: Part = "NS"
    path: Path = ""
    seconds: float | None = None
    output: Text = ""


class StateChanged(Message, frozen=True, kw_only=True):
    """Something of an image has another state in the ledger: a source, detector, file, header, delivery."""

    KIND: ClassVar[str] = "stateChanged"

    instrument: Instrument
    obsid: Image
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
    *(ImageComplete, HeaderReady, Delivered, DeliveryFailed, CommandRun, ServiceState),
    *(StateChanged, LedgerNote),
)
