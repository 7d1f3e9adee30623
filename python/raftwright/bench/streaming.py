"""The figures of the stream: a server in another process, and this one receiving."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raftwright import _core
from raftwright.bench.figures import Figure, in_turn, ram_directory, require
from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.bench.board import BenchBoard

__all__ = ["FIGURES"]

_ROUND = 4
"""Boards in one measurement, two at a time."""
_CHUNK = 4 << 20
_PATIENCE = 60.0


def _endpoint(transport: str, place: Path, name: str) -> str:
    return "tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{place}/{name}"


@contextlib.contextmanager
def _far_end(mode: str, *arguments: str) -> Iterator[tuple[Any, str]]:
    """A process of `far_end`: its standard input, and its endpoint."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "raftwright.bench.far_end", mode, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            if not endpoint:
                raise RaftwrightError("benchmark: the other process did not start; see what it says above")
            yield process.stdin, endpoint
        finally:
            process.stdin.close()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()


class _Receiving:
    """Pulls the board into planes, again and again into the same ones, as a pool has them."""

    def __init__(self, endpoint: str, board: BenchBoard) -> None:
        from raftwright.stream import NetworkStore, Receiver, keep_message_memory

        keep_message_memory()
        self._board = board
        self._store = NetworkStore(endpoint)
        self._receiver = Receiver(self._store, chunk_bytes=_CHUNK)
        self._name = self._store.images()[0]
        self._info = self._store.image(self._name).info.sources[0]
        self._readouts = [_core.Readout(board.board.layout, board.width, board.height) for _ in range(2)]

    def round(self) -> None:
        """All boards of a measurement."""
        left = _ROUND
        for readout in self._readouts:
            left -= self._begin(readout)
        active = len(self._readouts)
        while active:
            for fetch in self._receiver.run(1.0):
                active -= 1
                require(fetch.outcome == "complete" and fetch.crc32c == self._info.crc32c, "receiving")
                if left:
                    left -= self._begin(fetch.readout)
                    active += 1

    def _begin(self, readout: _core.Readout) -> int:
        readout.restart()
        deadline = time.monotonic() + _PATIENCE
        self._receiver.fetch(self._name, self._info, readout, deadline=deadline)
        return 1

    def check(self) -> None:
        """Whether the pixels are right, and nothing was copied on the way."""
        board = self._board
        for readout in self._readouts:
            same = all(
                np.array_equal(readout.plane(plane), board.planes[plane])
                for plane in range(board.board.channels)
            )
            require(same, "receiving")
        require(self._receiver.stats["copied_bytes"] == 0, "receiving without a copy")

    def close(self) -> None:
        self._receiver.close()
        self._store.close()


@contextlib.contextmanager
def _served(board: BenchBoard, transport: str) -> Iterator[tuple[_Receiving, Path, Path]]:
    """Receiving from a server in another process; a directory, and the recording in it."""
    from raftwright.daq import write_recording

    with tempfile.TemporaryDirectory(dir=ram_directory(), prefix="raftwright-bench-") as text:
        place = Path(text)
        recording = place / board.image.info.name
        write_recording(recording, board.image, durable=False)
        with _far_end("serve", _endpoint(transport, place, "serve"), str(recording)) as (_, endpoint):
            receiving = _Receiving(endpoint, board)
            try:
                yield receiving, place, recording
                receiving.check()
            finally:
                receiving.close()


def _stream(board: BenchBoard, repeat: int, transport: str) -> Figure:
    """Server to int32 planes against the same frames received by a plain PULL socket and thrown away."""
    import zmq

    from raftwright.bench.far_end import QUEUE
    from raftwright.stream.progress import chunk_bytes

    chunk = chunk_bytes(len(board.packed) // board.height, _CHUNK, (1 << 20, 16 << 20))
    goal = 0.6 if _core.usable_processors() <= 2 else 0.9
    with _served(board, transport) as (receiving, place, recording):
        arguments = (_endpoint(transport, place, "push"), str(recording), str(chunk))
        with (
            _far_end("push", *arguments) as (orders, endpoint),
            zmq.Context(1) as context,
            context.socket(zmq.PULL) as socket,
        ):
            socket.setsockopt(zmq.RCVHWM, QUEUE)
            socket.setsockopt(zmq.RCVTIMEO, round(1e3 * _PATIENCE))
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)

            def plain() -> None:
                orders.write(f"{_ROUND}\n")
                orders.flush()
                left = _ROUND * len(board.packed)
                while left > 0:
                    socket.recv(copy=False)
                    left -= len(socket.recv(copy=False))
                require(left == 0, "the plain sockets")

            seconds, ratio = in_turn(receiving.round, plain, repeat, time.perf_counter)
    pixels = _ROUND * board.pixels
    name = f"server to client to int32 planes, {transport}"
    return Figure(name, "plain PUSH/PULL, thrown away", goal, ratio, pixels / seconds / 1e9)


def stream_ipc(board: BenchBoard, repeat: int) -> Figure:
    """Over a Unix socket."""
    return _stream(board, repeat, "ipc")


def stream_tcp(board: BenchBoard, repeat: int) -> Figure:
    """Over tcp on the loopback device."""
    return _stream(board, repeat, "tcp")


def busy_thread(board: BenchBoard, repeat: int) -> Figure:
    """Receiving while another Python thread computes without pause, against the same without it.

    Both have the same priority. With fewer than five processors (it, two threads at either end) the other
    thread also takes its share of them, which cannot be told from waiting for the interpreter's lock here.
    """
    stop = threading.Event()
    turns = 0

    def compute() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += sum(n * n for n in range(1000)) > 0

    with _served(board, "ipc") as (receiving, _, _):

        def beside_it() -> None:
            stop.clear()
            thread = threading.Thread(target=compute, name="compute", daemon=True)
            thread.start()
            try:
                receiving.round()
            finally:
                stop.set()
                thread.join()

        seconds, ratio = in_turn(beside_it, receiving.round, repeat, time.perf_counter)
    require(turns > 0, "the other thread")
    return Figure(
        "receive while a Python thread computes",
        "the same without it",
        0.7,
        ratio,
        _ROUND * board.pixels / seconds / 1e9,
    )


FIGURES: dict[str, Callable[[BenchBoard, int], Figure]] = {
    "stream-ipc": stream_ipc,
    "stream-tcp": stream_tcp,
    "busy": busy_thread,
}
"""Every figure by its short name."""
