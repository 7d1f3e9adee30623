"""What directories hold: read by the core, and taken apart only where it differs from what is known."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from raftwright import _core

__all__ = ["Facts", "Listing", "Seen", "kind_of", "listings"]

_ENTRY: Final = struct.Struct("=QQqqIIQ")


class Facts(NamedTuple):
    """What tells whether a file is still the same. Times in nanoseconds."""

    kind: str
    """file, link, other."""
    inode: int
    bytes: int
    mtime: int
    ctime: int


class Seen(NamedTuple):
    """A name in a directory that is no directory."""

    name: str
    facts: Facts
    uid: int
    """Who owns it."""


class Listing:
    """What a directory held when it was read.

    Attributes
    ----------
    print : bytes
        Changes with any name, inode, size or time in it; of directories in it with their names.
    count : int
        Files, links and whatever else is no directory.
    """

    def __init__(self, entries: bytes, count: int) -> None:
        self.print = hashlib.blake2b(entries, digest_size=16).digest()
        self.count = count
        self._entries = entries

    def files(self) -> list[Seen]:
        """All that is no directory."""
        return [
            Seen(name, Facts(kind_of(mode), inode, size, mtime, ctime), uid)
            for name, (inode, size, mtime, ctime, mode, uid, _) in self._all()
            if not stat.S_ISDIR(mode)
        ]

    def directories(self) -> list[str]:
        """Names of the directories in it."""
        return [name for name, facts in self._all() if stat.S_ISDIR(facts[4])]

    def _all(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        at = 0
        while at < len(self._entries):
            facts = _ENTRY.unpack_from(self._entries, at)
            at += _ENTRY.size
            end = at + facts[6]
            yield os.fsdecode(self._entries[at:end]), facts
            at = end


def kind_of(mode: int) -> str:
    """Of a mode, as `Facts.kind` has it."""
    return "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "other"


def listings(descriptors: Sequence[int], threads: int) -> list[Listing | OSError]:
    """Of open directories, read on so many threads; an error where one could not be read."""
    return [
        OSError(one, os.strerror(one)) if isinstance(one, int) else Listing(*one)
        for one in _core.list_directories(descriptors, threads)
    ]
