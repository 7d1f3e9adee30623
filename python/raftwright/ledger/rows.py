"""Rows of the ledger as its users see them, and what they enter."""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

__all__ = [
    "AttemptRow",
    "DeliveryPlan",
    "DeliveryRow",
    "DetectorFacts",
    "DetectorRow",
    "EventRow",
    "FileRow",
    "HeaderRow",
    "ImageFacts",
    "ImageRow",
    "IngestPlan",
    "IngestRow",
    "QuarantineRow",
    "ReplicaRow",
    "SourceFacts",
    "SourceRow",
    "TagRow",
    "dayobs_of",
    "plain_id",
    "plain_path",
]


def plain_id(text: str) -> str:
    """An id of the DAQ as files and the ledger have it: lower case, without leading zeros."""
    return (text.lower().lstrip("0") or "0") if text else ""


def dayobs_of(obsid: str) -> int:
    """The night of an image that the ledger knows: it stands in the name."""
    return int(obsid.split("_")[2])


def plain_path(path: str) -> str:
    """A path as the ledger has it: absolute, wherever whoever asks is standing."""
    return path if path.startswith("/") else os.path.abspath(path)


class SourceFacts(msgspec.Struct, frozen=True):
    """A source that an image has in the DAQ."""

    location: str
    kind: str
    bytes: int


class DetectorFacts(msgspec.Struct, frozen=True):
    """A detector that an image must have."""

    detector: str
    """`R22_S11`."""
    location: str
    purpose: str
    """As in the manifest: SCIENCE, GUIDER."""


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the DAQ announces it, with what follows from the camera."""

    obsid: str
    daq_id: str
    camera: str
    instrument: str
    folder: str = ""
    trigger_tai: float | None = None
    announced_tai: float | None = None
    """Now, unless it was long ago."""
    sources: tuple[SourceFacts, ...]
    detectors: tuple[DetectorFacts, ...]


class ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """An image. Columns as in `raftwright.ledger.schema`."""

    id: int
    obsid: str
    daq_id: str
    camera: str
    instrument: str
    folder: str
    dayobs: int
    seqnum: int
    controller: str
    exposure_id: int
    state: str
    reason: str
    header_state: str
    expected_sources: int
    expected_detectors: int
    trigger_tai: float | None
    begin_tai: float | None
    end_tai: float | None
    end_readout_tai: float | None
    announced_tai: float
    settled_tai: float | None
    complete_tai: float | None
    image_type: str | None
    exposure_time: float | None
    physical_filter: str | None
    target: str | None
    group_id: str | None
    ra: float | None
    dec: float | None
    cur_index: int | None
    """Which exposure of its group it is, from 1 on."""


class SourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A source of an image."""

    image_id: int
    location: str
    kind: str
    state: str
    reason: str
    expected: int
    received: int
    attempts: int
    owner: str
    created: int
    next_try: float


class DetectorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A detector that an image must have."""

    image_id: int
    detector: str
    location: str
    purpose: str
    state: str
    reason: str
    missing_pixels: int


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an image: a raw file, or what stands beside it."""

    image: str
    daq_id: str
    location: str = ""
    detector: str = ""
    """E.g. `R22_S11`."""
    version: int = 1
    """1, or more for a repaired one."""
    path: str
    bytes: int
    adler32: str = ""
    crc32c: str
    missing: int = 0
    """Pixels."""
    status: Literal["written", "unchanged", "kept", "conflict", "lost", "damaged", "removed"]
    """`lost`: it is not there any more. `damaged`: its sums do not hold."""
    replaces: str = ""
    """Path of the version that this one repairs."""
    replaced_by: str = ""
    """Path of the version that repairs this one."""
    written: float = 0.0
    """When, TAI; 0: now."""
    kind: str = "raw"
    """raw, sidecar, manifest, header; container: all of these in one."""
    verified: float | None = None
    """When its sums were last found to hold, TAI."""
    id: int = 0
    """Its number in the ledger."""
    image_id: int = 0
    """That of its image."""


class HeaderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the header document of an image."""

    obsid: str
    version: int
    state: str
    path: str
    bytes: int
    crc32c: str
    md5: str
    problems: tuple[str, ...]
    made_tai: float


class DeliveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is to be brought to a destination."""

    image_id: int
    destination: str
    path: str
    target: str = ""
    """Name at the destination."""
    bytes: int = 0
    crc32c: str = ""
    priority: int = 0
    rank: int = 0


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery, as it stands."""

    id: int
    image_id: int
    obsid: str
    destination: str
    path: str
    target: str
    bytes: int
    crc32c: str
    priority: int
    rank: int
    state: str
    reason: str
    attempts: int
    owner: str
    next_try: float
    queued_tai: float
    delivered_tai: float | None
    began_tai: float | None = None
    """When the try that is under way began."""


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One try at something."""

    image_id: int
    thing: str
    subject: str
    number: int
    owner: str
    began_tai: float
    ended_tai: float | None
    outcome: str
    reason: str
    bytes: int


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state; the history only grows."""

    number: int
    at_tai: float
    image_id: int | None
    obsid: str
    dayobs: int
    thing: str
    subject: str
    old: str
    new: str
    owner: str
    detail: dict[str, Any]


class QuarantineRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something with a name that is none, or a content that is none; set aside."""

    id: int
    what: str
    name_hex: str
    shown: str
    reason: str
    first_tai: float
    last_tai: float
    count: int
    standing: str
    """`aside`; `again`: somebody asked that it be tried once more; `settled`: there is nothing to be done."""

    @property
    def name(self) -> str:
        """As it was given; what is no text in it is escaped as `os.fsdecode` does."""
        return os.fsdecode(bytes.fromhex(self.name_hex))


class ReplicaRow(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a file at an endpoint."""

    id: int
    image_id: int
    file_id: int
    obsid: str
    path: str
    """Of the file in the archive."""
    endpoint: str
    """Its plain name, without `endpoint:`."""
    target: str
    """Its name there."""
    bytes: int
    crc32c: str
    adler32: str
    state: str
    """See `raftwright.ledger.states.ReplicaState`."""
    reason: str
    custodial: int
    """1: the endpoint keeps it so that nobody can change it."""
    verified_tai: float
    """When it was first found there as it should be."""
    checked_tai: float
    """When it was last read there."""


class IngestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A file that belongs into a Butler repository."""

    image_id: int
    """0: of no image that the ledger knows."""
    repository: str
    path: str
    file_id: int = 0
    """0: none of the ledger's files."""
    detector: str = ""
    kind: Literal["raw", "guider"] = "raw"
    crc32c: str = ""
    bytes: int = 0
    priority: int = 0
    """Lower goes first."""
    observed_tai: float | None = None
    """When it was taken; begin, trigger or announcement of its image if that is not given."""
    stored: str = ""
    """Of an object: tag and sums that its store tells of it."""


class IngestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file that belongs into a Butler repository, as it stands."""

    id: int
    image_id: int
    file_id: int
    obsid: str
    """Empty where it is of no image."""
    instrument: str
    exposure_id: int
    repository: str
    path: str
    uri: str
    """Where it is in the repository; empty until it is ingested."""
    detector: str
    kind: str
    crc32c: str
    bytes: int
    priority: int
    state: str
    """See `raftwright.ledger.states.IngestState`."""
    reason: str
    code: int
    """As imageInOODS tells it."""
    attempts: int
    owner: str
    next_try: float
    """TAI before which it is not tried again; of one that waits, until when it does."""
    dataset_id: str
    run: str
    dataset_type: str
    pinned: int
    queued_tai: float
    ingested_tai: float | None
    observed_tai: float
    removed_tai: float | None
    stored: str
    """Of an object: tag and sums that its store told of it, as `raftwright.oods.stored` writes them."""


class TagRow(msgspec.Struct, frozen=True, kw_only=True):
    """An image, or a detector of it, that is kept under a name."""

    name: str
    image_id: int
    obsid: str
    detector: str
    """Empty: all of them."""
    reason: str
    tagged_tai: float
