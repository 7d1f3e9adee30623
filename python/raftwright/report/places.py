"""Destinations as the audit sees them: what is under each name, whatever the ledger was told."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from raftwright.errors import NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.ledger.replicas import ENDPOINT

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination
    from raftwright.backbone.settings import Endpoint
    from raftwright.report.book import Book
    from raftwright.transfer import place as transfer

__all__ = ["Looked", "Place", "Watched", "endpoints_of", "places_of", "read_place", "vanished"]

T = TypeVar("T")

_PATIENCE: Final = 3
_KNOWN: Final = (
    "SELECT target FROM replica WHERE endpoint = ? AND state = 'verified' ORDER BY checked_tai {} LIMIT 4"
)


class Place(Protocol):
    """A destination."""

    name: str

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Bytes of all files right below a folder, by their last name. Raises StorageError."""
        ...

    def crc32c(self, target: str) -> str | None:
        """Sum of what is under a name, read anew; None where that is not offered. Raises StorageError."""
        ...

    def has(self, target: str) -> bool:
        """Whether anything has a name there, or it is a directory. Raises StorageError."""
        ...

    def instruments(self) -> frozenset[str]:
        """Whose images it gets; all where it is empty."""
        ...

    def takes_containers(self) -> bool:
        """Whether each of those images is to be there as one file."""
        ...


class SenderPlace:
    """A destination of the archiver, or an endpoint of the hand-off, seen by the way that files go there."""

    def __init__(
        self, name: str, place: transfer.Place, instruments: Iterable[str] = (), containers: bool = False
    ) -> None:
        from raftwright.transfer.sender import sender_of

        self.name = name
        self._instruments = frozenset(instruments)
        self._containers = containers
        if place.kind == "directory" and not os.path.isdir(place.root):
            raise StorageError(2, f"destination {name}: there is no such directory", place.root)
        self._sender = sender_of(place)

    def sizes(self, folder: str) -> Mapping[str, int]:
        return self._sender.sizes(folder)

    def crc32c(self, target: str) -> str | None:
        return self._sender.crc32c(target)

    def has(self, target: str) -> bool:
        return self._sender.has(target)

    def instruments(self) -> frozenset[str]:
        return self._instruments

    def takes_containers(self) -> bool:
        return self._containers


def places_of(destinations: Iterable[Destination]) -> list[Place]:
    """Those of a configuration. Raises StorageError, MissingExtraError."""
    return [SenderPlace(one.name, one, one.instruments) for one in destinations]


def endpoints_of(endpoints: Iterable[Endpoint]) -> list[Place]:
    """Likewise, of the hand-off: as the ledger names them, `endpoint:NAME`."""
    return [
        SenderPlace(f"{ENDPOINT}{one.name}", one.place, one.instruments, "container" in one.what)
        for one in endpoints
    ]


def read_place(text: str) -> Place:
    """`NAME=/directory` or `NAME=s3://[PROFILE@]BUCKET/PREFIX`. Raises UsageError, StorageError."""
    from raftwright.transfer.place import Place as Found

    name, equals, root = text.partition("=")
    if not equals or not name or not root:
        raise UsageError(
            f"{text[:100]!r} is no destination; write NAME=/directory or NAME=s3://BUCKET/PREFIX"
        )
    if root.startswith("s3://"):
        return SenderPlace(name, Found(name="place", kind="s3", root=root))
    return SenderPlace(name, Found(name="place", kind="directory", root=os.path.abspath(root)))


class Watched:
    """A destination that may be away: who fails three times in a row is not asked again in this run. One
    that is not what it was (`vanished`) is never asked."""

    def __init__(self, place: Place, vanished: RaftwrightError | None = None) -> None:
        self.place = place
        self._failed = _PATIENCE if vanished is not None else 0
        self._said = vanished

    def sizes(self, folder: str) -> Mapping[str, int]:
        """As the place's own. Raises what that raises."""
        return self._ask(lambda: self.place.sizes(folder))

    def crc32c(self, target: str) -> str | None:
        """As the place's own. Raises what that raises."""
        return self._ask(lambda: self.place.crc32c(target))

    def _ask(self, what: Callable[[], T]) -> T:
        if self._failed >= _PATIENCE and self._said is not None:
            raise self._said
        try:
            found = what()
        except RaftwrightError as error:
            self._failed += 1
            self._said = error
            raise
        self._failed = 0
        return found


class Looked:
    """Folders of a destination that were looked at for an image: each once."""

    def __init__(self, place: Watched) -> None:
        self._place = place
        self._folders: dict[str, Mapping[str, int]] = {}
        self._failed: dict[str, RaftwrightError] = {}

    def size(self, target: str) -> int | None:
        """Bytes of what is under a name; None where nothing is. Raises what looking raises."""
        folder, name = posixpath.split(target)
        if folder in self._failed:
            raise self._failed[folder]
        if folder not in self._folders:
            try:
                self._folders[folder] = self._place.sizes(folder)
            except RaftwrightError as error:
                self._failed[folder] = error
                raise
        return self._folders[folder].get(name)

    def others(self, known: Iterable[str]) -> list[str]:
        """Names in these folders that are not known."""
        named = set(known)
        found: list[str] = []
        for folder, files in self._folders.items():
            found += [path for name in files if (path := posixpath.join(folder, name)) not in named]
        return sorted(found)


def vanished(book: Book, place: Place) -> RaftwrightError | None:
    """Why an endpoint is not the place that it was: nothing is found of what was verified there, as where a
    mount went and left its directory. None where it is."""
    if not place.name.startswith(ENDPOINT):
        return None
    name = place.name.removeprefix(ENDPOINT)
    known = {row[0] for order in ("ASC", "DESC") for row in book.all(_KNOWN.format(order), name)}
    try:
        for target in known:
            above = posixpath.dirname(target)
            if place.has(target) or (above and place.has(above)):
                return None
    except RaftwrightError as error:
        return error
    return NotFoundError("nothing of what was verified is there; is it mounted?") if known else None
