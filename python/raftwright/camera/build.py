"""From the entries of a camera file to a Camera; every contradiction on the way is noted with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from raftwright.camera.boards import BoardType, build_board, build_board_types
from raftwright.camera.chips import build_detector_types, build_segments
from raftwright.camera.document import Findings, Place, shown
from raftwright.camera.model import Board, Camera, Detector, DetectorType, Raft, Segment, WcsRow, WcsSystem
from raftwright.camera.schema import CameraEntry, RaftEntry, RaftLayoutEntry
from raftwright.camera.tables import build_systems, build_wcs_rows, check_frames

__all__ = ["build_camera"]

# Cards that the structure of a FITS file or the image itself decides.
_NOT_CONSTANT = {
    *(
        "SIMPLE",
        "BITPIX",
        "NAXIS",
        "EXTEND",
        "XTENSION",
        "PCOUNT",
        "GCOUNT",
        "BSCALE",
        "BZERO",
        "BLANK",
        "END",
    ),
    *("CHECKSUM", "DATASUM", "INSTRUME", "TELESCOP", "CAMCODE", "RAFTBAY", "CCDSLOT", "DETSIZE"),
}


def build_camera(entry: CameraEntry, findings: Findings) -> Camera:
    """Builds the camera. It may be used only if `findings` stays empty."""
    return _Builder(entry, findings).camera()


class _Builder:
    def __init__(self, entry: CameraEntry, findings: Findings) -> None:
        self.entry = entry
        self.findings = findings
        self.systems: tuple[WcsSystem, ...] = build_systems(entry.extension)
        self.types: dict[str, DetectorType] = build_detector_types(entry.detector_types, findings)
        self.board_types: dict[str, BoardType] = build_board_types(entry.board_types, findings)
        self.boards: dict[str, Board] = {}
        self.detectors: list[Detector] = []

    def camera(self) -> Camera:
        entry, findings = self.entry, self.findings
        for keyword in entry.constants:
            if keyword in _NOT_CONSTANT or keyword.startswith("NAXIS"):
                findings.add(("constants", keyword), "this card is not the camera's to fix; remove it")
        for name, layout in entry.raft_layouts.items():
            self._check_layout(layout, ("raft_layouts", name))
        rafts = [self._raft(name, raft) for name, raft in entry.rafts.items()]
        if not self.detectors and not findings.problems:
            findings.add(("rafts",), "a camera needs at least one raft with a detector; add one")
        self._check_lines()
        for detector, other in _doubles(self.detectors, lambda d: d.id):
            findings.add(
                ("detectors", detector.name, "id"), f"{detector.id} is that of {other.name} too; change one"
            )
        for detector, other in _doubles(self.detectors, lambda d: d.serial):
            serial = shown(detector.serial)
            findings.add(
                ("detectors", detector.name, "serial"), f"{serial} is that of {other.name} too; change one"
            )
        for detector, other in _doubles(self.detectors, lambda d: d.file_stem):
            stem = detector.file_stem
            findings.add(
                ("detectors", detector.name),
                f"its files would be named {stem} as those of {other.name}; change `header`",
            )
        _check_overlap(self.detectors, findings)
        check_frames(self.systems, self.detectors, findings)
        return Camera(
            name=entry.name,
            title=entry.title,
            instrume=entry.instrume,
            aliases=tuple(entry.aliases.split()),
            telescop=entry.telescop,
            code=entry.code,
            constants=entry.constants,
            rafts=tuple(rafts),
            boards=self.boards,
            detectors=tuple(sorted(self.detectors, key=lambda detector: detector.id)),
            systems=self.systems,
            detsec_down=entry.extension.detsec_rows == "down",
            raft_pitch=entry.extension.raft_pitch,
        )

    def _check_layout(self, layout: RaftLayoutEntry, place: Place) -> None:
        add = self.findings.add
        reader: dict[str, str] = {}
        numbers: dict[int, str] = {}
        for name, board in layout.boards.items():
            here = (*place, "boards", name)
            if numbers.setdefault(board.number, name) != name:
                add((*here, "number"), f"{board.number} is that of {numbers[board.number]} too; change one")
            slots = board.slots.split()
            for slot in slots:
                if slot not in layout.slots:
                    add(
                        (*here, "slots"),
                        f"{shown(slot)} is not a slot of this layout; add it or remove it here",
                    )
                elif slot in reader:
                    add((*here, "slots"), f"{slot} is read by {reader[slot]} too; one board reads a slot")
                reader.setdefault(slot, name)
            kind = self.board_types.get(board.type)
            if kind is None:
                add((*here, "type"), f"there is no board type {board.type!r}{_known(self.board_types)}")
            elif kind.ccds != len(slots):
                reads = f"board type {kind.name} reads {kind.ccds} CCDs, but the slots here are {len(slots)}"
                add((*here, "slots"), f"{reads}; name one slot for each")
        for slot, slot_entry in layout.slots.items():
            if slot not in reader:
                add((*place, "slots", slot), "no board reads this slot; name it under a board")
            if slot_entry.type is not None and slot_entry.type not in self.types:
                add(
                    (*place, "slots", slot, "type"),
                    f"there is no detector type {slot_entry.type!r}{_known(self.types)}",
                )

    def _raft(self, name: str, raft: RaftEntry) -> Raft:
        place: Place = ("rafts", name)
        layout = self.entry.raft_layouts.get(raft.layout)
        if layout is None:
            known = _known(self.entry.raft_layouts)
            self.findings.add((*place, "layout"), f"there is no raft layout {raft.layout!r}{known}")
            return Raft(name, raft.header or name, raft.bay, raft.serial, (), ())
        if raft.type is not None and raft.type not in self.types:
            self.findings.add(
                (*place, "type"), f"there is no detector type {raft.type!r}{_known(self.types)}"
            )
        mounted: dict[str, Detector] = {}
        boards: list[Board] = []
        for board_name, entry in layout.boards.items():
            location = f"{raft.bay}/{entry.number}"
            slots = [slot for slot in entry.slots.split() if slot in layout.slots]
            detectors = [self._detector(name, raft, layout, slot, board_name, location) for slot in slots]
            complete = tuple(detector for detector in detectors if detector is not None)
            mounted |= {detector.slot: detector for detector in complete}
            kind = self.board_types.get(entry.type)
            if kind is None or len(complete) != kind.ccds or len(entry.slots.split()) != kind.ccds:
                continue  # noted elsewhere
            board = build_board(
                board_name,
                name,
                raft.bay,
                entry,
                kind,
                complete,
                ("raft_layouts", raft.layout, "boards", board_name),
                self.findings,
            )
            if board is None:
                continue
            if location in self.boards:
                other = self.boards[location].path
                self.findings.add(
                    (*place, "bay"), f"location {location} is that of {other} too; change one bay"
                )
            self.boards.setdefault(location, board)
            boards.append(board)
        in_order = tuple(mounted[slot] for slot in layout.slots if slot in mounted)
        self.detectors += in_order
        return Raft(name, raft.header or name, raft.bay, raft.serial, tuple(boards), in_order)

    def _detector(
        self, raft_name: str, raft: RaftEntry, layout: RaftLayoutEntry, slot: str, board: str, location: str
    ) -> Detector | None:
        name = f"{raft_name}_{slot}"
        where = layout.slots[slot]
        line = self.entry.detectors.get(name)
        amplifiers = self.entry.amplifiers.get(name)
        type_name = where.type or raft.type
        if type_name is None:
            self.findings.add(
                ("rafts", raft_name), f"slot {slot} has no detector type; add `type` here or there"
            )
        if line is None:
            self.findings.add(("detectors",), f"there is no line for {name}; add it")
        if amplifiers is None:
            self.findings.add(("amplifiers",), f"there is no entry for {name}; add it")
        kind = None if type_name is None else self.types.get(type_name)
        if kind is None or line is None or amplifiers is None:
            return None
        segments: tuple[Segment, ...] = build_segments(kind, amplifiers, ("amplifiers", name), self.findings)
        rows: dict[str, dict[int, WcsRow]] | None = None
        table = self.entry.wcs_tables.get(name)
        if table is not None:
            rows = build_wcs_rows(table, self.systems, kind, ("wcs_tables", name), self.findings)
        return Detector(
            id=line.id,
            name=name,
            raft=raft_name,
            slot=slot,
            kind=where.kind,
            type=kind,
            serial=line.serial,
            raft_serial=raft.serial,
            header_raft=raft.header or raft_name,
            header_slot=where.header or slot,
            x_mm=line.at[0],
            y_mm=line.at[1],
            yaw_deg=float(line.yaw),
            segments=segments,
            board=board,
            location=location,
            raft_cell=raft.cell,
            slot_cell=where.cell,
            wcs_rows=rows,
        )

    def _check_lines(self) -> None:
        """Notes lines of detectors that no raft has."""
        slots = {
            f"{raft_name}_{slot}"
            for raft_name, raft in self.entry.rafts.items()
            if raft.layout in self.entry.raft_layouts
            for slot in self.entry.raft_layouts[raft.layout].slots
        }
        sections: tuple[tuple[str, Iterable[str]], ...] = (
            ("detectors", self.entry.detectors),
            ("amplifiers", self.entry.amplifiers),
            ("wcs_tables", self.entry.wcs_tables),
        )
        for section, names in sections:
            for name in names:
                if name not in slots:
                    self.findings.add((section, name), "no raft has such a slot; remove it, or add the raft")


def _known(names: Mapping[str, object]) -> str:
    return f"; known here: {', '.join(list(names)[:12])}" if names else "; define one"


def _doubles(
    detectors: Iterable[Detector], key: Callable[[Detector], object]
) -> Iterator[tuple[Detector, Detector]]:
    """Detectors that agree in something with an earlier one, and that one."""
    first: dict[object, Detector] = {}
    for detector in detectors:
        other = first.setdefault(key(detector), detector)
        if other is not detector:
            yield detector, other


def _check_overlap(detectors: list[Detector], findings: Findings) -> None:
    """Notes detectors whose light-sensitive areas lie on one another in the focal plane."""
    boxes = []
    for detector in detectors:
        size_x = detector.type.tiles[0] * detector.type.geometry.columns * detector.type.pixel_um / 1000
        size_y = detector.type.tiles[1] * detector.type.geometry.rows * detector.type.pixel_um / 1000
        if detector.quarter_turns % 2:
            size_x, size_y = size_y, size_x
        boxes.append((detector.x_mm - size_x / 2, detector.x_mm + size_x / 2, size_y, detector))
    boxes.sort(key=lambda box: box[0])
    tolerance = 1e-6  # millimetres: touching is allowed
    for index, (_, right, height, detector) in enumerate(boxes):
        for left, _, other_height, other in boxes[index + 1 :]:
            if left >= right - tolerance or findings.full:
                break
            if abs(detector.y_mm - other.y_mm) < (height + other_height) / 2 - tolerance:
                findings.add(
                    ("detectors", other.name, "at"), f"it lies on {detector.name}; mend one position"
                )
