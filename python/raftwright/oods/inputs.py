"""Where files come from besides the archive: directories that are looked through, notifications of stores."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Period, Seconds, Secret
from raftwright.transfer.naming import LAYOUT, check_layout

__all__ = ["Directory", "Notifications", "Transfer"]

Transfer: TypeAlias = Literal["direct", "hardlink", "copy", "move"]
"""How a file gets into the repository. `direct`: it stays where it is, and the repository knows where."""

_Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]
_Topic: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,249}\Z")]
_Bucket: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")]
_SECRET = 16


class Directory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tree that somebody else writes raws and guider files into."""

    path: _Path
    transfer: Transfer = "direct"
    settle: Seconds = 5.0
    """A file whose size and times have not changed for so long is whole, if its structure and sums say so
    too. Where its sidecar stands beside it, it is not waited for."""
    patience: Period = 60.0
    """A file that is not whole and has not changed for so long is set aside."""
    every: Period = 2.0
    """Between two looks; longer where a look takes long."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or ".." in self.path.split("/"):
            raise FormatError(f"path: {self.path[:200]!a} is no absolute path without `..`")


class Notifications(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Notifications that objects were made, in the form of S3, over Kafka or as a webhook. The Butler reads
    the objects where they are; endpoint and keys stand in the environment, as for every Butler."""

    brokers: Annotated[str, Meta(max_length=2000)] = ""
    """`HOST:PORT[,HOST:PORT]`."""
    topic: _Topic | None = None
    group: Annotated[str, Meta(min_length=1, max_length=200)] = "raftwright-oods"
    options: str = ""
    """File of mode 0600 with security options for the brokers."""
    webhook: bool = False
    """Take them at `POST /notifications` where the OODS answers over HTTP."""
    secret: Secret = ""
    """That each record has in `opaqueData`. A webhook needs one."""
    buckets: list[_Bucket] = msgspec.field(default_factory=list)
    """Only objects in these, which have to be there; all by default, and then none is listed."""
    layout: str = LAYOUT
    """What keys are made of: it says where the folders of nights and images are, which are listed."""
    reconcile: Seconds = 30.0
    """Between two listings of each of `buckets`, which find what nobody told of. 0: there are none."""
    nights: Annotated[int, Meta(ge=1, le=1000)] = 3
    """So many nights are listed, the newest that there are."""
    silence: Period = 60.0
    """No notification for so long, while the listing finds files, is an alarm."""
    insecure: bool = False
    """Store and brokers may be spoken to unencrypted. Without it only those of this host are."""
    profile: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,64}\Z")] = ""
    """Profile of the store: objects are `s3://PROFILE@BUCKET/KEY` then."""
    dead_letters: str = ""
    """Directory for what is no notification; `dead-letters` in the repository by default."""

    def root(self, bucket: str) -> str:
        """Of a bucket, as the Butler reads it."""
        return f"s3://{self.profile}@{bucket}" if self.profile else f"s3://{bucket}"

    @property
    def roots(self) -> list[str]:
        """How the URIs of its objects begin."""
        if self.buckets:
            return [f"{self.root(bucket)}/" for bucket in self.buckets]
        return [f"s3://{self.profile}@" if self.profile else "s3://"]

    def __post_init__(self) -> None:
        if bool(self.brokers) != bool(self.topic):
            raise FormatError("topic: has to be given together with brokers")
        if not self.brokers and not self.webhook:
            raise FormatError("brokers: say these and topic, or webhook: true")
        check_layout(self.layout)
        if self.webhook and len(self.secret) < _SECRET:
            raise FormatError(f"secret: a webhook needs one of {_SECRET} characters or more")
