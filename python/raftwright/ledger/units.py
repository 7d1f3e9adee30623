"""Units of work: a source of an image, the claim to it, and how an attempt ended.

A *unit* is one source of one image: (image, the DAQ's id of it, location). It is claimed by one service at a
time, for as long as that one lives and renews its lease, and ends in a state.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from raftwright.ledger.rows import FileRow, plain_id

__all__ = ["ENDED", "Claim", "Entry", "Outcome", "State", "Unit", "UnitKey"]

State: TypeAlias = Literal["claimed", "open", "done", "incomplete", "conflict", "failed", "gone"]
"""See `raftwright.ledger.states.SourceState`."""

ENDED: frozenset[str] = frozenset({"done", "conflict"})
"""States that nothing is done about any more."""


class UnitKey(msgspec.Struct, frozen=True, order=True):
    """Which source of which image. The same name under another id is another image."""

    image: str
    daq_id: str
    """Without leading zeros, however it is given."""
    location: str

    def __post_init__(self) -> None:
        if self.daq_id != (plain := plain_id(self.daq_id)):
            msgspec.structs.force_setattr(self, "daq_id", plain)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit as the ledger has it."""

    image: str
    daq_id: str
    location: str
    folder: str
    state: str
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
    """When it was first claimed: TAI in whole milliseconds, as nanoseconds since 1970; 0: never. DATE of its
    files."""
    next_try: float
    """TAI before which it is not tried again; 0 where nothing is to be tried."""

    @property
    def key(self) -> UnitKey:
        """What it is known by."""
        return UnitKey(self.image, self.daq_id, self.location)


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
    """A line of the history of units, which only grows."""

    number: int
    at: float
    """TAI."""
    kind: str
    """claimed, taken over, or the state that an attempt ended in."""
    image: str
    location: str
    owner: str
    detail: dict[str, Any]
