"""Errors of raftwright: each message is one sentence that names the thing, the place and the remedy."""

from __future__ import annotations

import os

__all__ = [
    "CameraError",
    "ConflictError",
    "FormatError",
    "IncompleteError",
    "MissingExtraError",
    "NotFoundError",
    "RaftwrightError",
    "StorageError",
    "UsageError",
]


class RaftwrightError(Exception):
    """Root of every error that raftwright raises on purpose."""


class UsageError(RaftwrightError, ValueError):
    """An argument that cannot be meant."""


class FormatError(RaftwrightError, ValueError):
    """Data that is not what its format says: a stream, a recording, a FITS file, a header document."""


class CameraError(RaftwrightError, ValueError):
    """A camera description that contradicts itself or the data."""


class NotFoundError(RaftwrightError, LookupError):
    """A camera, image, location, detector or segment that is not there."""


class StorageError(RaftwrightError, OSError):
    """The file system refused: `errno` and `filename` say what and where."""

    def __str__(self) -> str:
        """`/data/raw: cannot be written (No space left on device)`: a sentence, without the number."""
        said = self.strerror or (str(self.args[-1]) if self.args else "the file system refused")
        if self.filename is None:
            return said
        place = os.fsdecode(self.filename) if isinstance(self.filename, bytes) else str(self.filename)
        place = place if place.isprintable() else ascii(place)[1:-1]
        return said if place in said else f"{place}: {said}"


class ConflictError(RaftwrightError):
    """A name is taken by another content. The file that was there is untouched; `kept_as` is the new one."""

    def __init__(self, message: str, kept_as: str | None = None) -> None:
        super().__init__(message)
        self.kept_as = kept_as


class IncompleteError(RaftwrightError):
    """Pixels are missing and the caller asked for all of them."""


class MissingExtraError(RaftwrightError, ImportError):
    """A feature needs an optional dependency; the message says which extra to install."""
