"""Destinations as the audit sees them: what is under each name, whatever the ledger was told."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from raftwright.errors import StorageError, UsageError
from raftwright.report.disk import list_directory

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination

__all__ = ["Place", "places_of", "read_place"]


class Place(Protocol):
    """A destination."""

    name: str

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Bytes of all files right below a folder, by their last name. Raises StorageError."""
        ...

    def crc32c(self, target: str) -> str | None:
        """Sum of what is under a name, read anew; None where that is not offered. Raises StorageError."""
        ...

    def instruments(self) -> frozenset[str]:
        """Whose images it gets; all where it is empty."""
        ...


class DirectoryPlace:
    """A directory."""

    def __init__(self, name: str, root: str, instruments: Iterable[str] = ()) -> None:
        self.name = name
        self._root = Path(root)
        self._instruments = frozenset(instruments)
        if not self._root.is_dir():
            raise StorageError(2, f"destination {name}: there is no such directory", root)

    def sizes(self, folder: str) -> Mapping[str, int]:
        listed = list_directory(self._root / folder)
        return {} if listed is None else {name: file.bytes for name, file in listed.items() if file.regular}

    def crc32c(self, target: str) -> str | None:
        from raftwright.rawfile.standing import digest

        return digest(self._root / target).crc32c

    def instruments(self) -> frozenset[str]:
        return self._instruments


class BucketPlace:
    """A bucket."""

    def __init__(self, destination: Destination) -> None:
        from raftwright.archiver.destinations.s3 import S3Sender

        self.name = destination.name
        self._instruments = frozenset(destination.instruments)
        self._sender = S3Sender(destination)
        self._sizes: tuple[str, dict[str, int]] | None = None

    def sizes(self, folder: str) -> Mapping[str, int]:
        if self._sizes is not None and self._sizes[0] == folder:
            return self._sizes[1]
        found = self._sender.sizes(folder)
        self._sizes = folder, found
        return found

    def crc32c(self, target: str) -> str | None:
        return self._sender.crc32c(target)

    def instruments(self) -> frozenset[str]:
        return self._instruments


def places_of(destinations: Iterable[Destination]) -> list[Place]:
    """Those of a configuration. Raises StorageError, MissingExtraError."""
    return [
        DirectoryPlace(one.name, one.root, one.instruments) if one.kind == "directory" else BucketPlace(one)
        for one in destinations
    ]


def read_place(text: str) -> Place:
    """`NAME=/directory` or `NAME=s3://[PROFILE@]BUCKET/PREFIX`. Raises UsageError, StorageError."""
    name, equals, root = text.partition("=")
    if not equals or not name or not root:
        raise UsageError(
            f"{text[:100]!r} is no destination; write NAME=/directory or NAME=s3://BUCKET/PREFIX"
        )
    if root.startswith("s3://"):
        from raftwright.archiver.settings import Destination

        return BucketPlace(Destination(name=name, kind="s3", root=root))
    return DirectoryPlace(name, os.path.abspath(root))


class Looked:
    """Folders of a destination that were looked at for an image: each once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folders: dict[str, Mapping[str, int]] = {}

    def size(self, target: str) -> int | None:
        """Bytes of what is under a name; None where nothing is."""
        folder, name = posixpath.split(target)
        if folder not in self._folders:
            self._folders[folder] = self._place.sizes(folder)
        return self._folders[folder].get(name)

    def others(self, known: Iterable[str]) -> list[str]:
        """Names in these folders that are not known."""
        named = set(known)
        found: list[Any] = []
        for folder, files in self._folders.items():
            found += [path for name in files if (path := posixpath.join(folder, name)) not in named]
        return sorted(found)
