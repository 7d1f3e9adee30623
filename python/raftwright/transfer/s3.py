"""A bucket as a place: any server that speaks S3.

An object is put only where its name is free (`If-None-Match`), with its CRC-32C for servers that check it,
and is looked at afterwards: the size, and a sum that the server made of what it has. That is the MD5 of its
ETag where it is one; nothing is guessed from an ETag that is none. Where the server tells no such sum, the
object is read back. What is staged is put and read back under a hidden name first, and copied to its own by
the server."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import ConflictError, NotFoundError, RaftwrightError
from raftwright.transfer.bodies import Body
from raftwright.transfer.bucket import AbsentError, Bucket, TakenError
from raftwright.transfer.bucket_parts import LARGEST, Parts
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent
from raftwright.transfer.pouring import NewFile
from raftwright.transfer.sources import checked_source
from raftwright.transfer.targets import aside, checked, is_ours, partial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import Why

__all__ = ["S3Sender"]

_MD5 = re.compile(r'"?([0-9a-f]{32})"?\Z')
_CRC: Final = "crc32c"


class S3Sender:
    """See `Sender`. Raises MissingExtraError without the extra `s3`."""

    def __init__(self, destination: Place) -> None:
        self._place = destination
        self._bucket = Bucket(destination)
        self._parts = Parts(self._bucket)
        self._locks: bool | None = None

    # -- the place

    def warm(self) -> str:
        """Opens the connections. Raises OutageError."""
        self.probe()
        threads = [
            threading.Thread(target=self._touch, daemon=True) for _ in range(self._place.concurrency - 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
        return f"bucket {self._bucket.root.geturl()} at {self._bucket.client.meta.endpoint_url}"

    def _touch(self) -> None:
        with contextlib.suppress(Exception):  # it is only to be warm
            self._bucket.client.head_bucket(Bucket=self._bucket.name)

    def probe(self) -> None:
        """Raises OutageError."""
        shown = self._bucket.root.geturl()
        try:
            self._bucket.check()
        except NotFoundError as error:
            raise OutageError(f"{shown}: {error}") from None
        if self._place.immutable == "required" and not self._has_locks():
            raise OutageError(f"{shown}: the bucket has no object lock; make one that has, or ask for less")

    def close(self) -> None:
        """Closes the connections."""
        self._bucket.close()

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        parts = checked(job.target)
        key = self._bucket.key(parts)
        shown = self._bucket.shown(key)
        md5 = checked_source(job, "md5")
        how, moved = "there already", 0
        head = self._bucket.head(key)
        if head is None:
            try:
                how, moved, head = self._bring(job, parts, key, md5)
            except TakenError:
                head = self._bucket.head(key)
                if head is None:
                    raise RefusedError(
                        f"{shown}: the name is taken, and nothing is there; tried again"
                    ) from None
        if how == "there already" and not self._same(job, key, md5, head):
            raise ConflictError(
                f"{shown}: another content ({head.get('ContentLength')} bytes) has this name; it is left as "
                "it is"
            )
        return Sent(how=how, bytes=moved, place=shown, held=self._hold(key, head.get("VersionId")))

    def _bring(self, job: Job, parts: tuple[str, ...], key: str, md5: str) -> tuple[str, int, dict[str, Any]]:
        """How it came, bytes that were moved, and what the server says of it, which was looked at."""
        if not self._place.staged:
            how, moved = self._put(job, key)
            return how, moved, self._look_at(job, key, md5, "it is left as it is, look at it")
        hidden = self._bucket.key((*parts[:-1], partial(job)))
        how, moved = "resumed", 0
        head = self._bucket.head(hidden)
        if head is not None and not self._same(job, hidden, md5, head):
            self._bucket.delete(hidden, head)
            head = None
        if head is None:
            try:
                how, moved = self._put(job, hidden)
            except TakenError:
                raise RefusedError(
                    f"{self._bucket.shown(key)}: somebody else brings it; tried again"
                ) from None
            try:
                head = self._look_at(job, hidden, md5, "it is not kept")
            except RefusedError:
                self._drop(hidden)
                raise
        try:
            self._parts.copy(hidden, key, job.bytes)
            there = self._bucket.head(key)
            if there is None or not self._alike(job, key, head, there):
                if there is not None:
                    self.set_aside(job.target, "damaged")
                raise RefusedError(f"{self._bucket.shown(key)}: the server's copy is not what it copied")
        finally:
            self._drop(hidden)
        return how, moved, there

    def _drop(self, hidden: str) -> None:
        with contextlib.suppress(RaftwrightError):
            head = self._bucket.head(hidden)
            if head is not None:
                self._bucket.delete(hidden, head)

    def _alike(self, job: Job, key: str, head: dict[str, Any], there: dict[str, Any]) -> bool:
        """Whether the server's copy of an object that was looked at is one."""
        if there.get("ContentLength") != job.bytes:
            return False
        tag = _MD5.match(str(head.get("ETag", "")))
        if self._place.verify != "read" and tag is not None and there.get("ETag") == head.get("ETag"):
            return True
        return self._bucket.read(key)[0] == job.crc32c

    def protect(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        key, head = self._known(target)
        return self._hold(key, head.get("VersionId"))

    def _hold(self, key: str, version: str | None) -> str:
        if self._place.immutable == "never":
            return ""
        if not self._has_locks():
            if self._place.immutable == "auto":
                return ""
            raise RefusedError(f"{self._bucket.shown(key)}: cannot be held, the bucket has no object lock")
        self._legal_hold(key, version, "ON")
        return "legal hold"

    def unprotect(self, target: str) -> None:
        """Raises NotFoundError, OutageError, RefusedError."""
        key, head = self._known(target)
        if self._is_held(key, head.get("VersionId")):
            self._legal_hold(key, head.get("VersionId"), "OFF")

    def _has_locks(self) -> bool:
        if self._locks is None:
            try:
                with self._bucket.said(self._bucket.root.geturl()):
                    found = self._bucket.client.get_object_lock_configuration(Bucket=self._bucket.name)
                self._locks = found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
            except RefusedError:
                self._locks = False
        return self._locks

    def _legal_hold(self, key: str, version: str | None, status: str) -> None:
        with self._bucket.said(self._bucket.shown(key)):
            self._bucket.client.put_object_legal_hold(
                Bucket=self._bucket.name, Key=key, LegalHold={"Status": status}, **_version(version)
            )

    def _is_held(self, key: str, version: str | None) -> bool:
        if not self._has_locks():
            return False
        try:
            with self._bucket.said(self._bucket.shown(key)):
                found = self._bucket.client.get_object_legal_hold(
                    Bucket=self._bucket.name, Key=key, **_version(version)
                )
        except RefusedError:  # it was never held
            return False
        return bool(found.get("LegalHold", {}).get("Status") == "ON")

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Raises OutageError, RefusedError."""
        prefix = self._bucket.prefix("")
        for key, size in self._list(self._bucket.prefix(folder)):
            target = key.removeprefix(prefix)
            if not key.endswith("/") and not is_ours(tuple(target.split("/"))):
                yield target, size

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the objects right below a folder, by the last part of their names. Raises OutageError,
        RefusedError."""
        prefix = self._bucket.prefix(folder)
        return {key.removeprefix(prefix): size for key, size in self._list(prefix, Delimiter="/")}

    def _list(self, prefix: str, **more: str) -> Iterator[tuple[str, int]]:
        pages = self._bucket.client.get_paginator("list_objects_v2")
        found = iter(pages.paginate(Bucket=self._bucket.name, Prefix=prefix, **more))
        while True:
            with self._bucket.said(f"s3://{self._bucket.name}/{prefix}", bucket=True):
                page = next(found, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                yield entry["Key"], int(entry["Size"])

    def has(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        return self._bucket.head(self._bucket.key(checked(target))) is not None

    def crc32c(self, target: str) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        key = self._bucket.key(checked(target))
        try:
            return self._bucket.read(key)[0]
        except AbsentError:
            raise NotFoundError(f"{self._bucket.shown(key)}: is not there") from None

    def fetch(self, target: str, path: Path) -> str:
        """Raises NotFoundError, OutageError, RefusedError, StorageError."""
        key = self._bucket.key(checked(target))
        with NewFile(path) as copy:
            try:
                return self._bucket.read(key, copy.write)[0]
            except AbsentError:
                raise NotFoundError(f"{self._bucket.shown(key)}: is not there") from None

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Raises NotFoundError, OutageError, RefusedError."""
        key, head = self._known(target)
        for number in itertools.count(1):
            parts = aside(checked(target), why, number)
            new = self._bucket.key(parts)
            if self._bucket.head(new) is not None:
                continue
            size = int(head.get("ContentLength", 0))
            try:
                self._parts.copy(key, new, size)
            except TakenError:
                continue
            there = self._bucket.head(new)
            if there is None or there.get("ContentLength") != size:
                raise RefusedError(f"{self._bucket.shown(key)}: cannot be set aside, the copy is not whole")
            self.unprotect(target)
            self._bucket.delete(key, head)
            return "/".join(parts)
        raise AssertionError

    def remove(self, target: str) -> bool:
        """Raises OutageError, RefusedError."""
        try:
            key, head = self._known(target)
        except NotFoundError:
            return False
        if self._is_held(key, head.get("VersionId")):
            raise RefusedError(f"{self._bucket.shown(key)}: is held and not removed; unprotect it first")
        self._bucket.delete(key, head)
        return True

    def _known(self, target: str) -> tuple[str, dict[str, Any]]:
        """Key of an object, and what the server says of it. Raises NotFoundError, OutageError,
        RefusedError."""
        key = self._bucket.key(checked(target))
        head = self._bucket.head(key)
        if head is None:
            raise NotFoundError(f"{self._bucket.shown(key)}: is not there")
        return key, head

    # -- putting and looking

    def _put(self, job: Job, key: str) -> tuple[str, int]:
        """How it went, and the bytes that were moved. Raises TakenError, OutageError, RefusedError,
        OSError."""
        if job.bytes >= self._place.resumable or job.bytes > LARGEST:
            moved, before = self._parts.put(job, key, {_CRC: job.crc32c})
            return "resumed" if before else "put", moved
        self._bucket.only_if_free(lambda free: self._put_once(job, key, free))
        return "put", job.bytes

    def _put_once(self, job: Job, key: str, condition: dict[str, str]) -> None:
        crc = base64.b64encode(bytes.fromhex(job.crc32c)).decode()
        with open(job.path, "rb") as stream, self._bucket.said(self._bucket.shown(key)):
            self._bucket.client.put_object(
                Bucket=self._bucket.name,
                Key=key,
                Body=Body(stream, 0, job.bytes, self._bucket.throttle) if self._place.bandwidth else stream,
                ContentLength=job.bytes,
                ChecksumCRC32C=crc,
                Metadata={_CRC: job.crc32c},
                **condition,
            )

    def _look_at(self, job: Job, key: str, md5: str, then: str) -> dict[str, Any]:
        shown = self._bucket.shown(key)
        head = self._bucket.head(key)
        if head is None:
            raise RefusedError(f"{shown}: the server said that it has it, and it is not there")
        if not self._same(job, key, md5, head):
            raise RefusedError(f"{shown}: what is there now is not what was sent; {then}")
        return head

    def _same(self, job: Job, key: str, md5: str, head: dict[str, Any]) -> bool:
        """Whether an object is the file: by its size, and by a sum of what the server has."""
        if head.get("ContentLength") != job.bytes:
            return False
        verify = self._place.verify
        told = head.get("ChecksumCRC32C")
        if verify == "checksum" and isinstance(told, str) and "-" not in told:
            return told == base64.b64encode(bytes.fromhex(job.crc32c)).decode()
        tag = _MD5.match(str(head.get("ETag", "")))
        if verify == "auto" and tag is not None and tag[1] == md5:
            return True
        return self._bucket.read(key)[0] == job.crc32c


def _version(version: str | None) -> dict[str, str]:
    return {"VersionId": version} if version else {}
