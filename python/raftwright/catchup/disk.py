"""What of an image stands in the archive: names and sizes, and nothing that would take long."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from raftwright.errors import RaftwrightError, StorageError
from raftwright.rawfile.names import ImageName, image_directory
from raftwright.rawfile.publishing import locked
from raftwright.rawfile.sidecar import MISSING, read_json
from raftwright.rawfile.standing import digest

__all__ = ["is_archive", "look", "missing_pixels", "move_aside"]

_MOST_ASIDE: Final = 100


def is_archive(root: Path) -> bool:
    """Whether the root of the archive can be looked at."""
    try:
        return root.is_dir() and os.access(root, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return False


def look(root: Path, name: ImageName) -> Mapping[str, int]:
    """Regular files of an image and their sizes; none where there is no directory. Raises StorageError."""
    directory = image_directory(root, name)
    found: dict[str, int] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=True)
                except FileNotFoundError:
                    continue  # it went while we looked, or leads nowhere
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = status.st_size
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", str(directory)) from error
    return found


def missing_pixels(sidecar: Path) -> int | None:
    """How many pixels a file lacks, as its sidecar says; None where that cannot be read."""
    try:
        runs = read_json(sidecar).get(MISSING, {})
        return sum(int(count) for listed in runs.values() for _, count in listed)
    except (RaftwrightError, AttributeError, TypeError, ValueError):
        return None


def move_aside(path: Path, crc32c: str) -> Path | None:
    """Gives a damaged file the name `<path>.damaged-<crc32c>`, so that a whole one can have its own. None
    where it is not there, or has the sum that it should have. Raises StorageError."""
    try:
        with locked(path.parent):
            if not os.path.lexists(path):
                return None
            try:
                found = digest(path).crc32c
            except StorageError:
                found = "00000000"  # it cannot be read: the name says so
            if found == crc32c:
                return None
            for number in range(_MOST_ASIDE):
                aside = path.with_name(f"{path.name}.damaged-{found}" + (f"-{number}" if number else ""))
                try:
                    os.link(path, aside, follow_symlinks=False)
                except FileExistsError:
                    continue
                os.unlink(path)
                return aside
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(error.errno, f"cannot be moved aside ({error.strerror})", str(path)) from error
    raise StorageError(17, f"has {_MOST_ASIDE} damaged files beside it; look at them", str(path))
