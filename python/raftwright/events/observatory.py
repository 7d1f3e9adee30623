"""The messages of the observatory, with its own names and fields.

Each has `instrument` besides, because here they do not come under the name of a camera's component. Lists are
texts with colons between the items. Times are TAI, in seconds since 1970, unless it says otherwise.
"""

# ruff: noqa: N815 - the names are the observatory's

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from msgspec import Meta

from raftwright.events.codes import OodsStatus
from raftwright.events.kinds import (
    Bytes,
    ColonList,
    Count,
    Dayobs,
    Image,
    Instrument,
    Md5,
    Message,
    Part,
    Path,
    Tai,
    Text,
    Word,
)

__all__ = [
    "OBSERVATORY",
    "EndOfImageTelemetry",
    "EndReadout",
    "FileCommandExecution",
    "FileTransfer",
    "FileTransferNightlySummary",
    "FileTransferPerImageSummary",
    "FitsFilesWritten",
    "ImageInOods",
    "ImageReadoutParameters",
    "ImageStored",
    "ImageVisualization",
    "LargeFileObjectAvailable",
    "NextVisit",
    "NextVisitCanceled",
    "StartIntegration",
    "StartReadout",
]

_Numbers: TypeAlias = Annotated[list[int], Meta(max_length=512)]
_UpTo5: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9?]{1,5}\Z")]
_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e7)]


class _Of(Message, frozen=True, kw_only=True):
    """An event of a camera about an image."""

    IMAGE_FIELD: ClassVar[str] = "imageName"

    instrument: Instrument
    imageName: Image


class _Image(_Of, frozen=True, kw_only=True):
    """The fields that the events of an exposure have in common."""

    imagesInSequence: Count
    imageIndex: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    imageSource: Word
    imageController: Word
    imageDate: Dayobs
    imageNumber: Count
    timestampAcquisitionStart: Tai
    additionalKeys: ColonList = ""
    additionalValues: ColonList = ""


class StartIntegration(_Image, frozen=True, kw_only=True):
    """The exposure has begun."""

    KIND: ClassVar[str] = "startIntegration"

    exposureTime: _Seconds
    mode: Text = ""
    timeout: float = 0.0


class StartReadout(_Image, frozen=True, kw_only=True):
    """The readout has begun."""

    KIND: ClassVar[str] = "startReadout"

    exposureTime: _Seconds
    timestampStartOfReadout: Tai


class EndReadout(_Image, frozen=True, kw_only=True):
    """The readout has ended: latencies are counted from here."""

    KIND: ClassVar[str] = "endReadout"

    requestedExposureTime: _Seconds
    timestampEndOfReadout: Tai


class EndOfImageTelemetry(_Image, frozen=True, kw_only=True):
    """Everything that belongs to the image has been told."""

    KIND: ClassVar[str] = "endOfImageTelemetry"

    exposureTime: _Seconds
    imageTag: Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{1,32}\Z")]
    timestampDateObs: Tai
    timestampDateEnd: Tai
    measuredShutterOpenTime: _Seconds
    darkTime: _Seconds
    emulatedImage: Text = ""
    """Name of the image that was played again."""


class ImageReadoutParameters(_Of, frozen=True, kw_only=True):
    """How each CCD was read out; a list of CCDs, and numbers in the same order."""

    KIND: ClassVar[str] = "imageReadoutParameters"

    ccdLocation: ColonList
    raftBay: ColonList
    ccdSlot: ColonList
    ccdType: _Numbers
    overRows: _Numbers
    overCols: _Numbers
    readRows: _Numbers
    readCols: _Numbers
    readCols2: _Numbers
    preCols: _Numbers
    preRows: _Numbers
    postCols: _Numbers
    underCols: _Numbers
    daqFolder: Text = ""
    daqAnnotation: Text = ""


class ImageStored(_Of, frozen=True, kw_only=True):
    """The DAQ has stored the image."""

    KIND: ClassVar[str] = "imageStored"

    timestampImageStored: Tai


class FitsFilesWritten(_Of, frozen=True, kw_only=True):
    """Raw files are written."""

    KIND: ClassVar[str] = "fitsFilesWritten"

    timestampFilesWritten: Tai
    rootFileName: Path
    relativeFileNames: ColonList
    fileNode: ColonList
    """Which node wrote each, in the same order."""


class FileCommandExecution(_Of, frozen=True, kw_only=True):
    """A command that is run for written files has ended."""

    KIND: ClassVar[str] = "fileCommandExecution"

    timestampCommandComplete: Tai
    command: Text
    """With its arguments."""
    rc: int


class ImageVisualization(_Of, frozen=True, kw_only=True):
    """A picture of the image can be looked at."""

    KIND: ClassVar[str] = "imageVisualization"

    timestampVisualizationAvailable: Tai
    url: Path
    thumbnail: Path = ""


class ImageInOods(Message, frozen=True, kw_only=True):
    """A file was ingested in an observatory cache, or was not."""

    KIND: ClassVar[str] = "imageInOODS"
    INSTRUMENT_FIELD: ClassVar[str] = "camera"

    camera: Instrument
    obsid: Image
    raft: _UpTo5
    sensor: _UpTo5
    statusCode: OodsStatus
    description: Text = ""


class LargeFileObjectAvailable(Message, frozen=True, kw_only=True):
    """A file of a service can be fetched; that of the header service is the header document."""

    KIND: ClassVar[str] = "largeFileObjectAvailable"
    IMAGE_FIELD: ClassVar[str] = "id"

    instrument: Instrument
    url: Path
    generator: Word
    version: Annotated[float, Meta(ge=0, le=1e6)]
    byteSize: Bytes
    checkSum: Md5
    mimeType: Literal["YAML", "FITS", "JSON"]
    id: Image


class FileTransfer(Message, frozen=True, kw_only=True):
    """A file could not be transferred. `NR` and `NS` where it is of no raft and no sensor."""

    KIND: ClassVar[str] = "fileTransfer"

    instrument: Instrument
    obsid: Image
    site: Word
    dayObs: Dayobs
    resendCount: Count
    raft: Part
    sensor: Part
    fileType: Word
    operation: Word
    rc: int
    writeHost: Word
    fileName: Path
    reason: Text
    timestamp: Tai
    duration: _Seconds


class _Summary(Message, frozen=True, kw_only=True):
    """Counts of files. `expected` less `written` is a matter of DAQ or camera."""

    instrument: Instrument
    site: Word
    dayObs: Dayobs
    expected: Count
    written: Count
    transferredBeforeResend: Count
    missingBeforeResend: Count
    resendCount: Count
    transferredAfterResend: Count
    missingAfterResend: Count
    metaData: Annotated[str, Meta(max_length=60_000)] = ""
    """JSON."""


class FileTransferPerImageSummary(_Summary, frozen=True, kw_only=True):
    """The files of an image, counted. It may come again."""

    KIND: ClassVar[str] = "fileTransferPerImageSummary"
    IMAGE_FIELD: ClassVar[str] = "obsId"

    obsId: Image


class FileTransferNightlySummary(_Summary, frozen=True, kw_only=True):
    """The files of a night, counted. It may come again after work by hand."""

    KIND: ClassVar[str] = "fileTransferNightlySummary"
    IMAGE_FIELD: ClassVar[str] = ""

    maxFullDiskNode: Word
    maxFullDiskPercent: Annotated[float, Meta(ge=0, le=100)]


class NextVisit(Message, frozen=True, kw_only=True):
    """The scheduler's next visit; promised 20 s ahead."""

    KIND: ClassVar[str] = "nextVisit"
    IMAGE_FIELD: ClassVar[str] = ""

    salIndex: int
    scriptSalIndex: int
    groupId: Annotated[str, Meta(max_length=200)]
    coordinateSystem: Annotated[int, Meta(ge=1, le=4)]
    position: Annotated[list[float], Meta(min_length=2, max_length=2)]
    """Degrees."""
    startTime: Tai
    rotationSystem: Annotated[int, Meta(ge=1, le=4)]
    cameraAngle: float
    dome: Annotated[int, Meta(ge=1, le=3)]
    duration: _Seconds
    nimages: Count
    """0 where it is not known."""
    filters: Text = ""
    instrument: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.+-]{0,64}\Z")] = ""
    """Empty where it is not known."""
    survey: Text = ""
    totalCheckpoints: Count = 0
    private_sndStamp: float = 0.0
    """TAI."""
    private_rcvStamp: float = 0.0
    private_efdStamp: float = 0.0
    """UTC."""
    private_kafkaStamp: float = 0.0
    private_seqNum: int = 0
    private_revCode: Text = ""
    private_identity: Text = ""
    private_origin: int = 0


class NextVisitCanceled(Message, frozen=True, kw_only=True):
    """That group will not be used."""

    KIND: ClassVar[str] = "nextVisitCanceled"
    IMAGE_FIELD: ClassVar[str] = ""

    scriptSalIndex: int
    groupId: Annotated[str, Meta(max_length=200)]
    instrument: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.+-]{0,64}\Z")] = ""


OBSERVATORY: Final[tuple[type[Message], ...]] = (
    *(StartIntegration, StartReadout, EndReadout, EndOfImageTelemetry, ImageReadoutParameters, ImageStored),
    *(FitsFilesWritten, FileCommandExecution, ImageVisualization, ImageInOods, LargeFileObjectAvailable),
    *(FileTransfer, FileTransferPerImageSummary, FileTransferNightlySummary, NextVisit, NextVisitCanceled),
)
