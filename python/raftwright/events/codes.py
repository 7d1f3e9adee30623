"""Numbers that stand for something in messages. Each number of an enumeration has one meaning."""

from __future__ import annotations

from enum import IntEnum, unique

__all__ = ["OodsStatus"]


@unique
class OodsStatus(IntEnum):
    """`statusCode` of `imageInOODS`: 0 is good, everything else is not."""

    INGESTED = 0
    """The file is ingested."""
    INGEST_FAILURE = 1
    """The repository refused the file."""
    METADATA_FAILURE = 2
    """Header or sidecar cannot be read, or say what cannot be."""
