"""A real S3 server with a bucket, and what it would tell of its objects."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from oods_stand import Site

from raftwright.events.notifications import StoredObject

__all__ = ["Store", "free_port", "image", "post"]


class Store:
    """A bucket, and what it would tell of its objects."""

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url

    def put(self, path: Path, key: str = "", **more: Any) -> StoredObject:
        """An object with its sidecar."""
        key = key or f"LSSTCam/{path.parent.parent.name}/{path.parent.name}/{path.name}"
        beside = path.with_suffix(".json")
        if beside.exists():
            where = key.removesuffix(".fits") + ".json"
            self.client.put_object(Bucket="raws", Key=where, Body=beside.read_bytes())
        told = self.client.put_object(Bucket="raws", Key=key, Body=path.read_bytes(), **more)
        return StoredObject(bucket="raws", key=key, size=path.stat().st_size, etag=told["ETag"].strip('"'))

    def put_in_parts(self, content: bytes, key: str, **more: Any) -> str:
        """One part, so that the tag is none of the content; gives it."""
        names = {"Bucket": "raws", "Key": key}
        upload = self.client.create_multipart_upload(**names, **more)["UploadId"]
        part = self.client.upload_part(**names, UploadId=upload, PartNumber=1, Body=content)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        done = self.client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload=parts)
        return str(done["ETag"]).strip('"')


def image(site: Site, number: int = 123, night: int = 20261122, **more: Any) -> list[Path]:
    """Raws in a tree beside, of which the ledger knows nothing."""
    more.setdefault("root", site.path / "made")
    return site.raws.image(f"MC_O_{night}_{number:06d}", **more)


def free_port() -> int:
    with closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def post(url: str, body: bytes) -> tuple[int, str]:
    """What the webhook answers."""
    request = urllib.request.Request(f"{url}/notifications", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())["message"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["message"]
