"""Header documents in the archive: written whole and durably, never replaced.

    <archive>/<dayobs>/<obsid>/<obsid>_header.yaml       the first
    <archive>/<dayobs>/<obsid>/<obsid>_header.v2.yaml    a later one with another content

The day is that of the image's name, never a clock's. The highest version is the one to read.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from raftwright import _core
from raftwright.errors import FormatError, StorageError
from raftwright.header.building import BuiltHeader
from raftwright.rawfile import times
from raftwright.rawfile.document import MAX_BYTES, HeaderDocument, read_header_document
from raftwright.rawfile.names import MAX_VERSION, ImageName, image_directory
from raftwright.rawfile.publishing import make_directory, sync_directory

__all__ = ["HeaderLog", "HeaderStore", "Stored", "header_name", "header_versions"]

_FILE = re.compile(
    r"(?P<obsid>[A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6})_header(?:\.v(?P<version>[1-9][0-9]{0,3}))?\.yaml\Z"
)
_MOST_RACES: Final = 20

Outcome: TypeAlias = Literal["written", "unchanged", "kept"]
"""`kept`: what is there says all that the new one says, and more."""
Rebuild: TypeAlias = Callable[[int, int], BuiltHeader]
"""Builds the document with DATE (nanoseconds TAI) and version."""


@dataclass(frozen=True)
class Stored:
    """What became of a document."""

    path: Path
    version: int
    outcome: Outcome
    header: BuiltHeader
    """As it stands in the file; for `kept` as it would have been."""

    def sentences(self) -> list[str]:
        """All that is to be said of it."""
        said = [str(problem) for problem in self.header.problems]
        if self.header.lacking:
            said.append(f"mandatory keywords without a value: {', '.join(self.header.lacking)}")
        said += [
            f"least metadata, {group}: {', '.join(keywords)} without a value"
            for group, keywords in self.header.groups.items()
        ]
        return said


class HeaderLog(Protocol):
    """Where it is entered that a header is stored. Doing it again changes nothing."""

    def enter(self, stored: Stored) -> None:
        """Raises StorageError, ConflictError."""
        ...

    def close(self) -> None:
        """Twice is once."""
        ...


def header_name(image: ImageName, version: int = 1) -> str:
    """Name of the file of a header document."""
    return f"{image}_header.yaml" if version == 1 else f"{image}_header.v{version}.yaml"


def header_versions(archive: Path, image: ImageName) -> list[tuple[int, Path]]:
    """The documents of an image that are there, ascending."""
    directory = image_directory(archive, image)
    found = []
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    for name in names:
        match = _FILE.match(name)
        if match is not None and match["obsid"] == str(image):
            version = int(match["version"] or 1)
            if name == header_name(image, version):
                found.append((version, directory / name))
    return sorted(found)


class HeaderStore:
    """Header documents in an archive. Thread-safe; several processes may write into one archive."""

    def __init__(self, archive: str | os.PathLike[str], *, durable: bool = True) -> None:
        self.archive = Path(archive)
        self._durable = durable

    def put(self, image: ImageName, build: Rebuild) -> Stored:
        """Stores a document, unless the newest that is there says the same, or knows more.

        Raises StorageError: nothing is changed then.
        """
        directory = image_directory(self.archive, image)
        make_directory(directory, self._durable)
        for _ in range(_MOST_RACES):
            there = header_versions(self.archive, image)
            if there:
                version, path = there[-1]
                standing = _read(path)
                created = _date_of(standing)
                if created is not None:
                    header = build(created, version)
                    if header.data == standing:
                        return Stored(path, version, "unchanged", header)
                    if _knows_more(standing, header):
                        return Stored(path, version, "kept", header)
                if version >= MAX_VERSION:
                    raise StorageError(errno.EEXIST, f"{MAX_VERSION} versions are there already", str(path))
                header = build(times.now(), version + 1)
            else:
                header = build(times.now(), 1)
            path = directory / header_name(image, header.version)
            if _core.stage_bytes(str(path), header.data, self._durable).commit():
                if self._durable:
                    try:
                        sync_directory(directory)
                    except OSError as error:
                        raise StorageError(
                            error.errno, f"cannot make it durable: {error.strerror}", str(directory)
                        ) from error
                return Stored(path, header.version, "written", header)
        raise StorageError(errno.EBUSY, "other writers take its names again and again", str(directory))

    def has(self, obsid: str) -> bool:
        """Whether an image has a document; none has one under a name that is no image's."""
        try:
            return bool(header_versions(self.archive, ImageName.parse(obsid)))
        except FormatError:
            return False

    def read(self, image: ImageName, version: int | None = None) -> bytes | None:
        """A document, the newest by default; None where there is none. Raises StorageError."""
        there = header_versions(self.archive, image)
        chosen = [path for number, path in there if version in (None, number)]
        return _read(chosen[-1]) if chosen else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(path)) from error


_DATE_LINE = re.compile(rb"\{keyword: '?DATE'?, value: '?([0-9T:.-]+)'?,")


def _date_of(data: bytes) -> int | None:
    match = _DATE_LINE.search(data, 0, 1 << 16)
    if match is None:
        return None
    try:
        return times.parse_iso(match[1].decode("ascii"))
    except FormatError:
        return None


_OF_THE_DOCUMENT: Final = frozenset({"DATE", "MJD", "HDRVERS", "HDRSTATE", "HDRNULLS", "HDRLACKS"})


def _knows_more(standing: bytes, header: BuiltHeader) -> bool:
    """Whether all that a new document says is in the one that stands, which says more.

    A complete one is not followed by a partial one, either: what is known of an image only grows.
    """
    try:
        old, new = read_header_document(standing), read_header_document(header.data)
    except FormatError:
        return False
    state = _state_of(old)
    if state != header.state:
        return state == "complete"
    return all(_values(new, section).items() <= _values(old, section).items() for section in new.sections)


def _state_of(document: HeaderDocument) -> str:
    record = document.section("PRIMARY").get("HDRSTATE")
    return str(record.value) if record is not None else ""


def _values(document: HeaderDocument, section: str) -> Mapping[str, object]:
    return {
        keyword: record.value
        for keyword, record in document.section(section).items()
        if record.value is not None and keyword not in _OF_THE_DOCUMENT
    }
