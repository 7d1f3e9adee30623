"""What an event says, and its form on the wire (events format 1).

Frame 1 is the kind in ASCII: a subscription filters by it. Frame 2 is a JSON object of at most 64 KiB:

    {"format": "raftwright-events/1", "kind": "fileWritten", "sequence": 17, "session": "9f...",
     "publisher": "forwarder-1", "time": "2026-11-22T04:05:06.789Z", "fields": {"instrument": "LSSTCam", ...}}

`sequence` counts the events of this kind since the publisher began, from 1; `session` changes with every
start of it. The kind `alive` comes every few seconds and says the last sequence of each kind, so that a
listener sees the loss of the last event too. Who reads takes no offence at kinds and fields that it does not
know.

Rafts and sensors are spelt `R22` and `S11`; `location` is the DAQ's, `22/0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, UsageError

__all__ = ["ALIVE", "FORMAT", "KINDS", "MAX_BYTES", "MISSED", "Event", "check_fields", "decode", "encode"]

FORMAT: Final = "raftwright-events/1"
MAX_BYTES: Final = 64 << 10
"""No message is longer."""
ALIVE: Final = "alive"
MISSED: Final = "missed"

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    # A file of a CCD is whole and durable under its name.
    "fileWritten": (
        "instrument",
        "obsid",
        "raft",
        "sensor",
        "location",
        "path",
        "bytes",
        "crc32c",
        "version",
    ),
    # A later, better read of a CCD whose file had gaps; `replaces` is the file before, which stays.
    "fileRepaired": (
        *("instrument", "obsid", "raft", "sensor", "location", "path", "bytes", "crc32c", "version"),
        "replaces",
    ),
    # All files of an image that this service is in charge of are written.
    "imageWritten": ("instrument", "obsid", "files"),
    # A source of an image was given up on; its files are written with the gaps marked.
    "imageIncomplete": ("instrument", "obsid", "raft", "location", "missing_bytes", "reason"),
    # A unit of work of another service, which no longer renews its lease, is now this one's.
    "unitTakenOver": ("instrument", "obsid", "location", "previous", "owner"),
}
"""Kinds of events and the fields that each must have. There may be more fields, and other kinds."""

_Word: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z][A-Za-z0-9]{0,63}\Z")]
_Name: TypeAlias = Annotated[str, Meta(max_length=200)]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    format: Annotated[str, Meta(max_length=64)] = FORMAT
    kind: _Word
    """One of `KINDS`, or another; `missed` is made by the subscriber where events were lost."""
    sequence: Annotated[int, Meta(ge=0)]
    session: _Name
    publisher: _Name
    time: Annotated[str, Meta(max_length=40)]
    """UTC, ISO 8601 with milliseconds and Z."""
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """A field: `event["obsid"]`. Raises KeyError."""
        return self.fields[name]


_decoder = msgspec.json.Decoder(Event)


def check_fields(kind: str, fields: Mapping[str, Any]) -> None:
    """Raises UsageError where a field that the kind must have is not there, or says nothing."""
    lacking = [name for name in KINDS.get(kind, ()) if fields.get(name) in (None, "")]
    if lacking:
        raise UsageError(f"event {kind} lacks {', '.join(lacking)}; give all of {', '.join(KINDS[kind])}")


def encode(event: Event) -> bytes:
    """The JSON of an event. Raises UsageError where there is no JSON for it, or too much."""
    try:
        body = msgspec.json.encode(event)
    except (TypeError, ValueError) as error:
        raise UsageError(f"event {event.kind} cannot be told in JSON: {error}") from None
    if len(body) > MAX_BYTES:
        raise UsageError(f"event {event.kind} has {len(body)} bytes; at most {MAX_BYTES} are told")
    return body


def decode(frames: list[bytes]) -> Event:
    """An event from its frames. Raises FormatError."""
    if len(frames) != 2 or len(frames[1]) > MAX_BYTES:
        raise FormatError(f"an event has two frames, the second of at most {MAX_BYTES} bytes")
    try:
        event = _decoder.decode(frames[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"no event: {error}") from None
    if event.format != FORMAT:
        raise FormatError(f"an event of format {event.format[:64]!a}; this reads {FORMAT}")
    if event.kind.encode() != frames[0] or event.kind == MISSED:
        raise FormatError(f"an event {event.kind} under the topic {frames[0][:64]!r}")
    return event
