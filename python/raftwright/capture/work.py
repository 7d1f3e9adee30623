"""A unit of work on its way through a forwarder: a source of an image, from the catalogue to its files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raftwright import _core
from raftwright.ledger.claims import Claim, UnitKey

if TYPE_CHECKING:
    from raftwright.assembly import AssembledSource
    from raftwright.camera import Board
    from raftwright.daq import ImageInfo, SourceInfo
    from raftwright.prompt import Slab
    from raftwright.rawfile.output import ImageOutput
    from raftwright.rawfile.report import FileReport
    from raftwright.stream import Fetch

__all__ = ["Work"]


@dataclass(eq=False)
class Work:
    """One unit. Handed from thread to thread; only the one that has it changes it."""

    image: ImageInfo
    source: SourceInfo
    board: Board
    live: bool
    """Whether it is of tonight: announced while we listened, not found by comparing."""
    only: frozenset[str] | None = None
    """Detectors that are asked for; all of the board by default."""
    order: tuple[Any, ...] = ()
    """Goes before `age` where a service has an order of its own; in all of its units of the same kind."""
    deadline: float = 0.0
    """Seconds for an attempt, where not those of the settings."""
    reserved: int = 0
    """Bytes of the memory budget that are its."""
    claim: Claim | None = None
    output: ImageOutput | None = None
    standing: dict[str, FileReport] = field(default_factory=dict)
    """Files that are there already and whole; the others are written."""
    readout: _core.Readout | None = None
    slab: Slab | None = None
    fetch: Fetch | None = None
    assembled: AssembledSource | None = None
    """Once all rows are worked off."""
    header_problem: str = ""
    """Why a header document that is there was not used."""
    found: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> UnitKey:
        """As the ledger knows it."""
        return UnitKey(self.image.name, self.image.id, self.source.location)

    @property
    def about(self) -> dict[str, str]:
        """What a line of the log about it says: `bound(**work.about)`."""
        names = ",".join(detector.name for detector in self.board.detectors)
        return {"obsid": self.image.name, "detector": names, "location": self.source.location}

    @property
    def wanted(self) -> frozenset[str]:
        """Detectors whose files are to be written."""
        names = {detector.name for detector in self.board.detectors}
        return frozenset((names if self.only is None else names & self.only) - self.standing.keys())

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts oldest images first: by day and number, whoever took them."""
        parts = self.image.name.split("_")
        return ("_".join(parts[2:]) if len(parts) == 4 else "", self.image.name, self.source.location)

    @property
    def planes_bytes(self) -> int:
        """What its pixels take in shared memory."""
        registers = self.source.registers
        return _core.planes_bytes(self.board.layout.channels, registers.width, registers.height)

    def worst_case(self, credit: int) -> int:
        """Bytes that it may take at most: pixels that do not compress, the packed rows that wait for their
        rest, and messages on their way."""
        registers = self.source.registers
        pixels = registers.pixels * self.board.layout.channels
        rows = registers.height * self.board.layout.channels
        return 4 * pixels + pixels // 32 + 64 * rows + min(credit, self.source.bytes) + (1 << 20)

    def settle_memory(self) -> int:
        """Gives back what of the reservation is not taken, once all has come; returns how much."""
        if self.readout is None:
            return 0
        back = max(0, self.reserved - self.readout.memory - (1 << 16))
        self.reserved -= back
        return back
