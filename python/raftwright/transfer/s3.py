"""A bucket as a destination: any server that speaks S3, found as lsst.resources finds it.

An object is put only where its name is free (`If-None-Match`), with its CRC-32C for servers that check it,
and is looked at afterwards: the size, and a sum that the server made of what it has. That is the MD5 of its
ETag where it is one; nothing is guessed from an ETag that is none. Where the server tells no such sum, the
object is read back."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from raftwright import _core
from raftwright.errors import ConflictError, MissingExtraError
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raftwright.transfer.place import Place

__all__ = ["S3Sender"]

_LARGEST: Final = 5 << 30
"""Bytes of an object that is put at once."""
_STEP: Final = 1 << 20
_MD5 = re.compile(r'"?([0-9a-f]{32})"?\Z')
_CRC: Final = "crc32c"
_TAKEN: Final = frozenset({409, 412})
_FILE_ALONE: Final = frozenset({400, 411, 413, 414})
"""Answers that concern one object and not the place."""


class S3Sender:
    """See `Sender`. Raises MissingExtraError without the extra `s3`."""

    def __init__(self, destination: Place) -> None:
        for module in ("boto3", "lsst.resources"):
            if importlib.util.find_spec(module.split(".")[0]) is None:
                raise MissingExtraError(
                    f"destination {destination.name}: needs {module}; pip install 'raftwright[s3]'"
                )
        self._destination = destination
        self._profile, _, self._bucket = urlsplit(destination.root).netloc.rpartition("@")
        self._lock = threading.Lock()
        self._made: Any = None
        self._conditional = True

    # What is slow to import is imported by the first thread that goes there.

    @functools.cached_property
    def _errors(self) -> Any:
        import botocore.exceptions

        return botocore.exceptions

    @functools.cached_property
    def _root(self) -> Any:
        from lsst.resources import ResourcePath

        return ResourcePath(self._destination.root.rstrip("/") + "/", forceDirectory=True)

    # -- the connection

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        import boto3
        from botocore.config import Config

        wanted = self._destination
        endpoint, key, secret = _endpoint_of(wanted, self._profile)
        patience = max(1.0, min(wanted.timeout, 60.0))
        config = Config(
            connect_timeout=min(10.0, patience),
            read_timeout=patience,
            max_pool_connections=wanted.concurrency + 2,
            retries={"mode": "standard", "total_max_attempts": 1},  # the lane tries again
            tcp_keepalive=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **({"s3": {"addressing_style": "path"}} if endpoint else {}),
        )
        try:
            session = boto3.Session(profile_name=None if key else self._profile or None)
            return session.client(
                "s3",
                endpoint_url=endpoint or None,
                aws_access_key_id=key or None,
                aws_secret_access_key=secret or None,
                config=config,
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise OutageError(f"{wanted.name}: no connection can be made ({error})") from None

    def warm(self) -> str:
        """Opens the connections. Raises OutageError."""
        self.probe()
        threads = [
            threading.Thread(target=self._touch, daemon=True)
            for _ in range(self._destination.concurrency - 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
        return f"bucket {self._root.geturl()} at {self._client.meta.endpoint_url}"

    def _touch(self) -> None:
        with contextlib.suppress(Exception):  # it is only to be warm
            self._client.head_bucket(Bucket=self._bucket)

    def probe(self) -> None:
        """Raises OutageError."""
        try:
            with self._said(self._root.geturl(), bucket=True):
                self._client.head_bucket(Bucket=self._bucket)
        except RefusedError as error:
            raise OutageError(str(error)) from None

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    # -- a file

    def send(self, job: Job) -> Sent:
        """Raises ConflictError, OutageError, RefusedError, OSError."""
        place = self._root.join(job.target, forceDirectory=False)
        key = place.relativeToPathRoot
        shown = ascii(f"s3://{self._bucket}/{key}")[1:-1]
        if job.bytes > _LARGEST:
            raise RefusedError(f"{shown}: {job.bytes} bytes; at most {_LARGEST} are put at once")
        md5 = _md5_of(job)
        head = self._head(key, shown)
        if head is None:
            try:
                self._put(job, key, shown)
            except _TakenError:
                head = self._head(key, shown)
                if head is None:
                    raise RefusedError(
                        f"{shown}: the name is taken, and nothing is there; tried again"
                    ) from None
            else:
                return self._look_at(job, key, shown, md5)
        if self._same(job, key, shown, md5, head):
            return Sent(how="there already", place=shown)
        raise ConflictError(
            f"{shown}: another content ({head.get('ContentLength')} bytes) has this name; it is left as it is"
        )

    # -- for the audit

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the objects right below a folder, by the last part of their names. Raises OutageError,
        RefusedError."""
        prefix = self._root.join(f"{folder}/", forceDirectory=True).relativeToPathRoot
        pages = self._client.get_paginator("list_objects_v2")
        found: dict[str, int] = {}
        with self._said(f"s3://{self._bucket}/{prefix}", bucket=True):
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/"):
                for entry in page.get("Contents", ()):
                    found[entry["Key"].removeprefix(prefix)] = int(entry["Size"])
        return found

    def crc32c(self, target: str) -> str:
        """Sum of an object, read anew. Raises OutageError, RefusedError."""
        key = self._root.join(target, forceDirectory=False).relativeToPathRoot
        return self._crc_of(key, ascii(f"s3://{self._bucket}/{key}")[1:-1])

    # -- putting and looking

    def _put(self, job: Job, key: str, shown: str) -> None:
        try:
            self._put_once(job, key, shown, {"IfNoneMatch": "*"} if self._conditional else {})
        except _UnconditionalError:
            if not self._conditional:
                raise
            self._conditional = False  # the server knows no conditions: we have looked before
            self._put_once(job, key, shown, {})

    def _put_once(self, job: Job, key: str, shown: str, condition: dict[str, str]) -> None:
        crc = base64.b64encode(bytes.fromhex(job.crc32c)).decode()
        with open(job.path, "rb") as stream, self._said(shown):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=stream,
                ContentLength=job.bytes,
                ChecksumCRC32C=crc,
                Metadata={_CRC: job.crc32c},
                **condition,
            )

    def _look_at(self, job: Job, key: str, shown: str, md5: str) -> Sent:
        head = self._head(key, shown)
        if head is None:
            raise RefusedError(f"{shown}: the server said that it has it, and it is not there")
        if not self._same(job, key, shown, md5, head):
            raise RefusedError(
                f"{shown}: what is there now is not what was sent; it is left as it is, look at it"
            )
        return Sent(how="put", bytes=job.bytes, place=shown)

    def _head(self, key: str, shown: str) -> dict[str, Any] | None:
        try:
            with self._said(shown):
                found: dict[str, Any] = self._client.head_object(
                    Bucket=self._bucket, Key=key, ChecksumMode="ENABLED"
                )
                return found
        except _AbsentError:
            return None

    def _same(self, job: Job, key: str, shown: str, md5: str, head: dict[str, Any]) -> bool:
        """Whether an object is the file: by its size, and by a sum of what the server has."""
        if head.get("ContentLength") != job.bytes:
            return False
        verify = self._destination.verify
        told = head.get("ChecksumCRC32C")
        if verify == "checksum" and isinstance(told, str):
            return told == base64.b64encode(bytes.fromhex(job.crc32c)).decode()
        tag = _MD5.match(str(head.get("ETag", "")))
        if verify == "auto" and tag is not None and tag[1] == md5:
            return True
        return self._crc_of(key, shown) == job.crc32c

    def _crc_of(self, key: str, shown: str) -> str:
        crc = 0
        with self._said(shown):
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
            try:
                for piece in body.iter_chunks(_STEP):
                    crc = _core.crc32c(piece, crc)
            finally:
                body.close()
        return f"{crc:08x}"

    @contextlib.contextmanager
    def _said(self, shown: str, *, bucket: bool = False) -> Iterator[None]:
        """What boto3 raises, in our words."""
        try:
            yield
        except self._errors.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = error.response.get("Error", {}).get("Message", "")
            said = f"{shown}: the server answers {status} {code}: {message}"
            if status == 404 and "bucket" not in code.lower() and not bucket:
                raise _AbsentError(said) from None
            if status == 501:
                raise _UnconditionalError(said) from None
            if status in _TAKEN:
                raise _TakenError(said) from None
            if status in _FILE_ALONE:
                raise RefusedError(said[:1000]) from None
            raise OutageError(said[:1000]) from None
        except self._errors.ParamValidationError as error:
            raise RefusedError(f"{shown}: {str(error)[:500]}") from None
        except (self._errors.BotoCoreError, self._errors.HTTPClientError) as error:
            raise OutageError(f"{shown}: {str(error)[:500]}") from None


class _AbsentError(RefusedError):
    """There is no such object."""


class _TakenError(RefusedError):
    """The name is not free."""


class _UnconditionalError(RefusedError):
    """The server does not know what it was asked for."""


def _endpoint_of(wanted: Place, profile: str) -> tuple[str, str, str]:
    """URL, key and secret: what the destination says, else what lsst.resources is told in the environment
    (`LSST_RESOURCES_S3_PROFILE_<profile>`, `S3_ENDPOINT_URL`), else nothing: then boto3 looks for them."""
    endpoint, key, secret = wanted.endpoint, wanted.access_key, wanted.secret_key
    told = os.environ.get(f"LSST_RESOURCES_S3_PROFILE_{profile}", "") if profile else ""
    told = told or os.environ.get("S3_ENDPOINT_URL", "")
    if not endpoint and told:
        parts = urlsplit(told)
        if parts.username and parts.password and not key:
            key, secret = unquote(parts.username), unquote(parts.password)
        endpoint = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return endpoint, key, secret


def _md5_of(job: Job) -> str:
    """MD5 of the file, on whose size we count. Raises RefusedError."""
    found = hashlib.md5(usedforsecurity=False)
    crc = size = 0
    try:
        with Path(job.path).open("rb") as stream:
            while piece := stream.read(_STEP):
                found.update(piece)
                crc, size = _core.crc32c(piece, crc), size + len(piece)
    except OSError as error:
        raise RefusedError(f"{job.path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    if size != job.bytes or f"{crc:08x}" != job.crc32c:
        raise RefusedError(
            f"{job.path}: is not what the ledger says ({size} bytes, {crc:08x}); see the audit"
        )
    return found.hexdigest()
