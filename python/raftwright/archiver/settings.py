"""What an archiver is told to do: where files go, and what is run once they are written."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Seconds
from raftwright.transfer.naming import CLASSES, KINDS, LAYOUT, Class, Instrument, What, check_layout
from raftwright.transfer.place import Name, Place, Threads, Tries, check_times
from raftwright.transfer.words import check_words, words_of

__all__ = ["Command", "Destination", "Settings"]

_Argument: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]

_COMMAND_WORDS: Final = frozenset(
    {"file", "directory", "obsid", "dayobs", "instrument", "detector", "raft", "sensor", "crc32c"}
)


class Destination(Place, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where files are delivered. It has a queue, threads and limits of its own."""

    site: str = ""
    """What messages about transfers call it; the name by default."""
    layout: str = LAYOUT
    """Names below the root. `{instrument}`, `{dayobs}`, `{obsid}`, `{file}`, `{raft}`, `{sensor}` are filled
    in."""
    instruments: list[Instrument] = msgspec.field(default_factory=list)
    """Only images of these; all by default."""
    what: list[What] = msgspec.field(default_factory=lambda: list(KINDS))
    order: list[Class] = msgspec.field(default_factory=lambda: list(CLASSES))
    """Which CCDs go first, where several wait."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layout(self.layout)
        if not self.what:
            raise FormatError("what: names nothing to deliver; leave it out for all")

    @property
    def label(self) -> str:
        """Its site."""
        return self.site or self.name


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that is run for what was written: with a list of arguments, never through a shell."""

    name: Name
    run: Annotated[list[_Argument], Meta(min_length=1, max_length=256)]
    """Program and arguments. Whole words `{file}`, `{directory}`, `{obsid}`, `{dayobs}`, `{instrument}`,
    `{detector}`, `{raft}`, `{sensor}`, `{crc32c}` are filled in."""
    per: Literal["file", "image"] = "file"
    """For each raw file, or once for an image that is complete or as complete as it gets."""
    instruments: list[Instrument] = []
    priority: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Of two commands for a file the lower number is run first; they do not wait for each other."""
    concurrency: Threads = 2
    timeout: Seconds = 60.0
    """Then it and all that it started is killed, and it failed."""
    retries: Tries = 0
    """More tries where it fails."""
    backoff: Seconds = 5.0
    longest: Seconds = 600.0

    def __post_init__(self) -> None:
        check_times(self.timeout, self.backoff, self.longest)
        for argument in self.run:
            check_words(argument, _COMMAND_WORDS, "run")
        if words_of(self.run[0]):
            raise FormatError("run: the program itself is no {word}; name it")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an `Archiver`."""

    instrument: str = ""
    """Whose archiver it is; of all instruments of the DAQ by default. Of several for one instrument one
    works."""
    destinations: list[Destination] = []
    commands: list[Command] = []
    sweep: Seconds = 5.0
    """Between two comparisons of catalogue, ledger and disk."""
    late: Seconds = 8.0
    """A CCD without a file so long after the end of the readout is told to be missing."""
    readout: Seconds = 30.0
    """A readout that takes longer counts as ended: what has not come by then is late."""
    headers: bool = True
    """Write sidecars anew when a header comes after the file."""
    relay: bool = True
    """Tell every change of the ledger too (`stateChanged`), at least once, from where it was told last."""
    parallel: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Most files under way at a time, all destinations and commands together."""

    def __post_init__(self) -> None:
        if self.sweep <= 0 or self.late <= 0 or self.readout <= 0:
            raise FormatError("sweep, late and readout have to be above 0")
        for kind in ("destinations", "commands"):
            names = [one.name for one in getattr(self, kind)]
            for name in names:
                if names.count(name) > 1:
                    raise FormatError(
                        f"{kind}: {name} is there twice; each has its own queue, so its own name"
                    )
        several: list[Destination | Command] = [*self.destinations, *self.commands]
        wanted = sum(one.concurrency for one in several)
        if wanted > self.parallel:
            raise FormatError(
                f"parallel: destinations and commands want {wanted} at a time, more than {self.parallel}; "
                "lower their concurrency"
            )
