"""JSON bodies of the stream protocol: one structure a message, checked when it is read."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from raftwright._version import __version__
from raftwright.stream.wire import MAX_BODY_TO_CLIENT, WireError

__all__ = [
    "SOFTWARE",
    "Available",
    "ChunkLimits",
    "End",
    "Folders",
    "Hello",
    "ImageReply",
    "Images",
    "NoticeBody",
    "Problem",
    "Pull",
    "Query",
    "SourceState",
    "Welcome",
    "decode",
    "encode",
]

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=1024)]
Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
Ranges: TypeAlias = Annotated[list[tuple[Count, Count]], Meta(max_length=1_000_000)]
Crc: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{8}\Z")]
ChunkLimits: TypeAlias = tuple[Annotated[int, Meta(ge=1, le=2**40)], Annotated[int, Meta(ge=1, le=2**40)]]


SOFTWARE: Final = f"raftwright {__version__}"
"""What each side tells the other that it runs."""


class Hello(msgspec.Struct, frozen=True):
    """The client's first message."""

    versions: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=255)]
    software: Text = ""
    name: Text = ""


class Welcome(msgspec.Struct, frozen=True):
    """The server's answer."""

    version: int
    session: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    notices: Text
    data: Annotated[list[Text], Meta(min_length=1, max_length=1024)]
    heartbeat: Annotated[float, Meta(gt=0, le=3600)]
    """Seconds."""
    chunk: ChunkLimits
    """Smallest and largest chunk that may be asked for, in bytes."""
    credit: Annotated[int, Meta(ge=1, le=2**50)]
    """Most that may be outstanding for one pull, in bytes."""
    pulls: Annotated[int, Meta(ge=1, le=2**31)]
    """How many one connection may have open."""
    software: Text = ""
    store: Text = ""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an ERROR."""

    code: Annotated[str, Meta(max_length=64)]
    message: Text = ""
    spoken: list[int] | None = None
    got: Any = None


class Query(msgspec.Struct, frozen=True, omit_defaults=True):
    """Any catalogue query; which keys have a meaning depends on `what`."""

    what: Annotated[str, Meta(max_length=64)]
    folder: Name | None = None
    after: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    image: Name | None = None
    location: Name | None = None
    offset: Count | None = None
    length: Count | None = None


class Folders(msgspec.Struct, frozen=True):
    """Reply to `folders`."""

    folders: Annotated[list[Name], Meta(max_length=1_000_000)]
    more: bool = False


class Images(msgspec.Struct, frozen=True):
    """Reply to `images` and `underway`."""

    images: Annotated[list[Name], Meta(max_length=1_000_000)]
    more: bool = False


class SourceState(msgspec.Struct, frozen=True):
    """How far a source is."""

    final: bool
    available: Count
    """Bytes."""


class ImageReply(msgspec.Struct, frozen=True):
    """Reply to `image`. `image` is read with `raftwright.daq.info.decode_description`."""

    image: dict[str, Any]
    final: bool
    sources: dict[str, SourceState]


class Available(msgspec.Struct, frozen=True):
    """Reply to `available`."""

    ranges: Ranges
    final: bool
    more: bool = False
    """The ranges were too many for one body: ask again from the end of the last."""


class Pull(msgspec.Struct, frozen=True):
    """The body of a PULL."""

    image: Name
    location: Name
    credit: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    chunk: Annotated[int, Meta(ge=1, le=2**40)]


class End(msgspec.Struct, frozen=True):
    """The body of an END. `gaps` and `crc32c` are those of the whole stream."""

    bytes: Count
    sent: Count
    crc32c: Crc | None = None
    gaps: Ranges = []


class NoticeBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a NOTICE."""

    kind: Annotated[str, Meta(max_length=64)]
    image: Name = ""
    folder: Name | None = None
    location: Name | None = None
    bytes: Count | None = None


T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_KINDS = (Hello, Welcome, Problem, Query, Folders, Images, ImageReply, Available, Pull, End, NoticeBody)
# Made here, in one thread: two threads that are the first to decode a type at the same time crash msgspec.
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in _KINDS}


def encode(body: Any) -> bytes:
    """A body as JSON."""
    return _encoder.encode(body)


def decode(data: bytes, kind: type[T], most: int = MAX_BODY_TO_CLIENT) -> T:
    """A body as a structure. Raises WireError (`malformed`) for everything else."""
    if len(data) > most:
        raise WireError("malformed", f"a body of {len(data)} bytes; there may be {most}")
    try:
        decoded: T = _decoders[kind].decode(data)
        return decoded
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        said = ascii(str(error))[1:-1][:200]
        raise WireError("malformed", f"a {kind.__name__} body cannot be read: {said}") from None
