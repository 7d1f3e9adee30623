"""Headers of the stream protocol (docs/protocol.md, version 1): 64 bytes before every body."""

from __future__ import annotations

import enum
import functools
import hashlib
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from raftwright import _core
from raftwright.errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_BODY_TO_CLIENT",
    "MAX_BODY_TO_SERVER",
    "MAX_CHUNK",
    "MAX_MESSAGE_TO_CLIENT",
    "MAX_MESSAGE_TO_SERVER",
    "MIN_CHUNK",
    "SPOKEN",
    "VERSION",
    "Header",
    "Type",
    "WireError",
    "check_body",
    "image_key",
    "pack",
    "source_key",
    "unpack",
]

VERSION = 1
SPOKEN = (1,)
MAGIC = b"RWST"
HEADER_BYTES = 64

MIN_CHUNK = 1 << 20
MAX_CHUNK = 16 << 20
MAX_BODY_TO_SERVER = 1 << 20
"""Bytes of a JSON body."""
MAX_BODY_TO_CLIENT = 16 << 20
MAX_MESSAGE_TO_SERVER = 1 << 20
"""What a server accepts (ZMQ_MAXMSGSIZE)."""
MAX_MESSAGE_TO_CLIENT = 17 << 20

_FIELDS = struct.Struct("<4sBBHQQQ8s4sIQI")  # all but the header's own CRC
_CRC = struct.Struct("<I")
_NO_IMAGE, _NO_SOURCE = bytes(8), bytes(4)


class Type(enum.IntEnum):
    """What a message is."""

    HELLO = 1
    WELCOME = 2
    ERROR = 3
    QUERY = 4
    REPLY = 5
    PULL = 6
    CHUNK = 7
    CREDIT = 8
    CANCEL = 9
    WAIT = 10
    END = 11
    PING = 12
    PONG = 13
    NOTICE = 14


_TYPES = {int(kind): kind for kind in Type}


class Header(NamedTuple):
    """The fields of a header; those without meaning for a type are 0, keys empty."""

    type: Type
    request: int = 0
    offset: int = 0
    length: int = 0
    image_key: bytes = b""
    source_key: bytes = b""
    sequence: int = 0
    session: int = 0
    flags: int = 0
    body_crc: int = 0
    """Of what was received; `pack` makes its own."""


class WireError(FormatError):
    """A message that is not as the protocol says. `code` is that of the protocol's errors."""

    def __init__(self, code: str, message: str, more: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.more = dict(more or {})
        """Further keys for the body of an ERROR, such as the versions spoken."""


@functools.lru_cache(maxsize=4096)
def image_key(name: str) -> bytes:
    """First 8 bytes of the SHA-256 of an image's name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8]


@functools.lru_cache(maxsize=4096)
def source_key(location: str) -> bytes:
    """First 4 bytes of the SHA-256 of a location."""
    return hashlib.sha256(location.encode("utf-8", "surrogatepass")).digest()[:4]


def pack(header: Header, body: Buffer = b"", *, body_crc: int | None = None) -> bytes:
    """The 64 bytes of a header for a body, whose CRC-32C is computed where it is not given.

    Raises FormatError for a field that does not fit.
    """
    crc = _core.crc32c(body) if body_crc is None else body_crc
    try:
        front = _FIELDS.pack(
            MAGIC,
            VERSION,
            header.type,
            header.flags,
            header.request,
            header.offset,
            header.length,
            header.image_key or _NO_IMAGE,
            header.source_key or _NO_SOURCE,
            crc,
            header.sequence,
            header.session,
        )
    except struct.error as error:
        raise FormatError(f"a header of {header.type!r} cannot be made: {error}") from None
    return front + _CRC.pack(_core.crc32c(front))


def unpack(frame: Buffer) -> Header:
    """A received header, checked in the protocol's order but for its body (`check_body`).

    Raises WireError: `malformed` (size, magic, header CRC), `version`, `unknown-type`.
    """
    data = bytes(memoryview(frame)[: HEADER_BYTES + 1])
    if len(data) != HEADER_BYTES:
        raise WireError("malformed", f"a header has {HEADER_BYTES} bytes, not {memoryview(frame).nbytes}")
    magic, version, kind, flags, request, offset, length, image, source, crc, sequence, session = (
        _FIELDS.unpack_from(data)
    )
    if magic != MAGIC:
        raise WireError("malformed", f"a header begins with {MAGIC!r}, not {magic!r}")
    if _core.crc32c(data[:60]) != _CRC.unpack_from(data, 60)[0]:
        raise WireError("malformed", "the CRC-32C of the header is another; it was damaged on the way")
    if version != VERSION:
        raise WireError(
            "version",
            f"version {version} of the protocol is not spoken here, only {VERSION}; use one that knows it",
            {"spoken": list(SPOKEN), "got": version},
        )
    found = _TYPES.get(kind)
    if found is None:
        raise WireError("unknown-type", f"there is no message type {kind} in version {VERSION}")
    return Header(found, request, offset, length, image, source, sequence, session, flags, crc)


def check_body(header: Header, body: Buffer) -> None:
    """Raises WireError (`malformed`) if a body is not the one that its header was made for."""
    if _core.crc32c(body) != header.body_crc:
        raise WireError(
            "malformed", f"the CRC-32C of a {header.type.name} body is another; it was damaged on the way"
        )
