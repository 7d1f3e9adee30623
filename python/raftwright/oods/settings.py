"""What the OODS is told to do: which repository, what goes into it, how long it stays."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Period, Seconds
from raftwright.transfer.naming import CLASSES, Class, Instrument
from raftwright.transfer.place import Name, Tries

__all__ = ["Settings", "Transfer"]

Transfer: TypeAlias = Literal["direct", "hardlink", "copy", "move"]
"""How a file gets into the repository. `direct`: it stays where it is, and the repository knows where."""

_Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]


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
    events_wait: Seconds = 0.5
    """Longest that a hint may take to be heard."""

    def __post_init__(self) -> None:
        if self.longest < self.backoff:
            raise FormatError("longest: has to be at least backoff")
        if self.archive and self.transfer == "move":
            raise FormatError("transfer: the archive keeps its files; say direct, hardlink or copy")
