"""What a receiving endpoint is told: where files come in, where they go, and who ingests them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.backbone.receiving.transfers import Transfers
from raftwright.errors import FormatError
from raftwright.service.units import Period, Seconds
from raftwright.transfer.place import Name

__all__ = ["Ingest", "Settings"]

_Directory: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]
_Patterns: TypeAlias = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=255)]], Meta(max_length=100)
]


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ingester: a plug-in, a queue of its own in the register, and how patient it is."""

    plugin: Name
    """`null`, `butler`, `rucio`, or the name of an entry point of the group `raftwright.endpoint`."""
    name: Annotated[str, Meta(pattern=r"\A([A-Za-z0-9][A-Za-z0-9_.-]{0,39})?\Z")] = ""
    """What the register calls it; that of the plug-in by default."""
    options: dict[str, Any] = {}
    """For the plug-in."""
    files: _Patterns = []
    """Only files whose name fits one of these (`*.fits`, as in a shell); by default as the plug-in says."""
    skip: _Patterns = []
    """And none of these."""
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 100
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    retries: Annotated[int, Meta(ge=0, le=10_000)] = 10
    """After so many more tries a file is left until `raftwright endpoint rerun`."""
    backoff: Period = 1.0
    """Before the second try; doubled each time, with some chance in it."""
    longest: Period = 300.0
    """Between two tries."""
    overdue: Seconds = 3600.0
    """A file that waits longer than this is told as a problem."""

    @property
    def label(self) -> str:
        """What the register calls it."""
        return self.name or self.plugin

    def __post_init__(self) -> None:
        if not self.backoff <= self.longest <= 600.0:
            raise FormatError("longest: has to be at least backoff, and 10 min at most")
        if self.plugin == "rucio" and self.threads > 1:
            raise FormatError("threads: rucio has one, so that no dataset gets too long; raise batch instead")
        if self.label == "intake":
            raise FormatError("name: `intake` is what the register calls the taking in; choose another")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `endpoint`."""

    buffer: _Directory
    """Directory in which hand-overs appear, by rename or written in place. There is no default."""
    storage: _Directory
    """Root of the tree that files are moved into; that of the archive by default."""
    register: str = ""
    """File of the register; `.endpoint/register.db` in the storage by default. On a local disk."""
    aside: str = ""
    """Directory for what is refused and for conflicts; `.endpoint/aside` in the storage by default."""
    ingest: Annotated[list[Ingest], Meta(max_length=16)] = []
    """None: files are stored only."""
    pause: Period = 2.0
    """Between two looks at the buffer, where the kernel does not tell that something came."""
    settle: Seconds = 2.0
    """A file that nothing vouches for is taken once it has not changed for so long. 0 where every file
    appears by rename, as the hand-off does it."""
    patience: Seconds = 600.0
    """A FITS file that is cut short may be one that is still being written: it is refused after so long."""
    empty: Seconds = 86_400.0
    """Directories of the buffer that have been empty for so long are removed; 0: never."""
    verify: Literal["sums", "pixels", "no"] = "sums"
    """What is looked at in a FITS file before it is stored: its sums (and whose image a raw file says it is);
    or all that `raftwright verify` looks at, every pixel too, which takes some ten times as long."""
    link: bool = True
    """Whether files may be moved by link within one file system; else they are copied and read back."""
    exclude: _Patterns = msgspec.field(default_factory=lambda: ["*.tmp", "*.part", "*.partial", "*~", ".*"])
    """Names in the buffer that are left alone."""
    transfers: Transfers | None = None
    """Messages of Rucio that tell of files which arrive in the storage by themselves."""
    most: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Files of the buffer that are kept in mind at a time."""

    def __post_init__(self) -> None:
        for key in ("buffer", "storage", "register", "aside"):
            value = getattr(self, key)
            if value and (not value.startswith("/") or re.search(r"[\0\n]|/\.\.(/|\Z)", value)):
                raise FormatError(f"{key}: {value[:200]!a} is no absolute path; name the directory")
        if (self.storage.rstrip("/") + "/").startswith(self.buffer.rstrip("/") + "/"):
            raise FormatError("storage: lies in the buffer; what is stored would be taken in again")
        labels = [one.label for one in self.ingest]
        for label in labels:
            if labels.count(label) > 1:
                raise FormatError(f"ingest: {label} is there twice; give one of them another name")

    @property
    def register_path(self) -> str:
        """The file of the register."""
        return self.register or f"{self.storage.rstrip('/')}/.endpoint/register.db"

    @property
    def aside_path(self) -> str:
        """The directory for what is refused."""
        return self.aside or f"{self.storage.rstrip('/')}/.endpoint/aside"
