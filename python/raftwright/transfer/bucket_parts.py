"""Large objects: uploaded and copied in parts, and gone on with where a try was cut."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftwright import _core
from raftwright.errors import RaftwrightError
from raftwright.transfer.bodies import Body
from raftwright.transfer.bucket import AbsentError, TakenError
from raftwright.transfer.outcome import RefusedError

if TYPE_CHECKING:
    from raftwright.transfer.bucket import Bucket
    from raftwright.transfer.outcome import Job

__all__ = ["LARGEST", "Parts"]

LARGEST: Final = 5 << 30
"""Bytes of an object that is put or copied at once."""
_PART: Final = 16 << 20
_MOST_PARTS: Final = 9_000
_COPIED: Final = 1 << 30
_STEP: Final = 1 << 20


class Moved(NamedTuple):
    """What an upload moved, and how many bytes of it were there before."""

    bytes: int
    before: int


class Parts:
    """Uploads of one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, job: Job, key: str, metadata: dict[str, str]) -> Moved:
        """Uploads a file where the name is free. The parts that are there already stay, if they are those of
        the file by the MD5 that the server has of them. Raises TakenError, OutageError, RefusedError,
        OSError."""
        bucket = self._bucket
        step = max(min(bucket.place.resumable, _PART), -(-job.bytes // _MOST_PARTS) + _STEP & ~(_STEP - 1))
        upload, known = self._find(key)
        if upload is None:
            upload = self._begin(key, metadata)
        done: list[dict[str, Any]] = []
        moved = whole = 0
        with open(job.path, "rb") as stream:
            for number, begin in enumerate(range(0, job.bytes, step), 1):
                size = min(step, job.bytes - begin)
                md5, crc = _sums(stream, begin, size)
                part = known.get(number)
                if part is None or part.get("Size") != size or part.get("ETag", "").strip('"') != md5:
                    with bucket.said(bucket.shown(key)):
                        part = bucket.client.upload_part(
                            Bucket=bucket.name,
                            Key=key,
                            UploadId=upload,
                            PartNumber=number,
                            Body=Body(stream, begin, size, bucket.throttle),
                            ContentLength=size,
                            ContentMD5=base64.b64encode(bytes.fromhex(md5)).decode(),
                        )
                    moved += size
                done.append({"PartNumber": number, "ETag": part["ETag"]})
                whole = _core.crc32c_combine(whole, crc, size)
        if f"{whole:08x}" != job.crc32c:
            self._end(key, upload)
            raise RefusedError(f"{job.path}: changed while it was sent; nothing is kept of it")
        self._complete(key, upload, done)
        return Moved(moved, job.bytes - moved)

    def copy(self, source: str, key: str, size: int) -> None:
        """Copies an object under a name that is free, by the server. Raises TakenError, OutageError,
        RefusedError."""
        bucket = self._bucket
        origin = {"Bucket": bucket.name, "Key": source}
        if size <= LARGEST:
            with bucket.said(bucket.shown(key)):
                bucket.only_if_free(
                    lambda free: bucket.client.copy_object(
                        Bucket=bucket.name, Key=key, CopySource=origin, MetadataDirective="COPY", **free
                    )
                )
            return
        upload = self._begin(key, {})
        done = []
        for number, begin in enumerate(range(0, size, _COPIED), 1):
            with bucket.said(bucket.shown(key)):
                answer = bucket.client.upload_part_copy(
                    Bucket=bucket.name,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    CopySource=origin,
                    CopySourceRange=f"bytes={begin}-{min(begin + _COPIED, size) - 1}",
                )
            done.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        self._complete(key, upload, done)

    def _find(self, key: str) -> tuple[str | None, dict[int, dict[str, Any]]]:
        """The newest upload of a key that was begun and not ended, and its parts by number."""
        bucket = self._bucket
        try:
            with bucket.said(bucket.shown(key)):
                pages = bucket.client.get_paginator("list_multipart_uploads")
                begun = [
                    one
                    for page in pages.paginate(Bucket=bucket.name, Prefix=key)
                    for one in page.get("Uploads", ())
                    if one["Key"] == key
                ]
                if not begun:
                    return None, {}
                upload = max(begun, key=lambda one: (one["Initiated"], one["UploadId"]))["UploadId"]
                parts = bucket.client.get_paginator("list_parts")
                return upload, {
                    part["PartNumber"]: part
                    for page in parts.paginate(Bucket=bucket.name, Key=key, UploadId=upload)
                    for part in page.get("Parts", ())
                }
        except RefusedError:  # it went meanwhile, or the server lists none
            return None, {}

    def _begin(self, key: str, metadata: dict[str, str]) -> str:
        bucket = self._bucket
        with bucket.said(bucket.shown(key)):
            answer = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key, Metadata=metadata)
        return str(answer["UploadId"])

    def _complete(self, key: str, upload: str, parts: list[dict[str, Any]]) -> None:
        bucket = self._bucket

        def complete(free: dict[str, str]) -> None:
            with bucket.said(bucket.shown(key)):
                bucket.client.complete_multipart_upload(
                    Bucket=bucket.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **free
                )

        try:
            bucket.only_if_free(complete)
        except TakenError:
            self._end(key, upload)
            raise
        except AbsentError:  # the upload ended meanwhile: somebody else completed it, or gave it up
            raise TakenError(f"{bucket.shown(key)}: another upload of it ended meanwhile") from None

    def _end(self, key: str, upload: str) -> None:
        bucket = self._bucket
        with contextlib.suppress(RaftwrightError), bucket.said(bucket.shown(key)):
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)


def _sums(stream: Any, begin: int, size: int) -> tuple[str, int]:
    """MD5 and CRC-32C of some bytes of a file. Raises RefusedError where they are not there."""
    found = hashlib.md5(usedforsecurity=False)
    crc = 0
    stream.seek(begin)
    left = size
    while left:
        piece = stream.read(min(left, _STEP))
        if not piece:
            raise RefusedError(f"{stream.name}: became shorter while it was sent")
        found.update(piece)
        crc = _core.crc32c(piece, crc)
        left -= len(piece)
    return found.hexdigest(), crc
