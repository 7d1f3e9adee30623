"""Logs that rsync itself writes about a tree: which names it changed. They are hints; what is true is
looked at.

Read are the lines of `--log-file` and of `--itemize-changes`: new files, changed ones, deletions, links,
names with spaces and with bytes that rsync writes as `\\#ooo`. A log is read on from where it was left,
anew where it became another file or shorter, and never beyond its last whole line.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from raftwright.errors import StorageError
from raftwright.mirror.manifest import Manifest

__all__ = ["RsyncLogs", "named_in"]

_STEP: Final = 4 << 20
_LONGEST: Final = 64 << 10
_DATE: Final = rb"(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\d+\] )?"
_ITEM: Final = re.compile(_DATE + rb"([<>ch.])([fdLDS])[A-Za-z.+? ]{7,9} (.+)\Z", re.DOTALL)
_DELETED: Final = re.compile(_DATE + rb"(?:\*deleting  +|deleting )(.+)\Z", re.DOTALL)
_HEAD: Final = 1024
"""Bytes at the begin of a log by which it is known again."""
_ESCAPE: Final = re.compile(rb"\\#([0-3][0-7][0-7])")


def named_in(line: bytes) -> str | None:
    """The path that a line of a log is about, as a name below the root of its transfer; None for all other
    lines, and for names that lead out of it."""
    match = _ITEM.match(line)
    if match is not None:
        name = match[3]
        if match[2] == b"L":
            name = name.split(b" -> ", 1)[0]
        elif match[1] == b"h":
            name = name.split(b" => ", 1)[0]
    else:
        match = _DELETED.match(line)
        if match is None:
            return None
        name = match[1]
    name = _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), name).rstrip(b"/")
    parts = name.split(b"/")
    if not name or b"\0" in name or any(part in (b"", b".", b"..") for part in parts):
        return None
    return os.fsdecode(name)


class RsyncLogs:
    """The logs of a tree.

    Parameters
    ----------
    below
        Directory of the tree that names begin at.
    """

    def __init__(self, manifest: Manifest, patterns: Sequence[str], below: str = "") -> None:
        self._manifest = manifest
        self._patterns = patterns
        self._below = below
        self.lines = 0
        """Lines that named something."""

    def read(self) -> Iterator[list[str]]:
        """Paths of the tree, as they are named since the last time, some at a time: what was given is taken
        as read when the next are asked for. Raises StorageError."""
        for pattern in self._patterns:
            for path in sorted(glob.iglob(pattern)):
                yield from self._read(path)

    def _read(self, path: str) -> Iterator[list[str]]:
        key = os.fsencode(path)
        try:
            with open(path, "rb") as stream:
                head = stream.read(_HEAD)
                offset = self._begin(key, head, os.fstat(stream.fileno()).st_size)
                stream.seek(offset)
                while piece := stream.read(_STEP):
                    end = piece.rfind(b"\n") + 1
                    if not end:
                        if len(piece) < _LONGEST:
                            return  # the rest of its last line has yet to come
                        end = len(piece)  # no line of rsync is so long
                    names = [
                        name for line in piece[:end].split(b"\n") if (name := named_in(line)) is not None
                    ]
                    self.lines += len(names)
                    yield [f"{self._below}/{name}" if self._below else name for name in names]
                    offset += end
                    with self._manifest.transaction() as run:
                        run("INSERT OR REPLACE INTO log VALUES (?, ?, ?)", (key, offset, head[:offset]))
                    stream.seek(offset)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(error.errno, f"the log cannot be read ({error.strerror})", path) from None

    def _begin(self, key: bytes, head: bytes, size: int) -> int:
        """Where to read on; at its begin where it is another file than before, or was cut."""
        known = self._manifest.rows("SELECT offset, head FROM log WHERE path = ?", (key,))
        if not known or known[0][0] > size or not head.startswith(known[0][1]):
            return 0
        return int(known[0][0])
