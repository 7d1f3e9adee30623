"""The files of a pool, byte by byte (layout 1, native byte order: they never leave the machine).

`slab-NNNNNN`: 64 KiB of header, then pixels, which so begin on a page.

    0   8  magic "RWSLAB1\\0"        24  8  generation
    8   4  layout version            32  4  bytes of the JSON
    12  4  bytes of the header       36  4  CRC-32C of the JSON
    16  8  bytes for pixels          64  .. JSON: `BoardMeta`

The generation is twice the serial number of the board that lies there; odd while a board is written, 0 where
there is none. Who wants to read looks at it, takes a shared `flock`, and looks again: while it is held,
nobody writes.

`pool`: 32 KiB.

    0   8  magic "RWPOOL1\\0"        16     8  the last serial number
    8   4  layout version            16384  .. for each serial number modulo 4096 its slab, 4 bytes: a
                                               hint, for the slab's header says what it has

Serial numbers count boards in the order of their completion, from 1; a pool that is opened again goes on
counting. `owner` is locked by the process whose pool it is.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final, NamedTuple

import msgspec

from raftwright import _core
from raftwright.camera.model import Geometry
from raftwright.errors import FormatError

__all__ = [
    "HEADER_BYTES",
    "BoardMeta",
    "DetectorMeta",
    "Header",
    "PoolState",
    "SlabHeader",
    "decode_meta",
    "encode_meta",
    "read_header",
]

HEADER_BYTES: Final = 64 << 10
META_OFFSET: Final = 64
MAX_META: Final = HEADER_BYTES - META_OFFSET
VERSION: Final = 1
_MAGIC = b"RWSLAB1\0"
_HEAD = struct.Struct("=8sIIQQII")

_POOL_MAGIC = b"RWPOOL1\0"
_POOL_HEAD = struct.Struct("=8sI")
POOL_BYTES: Final = 32 << 10
RING: Final = 4096


class DetectorMeta(msgspec.Struct, frozen=True):
    """One CCD of a board."""

    name: str
    id: int
    first: int
    """Its first plane."""
    segments: tuple[str, ...]
    """Names of its segments, in the order of their HDUs and planes."""
    amps: tuple[str, ...]
    missing_pixels: int = 0
    missing: dict[str, list[tuple[int, int]]] | None = msgspec.field(default_factory=dict)
    """Runs of missing pixels of each segment that has any; None: too many to be told, their value shows
    them."""


class BoardMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a slab: the planes of one board."""

    image: str
    camera: str
    location: str
    geometry: Geometry
    bits: int
    """Of a pixel: values are below 2**bits."""
    fill: int
    planes: tuple[int, ...]
    """Where each plane begins: bytes from the first of the pixels."""
    detectors: tuple[DetectorMeta, ...]
    completed: str = ""
    """UTC, ISO 8601."""

    @property
    def plane_bytes(self) -> int:
        """Of one plane of int32."""
        return self.geometry.width * self.geometry.height * 4

    def check(self, capacity: int) -> None:
        """Raises FormatError unless every plane lies within the pixels, and each detector has its planes."""
        size = self.plane_bytes
        if any(offset < 0 or offset % 4 or offset + size > capacity for offset in self.planes):
            raise FormatError(f"{self.image} {self.location}: a plane lies outside its slab")
        for detector in self.detectors:
            last = detector.first + len(detector.segments)
            if not 0 <= detector.first <= last <= len(self.planes):
                raise FormatError(f"{self.image} {detector.name}: planes that the slab does not have")


_decoder = msgspec.json.Decoder(BoardMeta)


def encode_meta(meta: BoardMeta) -> bytes:
    """The JSON of a board. Runs of missing pixels are left out where they would not fit.

    Raises FormatError where the rest does not fit either.
    """
    body = msgspec.json.encode(meta)
    if len(body) > MAX_META:
        bare = [msgspec.structs.replace(d, missing=None if d.missing else {}) for d in meta.detectors]
        body = msgspec.json.encode(msgspec.structs.replace(meta, detectors=tuple(bare)))
    if len(body) > MAX_META:
        raise FormatError(
            f"{meta.image} {meta.location}: its description has {len(body)} bytes; "
            f"a slab has room for {MAX_META}"
        )
    return body


def decode_meta(body: bytes, capacity: int) -> BoardMeta:
    """The board that a slab describes. Raises FormatError."""
    try:
        meta = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the description of a slab is none: {error}") from None
    meta.check(capacity)
    return meta


class Header(NamedTuple):
    """A slab's header as it was at one moment."""

    capacity: int
    generation: int
    meta_bytes: int
    meta_crc: int


def read_header(fd: int) -> Header | None:
    """The header of a slab's file; None where it is no slab of this layout."""
    raw = os.pread(fd, _HEAD.size, 0)
    if len(raw) < _HEAD.size:
        return None
    magic, version, header, capacity, generation, meta_bytes, meta_crc = _HEAD.unpack(raw)
    if (magic, version, header) != (_MAGIC, VERSION, HEADER_BYTES) or meta_bytes > MAX_META:
        return None
    if os.fstat(fd).st_size < HEADER_BYTES + capacity:
        return None
    return Header(capacity, generation, meta_bytes, meta_crc)


class SlabHeader:
    """The header of a slab that this process writes."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` is the header area, writable."""
        self._bytes = memory
        # Stores through these are single ones of their width: no reader ever sees half a number.
        self._wide = memory[:32].cast("Q")
        self._narrow = memory[:64].cast("I")

    def format(self, capacity: int) -> None:
        """An empty slab."""
        self._bytes[: _HEAD.size] = _HEAD.pack(_MAGIC, VERSION, HEADER_BYTES, capacity, 0, 0, 0)

    @property
    def generation(self) -> int:
        """As it stands."""
        return self._wide[3]

    @generation.setter
    def generation(self, value: int) -> None:
        self._wide[3] = value

    def describe(self, body: bytes) -> None:
        """Puts the JSON there. The generation is odd meanwhile."""
        self._bytes[META_OFFSET : META_OFFSET + len(body)] = body
        self._narrow[8] = len(body)
        self._narrow[9] = _core.crc32c(body)

    def release(self) -> None:
        """Lets the memory go."""
        self._wide.release()
        self._narrow.release()
        self._bytes.release()


class PoolState:
    """The file `pool`: the last serial number, and which slab has which of the last ones."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Maps the file. Raises FormatError where it is none of this layout."""
        if os.fstat(fd).st_size != POOL_BYTES:
            raise FormatError("the file `pool` has another size than this version's")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(fd, POOL_BYTES, access=access)
        if self._map[: _POOL_HEAD.size] != _POOL_HEAD.pack(_POOL_MAGIC, VERSION):
            self._map.close()
            raise FormatError("the file `pool` is of another version")
        self._view = view = memoryview(self._map)
        self._serial = view[16:24].cast("Q")
        self._ring = view[POOL_BYTES - RING * 4 :].cast("I")

    @staticmethod
    def empty() -> bytes:
        """The content of a new one."""
        return _POOL_HEAD.pack(_POOL_MAGIC, VERSION).ljust(POOL_BYTES, b"\0")

    @property
    def serial(self) -> int:
        """Of the board that was announced last; 0 before the first."""
        return self._serial[0]

    def announce(self, serial: int) -> None:
        """From here on readers know of it."""
        self._serial[0] = serial

    def slab_of(self, serial: int) -> int:
        """The number of the slab that had it."""
        return self._ring[serial % RING]

    def note(self, serial: int, slab: int) -> None:
        """Which slab has it; before it is announced."""
        self._ring[serial % RING] = slab

    def close(self) -> None:
        """Twice is once."""
        for view in (self._serial, self._ring, self._view):
            view.release()
        self._map.close()
