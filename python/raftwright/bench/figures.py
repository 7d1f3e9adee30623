"""The figures: each times our way and the usual one in turn, checks that both are right, gives the ratio."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from raftwright import _core
from raftwright.bench import baselines
from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.bench.board import BenchBoard

__all__ = ["FIGURES", "Figure", "in_turn", "ram_directory", "require"]


_ROOM = 512_000_000  # bytes: a board as files, ours and theirs, twice over


class Figure(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    against: str
    target: float
    """The ratio that is promised, at least."""
    ratio: float | None
    """Rate of ours over rate of theirs; None when it could not be measured."""
    gigapixels: float | None
    """Our rate, Gpixel/s on this machine at this moment."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        return None if self.ratio is None else self.ratio >= self.target


def ram_directory() -> Path:
    """Where files cost no disk: /dev/shm where there is room in one, else the temporary directory."""
    shm = Path("/dev/shm")  # 64 MiB in many containers, which is too small
    if shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free >= _ROOM:
        return shm
    return Path(tempfile.gettempdir())


def require(right: bool, what: str) -> None:
    """Raises RaftwrightError unless a result is right."""
    if not right:
        raise RaftwrightError(f"benchmark: {what} gave a wrong result; its time is worth nothing")


Clock = Callable[[], float]


def _seconds(work: Callable[[], Any], clock: Clock = time.process_time) -> float:
    """Processor time by default: the work of one core, whatever else the machine is doing."""
    start = clock()
    work()
    return clock() - start


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeat: int, clock: Clock = time.process_time
) -> tuple[float, float]:
    """(median seconds of ours, median of theirs/ours ratios): pairs in turn, one of each unmeasured first."""
    ours()
    theirs()
    pairs = [(_seconds(ours, clock), _seconds(theirs, clock)) for _ in range(repeat)]
    return statistics.median(a for a, _ in pairs), statistics.median(b / a for a, b in pairs)


def descramble(board: BenchBoard, repeat: int, level: _core.Level | None = None) -> Figure:
    """Packed board to int32 planes against memcpy of as many bytes."""
    planes = board.padded_planes()
    source = np.ones(planes.size, np.int32)
    target = np.zeros(planes.size, np.int32)
    layout = board.board.layout
    seconds, ratio = in_turn(
        lambda: _core.unpack(layout, board.packed, planes, level),
        lambda: baselines.copy_memory(target, source),
        repeat,
    )
    require(np.array_equal(planes, board.planes.reshape(planes.shape)), "descrambling")
    name = f"descramble to int32 planes ({level or _core.active_level()})"
    goal = 0.2 if level == "scalar" else 0.75
    return Figure(name, "memcpy of the output", goal, ratio, board.pixels / seconds / 1e9)


def descramble_scalar(board: BenchBoard, repeat: int) -> Figure:
    """The same without SIMD."""
    return descramble(board, repeat, "scalar")


def _rows(board: BenchBoard) -> Any:
    return np.ascontiguousarray(board.planes[:16].reshape(-1, board.width))


def encode(board: BenchBoard, repeat: int) -> Figure:
    """RICE_1 encoding of rows against cfitsio's fits_rcomp; the code must be the same bytes."""
    name, against = f"RICE_1 encode, rows of {board.width} pixels", "cfitsio fits_rcomp"
    addresses = baselines.cfitsio_rice()
    rows = _rows(board)
    if addresses is None:
        seconds = min(_core.time_rice_encode(rows)[0] for _ in range(repeat))
        return Figure(
            name, against, 5.5, None, rows.size / seconds / 1e9, "no shared cfitsio on this machine"
        )
    ours, theirs = [], []
    code = b""
    for _ in range(repeat):
        seconds, code, lengths = _core.time_rice_encode(rows)
        foreign, foreign_code, foreign_lengths = _core.time_rice_encode(rows, addresses[0])
        require(code == foreign_code and lengths == foreign_lengths, "the Rice encoder")
        ours.append(seconds)
        theirs.append(foreign / seconds)
    bits = 8 * len(code) / rows.size
    rate = rows.size / statistics.median(ours) / 1e9
    return Figure(name, against, 5.5, statistics.median(theirs), rate, f"{bits:.2f} bits a pixel")


def decode(board: BenchBoard, repeat: int) -> Figure:
    """RICE_1 decoding of rows against cfitsio's fits_rdecomp."""
    name, against = f"RICE_1 decode, rows of {board.width} pixels", "cfitsio fits_rdecomp"
    addresses = baselines.cfitsio_rice()
    rows = _rows(board)
    _, code, lengths = _core.time_rice_encode(rows)
    ours, ratios = [], []
    for _ in range(repeat):
        seconds, pixels = _core.time_rice_decode(code, lengths, board.width)
        require(np.array_equal(pixels, rows), "the Rice decoder")
        ours.append(seconds)
        if addresses is not None:
            ratios.append(_core.time_rice_decode(code, lengths, board.width, addresses[1])[0] / seconds)
    rate = rows.size / statistics.median(ours) / 1e9
    if not ratios:
        return Figure(name, against, 2.0, None, rate, "no shared cfitsio on this machine")
    return Figure(name, against, 2.0, statistics.median(ratios), rate)


def _write_ours(board: BenchBoard, directory: Path) -> None:
    from raftwright.rawfile import write_image

    write_image(board.image, directory, camera=board.camera, threads=1)


def files(board: BenchBoard, repeat: int) -> Figure:
    """Packed board to complete compressed files on a RAM disk, one thread, against NumPy and fitsio."""
    name, against = "packed board to compressed FITS files", "NumPy unpacking + fitsio.write(RICE)"
    fitsio = baselines.fitsio_module()
    ours, ratios = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(dir=ram_directory(), prefix="raftwright-bench-") as text:
            directory = Path(text)
            seconds = _seconds(lambda: _write_ours(board, directory))  # noqa: B023 - called at once
            ours.append(seconds)
            found = sorted(directory.rglob("*.fits"))
            require(len(found) == len(board.board.detectors), "writing")
            if fitsio is not None:
                ratios.append(_write_theirs(fitsio, board, directory) / seconds)
                first = baselines.fitsio_read(fitsio, found[0], list(range(1, 17)))
                require(all(map(np.array_equal, first, board.planes[:16])), "writing")
    rate = board.pixels / statistics.median(ours) / 1e9
    if not ratios:
        return Figure(
            name, against, 15.0, None, rate, "fitsio is not installed: pip install 'raftwright[bench]'"
        )
    return Figure(name, against, 15.0, statistics.median(ratios), rate)


def _write_theirs(fitsio: Any, board: BenchBoard, directory: Path) -> float:
    def work() -> None:
        planes = baselines.numpy_unpack(board.board.layout, board.packed).reshape(
            -1, board.height, board.width
        )
        first = 0
        for detector in board.board.detectors:
            names = [segment.name for segment in detector.segments]
            path = directory / f"fitsio-{detector.name}.fits"
            baselines.fitsio_write(fitsio, path, planes[first : first + len(names)], names)
            first += len(names)

    return _seconds(work)


def read_back(board: BenchBoard, repeat: int) -> Figure:
    """A compressed raw read whole, one thread, against fitsio."""
    from raftwright.rawfile import open_raw

    name, against = "read a compressed raw, all segments", "fitsio"
    fitsio = baselines.fitsio_module()
    with tempfile.TemporaryDirectory(dir=ram_directory(), prefix="raftwright-bench-") as text:
        _write_ours(board, Path(text))
        path = min(Path(text).rglob("*.fits"))
        hdus = list(range(1, 17))

        def ours() -> list[Any]:
            return list(open_raw(path, threads=1).segments.values())

        require(all(map(np.array_equal, ours(), board.planes[:16])), "reading")
        pixels = sum(segment.size for segment in ours())
        if fitsio is None:
            seconds = statistics.median(_seconds(ours) for _ in range(repeat))
            note = "fitsio is not installed: pip install 'raftwright[bench]'"
            return Figure(name, against, 5.0, None, pixels / seconds / 1e9, note)
        seconds, ratio = in_turn(ours, lambda: baselines.fitsio_read(fitsio, path, hdus), repeat)
    return Figure(name, against, 5.0, ratio, pixels / seconds / 1e9)


def _fused(board: BenchBoard, threads: int) -> _core.Readout:
    readout = _core.Readout(board.board.layout, board.width, board.height, pixels=False, compressed=True)
    readout.add(0, board.packed, threads)
    return readout


def two_threads(board: BenchBoard, repeat: int) -> Figure:
    """The fused path (descramble and compress) with two threads against one."""
    name, against = "fused path, two threads", "one thread"
    if _core.usable_processors() < 2:
        return Figure(name, against, 1.7, None, None, "only one processor")
    one, two = _fused(board, 1), _fused(board, 2)
    same = all(
        one.compressed_bytes(plane) == two.compressed_bytes(plane) for plane in range(board.board.channels)
    )
    require(one.complete and two.complete and same, "the fused path")
    del one, two
    seconds, ratio = in_turn(lambda: _fused(board, 2), lambda: _fused(board, 1), repeat, time.perf_counter)
    return Figure(name, against, 1.7, ratio, board.pixels / seconds / 1e9)


FIGURES: dict[str, Callable[[BenchBoard, int], Figure]] = {
    "descramble": descramble,
    "scalar": descramble_scalar,
    "encode": encode,
    "files": files,
    "decode": decode,
    "read": read_back,
    "threads": two_threads,
}
"""Every figure by its short name."""
