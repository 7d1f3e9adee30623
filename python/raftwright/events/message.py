"""What an event says, and its form on the wire (events format 1; `docs/events.md` has all of it).

A JSON object of at most 64 KiB:

    {"format": "raftwright-events/1", "kind": "fileWritten", "schema": 1, "sequence": 17, "session": "9f...",
     "publisher": "forwarder-1", "log": "9f...", "number": 40, "time": "2026-11-22T04:05:06.789Z",
     "fields": {"instrument": "LSSTCam", ...}}

`sequence` counts the events of this kind since the publisher began, from 1; `session` changes with every
start of it. `log` and `number` say where the event stands in what it was told from: the same two are the same
event, however often it comes. The kind `alive` comes every few seconds and says the last sequence of each
kind, so that a listener sees the loss of the last event too. Who reads takes no offence at kinds and fields
that it does not know.

Rafts and sensors are spelt `R22` and `S11`; `location` is the DAQ's, `22/0`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, UsageError
from raftwright.events.kinds import Message
from raftwright.events.schema import KINDS, check_fields, message_of, schema_of

__all__ = [
    "ALIVE",
    "FORMAT",
    "KINDS",
    "MAX_BYTES",
    "MISSED",
    "Event",
    "decode",
    "encode",
    "prepared",
    "read",
    "stamp",
]

FORMAT: Final = "raftwright-events/1"
MAX_BYTES: Final = 64 << 10
"""No message is longer."""
ALIVE: Final = "alive"
MISSED: Final = "missed"
_OWN: Final = frozenset({ALIVE, MISSED})

_Word: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z][A-Za-z0-9]{0,63}\Z")]
_Name: TypeAlias = Annotated[str, Meta(max_length=200)]
_Count: TypeAlias = Annotated[int, Meta(ge=0)]


class _Wire(msgspec.Struct, frozen=True, kw_only=True):
    format: Annotated[str, Meta(max_length=64)]
    kind: _Word
    schema: _Count = 1
    sequence: _Count
    session: _Name
    publisher: _Name
    log: _Name = ""
    number: _Count = 0
    time: Annotated[str, Meta(max_length=40)]
    fields: dict[str, Any]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    kind: str
    """One of `KINDS`, or another; `missed` is made by the subscriber where events were lost."""
    sequence: int
    session: str
    publisher: str
    time: str
    """UTC, ISO 8601 with milliseconds and Z."""
    fields: dict[str, Any]
    format: str = FORMAT
    schema: int = 1
    """Version of the kind's schema."""
    log: str = ""
    """The log that it stands in, under `number`; empty where it stands in none."""
    number: int = 0
    place: tuple[str, int, int] = ("", 0, 0)
    """Where the subscriber has it from; not on the wire."""

    def __getitem__(self, name: str) -> Any:
        """A field: `event["obsid"]`. Raises KeyError."""
        return self.fields[name]

    @property
    def message(self) -> Message | None:
        """The fields as the Struct of the kind; None for kinds that have none. Raises FormatError."""
        return message_of(self.kind, self.fields)


_decoder = msgspec.json.Decoder(_Wire)


def stamp() -> str:
    """Now, as it stands in events."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


def encode(event: Event) -> bytes:
    """The JSON of an event. Raises UsageError where there is no JSON for it, or too much."""
    wire = _Wire(
        format=event.format,
        kind=event.kind,
        schema=event.schema,
        sequence=event.sequence,
        session=event.session,
        publisher=event.publisher,
        log=event.log,
        number=event.number,
        time=event.time,
        fields=event.fields,
    )
    try:
        body = msgspec.json.encode(wire)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"event {event.kind} cannot be told in JSON: {error}") from None
    if len(body) > MAX_BYTES:
        raise UsageError(f"event {event.kind} has {len(body)} bytes; at most {MAX_BYTES} are told")
    return body


def read(body: bytes) -> Event:
    """An event from its JSON, checked against the schema of its kind. Raises FormatError."""
    if len(body) > MAX_BYTES:
        raise FormatError(f"an event of {len(body)} bytes; at most {MAX_BYTES} are read")
    try:
        wire = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"no event: {error}") from None
    if wire.format != FORMAT:
        raise FormatError(f"an event of format {wire.format[:64]!a}; this reads {FORMAT}")
    known = schema_of(wire.kind)
    if wire.schema > known and wire.kind in KINDS:
        raise FormatError(f"event {wire.kind} of schema {wire.schema}; this reads {known}, so update it")
    if wire.kind == MISSED:
        raise FormatError(f"an event {MISSED} is made where it is read, and not sent")
    return Event(
        kind=wire.kind,
        schema=wire.schema,
        sequence=wire.sequence,
        session=wire.session,
        publisher=wire.publisher,
        log=wire.log,
        number=wire.number,
        time=wire.time,
        fields=check_fields(wire.kind, wire.fields, FormatError),
    )


def decode(frames: list[bytes]) -> Event:
    """An event from its two frames on ZeroMQ, the kind and the JSON. Raises FormatError."""
    if len(frames) != 2:
        raise FormatError(f"an event has two frames, not {len(frames)}")
    event = read(frames[1])
    if event.kind.encode() != frames[0]:
        raise FormatError(f"an event {event.kind} under the topic {frames[0][:64]!r}")
    return event


def prepared(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event that a service tells, as they are told. Raises UsageError."""
    if kind in _OWN:
        raise UsageError(f"{kind} is no event that a service tells; choose another name")
    return check_fields(kind, fields)
