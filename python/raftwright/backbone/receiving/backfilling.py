"""Files that stand in the storage and never came through the buffer: entered as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from raftwright.backbone.receiving.intake import sums_of
from raftwright.backbone.receiving.register import Register
from raftwright.backbone.receiving.rows import State
from raftwright.errors import StorageError, UsageError

__all__ = ["Entered", "backfill"]


class Entered(NamedTuple):
    """How many files were looked at, how many are new in the register, and what cannot be entered."""

    seen: int
    new: int
    odd: list[tuple[str, str]]


def backfill(
    register: Register,
    paths: Iterable[Path],
    ingesters: Iterable[str],
    first: State = "BACKFILL",
    *,
    md5: bool = False,
) -> Entered:
    """Enters files below the storage: BACKFILL says that they are ingested, UNTRIED that they are to be.

    Raises UsageError for a path elsewhere, StorageError.
    """
    root = register.storage.absolute()
    names = list(ingesters)
    seen = new = 0
    odd: list[tuple[str, str]] = []
    for path in paths:
        top = (root / path).absolute()
        if ".." in top.parts or not top.is_relative_to(root):
            raise UsageError(f"{path}: is not below {root}; name a file or directory of it")
        for each in _files(top):
            name = os.path.relpath(each, root)
            if not name.isprintable() or not each.is_file() or each.is_symlink():
                odd.append((ascii(name)[1:-1], "is no file with a printable name; nothing is done about it"))
                continue
            seen += 1
            relpath, _, filename = name.rpartition("/")
            try:
                sums = sums_of(each, md5)
            except OSError as error:
                odd.append((name, f"cannot be read ({error.strerror or error})"))
                continue
            known = [row for row in register.files(name) if row.name == name and row.place == "storage"]
            if any(
                (row.crc32c, row.adler32, row.bytes) == (sums.crc32c, sums.adler32, sums.bytes)
                for row in known
            ):
                continue
            if known:
                odd.append((name, "has another content than it came with; it is left to the audit"))
                continue
            register.enter(
                relpath=relpath,
                filename=filename,
                crc32c=sums.crc32c,
                adler32=sums.adler32,
                md5=sums.md5,
                size=sums.bytes,
                ingesters=names,
                state="BACKFILL",
                first=first,
            )
            new += 1
    return Entered(seen, new, odd)


def _files(top: Path) -> Iterator[Path]:
    """Files below a directory, or the file itself, but for what is hidden."""
    if not os.path.lexists(top):
        raise StorageError(2, "there is no such file or directory; look at the path again", str(top))
    if not top.is_dir() or top.is_symlink():
        yield top
        return
    for directory, below, names in os.walk(top):
        below[:] = sorted(each for each in below if not each.startswith("."))
        for name in sorted(names):
            # What belongs before a raw file, its sidecar and manifest, is entered before it.
            if not name.startswith(".") and ".fits" not in name:
                yield Path(directory, name)
        for name in sorted(names):
            if not name.startswith(".") and ".fits" in name:
                yield Path(directory, name)
