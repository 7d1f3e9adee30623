"""`transfer-done` messages of Rucio: a file has arrived in the storage by itself and is to be ingested.

A message is a hint and may be anything. What cannot be dealt with becomes a dead letter with its reason, and
the next one is taken; none is looked at twice because of another.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from raftwright.backbone.receiving.intake import sums_of
from raftwright.backbone.receiving.register import Register
from raftwright.errors import FormatError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["TYPES", "Arrivals", "Topic", "Transfers"]

_log = logging.getLogger("raftwright.endpoint")

TYPES: Final = ("data_product", "raw_file", "zip_file", "dim_file")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where files of a topic stand."""

    rucio_prefix: Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9+]*://\S{1,1000}\Z")]
    """What the URL of each begins with, up to a `/`."""
    path: Annotated[str, Meta(max_length=1000)] = ""
    """What stands for it below the storage."""

    def __post_init__(self) -> None:
        if self.path.startswith("/") or ".." in PurePosixPath(self.path).parts:
            raise FormatError(f"path: {self.path[:200]!a} is not below the storage")


class Transfers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `endpoint.transfers`."""

    brokers: Annotated[str, Meta(min_length=1, max_length=2000)]
    """HOST:PORT[,HOST:PORT]. Security as with all events: RAFTWRIGHT_KAFKA_OPTIONS."""
    topics: Annotated[dict[str, Topic], Meta(min_length=1, max_length=64)]
    """By their names, `<RSE>-<scope>`."""
    group: Annotated[str, Meta(min_length=1, max_length=200)] = "raftwright-endpoint"
    types: list[str] = msgspec.field(default_factory=lambda: ["raw_file"])
    """Values of `rubin_butler` that are ingested; others of those that there are get IGNORED."""
    tries: Annotated[int, Meta(ge=1, le=1000)] = 5
    """A file that is not there yet is looked for so often."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.topics if not _TOPIC.match(name)]
        if unknown:
            raise FormatError(f"topics: {unknown[0][:200]!a} is no name of a topic")
        strange = [name for name in self.types if name not in TYPES]
        if strange:
            raise FormatError(f"types: {strange[0][:40]!a} is none; there are {', '.join(TYPES)}")


_Text = Annotated[str, Meta(max_length=4000)]


class _Payload(msgspec.Struct, frozen=True, kw_only=True):
    scope: _Text
    name: _Text
    dst_url: _Text = msgspec.field(name="dst-url")
    dst_rse: _Text = msgspec.field(name="dst-rse")
    bytes: Annotated[int, Meta(ge=0)] | None = None
    file_size: Annotated[int, Meta(ge=0)] | None = msgspec.field(name="file-size", default=None)
    checksum_adler: _Text | None = msgspec.field(name="checksum-adler", default=None)
    checksum_md5: _Text | None = msgspec.field(name="checksum-md5", default=None)
    rubin_butler: Any = None


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    event_type: _Text
    payload: msgspec.Raw


_message: Final = msgspec.json.Decoder(_Message)
_payload: Final = msgspec.json.Decoder(_Payload)


class Arrivals:
    """Enters what has arrived in the register. For one thread."""

    def __init__(
        self,
        settings: Transfers,
        register: Register,
        ingesters: Collection[str],
        *,
        md5: bool = False,
    ) -> None:
        self._settings = settings
        self._register = register
        self._ingesters = tuple(ingesters)
        self._md5 = md5

    def take(self, topic: str, body: bytes) -> str:
        """Deals with one message: `entered`, `known`, `ignored`.

        Raises NotFoundError where the file is not there (yet), FormatError where nothing can be done with the
        message, and StorageError where the register does not work.
        """
        try:
            message = _message.decode(body)
            if message.event_type != "transfer-done":
                return "ignored"
            payload = _payload.decode(message.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"is no transfer-done message: {str(error)[:300]}") from None
        wanted = payload.rubin_butler
        if wanted is not None and wanted not in TYPES:
            raise FormatError(f"rubin_butler is {str(wanted)[:100]!a}; there are {', '.join(TYPES)}")
        if f"{payload.dst_rse}-{payload.scope}" != topic:
            raise FormatError(f"is of {payload.dst_rse[:100]}-{payload.scope[:100]}, in the topic {topic}")
        name = self.path_of(topic, payload.dst_url)
        path = self._register.storage / name
        try:
            sums = sums_of(path, self._md5 or bool(payload.checksum_md5))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{path}: is not there, though it was transferred") from None
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from None
        size = payload.bytes if payload.bytes is not None else payload.file_size
        for key, said, found in (
            ("bytes", size, sums.bytes),
            ("adler32", payload.checksum_adler, sums.adler32),
            ("md5", payload.checksum_md5, sums.md5),
        ):
            if said and said != found:
                raise FormatError(f"{path}: {key} is {found}, the message says {said}")
        for row in self._register.files(name):
            if row.name == name and row.place == "storage" and row.crc32c != sums.crc32c:
                raise FormatError(f"{path}: had another content when it came first; see the audit")
        relpath, _, filename = name.rpartition("/")
        _, new = self._register.enter(
            relpath=relpath,
            filename=filename,
            crc32c=sums.crc32c,
            adler32=sums.adler32,
            md5=sums.md5,
            size=sums.bytes,
            ingesters=self._ingesters,
            message=f"transferred to {payload.dst_rse}, {payload.scope}:{payload.name}",
            first="UNTRIED" if wanted in self._settings.types else "IGNORED",
        )
        return "entered" if new else "known"

    def path_of(self, topic: str, url: str) -> str:
        """The name below the storage that a URL stands for: what is behind the prefix of its topic. Raises
        FormatError where it is not mapped."""
        known = self._settings.topics.get(topic)
        if known is None:
            raise FormatError(f"the topic {topic[:200]!a} is not mapped; add it to endpoint.transfers.topics")
        prefix = known.rucio_prefix.rstrip("/") + "/"
        if not url.startswith(prefix):
            raise FormatError(f"{url[:300]!a} does not begin with {prefix}, which {topic} is mapped by")
        rest = unquote(url.removeprefix(prefix), errors="replace").lstrip("/")
        parts = [part for part in rest.split("/") if part != ""]
        if (
            not parts
            or ".." in parts
            or "." in parts
            or not rest.isprintable()
            or "\ufffd" in rest
            or rest.endswith("/")
        ):
            raise FormatError(f"{url[:300]!a} is no file below {prefix}")
        return str(PurePosixPath(known.path, *parts))


def feeds(settings: Transfers, name: str) -> Mapping[str, Any]:
    """A feed for each topic. Raises MissingExtraError, UsageError."""
    from raftwright.events.kafka import common_settings, library, parse
    from raftwright.events.kafka_feed import Feed

    kafka = library()
    found = {}
    for topic in settings.topics:
        try:
            place = parse(f"kafka://{settings.brokers}/transfers")
        except UsageError:
            raise UsageError(
                f"endpoint.transfers.brokers: {settings.brokers[:200]!a} is none; write HOST:PORT[,HOST:PORT]"
            ) from None
        options = {
            **common_settings(place, "", name),
            "group.id": settings.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16 << 10,
        }
        found[topic] = Feed(kafka, options, topic, grouped=True, lost=lambda _: None)
    return found


def dead_letters_of(storage: Path) -> Path:
    """Directory of messages that nothing could be done with."""
    return storage / ".endpoint" / "dead-letters"
