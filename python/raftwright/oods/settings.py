"""What the OODS is told to do: which repository, what goes into it, how long it stays."""

from __future__ import annotations

import os
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.oods.inputs import Directory, Notifications, Transfer
from raftwright.oods.web.settings import Web
from raftwright.service.units import Bytes, Period, Seconds
from raftwright.transfer.naming import CLASSES, Class, Instrument
from raftwright.transfer.place import Name, Tries

__all__ = ["Age", "Retention", "Rule", "Settings", "Transfer"]

Age: TypeAlias = Literal["observed", "ingested"]
"""From when on an age is counted: when the image was taken, or when it was ingested."""

_Share: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
_Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long some datasets stay. Of several rules that say something about a dataset the first counts."""

    older_than: Period
    """What is older goes."""
    by: Age = "observed"
    dataset_types: list[_Text] = msgspec.field(default_factory=list)
    """`raw`, `guider`; all by default."""
    collections: list[_Text] = msgspec.field(default_factory=list)
    """RUN collections, with `*` and `?`; all by default."""
    instruments: list[Instrument] = msgspec.field(default_factory=list)


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What leaves the repository, and when: by age, and the oldest first where there is not enough room.

    Pinned and tagged data stay. Nothing leaves of which the ledger does not know the copies that are
    required elsewhere, whatever the disk says.
    """

    rules: list[Rule] = msgspec.field(default_factory=list)
    high_water: _Share = 1.0
    """Share of the file system above which the oldest leave, until it is at `low_water`. 1: never."""
    low_water: _Share = 1.0
    quota: Bytes = 0
    """Bytes of all that is ingested, above which the oldest leave. 0: none."""
    by: Age = "observed"
    """What is oldest, for the water marks and the quota."""
    disk: str = ""
    """A directory on the file system that is meant; that of the repository by default."""
    copies: Annotated[int, Meta(ge=0, le=100)] = 2
    """Verified copies at different endpoints that a file must have. Where the repository has files of its own
    (`hardlink`, `copy`), that of the archive counts as one."""
    endpoints: list[Name] = msgspec.field(default_factory=list)
    """Endpoints that must be among them."""
    custodial: Annotated[int, Meta(ge=0, le=100)] = 0
    """How many of them must be custodial."""
    checked_within: Seconds = 0.0
    """Copies that were last read longer ago do not count. 0: they do."""
    unprotected: bool = False
    """Allows `copies: 0`: what leaves may then be gone for good."""
    empty_directories: bool = True
    """Remove directories of images and nights in which nothing is left."""
    every: Period = 3600.0

    def __post_init__(self) -> None:
        if self.low_water > self.high_water:
            raise FormatError("low_water: has to be at most high_water")
        if not (self.copies or self.endpoints or self.unprotected):
            raise FormatError("copies: without any other copy what leaves is gone; say unprotected: true too")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an `Oods`."""

    repository: _Path
    """Directory of the Butler repository. There is no default."""
    registry: str = ""
    """`postgresql://user@host/database`, where it is made; SQLite in the repository by default."""
    cameras: list[_Path] = msgspec.field(default_factory=list)
    """Whose images it takes, names or camera files; that of the site, else those of the observatory."""
    create: bool = True
    """Make the repository where there is none."""
    name: Name = "oods"
    """What the ledger calls the repository."""
    archive: bool = True
    """Take the raws of the archive, as the ledger tells them."""
    transfer: Transfer = "direct"
    """How raws of the archive get in."""
    directories: Annotated[list[Directory], Meta(max_length=100)] = msgspec.field(default_factory=list)
    """Trees that are looked through."""
    notifications: Notifications | None = None
    """Objects that stores tell of."""
    instruments: list[Instrument] = msgspec.field(default_factory=list)
    """Only images of these; all by default."""
    order: list[Class] = msgspec.field(default_factory=lambda: list(CLASSES))
    """Which CCDs go first, where several wait."""
    batch: Annotated[int, Meta(ge=1, le=5000)] = 256
    """Most files that are ingested at once."""
    guider_wait: Period = 90.0
    """A guider file waits so long for its exposure; then it has failed, and that is told."""
    retries: Tries = 10
    """After so many more tries a file that may go better another time is given up on: a dead letter."""
    backoff: Period = 1.0
    longest: Period = 300.0
    """Seconds before the second try, doubled each time, and between two tries at most."""
    sweep: Period = 10.0
    """Between two comparisons of ledger and repository."""
    visits: bool = True
    """Define visits: an exposure each, and those that share a counter."""
    retention: Retention | None = None
    """What leaves, and when; everything stays by default."""
    web: Web | None = None
    """Where it answers over HTTP; nowhere by default."""
    events_wait: Seconds = 0.5
    """Longest that a hint may take to be heard."""

    def __post_init__(self) -> None:
        if self.longest < self.backoff:
            raise FormatError("longest: has to be at least backoff")
        if self.archive and self.transfer == "move":
            raise FormatError("transfer: the archive keeps its files; say direct, hardlink or copy")
        if self.notifications is not None and self.notifications.webhook and self.web is None:
            raise FormatError("notifications.webhook: needs a section web, which says where it is answered")
        repository = os.path.abspath(self.repository)
        for one in self.directories:
            if os.path.commonpath([repository, one.path]) == repository:
                raise FormatError(f"directories: {one.path} is in the repository; name one outside of it")

    def transfer_of(self, path: str) -> Transfer:
        """How a file of this path, or URI, gets in."""
        if "://" in path:
            return "direct"
        for one in self.directories:
            if path.startswith(one.path.rstrip("/") + "/"):
                return one.transfer
        return self.transfer
