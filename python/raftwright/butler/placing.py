"""Files brought into a repository's own store: linked, copied or moved, with their sidecars.

    <store>/<run>/<dayobs>/<image>/<name of the file>

Each keeps its name, so that versions of a file stand beside one another, and appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import ConflictError, FormatError, NotFoundError, StorageError
from raftwright.rawfile.names import sidecar_path
from raftwright.rawfile.newest import later_path, newest_sidecar
from raftwright.rawfile.standing import digest
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import Job, OutageError, RefusedError
from raftwright.transfer.place import Place

if TYPE_CHECKING:
    from raftwright.butler.examining import Found
    from raftwright.butler.incoming import Transfer

__all__ = ["Placer", "kept_aside", "restore"]

_KEPT: Final = ".kept"


class Placer:
    """Brings files into one store."""

    def __init__(self, store: Path) -> None:
        self.store = store
        place = {"name": "store", "kind": "directory", "root": str(store)}
        self._linking = DirectorySender(Place(**place, link="auto"))  # type: ignore[arg-type]
        self._copying = DirectorySender(Place(**place, link="never"))  # type: ignore[arg-type]

    def target(self, found: Found, run: str) -> Path:
        """Where a file belongs."""
        return self.store / run / found.image.dayobs / str(found.image) / found.incoming.name

    def bring(self, found: Found, run: str, transfer: Transfer) -> Path:
        """Sidecars first, so that whoever sees the file finds them. `hardlink` and `move` copy where another
        file system is in between. Raises ConflictError, FormatError, StorageError."""
        if found.path is None:
            raise FormatError(
                f"{found.uri}: only local files are brought into a repository; ingest it direct"
            )
        target = self.target(found, run)
        for source in sidecars(found.path, found.incoming.sidecar):
            name = source.name if not found.incoming.sidecar else sidecar_path(target).name
            with contextlib.suppress(ConflictError):  # what is there was first, and later ones tell more
                self._send(source, target.with_name(name), "", transfer)
        self._send(found.path, target, found.incoming.crc32c, transfer)
        return target

    def _send(self, source: Path, target: Path, crc32c: str, transfer: Transfer) -> None:
        if crc32c:  # a copy is compared with it when it has arrived
            size = _size(source)
        else:
            summed = digest(source)
            size, crc32c = summed.bytes, summed.crc32c
        sender = self._copying if transfer == "copy" else self._linking
        job = Job(path=str(source), target=str(target.relative_to(self.store)), bytes=size, crc32c=crc32c)
        try:
            sender.send(job)
        except OutageError as error:
            raise StorageError(28, str(error), str(target)) from error
        except RefusedError as error:
            raise FormatError(str(error)) from error
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot be brought there: {error.strerror}", str(target)
            ) from error

    def left(self, found: Found) -> None:
        """After a move: what was moved goes from where it was. Raises nothing: it stays where it cannot."""
        if found.path is None or found.path.is_relative_to(self.store):
            return
        with contextlib.suppress(OSError):
            found.path.unlink(missing_ok=True)
            for path in sidecars(found.path, found.incoming.sidecar):
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Raises StorageError."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read: {error.strerror}", str(path)) from error


def sidecars(raw: Path, named: str = "") -> list[Path]:
    """Those of a file that are there."""
    if named:
        return [Path(named)] if Path(named).is_file() else []
    with contextlib.suppress(NotFoundError, OSError):
        version, _ = newest_sidecar(raw)
        paths = [later_path(raw, number) for number in range(1, version + 1)]
        return [path for path in paths if path.is_file()]
    return []


def kept_aside(path: Path) -> Path:
    """A second name for a file of the store that the Butler is about to delete and that is to stay. Raises
    StorageError."""
    aside = path.with_name(f".{path.name}{_KEPT}")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(path, aside)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be kept: {error.strerror}", str(path)) from error
    return aside


def restore(folder: Path) -> None:
    """Gives files that were kept aside their names back: also after somebody died in between."""
    with contextlib.suppress(OSError):
        for aside in folder.glob(f".*{_KEPT}"):
            path = folder / aside.name.removeprefix(".").removesuffix(_KEPT)
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink(missing_ok=True)
