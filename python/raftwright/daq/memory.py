"""Images whose streams are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raftwright.daq.info import ImageInfo, SourceInfo
from raftwright.daq.store import check_range, cut_gaps, writable_view
from raftwright.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryImage", "MemorySource"]


class MemorySource:
    """A source whose stream is in memory. Raises FormatError if its length is not that of the description."""

    def __init__(self, info: SourceInfo, data: Buffer) -> None:
        self._info = info
        self._data = memoryview(data).cast("B").toreadonly()
        if len(self._data) != info.bytes:
            raise FormatError(
                f"source {info.location}: {len(self._data)} bytes were given, but its description says "
                f"{info.bytes}; give the whole stream"
            )

    @property
    def info(self) -> SourceInfo:
        """As given."""
        return self._info

    @property
    def final(self) -> bool:
        """Always."""
        return True

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Ranges [begin, end) outside the gaps of the description. Raises UsageError."""
        check_range(self._info, offset, length)
        return cut_gaps(self._info.gaps, offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises UsageError."""
        check_range(self._info, offset, length)
        return bytes(self._data[offset : offset + length])

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes without a copy. Raises UsageError."""
        check_range(self._info, offset, length)
        return self._data[offset : offset + length]

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a buffer up to the stream's end; returns how many bytes. Raises UsageError."""
        check_range(self._info, offset, 0)
        view = writable_view(buffer)
        part = self._data[offset : offset + len(view)]
        view[: len(part)] = part
        return len(part)


class MemoryImage:
    """An image whose streams are in memory: location -> packed stream, without copy.

    Raises NotFoundError if a source of the description is not given, FormatError if one has another length.
    """

    def __init__(self, info: ImageInfo, streams: Mapping[str, Buffer]) -> None:
        self._info = info
        missing = [location for location in info.locations if location not in streams]
        if missing:
            raise NotFoundError(f"image {info.name}: no stream was given for source {missing[0]}")
        self._sources = {
            source.location: MemorySource(source, streams[source.location]) for source in info.sources
        }

    @property
    def info(self) -> ImageInfo:
        """As given."""
        return self._info

    def source(self, location: str) -> MemorySource:
        """The source at a location. Raises NotFoundError."""
        if location not in self._sources:
            known = ", ".join(self._info.locations[:8]) or "none"
            raise NotFoundError(
                f"image {self._info.name} has no source {ascii(location)[:40]}; there are {known}"
            )
        return self._sources[location]
