"""What an image lacks: the DAQ's description, the rows of the ledger and the disk, against one another.

Nothing is asked of anybody and nothing changed here. Any of the three may be absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from raftwright.catchup.selection import detector_name
from raftwright.daq import check_source
from raftwright.errors import RaftwrightError
from raftwright.rawfile.names import ImageName, raw_file_name, sidecar_path

if TYPE_CHECKING:
    from raftwright.camera import Board, Camera, Detector
    from raftwright.daq import ImageInfo, SourceInfo
    from raftwright.ledger.rows import DetectorRow, FileRow, ImageRow, SourceRow

__all__ = ["Known", "Lack", "Need", "Why", "compare", "newest_names"]

Why: TypeAlias = Literal["missing", "gaps", "lost", "damaged", "no sidecar", "not entered"]
"""`missing`: there is no file. `gaps`: it lacks pixels. `lost`: the ledger has one, the disk has not.
`damaged`: it is not what the ledger says. `not entered`: it stands on the disk, and the ledger does not know
it."""

_BAD: Final = frozenset({"lost", "damaged"})
_OVER: Final = frozenset({"conflict"})


@dataclass(frozen=True)
class Known:
    """What the ledger has of an image."""

    image: ImageRow
    sources: Mapping[str, SourceRow]
    detectors: Mapping[str, DetectorRow]
    """By names as `detector_name` spells them."""
    files: Mapping[str, FileRow]
    """The newest raw file of each detector, whatever became of it; named as above."""

    @classmethod
    def of(
        cls,
        image: ImageRow,
        sources: Collection[SourceRow],
        detectors: Collection[DetectorRow],
        files: Collection[FileRow],
    ) -> Known:
        """From the rows."""
        newest: dict[str, FileRow] = {}
        for row in files:
            name = detector_name(row.detector)
            if row.kind != "raw" or row.status == "conflict" or not name:
                continue
            if name not in newest or row.version >= newest[name].version:
                newest[name] = row
        return cls(
            image,
            {row.location: row for row in sources},
            {detector_name(row.detector): row for row in detectors},
            newest,
        )


@dataclass(frozen=True)
class Lack:
    """A detector of which something is missing."""

    detector: str
    why: Why
    path: str = ""
    """Of the file that is not right, where there is one."""
    crc32c: str = ""
    """What its sum should be."""


@dataclass
class Need:
    """A source of which something is missing, and what can be done about it."""

    location: str
    lacks: list[Lack] = field(default_factory=list)
    source: SourceInfo | None = None
    board: Board | None = None
    fetch: bool = False
    """Whether it is to be fetched now."""
    underway: bool = False
    """Whether we are at it."""
    reason: str = ""
    """Why not, otherwise."""
    for_good: bool = False
    """The reason does not go away by waiting."""
    gone: bool = False
    """The DAQ does not have it."""
    due: float = 0.0
    """TAI before which it is not tried again."""

    @property
    def detectors(self) -> frozenset[str]:
        """Those that are asked for."""
        return frozenset(lack.detector for lack in self.lacks)


def newest_names(name: ImageName, detector: Detector, disk: Mapping[str, int]) -> tuple[str, str] | None:
    """Names of the newest file of a detector on the disk, and of its sidecar; None: there is no file."""
    found = None
    for version in range(1, len(disk) + 2):
        file = raw_file_name(name, detector.header_raft, detector.header_slot, version)
        if file not in disk:
            break
        found = file
    if found is None:
        return None
    return found, sidecar_path(Path(found)).name


def compare(
    name: ImageName,
    camera: Camera | None,
    info: ImageInfo | None,
    known: Known | None,
    disk: Mapping[str, int] | None,
    *,
    detectors: Collection[str] = (),
    busy: Mapping[str, str] | None = None,
    tries: int = 20,
    now: float = 0.0,
    again: bool = False,
    gaps_on_disk: Mapping[str, int] | None = None,
) -> list[Need]:
    """The sources of an image that something is missing of, in the DAQ's order.

    Parameters
    ----------
    camera, info
        As the DAQ has it; None: it does not have it, or does not answer.
    known
        As the ledger has it; None: it does not, or there is none.
    disk
        Names and sizes in its directory; None: the archive cannot be looked at.
    detectors
        Those that are asked for; all by default.
    busy
        Locations that somebody works on, and who.
    tries, again
        Attempts after which a source is given up on, and whether pauses and that number count.
    now
        TAI.
    gaps_on_disk
        Pixels that files lack, by their names, where there is no ledger to say so.
    """
    needs: dict[str, Need] = {}
    for location, source, board, expected in _expected(camera, info, known):
        lacks = []
        for detector_text, detector in expected:
            if (detectors and detector_text not in detectors) or (detector is None and camera is not None):
                continue
            lack = _lack(name, detector_text, detector, known, disk, gaps_on_disk or {})
            if lack is not None:
                lacks.append(lack)
        if lacks or (board is None and source is not None and not detectors):
            needs[location] = Need(location, lacks, source, board)
    for need in needs.values():
        row = None if known is None else known.sources.get(need.location)
        _judge(need, info, row, (busy or {}).get(need.location, ""), tries, now, again)
    return list(needs.values())


def _expected(
    camera: Camera | None, info: ImageInfo | None, known: Known | None
) -> list[tuple[str, SourceInfo | None, Board | None, list[tuple[str, Detector | None]]]]:
    """Per source its detectors: from what the DAQ says of this image, and from what the ledger was told of
    it. How many there are on a board says the camera."""
    found: dict[str, tuple[SourceInfo | None, Board | None, dict[str, Detector | None]]] = {}
    for source in () if info is None else info.sources:
        board = None
        named: dict[str, Detector | None] = {}
        if camera is not None:
            try:
                board = camera.board(source.location)
            except RaftwrightError:
                board = None
            for detector in () if board is None else board.detectors:
                named[detector_name(detector.name)] = detector
        found[source.location] = source, board, named
    for text, row in {} if known is None else known.detectors.items():
        entry = found.setdefault(row.location, (None, None, {}))
        if text not in entry[2]:
            entry[2][text] = _detector_of(camera, text)
    for location in () if known is None else known.sources:
        found.setdefault(location, (None, None, {}))
    return [
        (location, source, board, list(named.items())) for location, (source, board, named) in found.items()
    ]


def _detector_of(camera: Camera | None, text: str) -> Detector | None:
    if camera is None:
        return None
    try:
        return camera.detector(text)
    except RaftwrightError:
        return None


def _lack(
    name: ImageName,
    text: str,
    detector: Detector | None,
    known: Known | None,
    disk: Mapping[str, int] | None,
    gaps_on_disk: Mapping[str, int],
) -> Lack | None:
    row = None if known is None else known.files.get(text)
    there = None if disk is None or detector is None else newest_names(name, detector, disk)
    if row is not None and row.status == "removed":
        return None  # good copies of it are elsewhere
    if row is not None and row.status not in _BAD:
        return _lack_of_row(text, row, disk, name)
    if row is not None and row.status == "damaged":
        return Lack(text, "damaged", row.path, row.crc32c)
    if there is not None:
        file, sidecar = there
        if known is not None:
            return Lack(text, "not entered", file)
        if file in gaps_on_disk:
            return Lack(text, "gaps", file)
        return None if disk is not None and sidecar in disk else Lack(text, "no sidecar", file)
    if row is not None:
        return Lack(text, "lost", row.path, row.crc32c)
    if known is not None and disk is None:
        state = known.detectors.get(text)
        if state is not None and state.state == "present":
            return None
    return Lack(text, "missing")


def _lack_of_row(text: str, row: FileRow, disk: Mapping[str, int] | None, name: ImageName) -> Lack | None:
    file = row.path.rsplit("/", 1)[-1]
    if disk is not None and row.path.endswith(f"/{name}/{file}"):
        if file not in disk:
            return Lack(text, "lost", row.path, row.crc32c)
        if disk[file] != row.bytes:
            return Lack(text, "damaged", row.path, row.crc32c)
        if sidecar_path(Path(file)).name not in disk:
            return Lack(text, "no sidecar", row.path, row.crc32c)
    if row.missing:
        return Lack(text, "gaps", row.path, row.crc32c)
    return None


def _judge(
    need: Need,
    info: ImageInfo | None,
    row: SourceRow | None,
    busy: str,
    tries: int,
    now: float,
    again: bool,
) -> None:
    source = need.source
    if info is None:
        need.reason = "the DAQ cannot be asked for it"
    elif source is None:
        need.gone = need.for_good = True
        need.reason = "the DAQ does not have this source of the image"
    elif need.board is None:
        need.for_good = True
        need.reason = f"the camera {info.camera} has no board at {need.location}"
    elif (wrong := _geometry(source, need.board)) is not None:
        need.for_good = True
        need.reason = f"its geometry is not known: {wrong}"
    elif busy:
        need.reason = f"{busy} works on it"
    elif row is not None and row.state in _OVER and not _is_lost(need):
        need.for_good = True
        need.reason = row.reason or "other content has its names"
    elif row is not None and _is_all_there_is(need, row):
        missing = sum(end - begin for begin, end in source.gaps)
        need.for_good = True
        need.reason = f"the DAQ itself lacks {missing} of its {source.bytes} bytes"
    elif row is not None and not again and row.attempts >= tries:
        need.for_good = True
        need.reason = f"given up after {row.attempts} attempts: {row.reason}"
    elif row is not None and not again and row.next_try > now and row.state not in ("expected", "claimed"):
        need.due = row.next_try
        need.reason = f"{row.state}, tried again in {row.next_try - now:.0f} s: {row.reason}"
    else:
        need.fetch = True


def _geometry(source: SourceInfo, board: Board) -> str | None:
    try:
        check_source(source, board)
    except RaftwrightError as error:
        return str(error)
    return None


def _is_lost(need: Need) -> bool:
    return any(lack.why in ("lost", "damaged", "no sidecar") for lack in need.lacks)


def _is_all_there_is(need: Need, row: SourceRow) -> bool:
    """Its files have all that the DAQ has, which is not all that there should be."""
    source = need.source
    if source is None or not source.gaps or row.state != "incomplete":
        return False
    has = source.bytes - sum(end - begin for begin, end in source.gaps)
    return row.received >= has and all(lack.why == "gaps" for lack in need.lacks)
