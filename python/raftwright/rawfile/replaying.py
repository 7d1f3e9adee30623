"""From raw files back to a recording: the streams as the DAQ would have delivered them.

The CCDs of a board share one stream. Where files of some of them are absent, their pixels are filled with a
stated FITS value, and the recording says so: in its annotation, and under `replay` in its image.json.
Pixels that never arrived in the first place (MISSPIX) stay missing: whole samples become gaps of the
stream, never pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright import _core, assembly
from raftwright.daq import ImageInfo, MemorySource, Registers, SourceInfo, write_recording
from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName, newest, sidecar_path
from raftwright.rawfile.read import RawFile, open_raw
from raftwright.rawfile.sidecar import MISSING, as_runs, read_json, run_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera import Board, Camera, Detector, Geometry

__all__ = ["ReplayReport", "ReplayedSource", "replay"]

_ANNOTATION: Final = 63  # characters that the DAQ keeps
_SUFFIXES: Final = (".fits", ".fits.fz", ".fits.gz", ".fz")
_HEX = re.compile(r"[0-9A-Fa-f]{1,16}\Z")
_PLAIN = re.compile(r"[\x20-\x7e]{0,1024}\Z")


@dataclass(frozen=True)
class ReplayedSource:
    """One board of the recording."""

    location: str
    files: tuple[Path, ...]
    filled: tuple[str, ...]
    """Detectors without a file: every pixel of theirs has the fill value."""
    clipped: int
    """Pixels whose value does not fit the stream: below 0 or beyond its bits; they took the nearest one."""
    missing_samples: int
    """Samples that are a gap of the stream, because the files say that their pixels never arrived."""


@dataclass(frozen=True)
class ReplayReport:
    """What `replay` did."""

    path: Path
    """The recording."""
    status: str
    """`written`, or `unchanged` where the same recording was there."""
    image: str
    original: str | None
    """Name of the image that the files are of."""
    camera: str
    fill: int
    sources: tuple[ReplayedSource, ...]
    notes: tuple[str, ...]
    bytes: int

    @property
    def filled(self) -> tuple[str, ...]:
        """Detectors that were filled because there is no file of them."""
        return tuple(name for source in self.sources for name in source.filled)

    @property
    def clipped(self) -> int:
        """Pixels whose values had to be clipped."""
        return sum(source.clipped for source in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        content = asdict(self)
        content["path"] = str(self.path)
        for entry in content["sources"]:
            entry["files"] = [str(file) for file in entry["files"]]
        content.update(filled=list(self.filled), clipped=self.clipped)
        return content


def replay(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    camera: Camera | str | os.PathLike[str] | None = None,
    name: str | None = None,
    date: str | None = None,
    fill: int = 0,
    threads: int | None = None,
    durable: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Turns raw files of one image into the recording `<out>/<image>`.

    Parameters
    ----------
    paths
        Raw files, or directories of them; gzipped and compressed ones too.
    out
        Directory of recordings.
    camera
        Camera, its name or its file; by default the one that the files name.
    name
        Name of the recording's image; by default the files' own (OBSID). With another name the files' own
        is kept as the image that is emulated (EMUIMAGE).
    date
        TAI time of its trigger, ISO 8601; by default the files' (DATE-TRG, else DATE-OBS).
    fill
        FITS value of CCDs without a file.
    threads
        Threads that decode; every processor by default.

    Raises
    ------
    FormatError
        A file that is no raw, files of different images or sizes, a name or a date that does not parse.
    NotFoundError
        A path does not exist, a file names no known camera or CCD.
    ConflictError
        Another recording stands there.
    """
    assembly.check_fill(fill)
    files = _expand([paths] if isinstance(paths, str | os.PathLike) else list(paths))
    parts = [_Part.of(path, camera, threads) for path in files]
    first = parts[0]
    for part in parts[1:]:
        if part.camera is not first.camera or part.obsid != first.obsid:
            raise FormatError(
                f"{part.path}: of image {part.obsid} of {part.camera.name}, but {first.path} is of "
                f"{first.obsid} of {first.camera.name}; replay one image at a time"
            )
    wanted = name if name is not None else first.obsid
    if wanted is None:
        raise UsageError(
            f"{first.path}: no OBSID says what image it is of; give the recording's image a name"
        )
    image_name = str(ImageName.parse(wanted))
    boards = _by_board(parts)
    filled = [d.name for board, mine in boards for d in board.detectors if d.name not in mine]
    notes = [f"{detector}: no file of it; every pixel was filled with {fill}" for detector in filled]
    info = _image_info(parts, boards, image_name, date, fill, filled)
    image = _ReplayImage(info, boards, fill, threads)
    recorded = write_recording(Path(out) / image_name, image, threads=1, durable=durable, progress=progress)
    for source in image.done:
        if source.clipped:
            notes.append(
                f"{source.location}: {source.clipped} pixels beyond the range of the stream were clipped"
            )
        if source.missing_samples:
            notes.append(
                f"{source.location}: {source.missing_samples} samples never arrived and stay missing"
            )
    return ReplayReport(
        path=recorded.path,
        status=recorded.status,
        image=image_name,
        original=first.obsid,
        camera=first.camera.name,
        fill=fill,
        sources=tuple(image.done),
        notes=tuple(notes),
        bytes=recorded.bytes,
    )


def _expand(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.endswith(_SUFFIXES) and p.is_file())
            if not inside:
                raise NotFoundError(f"{path}: there are no FITS files in it; name a directory of raw files")
            files.update(dict.fromkeys(newest(inside)))
        else:
            files[path] = None
    if not files:
        raise UsageError("no raw file was named; name at least one")
    return list(files)


@dataclass(frozen=True)
class _Part:
    """What is known of a raw file without its pixels."""

    path: Path
    camera: Camera
    detector: Detector
    geometry: Geometry
    obsid: str | None
    cards: dict[str, str]

    @classmethod
    def of(cls, path: Path, camera: Camera | str | os.PathLike[str] | None, threads: int | None) -> _Part:
        raw = open_raw(path, threads, camera=camera)
        if "N_STAMPS" in raw.header:
            raise FormatError(f"{path}: guider stamps are no readout of a CCD; name raw files of whole CCDs")
        cards = {}
        for keyword in [
            "DATE-TRG",
            "DATE-OBS",
            "TIMESYS",
            "IMAGETAG",
            "OBSANNOT",
            "DAQANNOT",
            "DAQFOLD",
            "FIRMWARE",
            "CONTNUM",
            "PLATFORM",
            "DAQVERS",
        ]:
            cards[keyword] = raw.header.string(keyword) or ""
        return cls(path, raw.camera, raw.detector, raw.geometry, raw.header.string("OBSID"), cards)


_Boards = list[tuple["Board", dict[str, _Part]]]


def _by_board(parts: Sequence[_Part]) -> _Boards:
    boards: dict[str, tuple[Board, dict[str, _Part]]] = {}
    for part in parts:
        board = part.camera.board(part.detector.location)
        mine = boards.setdefault(board.location, (board, {}))[1]
        other = next(iter(mine.values()), None)
        if part.detector.name in mine:
            raise FormatError(
                f"{part.path}: of {part.detector.name}, like {mine[part.detector.name].path}; name one"
            )
        if other is not None and other.geometry != part.geometry:
            raise FormatError(
                f"{part.path}: {part.geometry.width} x {part.geometry.height} pixels a segment, but "
                f"{other.path} of the same board {other.geometry.width} x {other.geometry.height}; name "
                "files of one readout"
            )
        mine[part.detector.name] = part
    return [boards[location] for location in parts[0].camera.boards if location in boards]


def _image_info(
    parts: Sequence[_Part], boards: _Boards, name: str, date: str | None, fill: int, filled: Sequence[str]
) -> ImageInfo:
    first = parts[0]
    story: dict[str, Any] = {"of": first.obsid or "", "files": [part.path.name for part in parts]}
    if filled:
        story.update(filled=list(filled), fill=fill)
    extra: dict[str, Any] = {"replay": story}
    if first.obsid is not None and first.obsid != name:
        extra["emulated"] = first.obsid
    tag = first.cards["IMAGETAG"]
    return ImageInfo(
        name=name,
        camera=first.camera.name,
        sources=tuple(_source_info(board, mine) for board, mine in boards),
        folder=_plain(first.cards["DAQFOLD"]) or "raw",
        annotation=_annotation(_plain(first.cards["OBSANNOT"] or first.cards["DAQANNOT"]), filled, fill),
        id=tag.lower() if _HEX.match(tag) else "",
        timestamp=_timestamp(first, date),
        extra=extra,
    )


def _plain(text: str) -> str:
    return text if _PLAIN.match(text) else ""


def _annotation(text: str, filled: Sequence[str], fill: int) -> str:
    """The files' own annotation, cut to leave room for what was filled."""
    if not filled:
        return text[:_ANNOTATION]
    said = f"filled with {fill}: {' '.join(filled)}"
    if len(said) > _ANNOTATION:
        said = f"filled with {fill}: {len(filled)} CCDs"
    room = _ANNOTATION - len(said) - 2
    return f"{text[:room]}; {said}" if text and room > 0 else said[:_ANNOTATION]


def _timestamp(part: _Part, date: str | None) -> str:
    if date is not None:
        return times.iso(times.parse_iso(date))
    for keyword in ("DATE-TRG", "DATE-OBS"):
        try:
            moment = times.parse_iso(part.cards[keyword])
            return times.iso(times.utc_to_tai(moment) if part.cards["TIMESYS"].upper() == "UTC" else moment)
        except FormatError:
            continue
    return ""


def _source_info(board: Board, mine: dict[str, _Part]) -> SourceInfo:
    part = next(iter(mine.values()))
    registers = Registers.of_geometry(part.geometry, part.detector.type.op_flags)

    def hexadecimal(keyword: str) -> str:
        text = part.cards[keyword]
        return text.lower() if _HEX.match(text) else ""

    return SourceInfo(
        location=board.location,
        kind=board.kind,
        registers=registers,
        bytes=registers.pixels * board.sample_bytes,
        firmware=hexadecimal("FIRMWARE"),
        serial=hexadecimal("CONTNUM"),
        platform=_plain(part.cards["PLATFORM"]),
        software=_plain(part.cards["DAQVERS"]),
    )


class _ReplayImage:
    """The image made of the files; a board's stream is packed when its source is asked for."""

    def __init__(self, info: ImageInfo, boards: _Boards, fill: int, threads: int | None) -> None:
        self.info = info
        self.done: list[ReplayedSource] = []
        self._boards = {board.location: (board, mine) for board, mine in boards}
        self._fill = fill
        self._threads = threads

    def source(self, location: str) -> MemorySource:
        import numpy as np

        board, mine = self._boards[location]
        info = next(source for source in self.info.sources if source.location == location)
        registers = info.registers
        planes = np.full((board.channels, registers.height, registers.width), self._fill, dtype=np.int32)
        gone = np.zeros(registers.pixels, dtype=np.bool_)
        for detector in board.detectors:
            if detector.name in mine:
                raw = open_raw(mine[detector.name].path, self._threads, camera=mine[detector.name].camera)
                for plane, pixels in zip(board.planes_of(detector), raw.planes(), strict=True):
                    planes[plane] = pixels
                if raw.missing_pixels:
                    gone |= _missing_samples(raw, [planes[plane] for plane in board.planes_of(detector)])
        if gone.any():
            planes.reshape(board.channels, -1)[:, gone] = 0
        packed, clipped = _core.scramble(board.layout, planes.reshape(board.channels, -1))
        self.done.append(
            ReplayedSource(
                location=location,
                files=tuple(part.path for part in mine.values()),
                filled=tuple(d.name for d in board.detectors if d.name not in mine),
                clipped=clipped,
                missing_samples=int(gone.sum()),
            )
        )
        return MemorySource(msgspec.structs.replace(info, gaps=_gaps(gone, board.sample_bytes)), packed)


def _missing_samples(raw: RawFile, planes: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """Samples of which a pixel of this CCD never arrived: by its sidecar, without one by the fill value."""
    import numpy as np

    gone = np.zeros(planes[0].size, dtype=np.bool_)
    path = sidecar_path(raw.path)
    if path.is_file():
        runs = as_runs(read_json(path).get(MISSING, {}))
        if runs is None:
            raise FormatError(
                f"{path}: {MISSING} is no list of [first, count] for each segment; fetch it again"
            )
        for name, entries in runs.items():
            mask = run_mask(entries, gone.size)
            if mask is None:
                raise FormatError(
                    f"{path}: {MISSING} lists pixels of {name[:40]} outside the image; fetch it again"
                )
            gone |= mask
        listed = sum(count for entries in runs.values() for _, count in entries)
        if listed != raw.missing_pixels:
            raise FormatError(
                f"{path}: lists {listed} missing pixels, MISSPIX of {raw.path.name} says "
                f"{raw.missing_pixels}; the two are not of one writing: fetch both again"
            )
        return gone
    fill = raw.header.get("FILLVAL")
    if not isinstance(fill, int):
        raise FormatError(f"{raw.path}: pixels are missing, but neither sidecar nor FILLVAL says which")
    for plane in planes:
        gone |= plane.reshape(-1) == fill
    return gone


def _gaps(gone: NDArray[np.bool_], sample_bytes: int) -> tuple[tuple[int, int], ...]:
    """Byte ranges of the stream: each sample that is gone, runs joined."""
    import numpy as np

    edges = np.flatnonzero(np.diff(gone, prepend=False, append=False))
    return tuple((int(begin) * sample_bytes, int(end) * sample_bytes) for begin, end in edges.reshape(-1, 2))
