"""Notifications of object stores, in the form of S3: an object was made.

    {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {...}, "object": {"key": ...}}, ...}]}

They come from webhooks and topics of others, and are made for our own writes. One bad record does not hold
the others: `parse` gives what is good, and what is not with its reason, for the dead letters. Whoever deals
with an object looks at its size and tag again: a notification is a hint.
"""

from __future__ import annotations

import hmac
import itertools
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import quote_plus, unquote_plus

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, UsageError
from raftwright.events.message import stamp

__all__ = ["Notified", "Refused", "StoredObject", "build", "parse"]

MAX_BYTES: Final = 16 << 20
"""No notification is longer."""
_LONGEST_KEY: Final = 1024
_MADE: Final = "ObjectCreated:"
_STRANGE = re.compile(r"[\x00-\x1f\x7f]")

_Text: TypeAlias = Annotated[str, Meta(max_length=4096)]
_Size: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]


class _Bucket(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]


class _Object(msgspec.Struct, frozen=True):
    key: Annotated[str, Meta(min_length=1, max_length=3 * _LONGEST_KEY)]
    size: _Size
    eTag: _Text  # noqa: N815 - the name is that of S3
    versionId: _Text | None = None  # noqa: N815
    sequencer: _Text | None = None


class _Store(msgspec.Struct, frozen=True):
    bucket: _Bucket
    object: _Object


class _Record(msgspec.Struct, frozen=True):
    eventName: Annotated[str, Meta(min_length=1, max_length=200)]  # noqa: N815
    s3: _Store
    eventTime: _Text = ""  # noqa: N815
    opaqueData: _Text | None = None  # noqa: N815


_decoder = msgspec.json.Decoder(dict[str, Any])
msgspec.json.Decoder(_Record)  # made before there are threads
_sequence = itertools.count(1)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that a store says it has."""

    bucket: str
    key: str
    """Decoded: as the object is called."""
    size: int
    etag: str
    """Without quotes. The MD5 sum of its bytes, unless it was made of several parts."""
    event: str = f"{_MADE}Put"
    time: str = ""
    version: str = ""
    sequencer: str = ""
    """Of two events of one key, the later has the greater (compared as hexadecimal numbers)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot be used."""

    body: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Notified:
    """What a notification says."""

    objects: list[StoredObject] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: int = 0
    """Records of other events: an object was removed, ..."""


def parse(body: bytes, *, secret: str = "") -> Notified:
    """What a notification says.

    With a secret, records that do not have it in `opaqueData` are refused.

    Raises FormatError where it is no notification at all.
    """
    if len(body) > MAX_BYTES:
        raise FormatError(f"a notification of {len(body)} bytes; at most {MAX_BYTES} are read")
    try:
        records = _decoder.decode(body).get("Records")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"no notification: {error}") from None
    if not isinstance(records, list):
        raise FormatError("no notification: it has no list of Records")
    said = Notified()
    ignored = 0
    for record in records:
        try:
            found = _object(record, secret)
        except FormatError as error:
            said.refused.append(Refused(msgspec.json.encode({"Records": [_public(record)]}), str(error)))
            continue
        if found is None:
            ignored += 1
        else:
            said.objects.append(found)
    return Notified(said.objects, said.refused, ignored)


def _object(record: Any, secret: str) -> StoredObject | None:
    """The object of a record; None where the event is another. Raises FormatError."""
    try:
        known = msgspec.convert(record, _Record)
    except (msgspec.ValidationError, RecursionError) as error:
        if isinstance(record, dict) and _is_other(record.get("eventName")):
            return None
        raise FormatError(f"no record of an object: {error}") from None
    if secret and not hmac.compare_digest((known.opaqueData or "").encode(), secret.encode()):
        raise FormatError("the record does not have the secret; see that the store sends it")
    if _is_other(known.eventName):
        return None
    try:
        key = unquote_plus(known.s3.object.key, errors="strict")
    except UnicodeDecodeError:
        raise FormatError("the key is no UTF-8 when it is decoded") from None
    if len(key.encode()) > _LONGEST_KEY or _STRANGE.search(key):
        raise FormatError("the key has control characters, or more than 1024 bytes")
    thing = known.s3.object
    return StoredObject(
        bucket=known.s3.bucket.name,
        key=key,
        size=thing.size,
        etag=thing.eTag.strip('"'),
        event=known.eventName.removeprefix("s3:"),
        time=known.eventTime,
        version=thing.versionId or "",
        sequencer=thing.sequencer or "",
    )


def _is_other(name: Any) -> bool:
    return isinstance(name, str) and name != "" and not name.removeprefix("s3:").startswith(_MADE)


def _public(record: Any) -> Any:
    """The record without what may be a secret."""
    return {**record, "opaqueData": ""} if isinstance(record, dict) else record


def build(*objects: StoredObject, secret: str = "", region: str = "") -> bytes:
    """The notification of our own writes. Raises UsageError where an object has no bucket, key or tag."""
    records = []
    for thing in objects:
        if not (thing.bucket and thing.key and thing.etag) or thing.size < 0:
            raise UsageError(
                f"the object {thing.key[:200]!a} lacks bucket, key, tag or size; give all of them"
            )
        told = thing.time or stamp()
        number = thing.sequencer or f"{time.time_ns():016X}{next(_sequence) & 0xFFFF:04X}"
        records.append(
            {
                "eventVersion": "2.2",
                "eventSource": "raftwright:s3",
                "awsRegion": region,
                "eventTime": told,
                "eventName": thing.event,
                "userIdentity": {"principalId": "raftwright"},
                "requestParameters": {"sourceIPAddress": ""},
                "responseElements": {"x-amz-request-id": secrets.token_hex(8), "x-amz-id-2": ""},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "raftwright",
                    "bucket": {
                        "name": thing.bucket,
                        "ownerIdentity": {"principalId": "raftwright"},
                        "arn": f"arn:aws:s3:{region}::{thing.bucket}",
                        "id": "",
                    },
                    "object": {
                        "key": quote_plus(thing.key, safe="/"),
                        "size": thing.size,
                        "eTag": thing.etag,
                        "versionId": thing.version,
                        "sequencer": number,
                        "metadata": [],
                        "tags": [],
                    },
                },
                "eventId": f"{told}.{number}.{thing.etag}",
                "opaqueData": secret,
            }
        )
    return msgspec.json.encode({"Records": records})
