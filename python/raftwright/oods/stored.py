"""What stores tell of objects: size, tag and sums. Two are compared by what says that contents are the same.
Nothing is guessed: a tag is a tag, whatever it looks like, and only a sum of the whole object is a sum."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from raftwright.errors import FormatError, RaftwrightError
from raftwright.events.notifications import StoredObject
from raftwright.rawfile.sidecar import MAX_BYTES
from raftwright.transfer.bucket import Bucket
from raftwright.transfer.outcome import OutageError
from raftwright.transfer.place import Place

if TYPE_CHECKING:
    from raftwright.ledger.rows import IngestRow
    from raftwright.oods.inputs import Notifications

__all__ = ["Page", "Stored", "Stores", "known_of", "named", "same"]

_SUMS: Final = ("CRC32C", "CRC64NVME", "CRC32", "SHA256", "SHA1")
PAGE: Final = 1000
"""Keys of a listing that come at a time."""
_THREADS: Final = 8
_TIMEOUT: Final = 8.0
"""Seconds that a store may be silent."""
_BLIND: Final = 15.0
"""Seconds after an outage in which a store is not asked for what can do without."""
_LONGEST: Final = 300
"""Of a tag, or a sum, in the ledger."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object, as its store has it."""

    size: int
    etag: str = ""
    """Without quotes. It changes with the content, and may change without it."""
    sums: dict[str, str] = {}
    """Of the whole object: algorithm to value, as the store writes it."""

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Stored:
        """From the answer to HEAD."""
        whole = head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        sums = {}
        for name in _SUMS:
            value = head.get(f"Checksum{name}")
            # With a `-` it is a sum of the sums of parts, which depends on how they were cut.
            if whole and isinstance(value, str) and value and "-" not in value:
                sums[name] = value[:_LONGEST]
        return cls(
            size=int(head.get("ContentLength", 0)),
            etag=str(head.get("ETag", "")).strip('"')[:_LONGEST],
            sums=sums,
        )

    @property
    def text(self) -> str:
        """As the ledger keeps it beside the size."""
        return msgspec.json.encode({"etag": self.etag, **self.sums}).decode()


_decoder = msgspec.json.Decoder(dict[str, str])  # made before there are threads


def known_of(row: IngestRow) -> Stored:
    """What the store told of an object when it was entered; the size alone where no more is known."""
    try:
        said = _decoder.decode(row.stored) if row.stored else {}
    except msgspec.DecodeError:
        said = {}
    return Stored(size=row.bytes, etag=said.pop("etag", ""), sums=said)


def same(one: Stored, other: Stored) -> bool | None:
    """Whether the contents are the same; None where nobody can say."""
    if one.size != other.size:
        return False
    common = [name for name in one.sums if name in other.sums]
    if common:
        return all(one.sums[name] == other.sums[name] for name in common)
    return True if one.etag and one.etag == other.etag else None


def _parts_of(uri: str) -> tuple[str, str]:
    """Bucket and key of the URI of an object."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket.rpartition("@")[2], unquote(key)


def named(uri: str) -> StoredObject:
    """An object by its URI; nothing is known of it."""
    bucket, key = _parts_of(uri)
    return StoredObject(bucket=bucket, key=key, size=0, etag="")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a listing."""

    folders: list[str]
    """Whole prefixes, with `/` at the end."""
    objects: list[StoredObject]
    last: str
    """Where the next one goes on."""
    more: bool
    """Whether there is one."""


class Stores:
    """The buckets of an input: any of a server, found as lsst.resources finds it. Thread-safe."""

    def __init__(self, settings: Notifications) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._blind = 0.0
        """Until when (monotonic) nobody is asked."""

    def bucket(self, name: str) -> Bucket:
        """Raises MissingExtraError, FormatError where that is no name of a bucket."""
        with self._lock:
            found = self._buckets.get(name)
            if found is None:
                place = Place(
                    name="notifications",
                    kind="s3",
                    root=self._settings.root(name),
                    concurrency=_THREADS,
                    timeout=_TIMEOUT,
                    insecure=self._settings.insecure,
                )
                self._buckets[name] = found = Bucket(place)
            return found

    def look(self, thing: StoredObject) -> Stored | None:
        """An object as it is now; None where there is none. Raises OutageError, RefusedError and as
        `bucket`."""
        if time.monotonic() < self._blind:
            raise OutageError(f"{self._settings.root(thing.bucket)}: the store did not answer a moment ago")
        try:
            head = self.bucket(thing.bucket).head(thing.key)
        except OutageError:
            self._blind = time.monotonic() + _BLIND
            raise
        return None if head is None else Stored.of(head)

    def look_at(self, things: Sequence[StoredObject]) -> list[Stored | None]:
        """The same for many at a time; None too for what cannot be looked at now."""
        if not things:
            return []
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="look")
            pool = self._pool
        return list(pool.map(self._look_or_not, things))

    def _look_or_not(self, thing: StoredObject) -> Stored | None:
        try:
            return self.look(thing)
        except RaftwrightError:
            return None  # what was told of it has to do

    def document(self, uri: str) -> bytes:
        """What an object says that is no longer than a sidecar. Raises AbsentError, FormatError, OutageError,
        RefusedError."""
        bucket, key = _parts_of(uri)
        shown = ascii(uri)[1:-1]
        if time.monotonic() < self._blind:
            raise OutageError(f"{shown}: the store did not answer a moment ago")
        place = self.bucket(bucket)
        try:
            with place.said(shown):
                answer = place.client.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{MAX_BYTES}")
                content: bytes = answer["Body"].read(MAX_BYTES + 1)
        except OutageError:
            self._blind = time.monotonic() + _BLIND
            raise
        if len(content) > MAX_BYTES:
            raise FormatError(f"{shown}: is too long for a sidecar")
        return content

    def pages(self, name: str, prefix: str, *, after: str = "", folders: bool = False) -> Iterator[Page]:
        """Lists what begins with a prefix, a thousand at a time, from behind a key on; with `folders` only
        what is right there, and the folders there. Raises OutageError, RefusedError and as `bucket`."""
        bucket = self.bucket(name)
        more: dict[str, str] = {"Delimiter": "/"} if folders else {}
        where: dict[str, str] = {"StartAfter": after} if after else {}
        while True:
            with bucket.said(f"{self._settings.root(name)}/{prefix}", bucket=True):
                page = bucket.client.list_objects_v2(
                    Bucket=name, Prefix=prefix, MaxKeys=PAGE, **more, **where
                )
            below = [str(one["Prefix"]) for one in page.get("CommonPrefixes", ())]
            things = [
                StoredObject(
                    bucket=name,
                    key=str(one["Key"]),
                    size=int(one.get("Size", 0)),
                    etag=str(one.get("ETag", "")).strip('"')[:_LONGEST],
                )
                for one in page.get("Contents", ())
            ]
            token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
            last = max([*below, *(thing.key for thing in things)], default=after)
            yield Page(folders=below, objects=things, last=last, more=bool(token))
            if not token:
                return
            where = {"ContinuationToken": str(token)}

    def close(self) -> None:
        """Ends all connections."""
        with self._lock:
            pool, self._pool = self._pool, None
            buckets = list(self._buckets.values())
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        for bucket in buckets:
            bucket.close()
