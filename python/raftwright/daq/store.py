"""The only door to the DAQ: stores of images, images of sources, sources of bytes.

Who has another kind of store implements these protocols, checks it with `raftwright.daq.contract`, and names
a function from the text after the colon to the store in the entry-point group `raftwright.stores`:

    [project.entry-points."raftwright.stores"]
    mydaq = "mypackage.store:open"          # open_store("mydaq:host:1234") calls open("host:1234")
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

from raftwright.daq.info import ImageInfo, SourceInfo
from raftwright.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "ENTRY_POINTS",
    "DaqImage",
    "Notice",
    "Source",
    "Store",
    "check_range",
    "cut_gaps",
    "open_store",
    "view_of",
    "writable_view",
]

ENTRY_POINTS = "raftwright.stores"

_SCHEME = re.compile(r"\A([a-z][a-z0-9_-]{1,31}):(.*)\Z", re.DOTALL)


@runtime_checkable
class Source(Protocol):
    """One board's stream. Reads may come from many threads at once."""

    @property
    def info(self) -> SourceInfo:
        """What the DAQ says about it. The CRC is None while it is being read out."""
        ...

    @property
    def final(self) -> bool:
        """Whether nothing will be added to what is available. False while it is being read out."""
        ...

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Ranges [begin, end) within [offset, offset + length) whose bytes arrived: ordered and apart.

        While the source is read out they grow. Raises UsageError for a range that is not within the stream.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Those that never arrived have no meaning.

        Raises UsageError for a range that is not within the stream, FormatError or StorageError when the
        bytes that the description promises are not there.
        """
        ...

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a contiguous writable buffer, up to the stream's end; returns how many bytes that were.

        Raises as `read`; an offset at the end gives 0, one beyond it UsageError.
        """
        ...


@runtime_checkable
class DaqImage(Protocol):
    """One image in a store."""

    @property
    def info(self) -> ImageInfo:
        """What the DAQ says about it."""
        ...

    def source(self, location: str) -> Source:
        """The source at a location (`22/0`). Raises NotFoundError."""
        ...


class Notice(msgspec.Struct, frozen=True):
    """A hint that something happened. The catalogue knows better, always."""

    kind: Literal["begun", "progress", "complete", "removed", "missed"]
    """`missed`: notices were lost, or may have been; ask the catalogue."""
    image: str
    """Empty for `missed`."""
    location: str | None = None
    bytes: int | None = None
    """Bytes of the source that can be read by now."""


@runtime_checkable
class Store(Protocol):
    """A catalogue of images."""

    def folders(self) -> list[str]:
        """Names of the folders, sorted."""
        ...

    def images(self, folder: str | None = None) -> list[str]:
        """Names of the complete images, of one folder or of all, sorted. No such folder: none."""
        ...

    def underway(self) -> list[str]:
        """Names of the images that are being read out, sorted."""
        ...

    def image(self, name: str) -> DaqImage:
        """An image by its name, complete or being read out. Raises NotFoundError."""
        ...

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        """What happens from now on, as it does; ends after `timeout` seconds without a notice (None: never).

        A store to which nothing is ever added may end at once.
        """
        ...


def check_range(info: SourceInfo, offset: int, length: int) -> None:
    """Raises UsageError unless [offset, offset + length) is within a source's stream."""
    if offset < 0 or length < 0 or offset + length > info.bytes:
        raise UsageError(
            f"source {info.location}: {length} bytes at {offset} were asked for, but the stream has "
            f"{info.bytes}; ask within it"
        )


def cut_gaps(gaps: tuple[tuple[int, int], ...], offset: int, length: int) -> list[tuple[int, int]]:
    """What is left of [offset, offset + length) without the gaps, which are ordered and apart."""
    left = []
    begin, end = offset, offset + length
    for gap_begin, gap_end in gaps:
        if gap_begin >= end:
            break
        if gap_begin > begin:
            left.append((begin, gap_begin))
        begin = max(begin, gap_end)
    if begin < end:
        left.append((begin, end))
    return left


def view_of(source: Source, offset: int, length: int) -> memoryview | None:
    """The bytes of a source without a copy, read-only; None where it gives none (`view` is optional)."""
    view = getattr(source, "view", None)
    return None if view is None else view(offset, length)


def writable_view(buffer: Buffer) -> memoryview:
    """The bytes of a buffer. Raises UsageError if it cannot be written or is not contiguous."""
    try:
        view = memoryview(buffer)
        if view.readonly:
            raise UsageError("the buffer is read-only; give one that can be written")
        return view.cast("B")
    except TypeError as error:
        raise UsageError(f"the buffer cannot be filled ({error}); give a contiguous one") from None


def open_store(spec: str | os.PathLike[str]) -> Store:
    """A store by its text: `recorded:DIRECTORY` or the directory alone, `simulated:CAMERA?seed=3`,
    `tcp://HOST:PORT` or `ipc://PATH` of a server (`?keys=NAME&server=NAME` of the key store), or `SCHEME:…`
    of an installed package (entry-point group `raftwright.stores`).

    Raises NotFoundError (no such scheme or directory), UsageError, and what the store itself raises.
    """
    from raftwright.daq.recording import RecordedStore
    from raftwright.daq.simulated import open_simulated

    text = os.fspath(spec)
    match = _SCHEME.match(text)
    if not isinstance(spec, str) or match is None or os.path.exists(text):
        return RecordedStore(text)
    scheme, rest = match[1], match[2]
    built_in: dict[str, Callable[[str], Store]] = {
        "recorded": RecordedStore,
        "simulated": open_simulated,
        "tcp": partial(_open_network, "tcp"),
        "ipc": partial(_open_network, "ipc"),
    }
    if scheme in built_in:
        return built_in[scheme](rest)
    from importlib import metadata  # late: it reads e-mail headers, and most stores need none of it

    installed = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if scheme not in installed:
        known = ", ".join(sorted({*built_in, *installed}))
        raise NotFoundError(
            f"no store {scheme!r} is known, and {text[:200]!a} is no directory; there are {known}"
        )
    store = installed[scheme].load()(rest)
    if not isinstance(store, Store):
        raise UsageError(
            f"entry point {scheme!r} of {ENTRY_POINTS} gave a {type(store).__name__}, which is no Store"
        )
    return store


def _open_network(scheme: str, rest: str) -> Store:
    # As if it were an installed package: this room knows nothing of networks.
    opened: Store = importlib.import_module("raftwright.stream.client").open_endpoint(f"{scheme}:{rest}")
    return opened
