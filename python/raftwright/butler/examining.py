"""What a file is, before a repository is asked to take it: by its name, size, structure and header."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from raftwright.butler.incoming import Incoming, Outcome, uri_of
from raftwright.butler.software import ResourcePath
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.events.codes import OodsStatus
from raftwright.ledger.images import exposure_id
from raftwright.rawfile.names import FileName, ImageName, check_path, sidecar_path
from raftwright.rawfile.newest import newest_header, newest_sidecar
from raftwright.rawfile.read import open_raw
from raftwright.rawfile.sidecar import MAX_BYTES, read_json

if TYPE_CHECKING:
    from raftwright.butler.repository import Repository
    from raftwright.camera import Camera, Detector

__all__ = ["Found", "examine", "header_of", "identify"]

_SCHEMES: Final = ("s3", "http", "https", "dav", "davs", "gs")
_LONGEST: Final = 4096
_IDENTITY: Final = ("OBSID", "RAFTBAY", "CCDSLOT")
_SIMPLE: Final = b"SIMPLE  =                    T"
_BLOCK: Final = 2880
_HEAD: Final = 8 * _BLOCK
"""Of a file: what says whose it is stands in it."""


class Found(msgspec.Struct, frozen=True, eq=False):
    """A file that is what it should be."""

    number: int
    """Its place in the batch."""
    incoming: Incoming
    image: ImageName
    camera: Camera
    detector: Detector
    exposure: int
    version: int
    local: str
    """Path; empty where it is no local file."""
    uri: str
    """As a repository keeps it."""

    @property
    def path(self) -> Path | None:
        """None where it is no local file."""
        return Path(self.local) if self.local else None

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What it is a file of."""
        return self.incoming.kind, self.camera.name, self.exposure, self.detector.id


def identify(repository: Repository, number: int, incoming: Incoming) -> Found | Outcome:
    """Image, camera and detector, by the name and what the caller says; an outcome where it is none of the
    repository's."""
    try:
        local, uri = _place(incoming.path)
        image, stem, version = _identity(incoming)
    except (FormatError, UsageError) as error:
        return Outcome(state="unsupported", code=OodsStatus.METADATA_FAILURE, reason=str(error))
    camera = repository.camera_of(image)
    if camera is None:
        have = ", ".join(each.name for each in repository.cameras)
        reason = f"{image}: none of this repository's cameras ({have}) makes images {image.source}_…"
        return Outcome(state="unsupported", code=OodsStatus.METADATA_FAILURE, reason=reason)
    try:
        detector = _detectors(camera).get(stem) or camera.detector(stem)
    except NotFoundError as error:
        return Outcome(state="failed", code=OodsStatus.METADATA_FAILURE, reason=f"{image}: {error}")
    exposure = exposure_id(image)
    if exposure == 0:
        reason = f"{image}: has no exposure number: its controller or sequence number is none that has one"
        return Outcome(state="unsupported", code=OodsStatus.METADATA_FAILURE, reason=reason)
    return Found(number, incoming, image, camera, detector, exposure, version, local, uri)


@functools.lru_cache(maxsize=32)
def _detectors(camera: Camera) -> dict[str, Detector]:
    return {detector.file_stem: detector for detector in camera.detectors}


def _place(text: str) -> tuple[str, str]:
    """A local path or nothing, and a URI. Raises UsageError."""
    shown = ascii(text)[:200]
    check_path(text)
    if not 0 < len(text) <= _LONGEST or "\n" in text or "\r" in text:
        raise UsageError(f"{shown}: is no path of a file")
    scheme = urlsplit(text).scheme if "://" in text[:16] else ""
    if scheme in _SCHEMES:
        return "", text
    if scheme:
        raise UsageError(f"{shown}: files are read by {', '.join(_SCHEMES)}, and by plain paths")
    if not text.startswith("/") or ".." in text.split("/"):
        raise UsageError(f"{shown}: has to be an absolute path without `..`")
    return text, uri_of(text)


def _identity(incoming: Incoming) -> tuple[ImageName, str, int]:
    """Image, detector, version. Raises FormatError."""
    if incoming.obsid and incoming.detector:
        image, stem = ImageName.parse(incoming.obsid), incoming.detector
    else:
        image, stem = None, ""
    try:
        name = FileName.parse(incoming.name)
    except FormatError:
        if image is None:
            raise
        return image, stem, 1
    if name.guider != (incoming.kind == "guider"):
        raise FormatError(f"{incoming.name}: its name does not say that it is a {incoming.kind} file")
    found = f"{name.raft}_{name.slot}"
    if image is not None and (image, stem) != (name.image, found):
        raise FormatError(f"{incoming.name}: is announced as {image} {stem[:40]}; its name says otherwise")
    return name.image, found, name.version


def examine(found: Found) -> Outcome | None:
    """Looks at the file itself: its size, that its header names the image and detector that its name does,
    and, where nobody has announced a checksum of it, its structure to the end. None where all is well."""
    try:
        if not found.local:
            _examine_remote(found)
        else:
            _examine_local(found)
    except StorageError as error:
        reason = f"{error.filename or found.incoming.path}: {error.strerror}"
        return Outcome(state="failed", code=OodsStatus.INGEST_FAILURE, reason=reason, again=True)
    except RaftwrightError as error:
        return Outcome(state="failed", code=OodsStatus.METADATA_FAILURE, reason=str(error))
    return None


def _examine_remote(found: Found) -> None:
    try:
        size = ResourcePath(found.uri).size()
    except Exception as error:  # each protocol has its own
        raise StorageError(
            getattr(error, "errno", None) or 5, f"cannot be reached ({str(error)[:200]})", found.uri
        ) from error
    _check_size(found, size)


def _examine_local(found: Found) -> None:
    path = found.local
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path}: is no file")
        _check_size(found, status.st_size)
        with open(path, "rb", buffering=0) as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read: {error.strerror}", path) from error
    announced = found.incoming.crc32c and found.incoming.bytes >= 0
    if not announced or not head.startswith(_SIMPLE) or status.st_size % _BLOCK:
        # The core says what is wrong with it. What was announced with size and sum was looked at before.
        head = open_raw(path, 1, camera=found.camera).file_header.text
    said = {name: text for name in _IDENTITY if (text := _text_of(head, name))}
    if said.get("OBSID", str(found.image)) != str(found.image):
        raise FormatError(f"{path}: its header says {said['OBSID'][:60]!r}, its name {found.image}")
    stem = f"{said.get('RAFTBAY')}_{said.get('CCDSLOT')}"
    if (
        "RAFTBAY" in said
        and "CCDSLOT" in said
        and stem not in (found.detector.file_stem, found.detector.name)
    ):
        raise FormatError(
            f"{path}: its header says detector {stem[:40]}, its name {found.detector.file_stem}"
        )


def _text_of(cards: bytes, keyword: str) -> str:
    """Value of a card that stands among others; nothing where there is none. The other cards are many, and
    not taken apart."""
    mark = keyword.ljust(8).encode() + b"="
    at = cards.find(mark)
    while at >= 0 and at % 80:
        at = cards.find(mark, at + 1)
    if at < 0:
        return ""
    value = cards[at + 10 : at + 80].lstrip()
    if not value.startswith(b"'"):
        return ""
    return value[1:].partition(b"'")[0].strip().decode("ascii", "replace")


def _check_size(found: Found, size: int) -> None:
    if found.incoming.bytes >= 0 and size != found.incoming.bytes:
        raise StorageError(
            5, f"has {size} bytes instead of {found.incoming.bytes}; it is not whole", found.incoming.path
        )


def header_of(found: Found) -> Mapping[str, Any] | None:
    """What is known of the image: the newest sidecar, or else the header of the file; None where there is
    neither. Raises nothing."""
    incoming = found.incoming
    if incoming.header is not None:
        return incoming.header
    content: Mapping[str, Any] | None
    try:
        if found.path is None:
            content = _remote_sidecar(incoming.sidecar or _beside(found.uri))
        elif incoming.sidecar:
            content = read_json(Path(incoming.sidecar))
        else:
            content = read_json(newest_sidecar(found.path)[1])
        if content.get("OBSID") == str(found.image):
            return content
    except (RaftwrightError, OSError, ValueError):
        pass
    if found.path is None:
        return None
    try:
        header = newest_header(found.path, open_raw(found.path, 1, camera=found.camera).file_header)
    except (RaftwrightError, OSError):
        return None
    return dict(header)


def _beside(uri: str) -> str:
    folder, _, name = uri.rpartition("/")
    return f"{folder}/{sidecar_path(Path(name)).name}"


def _remote_sidecar(uri: str) -> Mapping[str, Any]:
    place = ResourcePath(uri)
    try:
        if place.size() > MAX_BYTES:
            raise FormatError(f"{uri}: larger than {MAX_BYTES >> 20} MiB; this is no sidecar")
        content = msgspec.json.decode(place.read())
    except RaftwrightError:
        raise
    except Exception as error:  # each protocol has its own
        raise FormatError(f"{uri}: cannot be read ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise FormatError(f"{uri}: expected a JSON object")
    return content
