"""A place where files are brought: what is said of it in a configuration, whoever brings them."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Seconds, Secret

__all__ = ["Name", "Place", "Threads", "Tries", "check_times"]

Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z")]
Threads: TypeAlias = Annotated[int, Meta(ge=1, le=64)]
Tries: TypeAlias = Annotated[int, Meta(ge=0, le=10_000)]

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{1,254}\Z")


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it is, how files get there, and how patient one is with it."""

    name: Name
    kind: Literal["directory", "s3"]
    root: Annotated[str, Meta(min_length=1, max_length=4000)]
    """A directory, which has to be there; or `s3://[PROFILE@]BUCKET/PREFIX`. There is no default."""
    concurrency: Threads = 4
    """Files that are under way at a time."""
    timeout: Seconds = 60.0
    """For one file. What takes longer is given up, and tried again."""
    retries: Tries = 10
    """After so many more tries a file that the place alone refuses is given up on: a dead letter."""
    backoff: Seconds = 1.0
    """Before the second try; doubled each time, with some chance in it."""
    longest: Seconds = 600.0
    """Between two tries at most."""
    link: Literal["auto", "never"] = "auto"
    """`directory`: hard links where the file system gives them, else copies."""
    endpoint: str = ""
    """`s3`: URL of the server, by default as lsst.resources finds it (profile, S3_ENDPOINT_URL)."""
    access_key: str = ""
    secret_key: Secret = ""
    """`s3`: by default as boto3 finds them."""
    verify: Literal["auto", "checksum", "read"] = "auto"
    """`s3`: how it is made sure of what is there. `read`: always read back. `auto`: the MD5 that the server
    made of it, or else read back. `checksum`: the CRC-32C that the server says, where it is known to compute
    that itself."""

    def __post_init__(self) -> None:
        check_times(self.timeout, self.backoff, self.longest)
        _check_root(self)


def check_times(timeout: float, backoff: float, longest: float) -> None:
    """Raises FormatError for times that make no sense."""
    if timeout <= 0 or backoff <= 0:
        raise FormatError("timeout and backoff have to be above 0")
    if longest < backoff:
        raise FormatError("longest: has to be at least backoff")


def _check_root(place: Place) -> None:
    root = place.root
    if place.kind == "directory":
        if not root.startswith("/") or "\0" in root:
            raise FormatError(f"root: {root[:200]!a} is no absolute path; name the directory")
        if place.endpoint or place.access_key or place.secret_key:
            raise FormatError("a directory has no endpoint and no keys; remove them")
        return
    parts = urlsplit(root)
    bucket = parts.netloc.rpartition("@")[2]
    if parts.scheme != "s3" or not _BUCKET.match(bucket) or parts.query or parts.fragment:
        raise FormatError(f"root: {root[:200]!a} is no s3://[PROFILE@]BUCKET/PREFIX")
    if bool(place.access_key) != bool(place.secret_key):
        raise FormatError("access_key and secret_key go together; give both or none")
    if place.endpoint and urlsplit(place.endpoint).scheme not in ("http", "https"):
        raise FormatError(f"endpoint: {place.endpoint[:200]!a} is no http(s) URL")
