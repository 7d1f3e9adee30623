"""Simulated images: deterministic from a seed and a name, so that every pixel can be checked later."""

from __future__ import annotations

import datetime
import re
import threading
import urllib.parse
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack

import msgspec
import numpy as np

from raftwright import _core
from raftwright.camera import Board, Camera
from raftwright.camera import camera as find_camera
from raftwright.daq import sky
from raftwright.daq.info import ImageInfo, SourceInfo
from raftwright.daq.names import check_plain_name
from raftwright.daq.registers import Registers
from raftwright.daq.sky import SkyModel
from raftwright.daq.store import Notice, check_range, writable_view
from raftwright.errors import CameraError, FormatError, NotFoundError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Look",
    "Pattern",
    "SimulatedImage",
    "SimulatedSource",
    "SimulatedStore",
    "open_simulated",
    "simulate_image",
]

Pattern: TypeAlias = Literal["sky", "coordinates"]
"""`sky` looks like an exposure; in `coordinates` every pixel names its own detector, segment, row and column
(`raftwright._core.coordinate_name`)."""

_SOFTWARE = "raftwright-simulation/1"
_NAME_TIME = re.compile(r"_([0-9]{8})_([0-9]{6})\Z")
_MAX_IMAGES = 999_999


class Look(TypedDict, total=False):
    """What images show and how they are read out, as for `simulate_image`."""

    locations: Collection[str] | None
    rafts: Collection[str] | None
    pattern: Pattern
    registers: Registers | list[int] | tuple[int, ...] | None
    model: SkyModel | None
    folder: str


class SimulatedSource:
    """A board's stream, made on demand."""

    def __init__(self, board: Board, info: SourceInfo, pattern: Pattern, key: int, model: SkyModel) -> None:
        self._board = board
        self._info = info
        self._pattern = pattern
        self._key = key
        self._model = model
        self._lock = threading.Lock()
        self._readout: _core.SimulatedReadout | None = None

    @property
    def info(self) -> SourceInfo:
        """What a DAQ would say about it."""
        return self._info

    @property
    def board(self) -> Board:
        """The board that it simulates."""
        return self._board

    @property
    def readout(self) -> _core.SimulatedReadout:
        """What makes the pixels: `readout.row(plane, y)` is the truth to compare with."""
        with self._lock:
            if self._readout is None:
                self._readout = self._make()
            return self._readout

    def _make(self) -> _core.SimulatedReadout:
        geometry = self._info.registers.geometry
        segments = []
        for detector in self._board.detectors:
            key = sky.hashed(self._key, detector.id)
            nx, ny = detector.type.tiles
            stars, rays = np.empty((0, 4)), np.empty((0, 5))
            if self._pattern == "sky":
                stars = sky.star_field(key, nx * geometry.columns, ny * geometry.rows, self._model)
                rays = sky.cosmic_rays(key, nx * geometry.columns, ny * geometry.rows, self._model)
            segments += [
                sky.describe_segment(detector, segment, geometry, stars, rays, self._model, key)
                for segment in detector.segments
            ]
        registers = self._info.registers
        return _core.SimulatedReadout(
            self._board.layout, registers.width, registers.height, self._pattern, self._key, segments
        )

    @property
    def final(self) -> bool:
        """Always."""
        return True

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Everything. Raises UsageError for a range that is not within the stream."""
        check_range(self._info, offset, length)
        return [(offset, offset + length)] if length else []

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises UsageError."""
        check_range(self._info, offset, length)
        return self.readout.read(offset, length)

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a buffer up to the stream's end; returns how many bytes. Raises UsageError."""
        check_range(self._info, offset, 0)
        view = writable_view(buffer)
        return self.readout.readinto(offset, view[: self._info.bytes - offset])


class SimulatedImage:
    """An image that is made on demand."""

    def __init__(self, info: ImageInfo, sources: Iterable[SimulatedSource]) -> None:
        self._info = info
        self._sources = {source.info.location: source for source in sources}

    @property
    def info(self) -> ImageInfo:
        """What a DAQ would say about it."""
        return self._info

    def source(self, location: str) -> SimulatedSource:
        """The source at a location. Raises NotFoundError."""
        if location not in self._sources:
            known = ", ".join(self._info.locations[:8]) or "none"
            raise NotFoundError(
                f"image {self._info.name} has no source {ascii(location)[:40]}; there are {known}"
            )
        return self._sources[location]


def simulate_image(
    camera: Camera | str,
    name: str,
    *,
    seed: int = 0,
    locations: Collection[str] | None = None,
    rafts: Collection[str] | None = None,
    pattern: Pattern = "sky",
    registers: Registers | list[int] | tuple[int, ...] | None = None,
    model: SkyModel | None = None,
    folder: str = "raw",
    annotation: str = "",
    opcode: int = 0,
    timestamp: str | None = None,
) -> SimulatedImage:
    """An image of a camera. The same arguments give the same bytes, today and on any other machine.

    Parameters
    ----------
    camera
        A camera, its name or its file.
    name
        The image's name, a plain file name; another name is another exposure.
    seed
        0 .. 2**64 - 1.
    locations, rafts
        Which boards are read out; together they add up, without either all are.
    pattern
        `sky` or `coordinates`.
    registers
        Shape of the readout for every board, e.g. of a small image; the nominal one of each by default.
        OpFlags may be left to the board.
    model
        What there is to see with `sky`.
    timestamp
        TAI, ISO 8601; made from the name by default.

    Raises
    ------
    NotFoundError
        No such camera, location or raft.
    UsageError
        A name, seed, pattern or register list that cannot be.
    CameraError
        CCDs of one board differ in geometry, and `registers` does not say which to read.
    """
    camera = find_camera(camera)
    if type(seed) is not int or not 0 <= seed <= sky.MAX_SEED:
        raise UsageError(f"seed is {ascii(seed)[:40]}; give a whole number from 0 to 2**64 - 1")
    if pattern not in ("sky", "coordinates"):
        raise UsageError(f"pattern is {ascii(pattern)[:40]}; give sky or coordinates")
    try:
        check_plain_name("image name", name)
        check_plain_name("folder", folder)
        if registers is not None and not isinstance(registers, Registers):
            registers = Registers.parse(registers)
    except FormatError as error:
        raise UsageError(str(error)) from None
    key = sky.hashed(seed, camera.name, name)
    sources = []
    for board in _boards(camera, locations, rafts):
        own = _registers(board, registers)
        board_key = sky.hashed(key, board.location)
        info = SourceInfo(
            location=board.location,
            kind=board.kind,
            registers=own,
            bytes=own.pixels * board.sample_bytes,
            file=board.location.replace("/", "-") + ".raw",
            firmware=f"{sky.hashed(camera.name, board.location, 'firmware') & 0xFFFFFFFF:08x}",
            serial=f"{sky.hashed(camera.name, board.location, 'serial'):016x}",
            platform="simulated",
            software=_SOFTWARE,
        )
        sources.append(SimulatedSource(board, info, pattern, board_key, model or SkyModel()))
    image = ImageInfo(
        name=name,
        camera=camera.name,
        sources=tuple(source.info for source in sources),
        folder=folder,
        annotation=annotation,
        opcode=opcode,
        id=f"{key:016x}",
        timestamp=_timestamp(name) if timestamp is None else timestamp,
    )
    return SimulatedImage(image, sources)


def _boards(camera: Camera, locations: Iterable[str] | None, rafts: Iterable[str] | None) -> list[Board]:
    if locations is None and rafts is None:
        return list(camera.boards.values())
    chosen = {board.location: board for board in map(camera.board, locations or ())}
    for raft in rafts or ():
        chosen.update((board.location, board) for board in camera.raft(raft).boards)
    if not chosen:
        raise UsageError("neither a location nor a raft is given; leave both out for the whole camera")
    return [board for board in camera.boards.values() if board.location in chosen]


def _registers(board: Board, given: Registers | None) -> Registers:
    types = {detector.type.name: detector.type for detector in board.detectors}
    first = board.detectors[0].type
    if given is not None:
        return (
            given if given.op_flags is not None else msgspec.structs.replace(given, op_flags=first.op_flags)
        )
    if len({kind.geometry for kind in types.values()}) > 1:
        raise CameraError(
            f"board {board.path} reads CCDs of different geometry ({', '.join(types)}), which one stream "
            "cannot; give registers"
        )
    return Registers.of_geometry(first.geometry, first.op_flags)


def _timestamp(name: str) -> str:
    """Noon of the day in the name and 17 seconds an image; a fixed time when there is no day in it."""
    match = _NAME_TIME.search(name)
    try:
        day = datetime.datetime.strptime(match[1] if match else "", "%Y%m%d")
        moment = day + datetime.timedelta(hours=12, seconds=17 * int(match[2]) % 86400 if match else 0)
    except (ValueError, OverflowError):
        return "2026-01-01T00:00:00.000"
    return moment.isoformat(timespec="milliseconds")


class SimulatedStore:
    """A store of simulated images, all from one seed. Nothing is ever added to it."""

    def __init__(
        self,
        camera: Camera | str,
        seed: int = 0,
        *,
        count: int = 1,
        names: Iterable[str] | None = None,
        day: str = "20261122",
        **look: Unpack[Look],
    ) -> None:
        """`count` images of a day, `<code>_S_<day>_000001` and on (S: simulated), or the given ones.

        The rest is as for `simulate_image`, which also says what it raises.
        """
        self.camera = find_camera(camera)
        if names is None:
            if not 0 <= count <= _MAX_IMAGES:
                raise UsageError(f"count is {count}; a day has up to {_MAX_IMAGES} images")
            names = [f"{self.camera.code}_S_{day}_{number:06d}" for number in range(1, count + 1)]
        self._names = sorted(set(names))
        self._folder = look.get("folder", "raw")
        self._make = partial(simulate_image, self.camera, seed=seed, **look)
        if self._names:
            self.image(self._names[0])  # refuses now what would be refused later

    def folders(self) -> list[str]:
        """The one folder, or none."""
        return [self._folder] if self._names else []

    def images(self, folder: str | None = None) -> list[str]:
        """Names of the images, sorted."""
        return list(self._names) if folder in (None, self._folder) else []

    def underway(self) -> list[str]:
        """None."""
        return []

    def image(self, name: str) -> SimulatedImage:
        """An image by its name. Raises NotFoundError."""
        if name not in self._names:
            some = f"they run from {self._names[0]} to {self._names[-1]}" if self._names else "there are none"
            raise NotFoundError(f"no simulated image {ascii(name)[:80]}; {some}")
        return self._make(name)

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:  # noqa: ARG002 - nothing ever happens
        """None."""
        return iter(())


def open_simulated(text: str) -> SimulatedStore:
    """A simulated store from `CAMERA` or `CAMERA?seed=3&count=10&day=20261122&pattern=sky&rafts=R22,R21`.

    Further options: `locations=22/0,22/1` and `registers=` with ten or more numbers. Raises UsageError for an
    option that there is not, and as `SimulatedStore`.
    """
    name, _, query = text.partition("?")
    try:
        options = dict(
            urllib.parse.parse_qsl(
                query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=20
            )
        )
    except ValueError as error:
        raise UsageError(
            f"simulated:{text[:80]}: the options cannot be read ({error}); write ?seed=3&count=10"
        ) from None
    unknown = set(options) - {"seed", "count", "day", "pattern", "rafts", "locations", "registers"}
    if unknown:
        raise UsageError(f"simulated:{name[:40]}: there is no option {ascii(min(unknown))[:40]}")

    def numbers(option: str, default: str) -> list[int]:
        values = options.get(option, default).split(",")
        if not all(value.isascii() and value.isdigit() and len(value) <= 20 for value in values):
            raise UsageError(
                f"simulated:{name[:40]}: {option} is {ascii(options[option])[:40]}; give whole numbers"
            )
        return [int(value) for value in values]

    day = options.get("day", "20261122")
    if not re.fullmatch(r"[0-9]{8}", day, re.ASCII):
        raise UsageError(f"simulated:{name[:40]}: day is {ascii(day)[:40]}; write 20261122")
    patterns: dict[str, Pattern] = {"sky": "sky", "coordinates": "coordinates"}
    if (pattern := patterns.get(options.get("pattern", "sky"))) is None:
        shown = ascii(options["pattern"])[:40]
        raise UsageError(f"simulated:{name[:40]}: pattern is {shown}; give sky or coordinates")
    return SimulatedStore(
        name,
        numbers("seed", "0")[0],
        count=numbers("count", "1")[0],
        day=day,
        locations=options["locations"].split(",") if "locations" in options else None,
        rafts=options["rafts"].split(",") if "rafts" in options else None,
        pattern=pattern,
        registers=numbers("registers", "") if "registers" in options else None,
    )
