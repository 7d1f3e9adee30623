"""What stands in the directory of an image, and what each name in it is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from raftwright.errors import StorageError

__all__ = ["OnDisk", "What", "list_directory", "what_is"]

What: TypeAlias = Literal[
    "raw", "sidecar", "manifest", "header", "container", "conflict", "damaged", "temporary", "strange"
]

_TEMPORARY: Final = re.compile(
    r"\.(?:.*\.[0-9]+-[0-9a-f]+-[0-9a-f]+\.tmp|raftwright-[0-9a-f]{16})\Z", re.DOTALL
)
_CONTAINER: Final = re.compile(r"(\.v[2-9]|\.v[1-9][0-9]{1,3})?\.zip")
_ASIDE: Final = re.compile(r"(.+)\.(conflict|damaged)-[0-9a-f]{8}(?:-[0-9]+)?\Z", re.DOTALL)


class OnDisk(NamedTuple):
    """A name in a directory."""

    name: str
    bytes: int
    modified: float
    """Unix time."""
    regular: bool


def list_directory(directory: str | Path) -> dict[str, OnDisk] | None:
    """All names but those of directories; None where there is no such directory. Raises StorageError."""
    found: dict[str, OnDisk] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it went while we looked
                if not stat.S_ISDIR(status.st_mode):
                    regular = stat.S_ISREG(status.st_mode)
                    found[entry.name] = OnDisk(entry.name, status.st_size, status.st_mtime, regular)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", str(directory)) from error
    return found


def what_is(name: str, obsid: str) -> What:
    """What a name in the directory of an image is."""
    aside = _ASIDE.match(name)
    if aside is not None:
        return "conflict" if aside[2] == "conflict" else "damaged"
    if _TEMPORARY.match(name):
        return "temporary"
    if _CONTAINER.fullmatch(name.removeprefix(obsid)) and name.startswith(obsid):
        return "container"
    if not name.startswith(f"{obsid}_"):
        return "strange"
    if name == f"{obsid}_expectedSensors.json":
        return "manifest"
    if name.startswith(f"{obsid}_header.") and name.endswith(".yaml"):
        return "header"
    if name.endswith((".fits", ".fits.fz", ".fits.gz")):
        return "raw"
    return "sidecar" if name.endswith(".json") else "strange"
