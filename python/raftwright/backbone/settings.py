"""What the hand-off is told: where replicas go, how many there have to be, how often they are read again."""

from __future__ import annotations

import itertools
import posixpath
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Bytes, Period, Seconds
from raftwright.transfer.naming import CLASSES, KINDS, LAYOUT, Class, Instrument, check_layout
from raftwright.transfer.place import Name, Place

__all__ = ["ButlerIndex", "Containers", "Endpoint", "Scrub", "Settings"]

_Word: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z][A-Za-z0-9_]{0,99}\Z")]
_Kind: TypeAlias = Literal["manifest", "header", "sidecar", "raw", "container"]


class Endpoint(Place, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place with replicas. It has a queue, threads and limits of its own.

    Unlike a delivery, a replica is always a copy, read back from there, and read-only.
    """

    layout: str = LAYOUT
    """Names below the root. `{instrument}`, `{dayobs}`, `{obsid}`, `{file}`, `{raft}`, `{sensor}` are filled
    in."""
    instruments: list[Instrument] = msgspec.field(default_factory=list)
    """Only images of these; all by default."""
    what: list[_Kind] = msgspec.field(default_factory=lambda: list(KINDS))
    """Kinds of files that it takes. `[container]`: of each image one file with all others, which is made for
    it; not the others themselves, unless they are named too."""
    order: list[Class] = msgspec.field(default_factory=lambda: list(CLASSES))
    """Which CCDs go first, where several wait."""
    custodial: bool = False
    """What is there is kept for good: held as with `immutable: auto`, unless that says more."""
    link: Literal["never"] = "never"
    readonly: bool = True
    verify: Literal["auto", "checksum", "read"] = "read"
    timeout: Seconds = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layout(self.layout)
        if not self.what:
            raise FormatError("what: names nothing to hand over; leave it out for all")

    @property
    def place(self) -> Place:
        """As whoever brings files there is told."""
        immutable = "auto" if self.custodial and self.immutable == "never" else self.immutable
        return msgspec.structs.replace(self, immutable=immutable, staged=self.kind == "s3")

    def may_share_images(self, other: Endpoint) -> bool:
        """Whether the two may be to have the same images."""
        ours, others = set(self.instruments), set(other.instruments)
        return not (ours and others) or bool(ours & others)

    def is_same_as(self, other: Endpoint) -> bool:
        """Whether the two are one place, by what is said of them, for the same images."""
        return self.may_share_images(other) and self._where() == other._where()

    def _where(self) -> tuple[object, ...]:
        root = posixpath.normpath(self.root)
        return root, self.endpoint.rstrip("/"), self.host, self.commands, self.parameters


class Scrub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How replicas are read again."""

    every: Seconds = 7 * 86_400.0
    """Each is read again so long after it was last; 0: only by command."""
    rate: Bytes = 50_000_000
    """Bytes a second of each endpoint; 0: as fast as it goes."""


class ButlerIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a Butler at the far side knows raws: written into each container, so that `Butler.ingest_zip` takes
    it as it is."""

    formatter: Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+\Z")]
    """Class that reads a raw there: `lsst.obs.lsst.LsstCamRawFormatter`, or
    `raftwright.butler.formatter.RawFormatter`."""
    storage_class: _Word = "Exposure"
    dataset_type: _Word = "raw"
    run: Annotated[str, Meta(min_length=1, max_length=200)] = "{instrument}/raw/all"
    universe: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Version of its dimensions."""


class Containers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How containers are made, where an endpoint takes them."""

    always: bool = False
    """They are made although no endpoint takes them."""
    workers: Annotated[int, Meta(ge=1, le=16)] = 1
    """That pack at a time, an image each."""
    settle: Seconds = 10.0
    """After the last file of an image was written."""
    patience: Seconds = 3600.0
    """For an image that is not complete, or lacks its header: then it is packed as it is."""
    keep: Literal["always", "until-replicated"] = "always"
    """`until-replicated`: one goes from the archive when all endpoints that take it have it."""
    butler: ButlerIndex | None = None
    """Without it a Butler takes members alone, `….zip#zip-path=MEMBER`, as `ingest-raws` does."""
    reserve: Annotated[float, Meta(ge=0, le=0.9)] = 0.05
    """Share of the archive's file system that no container takes: pixels go first."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a `HandOff`."""

    instrument: str = ""
    """Whose images; all by default. Of several services for one instrument one works."""
    endpoints: list[Endpoint] = []
    replicas: Annotated[int, Meta(ge=0, le=1000)] = 0
    """So many endpoints have to have a file; all that want it by default. It goes to each that wants it."""
    required: list[Name] = []
    """Endpoints that have to have it in any case."""
    custodial: Annotated[int, Meta(ge=0, le=1000)] = 0
    """So many of them have to be custodial."""
    scrub: Scrub = msgspec.field(default_factory=Scrub)
    containers: Containers = msgspec.field(default_factory=Containers)
    sweep: Period = 3600.0
    """Between two comparisons of all files with all endpoints."""
    backlog: Period = 600.0
    """What has waited for so long goes after what is new, the oldest first."""
    parallel: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Most files under way at a time, all endpoints together."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.endpoints]
        for name in names:
            if names.count(name) > 1:
                raise FormatError(
                    f"endpoints: {name} is there twice; each has its own queue, so its own name"
                )
        for first, second in itertools.combinations(self.endpoints, 2):
            if first.is_same_as(second):
                raise FormatError(
                    f"endpoints: {first.name} and {second.name} are one place, {second.root}; a copy there "
                    "would count twice"
                )
        for name in self.required:
            if name not in names:
                raise FormatError(
                    f"required: there is no endpoint {name}; there are {', '.join(names) or 'none'}"
                )
        if self.replicas > len(names):
            raise FormatError(f"replicas: {self.replicas} are wanted of {len(names)} endpoints; add some")
        held = sum(one.custodial for one in self.endpoints)
        if self.custodial > held:
            raise FormatError(
                f"custodial: {self.custodial} are wanted, {held} of the endpoints are custodial"
            )
        wanted = sum(one.concurrency for one in self.endpoints)
        if wanted > self.parallel:
            raise FormatError(
                f"parallel: endpoints want {wanted} at a time, more than {self.parallel}; "
                "lower their concurrency"
            )
