"""Messages that could not be dealt with, kept in a directory with the reason.

One file a message, JSON, durable when `put` returns. The directory is bounded in bytes and in number: the
oldest go when it is full, and that is counted and told in the log.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.events.message import stamp
from raftwright.events.schema import check_fields

__all__ = ["DeadLetter", "DeadLetters"]

_log = logging.getLogger("raftwright.events")

FORMAT: Final = "raftwright-dead-letter/1"
_NAME = re.compile(r"\A[0-9]{19}-[0-9]{6}-[0-9]{1,10}\.json\Z")
_LONGEST: Final = 1 << 20
"""Bytes of a message that are kept."""
_MOST: Final = 10_000


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be dealt with."""

    format: str = FORMAT
    reason: Annotated[str, Meta(max_length=2000)]
    source: Annotated[str, Meta(max_length=500)]
    """Where it came from: an endpoint, or a topic with partition and offset."""
    time: str
    """UTC, when it was set aside."""
    length: int
    """Bytes that it had; more than are kept, if it was very long."""
    text: str | None = None
    """The message, where it is text."""
    base64: str | None = None

    def event(self) -> tuple[str, dict[str, Any]]:
        """Kind and fields of the event that it holds, checked as they are now. Raises FormatError."""
        try:
            told = _told.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"what it holds is no event: {error}") from None
        return told.kind, check_fields(told.kind, told.fields, FormatError)

    @property
    def body(self) -> bytes:
        """The message. Raises FormatError."""
        if self.text is not None:
            return self.text.encode()
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except ValueError:
            raise FormatError("a dead letter whose message cannot be read; remove it") from None


class _Told(msgspec.Struct, frozen=True):
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    fields: dict[str, Any]


_told = msgspec.json.Decoder(_Told)
_decoder = msgspec.json.Decoder(DeadLetter)


class DeadLetters:
    """A directory of them. Thread-safe; several processes may share one.

    Parameters
    ----------
    directory
        Is made if need be.
    limit
        Bytes of all of them together.
    """

    def __init__(self, directory: str | Path, *, limit: int = 64 << 20) -> None:
        self.directory = Path(directory)
        self.limit = limit
        self.put_aside = 0
        """Messages that were put in by this object."""
        self.forgotten = 0
        """The oldest ones, that had to go."""
        self._lock = threading.Lock()
        self._counter = itertools.count()
        self._sizes: dict[str, int] | None = None

    def put(self, body: bytes, reason: str, source: str) -> str:
        """Keeps a message; its name. Raises StorageError."""
        kept = body[:_LONGEST]
        text: str | None = None
        with contextlib.suppress(UnicodeDecodeError):
            text = kept.decode()
        letter = DeadLetter(
            reason=reason[:2000],
            source=source[:500],
            time=stamp(),
            length=len(body),
            text=text,
            base64=None if text is not None else base64.b64encode(kept).decode(),
        )
        content = msgspec.json.encode(letter)
        with self._lock:
            name = f"{time.time_ns():019d}-{next(self._counter) % 1_000_000:06d}-{os.getpid()}.json"
            try:
                self._write(name, content)
                self._make_room(name, len(content))
            except OSError as error:
                raise StorageError(
                    error.errno,
                    f"a dead letter cannot be kept ({error.strerror}); make room there",
                    str(self.directory),
                ) from error
            self.put_aside += 1
        return name

    def names(self) -> list[str]:
        """Names of what is there, the oldest first. Raises StorageError."""
        try:
            return sorted(name for name in os.listdir(self.directory) if _NAME.match(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(
                error.errno, f"dead letters cannot be listed: {error.strerror}", str(self.directory)
            ) from error

    def read(self, name: str) -> DeadLetter:
        """One of them. Raises NotFoundError, and FormatError where the file is none."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"{name[:80]!a} is no dead letter in {self.directory}; list them") from None
        try:
            letter = _decoder.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"{path} is no dead letter: {error}") from None
        if letter.format != FORMAT:
            raise FormatError(f"{path} has the format {letter.format[:64]!a}; this reads {FORMAT}")
        return letter

    def remove(self, name: str) -> None:
        """Removes one; nothing happens if it is gone."""
        self._path(name).unlink(missing_ok=True)
        with self._lock:
            if self._sizes is not None:
                self._sizes.pop(name, None)

    def _path(self, name: str) -> Path:
        if not _NAME.match(name):
            raise NotFoundError(f"{name[:80]!a} is no dead letter in {self.directory}; list them")
        return self.directory / name

    def _write(self, name: str, content: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = self.directory / f".{name}"
        try:
            with open(hidden, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(hidden, self.directory / name)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_room(self, name: str, size: int) -> None:
        if self._sizes is None or len(self._sizes) % 100 == 99:  # others may put and remove here as well
            self._sizes = {}
            for found in self.names():
                with contextlib.suppress(FileNotFoundError):
                    self._sizes[found] = (self.directory / found).stat().st_size
        self._sizes[name] = size
        used = sum(self._sizes.values())
        for oldest in sorted(self._sizes):
            if (used <= self.limit and len(self._sizes) <= _MOST) or oldest == name:
                return
            (self.directory / oldest).unlink(missing_ok=True)
            used -= self._sizes.pop(oldest)
            self.forgotten += 1
            _log.error("%s is full: the dead letter %s is forgotten", self.directory, oldest)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
