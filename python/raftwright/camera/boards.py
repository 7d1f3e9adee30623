"""From the entries of a camera file: readout boards, and how the channels of a stream map to planes."""

from __future__ import annotations

from collections.abc import Mapping

from raftwright.camera.document import Findings, Place, shown
from raftwright.camera.model import Board, Detector
from raftwright.camera.schema import BoardEntry, BoardTypeEntry

__all__ = ["BoardType", "build_board", "build_board_types"]

_MAX_CHANNELS = 4096


class BoardType:
    """A kind of board: bits, mask and the channels of a sample as (CCD of the board, amplifier)."""

    def __init__(self, name: str, entry: BoardTypeEntry, findings: Findings) -> None:
        """Contradictions within the entry are noted in `findings`."""
        place: Place = ("board_types", name)
        self.name = name
        self.kind = entry.source
        self.bits = entry.bits
        self.xor_mask = int(entry.xor, 16 if entry.xor.startswith("0x") else 10)
        self.channels = [(run.ccd, amp) for run in entry.stream for amp in run.amps.split()]
        self.ccds = 1 + max((ccd for ccd, _ in self.channels), default=-1)
        if self.xor_mask >> self.bits:
            findings.add((*place, "xor"), f"{entry.xor} does not fit into {self.bits} bits; shorten the mask")
        if not 1 <= len(self.channels) <= _MAX_CHANNELS:
            findings.add(
                (*place, "stream"),
                f"{len(self.channels)} channels; a sample has 1 to {_MAX_CHANNELS} of them",
            )
        if len(self.channels) * self.bits % 8:
            total = f"{len(self.channels)} channels of {self.bits} bits"
            findings.add((*place, "stream"), f"{total} do not fill whole bytes; a sample must")
        seen: set[tuple[int, str]] = set()
        for index, run in enumerate(entry.stream):
            for amp in run.amps.split():
                if (run.ccd, amp) in seen:
                    findings.add(
                        (*place, "stream", index),
                        f"amplifier {shown(amp)} of CCD {run.ccd} comes twice; drop one",
                    )
                seen.add((run.ccd, amp))
        idle = set(range(self.ccds)) - {ccd for ccd, _ in seen}
        if idle:
            findings.add((*place, "stream"), f"CCD {min(idle)} has no channel; number the CCDs from 0 on")


def build_board_types(entries: Mapping[str, BoardTypeEntry], findings: Findings) -> dict[str, BoardType]:
    """Kinds of boards by name."""
    return {name: BoardType(name, entry, findings) for name, entry in entries.items()}


def build_board(
    name: str,
    raft: str,
    bay: str,
    entry: BoardEntry,
    kind: BoardType,
    detectors: tuple[Detector, ...],
    place: Place,
    findings: Findings,
) -> Board | None:
    """A board of a raft. None, with the reason in `findings`, if its stream does not fit its detectors."""
    plane: dict[tuple[int, str], int] = {}
    for ccd, detector in enumerate(detectors):
        for segment in detector.segments:
            plane[ccd, segment.amp] = len(plane)
    channels = set(kind.channels)
    if channels != plane.keys():
        ccd, amp = min(channels ^ plane.keys())
        type_name = detectors[ccd].type.name
        if (ccd, amp) in plane:
            what = f"no channel of board type {kind.name} reads amplifier {amp} of CCD {ccd} ({type_name})"
        else:
            what = (
                f"CCD {ccd} ({type_name}) has no amplifier {shown(amp)}, which board type {kind.name} reads"
            )
        findings.add(place, f"{what}; make the two agree")
        return None
    return Board(
        name=name,
        raft=raft,
        location=f"{bay}/{entry.number}",
        kind=kind.kind,
        detectors=detectors,
        bits=kind.bits,
        xor_mask=kind.xor_mask,
        plane_of=tuple(plane[channel] for channel in kind.channels),
    )
