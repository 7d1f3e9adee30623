"""What forwarders remember: the one interface to it.

A *unit* is one source of one image: (image, the DAQ's id of it, location). It is claimed by one forwarder at
a time, for as long as that one lives and renews its lease, and ends in a state. Journals are hints beside the
files: what a journal lost is found again by comparing the DAQ's catalogue with the archive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, Protocol, Self, TypeAlias

import msgspec

__all__ = [
    "ENDED",
    "Claim",
    "Entry",
    "FileRow",
    "Journal",
    "Outcome",
    "State",
    "Unit",
    "UnitKey",
]

State: TypeAlias = Literal["claimed", "open", "done", "incomplete", "conflict", "failed", "gone"]
"""`claimed`: somebody works on it. `open`: nobody does and somebody should. `done`: every pixel is in its
files. `incomplete`: its files are there with gaps, it waits for repair. `conflict`: another content has its
names; both are kept. `failed`: there are no files; the reason says why, and it is tried again. `gone`: the
DAQ no longer has it; what came is in the files. If it is in the catalogue again it is tried again."""

ENDED: frozenset[State] = frozenset({"done", "conflict"})
"""States that nothing is done about any more."""


class UnitKey(msgspec.Struct, frozen=True, order=True):
    """Which source of which image. The same name under another id is another image."""

    image: str
    daq_id: str
    location: str


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as the journal has it."""

    image: str
    daq_id: str
    location: str
    folder: str
    state: State
    reason: str
    """Why it is in that state; empty for `done`."""
    expected: int
    """Bytes of its stream."""
    received: int
    """Bytes of it that are in the files."""
    attempts: int
    owner: str
    """Who works on it, or did last."""
    created: int
    """When it was first claimed: Unix time in whole milliseconds, as nanoseconds. DATE of its files."""
    next_try: float
    """Unix time before which it is not tried again; 0 where nothing is to be tried."""

    @property
    def key(self) -> UnitKey:
        """What it is known by."""
        return UnitKey(self.image, self.daq_id, self.location)


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A raw file that was written."""

    image: str
    daq_id: str
    location: str
    detector: str
    """E.g. `R22_S11`."""
    version: int
    """1, or more for a repaired one."""
    path: str
    bytes: int
    adler32: str
    crc32c: str
    missing: int
    """Pixels."""
    status: Literal["written", "unchanged", "kept", "conflict"]
    replaces: str = ""
    """Path of the version that this one repairs."""
    replaced_by: str = ""
    """Path of the version that repairs this one."""
    written: float = 0.0
    """Unix time."""


class Claim(msgspec.Struct, frozen=True):
    """The right to work on a unit."""

    key: UnitKey
    created: int
    """As `Unit.created`."""
    attempt: int
    """1, 2, ..."""
    taken_over: bool
    """Whether somebody else had begun it and did not end it."""
    previous: str = ""
    """Who that was."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    state: State
    reason: str = ""
    received: int = 0
    files: tuple[FileRow, ...] = ()
    retry_after: float = 0.0
    """Seconds; for `open`, `incomplete`, `failed` and `gone`."""


class Entry(msgspec.Struct, frozen=True):
    """A line of the history, which only grows."""

    number: int
    at: float
    """Unix time."""
    kind: str
    """claimed, taken over, or the state that an attempt ended in."""
    image: str
    location: str
    owner: str
    detail: dict[str, Any]


class Journal(Protocol):
    """Thread-safe. Every method raises StorageError when the journal cannot be read or written."""

    @property
    def owner(self) -> str:
        """By what name claims are ours."""
        ...

    def claim(self, keys: Iterable[tuple[UnitKey, str, int]], *, again: bool = False) -> list[Claim]:
        """Takes units (key, folder, bytes of the stream) that nobody works on and that have not ended;
        returns those that are ours now. With `again` also those whose time for another try has not come."""
        ...

    def renew(self) -> None:
        """Says that we are alive; called more often than leases last."""
        ...

    def holds(self, claim: Claim) -> bool:
        """Whether a claim is still ours."""
        ...

    def end(self, claim: Claim, outcome: Outcome) -> bool:
        """Writes what became of a unit, all at once. False, and nothing but the files is written, where the
        claim is no longer ours."""
        ...

    def settled(self, images: Collection[str]) -> set[UnitKey]:
        """Units of these images of which nothing is to be done now: ended, claimed by the living, or waiting
        for their next try."""
        ...

    def units(self, images: Collection[str] | None = None) -> Iterator[Unit]:
        """All of them, or those of some images, by name."""
        ...

    def files(self, images: Collection[str] | None = None) -> Iterator[FileRow]:
        """Likewise."""
        ...

    def history(self, after: int = 0) -> Iterator[Entry]:
        """What happened, from a number on."""
        ...

    def unfinished(self, most: int) -> list[Unit]:
        """Some units that were tried and are not ended, those first whose next try comes first."""
        ...

    def counts(self) -> dict[str, int]:
        """How many units are in each state."""
        ...

    def close(self) -> None:
        """Gives back what is claimed and closes."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
