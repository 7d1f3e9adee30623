"""From the entries of a camera file: coordinate systems of the extensions, by formula or by table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from raftwright.camera.document import Findings, Place, shown
from raftwright.camera.model import Detector, DetectorType, WcsRow, WcsSystem
from raftwright.camera.schema import ExtensionEntry

__all__ = ["build_systems", "build_wcs_rows", "check_frames"]

_NUMBER = r"([+-]?[0-9]{1,7}(?:\.[0-9]{1,6})?)"
_AXIS = rf"([+-])([xy]) {_NUMBER} {_NUMBER}"
_ROW = re.compile(rf"{_AXIS} {_AXIS}")


def build_systems(entry: ExtensionEntry) -> tuple[WcsSystem, ...]:
    """The coordinate systems in the order of their cards."""
    return tuple(
        WcsSystem(
            letter=letter,
            name=system.name,
            axes=system.axes,
            comment=system.comment,
            frame=system.frame,
            first=system.first,
        )
        for letter, system in entry.systems.items()
    )


def build_wcs_rows(
    table: Mapping[str, Mapping[int, str]],
    systems: Iterable[WcsSystem],
    kind: DetectorType,
    place: Place,
    findings: Findings,
) -> dict[str, dict[int, WcsRow]]:
    """The table of a detector: letter -> header row of its segments -> coordinates."""
    letters = [system.letter for system in systems]
    if set(table) != set(letters):
        odd = min(set(table) ^ set(letters))
        what = "is missing" if odd in letters else "is not among the systems"
        findings.add(place, f"system {shown(odd)} {what}; a table has exactly those of extension.systems")
    rows = {segment.header_iy for segment in kind.segments}
    result: dict[str, dict[int, WcsRow]] = {}
    for letter, entries in table.items():
        if set(entries) != rows:
            wanted = ", ".join(str(row) for row in sorted(rows))
            findings.add(
                (*place, letter), f"the rows of segments are {wanted}; give coordinates for just these"
            )
        result[letter] = {
            row: parsed
            for row, text in entries.items()
            if (parsed := _wcs_row(text, (*place, letter, str(row)), findings)) is not None
        }
    return result


def _wcs_row(text: str, place: Place, findings: Findings) -> WcsRow | None:
    match = _ROW.fullmatch(" ".join(text.split()))
    if match is None or match[2] == match[6]:
        remedy = "write for each axis -x, +x, -y or +y, its origin and its step a segment: `-x 513 0 +y 1 0`"
        findings.add(place, f"{shown(text)} does not fit; {remedy}")
        return None
    return WcsRow(
        swapped=match[2] == "y",
        sign1=-1 if match[1] == "-" else 1,
        origin1=float(match[3]),
        step1=float(match[4]),
        sign2=-1 if match[5] == "-" else 1,
        origin2=float(match[7]),
        step2=float(match[8]),
    )


def check_frames(systems: Iterable[WcsSystem], detectors: Iterable[Detector], findings: Findings) -> None:
    """Notes what the formulas of the systems need and a detector without a table does not have."""
    frames = {system.frame for system in systems}
    if not frames & {"raft", "focal_plane"}:
        return
    types: set[str] = set()
    for detector in detectors:
        if detector.wcs_rows is not None:
            continue
        place: Place = ("detectors", detector.name)
        if detector.slot_cell is None:
            findings.add(
                place, "its slot has no `cell`, which the systems need; add it, or a table in wcs_tables"
            )
        if detector.raft_cell is None and "focal_plane" in frames:
            findings.add(
                place, "its raft has no `cell`, which the systems need; add it, or a table in wcs_tables"
            )
        if detector.type.chip is None and detector.type.name not in types:
            types.add(detector.type.name)
            findings.add(
                ("detector_types", detector.type.name), "`chip` is missing, which the systems need; add it"
            )
