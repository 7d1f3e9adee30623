"""What a camera is: rafts, boards, CCDs and their segments. All of it is read from a camera file.

Coordinates: x is the serial direction of a CCD and y the parallel one; the focal plane has x to the right and
y up, in millimetres. Positions and yaw angles are those of LSST's cameraGeom. Nothing here can be changed.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright._core import StreamLayout

__all__ = [
    "Board",
    "Camera",
    "ChipConstants",
    "Detector",
    "DetectorType",
    "Geometry",
    "Kind",
    "Raft",
    "Segment",
    "SegmentPlace",
    "WcsRow",
    "WcsSystem",
]

Kind: TypeAlias = Literal["science", "guider", "wavefront"]
"""What a detector is for; of a board, the DAQ's own type of its source."""

_Count: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
_Size: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
_Length: TypeAlias = Annotated[float, Meta(ge=-1e6, le=1e6)]


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of a segment as it is read out, in pixels; readout order, nothing flipped."""

    prescan: _Count
    """Serial prescan: columns read before the first light-sensitive one."""
    columns: _Size
    """Light-sensitive columns."""
    overscan: _Count
    """Serial overscan: columns read after the last light-sensitive one."""
    rows: _Size
    """Light-sensitive rows."""
    parallel_overscan: _Count
    """Rows read after the last light-sensitive one."""

    @property
    def width(self) -> int:
        """Columns of the image of a segment (NAXIS1)."""
        return self.prescan + self.columns + self.overscan

    @property
    def height(self) -> int:
        """Rows of the image of a segment (NAXIS2)."""
        return self.rows + self.parallel_overscan


class ChipConstants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chip and its neighbours in pixels, named as in LCA-13501, whose x is the parallel direction."""

    ccdax: _Length
    """Active size, parallel."""
    ccday: _Length
    """Active size, serial."""
    ccdpx: _Length
    """Physical size, parallel."""
    ccdpy: _Length
    """Physical size, serial."""
    ginx: _Length
    """Gap between the CCDs of a raft, parallel."""
    giny: _Length
    """Gap between the CCDs of a raft, serial."""
    goutx: _Length
    """Gap from the raft's edge to its first CCD, parallel."""
    gouty: _Length
    """Gap from the raft's edge to its first CCD, serial."""


class SegmentPlace(msgspec.Struct, frozen=True):
    """Where a segment lies on the CCDs of a type."""

    name: str
    """EXTNAME of its image, e.g. `Segment10`."""
    amp: str
    """Name of its amplifier, e.g. `C10`."""
    index: int
    """0-based; its image is HDU index + 1."""
    ix: int
    """Tile of the mosaic, counted along x from the left."""
    iy: int
    """Tile of the mosaic, counted along y from the bottom."""
    flip_x: bool
    """Readout order runs against x."""
    flip_y: bool
    """Readout order runs against y."""
    header_ix: int
    """Tile along x in the mosaic keywords of its header. Only a CCD that is described as part of a larger one
    differs from `ix`."""
    header_iy: int


class Segment(SegmentPlace, frozen=True):
    """One amplifier of one detector: its place and what is known of its electronics."""

    gain: float
    """Electrons a count (e-/adu)."""
    read_noise: float
    """Electrons."""
    saturation: float
    """As in LSST's cameraGeom: the level above which a pixel counts as saturated."""


class DetectorType(msgspec.Struct, frozen=True, eq=False):
    """What all CCDs of a type have in common."""

    name: str
    vendor: str
    ccd_manu: str
    """Header card CCD_MANU."""
    ccd_type: str
    """Header card CCD_TYPE."""
    pixel_um: float
    op_flags: int
    """The DAQ register OpFlags of its readout: how the DAQ codes the vendor."""
    geometry: Geometry
    """Nominal geometry; the registers of an image may say another one."""
    tiles: tuple[int, int]
    """Segments along x and along y."""
    header_tiles: tuple[int, int]
    """The same in the mosaic keywords (DETSIZE)."""
    segments: tuple[SegmentPlace, ...]
    """In the order of their HDUs."""
    chip: ChipConstants | None

    def __repr__(self) -> str:
        return f"<detector type {self.name}>"


class WcsRow(msgspec.Struct, frozen=True):
    """Linear coordinates of a row of segments: for the segment in header column c, axis i is
    `sign_i * (x or y) + origin_i + c * step_i`, with x and y the FITS pixel of the segment."""

    swapped: bool
    """Axis 1 follows y and axis 2 follows x."""
    sign1: int
    origin1: float
    step1: float
    sign2: int
    origin2: float
    step2: float


class WcsSystem(msgspec.Struct, frozen=True):
    """One alternate coordinate system of the image extensions."""

    letter: str
    name: str
    """WCSNAME."""
    axes: tuple[str, str]
    """CTYPE1 and CTYPE2."""
    comment: str
    """Comment of the CTYPE cards."""
    frame: Literal["segment", "ccd", "raft", "focal_plane"]
    """What its origin is the corner of."""
    first: Literal["parallel", "serial"]
    """The direction that axis 1 runs along."""


class Detector(msgspec.Struct, frozen=True, eq=False):
    """One CCD (or half a one, where the halves are read and written apart)."""

    id: int
    name: str
    """`<raft>_<slot>`, e.g. `R22_S11`."""
    raft: str
    slot: str
    kind: Kind
    type: DetectorType
    serial: str
    """Header card LSST_NUM."""
    raft_serial: str
    header_raft: str
    """Header card RAFTBAY."""
    header_slot: str
    """Header card CCDSLOT."""
    x_mm: float
    """Centre of its light-sensitive area in the focal plane."""
    y_mm: float
    yaw_deg: float
    """How far it is turned counter-clockwise in the focal plane: 0, 90, 180 or 270."""
    segments: tuple[Segment, ...]
    """In the order of their HDUs."""
    board: str
    """Name of the board that reads it, e.g. `Reb1`."""
    location: str
    """DAQ location of that board, e.g. `22/1`."""
    raft_cell: tuple[int, int] | None
    """(Rx, Ry) of the header formulas: place of the raft along the parallel and the serial direction."""
    slot_cell: tuple[int, int] | None
    """(Cx, Cy): the same within the raft."""
    wcs_rows: Mapping[str, Mapping[int, WcsRow]] | None
    """Coordinate systems given by a table (letter -> header row -> coordinates) instead of the formulas."""

    def __repr__(self) -> str:
        return f"<detector {self.name}, id {self.id}>"

    @property
    def file_stem(self) -> str:
        """`<RAFTBAY>_<CCDSLOT>`: how its files are named."""
        return f"{self.header_raft}_{self.header_slot}"

    @property
    def quarter_turns(self) -> int:
        """The yaw in turns of 90 degrees counter-clockwise, 0 .. 3."""
        return round(self.yaw_deg / 90.0) % 4

    def segment(self, name: str) -> Segment:
        """A segment by its name or its amplifier's. Raises NotFoundError."""
        for segment in self.segments:
            if name in (segment.name, segment.amp):
                return segment
        raise _missing(f"detector {self.name} has no segment", name, [s.name for s in self.segments])


class Board(msgspec.Struct, frozen=True, eq=False):
    """One readout board: a source of the DAQ, and how its stream is laid out."""

    name: str
    raft: str
    location: str
    """DAQ location, `<bay>/<number>`."""
    kind: Kind
    """The DAQ's own type of the source."""
    detectors: tuple[Detector, ...]
    """In the order of their slots; the planes of the output stand in this order too."""
    bits: int
    """Bits a pixel."""
    xor_mask: int
    """Value = raw bits XOR this."""
    plane_of: tuple[int, ...]
    """Output plane of each channel of a sample. Planes are numbered detector by detector, by HDU within."""

    def __repr__(self) -> str:
        return f"<board {self.path}, location {self.location}>"

    @property
    def path(self) -> str:
        """`<raft>/<board>`, as the camera's control system names it, e.g. `R22/Reb1`."""
        return f"{self.raft}/{self.name}"

    @property
    def channels(self) -> int:
        """Pixels of a sample."""
        return len(self.plane_of)

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return len(self.plane_of) * self.bits // 8

    @property
    def layout(self) -> StreamLayout:
        """The layout of its stream, for the compiled core."""
        return _stream_layout(self.bits, self.xor_mask, self.plane_of)

    def planes_of(self, detector: Detector | str) -> range:
        """Output planes of one of its detectors, in HDU order. Raises NotFoundError."""
        name = detector if isinstance(detector, str) else detector.name
        first = 0
        for mine in self.detectors:
            if mine.name == name:
                return range(first, first + len(mine.segments))
            first += len(mine.segments)
        raise _missing(f"board {self.path} reads no detector", name, [d.name for d in self.detectors])


@functools.lru_cache(maxsize=64)
def _stream_layout(bits: int, xor_mask: int, plane_of: tuple[int, ...]) -> StreamLayout:
    from raftwright._core import StreamLayout

    return StreamLayout(bits, xor_mask, plane_of)


class Raft(msgspec.Struct, frozen=True, eq=False):
    """A raft: a bay of the focal plane with its boards and detectors."""

    name: str
    header_name: str
    """Header card RAFTBAY."""
    bay: str
    """How the DAQ names the bay, e.g. `22`."""
    serial: str
    boards: tuple[Board, ...]
    detectors: tuple[Detector, ...]

    def __repr__(self) -> str:
        return f"<raft {self.name}, {len(self.detectors)} detectors>"


class Camera(msgspec.Struct, frozen=True, eq=False):
    """A camera: everything that a camera file says."""

    name: str
    title: str
    instrume: str
    """Header card INSTRUME."""
    aliases: tuple[str, ...]
    """What else INSTRUME may say in images of this camera, e.g. simulated ones."""
    telescop: str
    """Header card TELESCOP."""
    code: str
    """Header card CAMCODE, and the first part of image names."""
    constants: Mapping[str, str]
    """Further cards of the primary header that are the same in all of its images."""
    rafts: tuple[Raft, ...]
    boards: Mapping[str, Board]
    """By DAQ location."""
    detectors: tuple[Detector, ...]
    """By id."""
    systems: tuple[WcsSystem, ...]
    """Coordinate systems of the image extensions, in the order of their cards."""
    detsec_down: bool
    """The mosaic keywords count rows from the top of the CCD (as LSST's control system does)."""
    raft_pitch: float
    """Pixels from raft to raft in the header formulas."""

    def __repr__(self) -> str:
        return f"<camera {self.name}, {len(self.detectors)} detectors, {len(self.boards)} boards>"

    def raft(self, name: str) -> Raft:
        """A raft by its name or the name that headers give it. Raises NotFoundError."""
        for raft in self.rafts:
            if name in (raft.name, raft.header_name):
                return raft
        raise _missing(f"{self.name} has no raft", name, [raft.name for raft in self.rafts])

    def board(self, location: str) -> Board:
        """A board by its DAQ location (`22/0`) or its path (`R22/Reb0`). Raises NotFoundError."""
        board = self.boards.get(location)
        if board is not None:
            return board
        for board in self.boards.values():
            if board.path == location:
                return board
        raise _missing(f"{self.name} has no board at", location, self.boards)

    def detector(self, name: str | int) -> Detector:
        """A detector by id, by name (`R22_S11`) or by the stem of its files. Raises NotFoundError."""
        for detector in self.detectors:
            if name in (detector.id, detector.name, detector.file_stem):
                return detector
        names = [d.name for d in self.detectors]
        if isinstance(name, int):
            first, last = self.detectors[0].id, self.detectors[-1].id
            raise NotFoundError(f"{self.name} has no detector {name}; its ids run from {first} to {last}")
        raise _missing(f"{self.name} has no detector", name, names)


def _missing(what: str, name: object, known: Iterable[str]) -> NotFoundError:
    known = list(known)
    text = name[:40] if isinstance(name, str) else ascii(name)[:40]
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {_some(known)}"
    return NotFoundError(f"{what} {text!r}; {remedy}")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} .. {names[-1]} ({len(names)} in all)" if len(names) > 6 else shown
