"""The worker loop: sources of an image read, descrambled and compressed by a few threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raftwright import _core
from raftwright.assembly.source import AssembledSource
from raftwright.daq import check_source
from raftwright.daq.store import cut_gaps
from raftwright.errors import FormatError, RaftwrightError, StorageError, UsageError

if TYPE_CHECKING:
    from raftwright.camera import Board
    from raftwright.daq import DaqImage, Source

__all__ = ["CHUNK_BYTES", "Progress", "check_fill", "read_sources"]

CHUNK_BYTES = 4 << 20
"""A worker reads about this much at a time; its buffer is all that it holds besides the products."""

_RUN_ROWS = 32  # the core compresses runs of at most this many rows: chunks of whole runs waste nothing

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) from whichever worker got there; calls never overlap."""


@dataclass
class _Task:
    """One source on its way through the workers. Mutable fields belong to the loop's lock."""

    board: Board
    source: Source
    readout: _core.Readout
    chunks: int
    through: bool
    """Whether the gaps are read too: the CRC is also of the filling bytes that stand there."""
    pieces: dict[int, tuple[int, int]] = field(default_factory=dict)  # offset -> (bytes, CRC-32C)
    failure: RaftwrightError | None = None


def _chunk_bytes(row_bytes: int) -> int:
    rows = max(1, CHUNK_BYTES // row_bytes)
    if rows > _RUN_ROWS:
        rows -= rows % _RUN_ROWS
    return rows * row_bytes


def _chunk_count(source: Source, board: Board) -> int:
    return -(-source.info.bytes // _chunk_bytes(source.info.registers.width * board.sample_bytes))


def check_fill(fill: int) -> None:
    """Raises UsageError for a fill value that no pixel of an int32 image can hold."""
    if not -(2**31) <= fill < 2**31:
        raise UsageError(f"the fill value {fill} is no 32-bit integer; choose one between -2^31 and 2^31 - 1")


def _has_filled_gaps(source: Source) -> bool:
    """Whether what did not arrive is just the gaps of the description, with filling bytes in the stream."""
    info = source.info
    return bool(info.gaps) and source.available(0, info.bytes) == cut_gaps(info.gaps, 0, info.bytes)


def _crc_of(task: _Task) -> str | None:
    """CRC-32C of the stream; None where not all of it was read."""
    crc = 0
    length = 0
    for offset in sorted(task.pieces):
        size, piece = task.pieces[offset]
        crc = _core.crc32c_combine(crc, piece, size)
        length += size
    return f"{crc:08x}" if length == task.source.info.bytes else None


def _said(failure: RaftwrightError) -> str:
    if isinstance(failure, StorageError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure)


class _Loop:
    """Shared state of the workers: which chunk is next, who finished what."""

    def __init__(
        self,
        tasks: Iterator[_Task],
        fill: int,
        total: int,
        on_complete: Callable[[AssembledSource], None],
        progress: Progress | None,
    ) -> None:
        self._lock = threading.Lock()
        self._progress_lock = threading.Lock()
        self._chunks = self._cut(tasks)
        self._fill = fill
        self._total = total
        self._done = 0
        self._on_complete = on_complete
        self._progress = progress
        self.failures: list[RaftwrightError] = []
        self.stopped: BaseException | None = None

    @staticmethod
    def _cut(tasks: Iterator[_Task]) -> Iterator[tuple[_Task, int, int]]:
        for task in tasks:
            step = _chunk_bytes(task.readout.size // task.readout.height)
            for offset in range(0, task.readout.size, step):
                yield task, offset, min(step, task.readout.size - offset)

    def _next(self) -> tuple[_Task, int, int] | None:
        with self._lock:
            return None if self.stopped is not None else next(self._chunks, None)

    def work(self) -> None:
        """Runs in every worker until the chunks are used up or something unforeseen happened."""
        buffer = bytearray()
        try:
            while (item := self._next()) is not None:
                task, offset, length = item
                if len(buffer) < length:
                    buffer = bytearray(length)
                self._take(task, offset, memoryview(buffer)[:length])
        except BaseException as error:
            with self._lock:
                self.stopped = self.stopped or error

    def _take(self, task: _Task, offset: int, view: memoryview) -> None:
        try:
            if task.failure is None:
                self._read(task, offset, view)
        except RaftwrightError as error:
            task.failure = error
        with self._lock:
            task.chunks -= 1
            last = task.chunks == 0
            self._done += len(view)
        if last:
            self._complete(task)
        if self._progress is not None:
            with self._progress_lock:  # read here, so that what is told never goes back
                self._progress(self._done, self._total)

    @staticmethod
    def _read(task: _Task, offset: int, view: memoryview) -> None:
        arrived = task.source.available(offset, len(view))
        summed = task.source.info.crc32c is not None
        for begin, end in [(offset, offset + len(view))] if task.through else arrived:
            part = view[begin - offset : end - offset]
            got = task.source.readinto(begin, part)
            if got != len(part):
                raise FormatError(
                    f"source {task.board.location}: gave {got} bytes at {begin} of {len(part)} that it has; "
                    "it is the store that is at fault: check it with raftwright.daq.contract"
                )
            if summed:
                task.pieces[begin] = (got, _core.crc32c(part))
        for begin, end in arrived:
            task.readout.add(begin, view[begin - offset : end - offset])

    def _complete(self, task: _Task) -> None:
        try:
            if task.failure is not None:
                raise task.failure
            expected = task.source.info.crc32c
            if expected is not None:
                found = _crc_of(task)
                if found is not None and found != expected.lower():
                    raise FormatError(
                        f"source {task.board.location}: CRC-32C of the stream is {found}, its description "
                        f"says {expected}: the data changed on the way; fetch it again"
                    )
            task.readout.finish(self._fill)
            geometry = task.source.info.registers.geometry
            self._on_complete(
                AssembledSource(task.board, task.source.info, geometry, task.readout, self._fill)
            )
        except RaftwrightError as error:
            with self._lock:
                self.failures.append(error)


def read_sources(
    image: DaqImage,
    boards: Sequence[Board],
    on_complete: Callable[[AssembledSource], None],
    *,
    pixels: bool = True,
    compressed: bool = False,
    fill: int = -1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Assembles the sources of ``image`` that ``boards`` name, each handed over as soon as it is complete.

    ``threads`` workers (default: every processor) share one queue of chunks, source after source, so
    that at most as many sources are in memory as there are workers. ``on_complete`` runs in a worker.

    A source that fails holds no other: the rest is finished first, then the failures are raised, as one
    error. What ``on_complete`` raises, if it is a `RaftwrightError`, is a failure of that source.

    Raises
    ------
    FormatError
        A source contradicts its description: registers, size, CRC-32C.
    NotFoundError
        The image has no source at a board's location.
    StorageError
        The file system refuses.
    UsageError
        ``fill`` or ``threads`` cannot be meant.
    """
    check_fill(fill)
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads can do nothing; ask for at least 1, or leave it out")
    sources = [(board, image.source(board.location)) for board in boards]
    total = 0
    for board, source in sources:
        total += check_source(source.info, board)

    def tasks() -> Iterator[_Task]:
        for board, source in sources:
            registers = source.info.registers
            readout = _core.Readout(
                board.layout, registers.width, registers.height, pixels=pixels, compressed=compressed
            )
            through = source.info.crc32c is not None and _has_filled_gaps(source)
            yield _Task(board, source, readout, chunks=_chunk_count(source, board), through=through)

    loop = _Loop(tasks(), fill, total, on_complete, progress)
    count = threads if threads is not None else _core.usable_processors()
    count = min(count, sum(_chunk_count(source, board) for board, source in sources))
    workers = [threading.Thread(target=loop.work, name=f"assemble-{n}", daemon=True) for n in range(1, count)]
    started = []
    try:
        for worker in workers:
            worker.start()
            started.append(worker)
    except RuntimeError:
        pass  # the system has no more threads: those that run do the work
    try:
        loop.work()
    finally:
        for worker in started:
            worker.join()
    if loop.stopped is not None:
        raise loop.stopped
    loop.failures.sort(key=_said)  # workers finish in any order; what is said does not depend on it
    if len(loop.failures) == 1:
        raise loop.failures[0]
    if loop.failures:
        storage = all(isinstance(failure, StorageError) for failure in loop.failures)
        raise (StorageError if storage else FormatError)(
            f"{len(loop.failures)} of {len(sources)} sources failed: "
            + "; ".join(_said(failure) for failure in loop.failures)
        ) from loop.failures[0]
