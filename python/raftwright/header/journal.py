"""What the collector was told, as lines in a file: after a kill nothing that came is gone.

A line is one JSON object, appended with one write. When the file has grown, a new one is begun with what
still counts (images under way, their telemetry, the last sample of each topic) and takes the old one's place.
The last line may be cut off by a kill; it is left out and counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec

from raftwright.errors import StorageError

__all__ = ["Journal"]

_MOST_LINE: Final = 1 << 20
_MOST: Final = 256 << 20
"""Bytes; what is beyond is not read. A journal begins anew long before."""

_PIECE: Final = 256 << 10

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class Journal:
    """An append-only file of JSON lines, of one service alone: a second one would begin it anew without what
    the first one knows. Thread-safe.

    Raises StorageError where it cannot be opened, or is somebody else's.
    """

    def __init__(self, path: Path, *, limit: int = 16 << 20) -> None:
        self.path = path
        self.damaged = 0
        """Lines that could not be read."""
        self._limit = limit
        self._lock = threading.Lock()
        self._size = 0
        self._floor = 0  # size after the last renewal: what counts may be much
        self._descriptor = self._alone = -1
        self._torn = False
        self._meanwhile: list[bytes] | None = None
        self._renewing = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_out_others()
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._size = os.fstat(self._descriptor).st_size
            self._end_last_line()
        except OSError as error:
            self.close()
            if isinstance(error, StorageError):
                raise
            raise self._refused(error) from error

    def _lock_out_others(self) -> None:
        """The lock goes with the process. A file system without locks has none."""
        beside = self.path.with_name(self.path.name + ".lock")
        self._alone = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._alone)
            self._alone = -1
            raise StorageError(
                errno.EBUSY,
                "another header service has this journal; give each its own with `journal`",
                str(self.path),
            ) from None
        except OSError:
            return

    def _end_last_line(self) -> None:
        """A kill may have left half a line: what is appended does not belong to it."""
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def entries(self) -> Iterator[dict[str, Any]]:
        """All lines, from the first. Raises StorageError."""
        try:
            with open(self.path, "rb") as stream:
                read = 0
                while read < _MOST and (line := stream.readline(_MOST_LINE)):
                    read += len(line)
                    if line == b"\n":
                        continue
                    try:
                        entry = _decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        entry = None
                    if isinstance(entry, dict):
                        yield entry
                    else:
                        self.damaged += 1
        except OSError as error:
            raise self._refused(error) from error

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes a line; it survives the process. Raises StorageError."""
        try:
            line = _encoder.encode(entry) + b"\n"
        except (TypeError, ValueError):  # types that JSON does not have
            line = json.dumps(entry, default=str).encode() + b"\n"
        with self._lock:
            if self._meanwhile is not None:
                self._meanwhile.append(line)
            try:
                written = os.write(self._descriptor, line)
                self._size += written
                if written != len(line):
                    self._torn = True
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._torn:  # what was cut off before stands in front of this line
                    self._torn = False
                    self._size += os.write(self._descriptor, line)
            except OSError as error:
                raise self._refused(error) from error

    @property
    def full(self) -> bool:
        """Whether it is time to begin anew."""
        return self._size > max(self._limit, 2 * self._floor)

    def renew(
        self,
        entries: Callable[[], Iterable[Mapping[str, Any]]],
        alone: AbstractContextManager[object] | None = None,
    ) -> None:
        """Begins anew with these lines, in one step: whoever dies meanwhile leaves the old one.

        Others may append meanwhile: what they append is in both. Who appends something that `entries` will
        have only a moment later holds `alone` from before until then. Raises StorageError.
        """
        beside = self.path.with_name(self.path.name + ".new")
        with self._renewing:
            with alone or contextlib.nullcontext(), self._lock:
                self._meanwhile = []
            descriptor = -1
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
                descriptor = os.open(beside, flags, 0o644)
                _write_all(descriptor, (_encoder.encode(entry) + b"\n" for entry in entries()))
                os.fsync(descriptor)
                with self._lock:
                    _write_all(descriptor, self._meanwhile)
                    os.replace(beside, self.path)
                    descriptor, self._descriptor = self._descriptor, descriptor
                    self._size = self._floor = os.fstat(self._descriptor).st_size
                    self._torn = False
            except OSError as error:
                raise self._refused(error) from error
            finally:
                with self._lock:
                    self._meanwhile = None
                if descriptor >= 0:
                    os.close(descriptor)

    def close(self) -> None:
        """Twice is once."""
        with self._lock:
            for descriptor in (self._descriptor, self._alone):
                if descriptor >= 0:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            self._descriptor = self._alone = -1

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            error.errno, f"the header service's journal fails ({error.strerror})", str(self.path)
        )


def _write_all(descriptor: int, lines: Iterable[bytes]) -> None:
    """Raises OSError where not all of it is written."""
    piece = bytearray()
    for line in itertools.chain(lines, (None,)):
        if line is not None:
            piece += line
        if piece and (line is None or len(piece) >= _PIECE):
            if os.write(descriptor, piece) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            piece.clear()
