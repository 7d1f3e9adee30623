"""The other end of the stream figures, a process of its own: `python -m raftwright.bench.far_end`.

far_end serve ENDPOINT RECORDING        a server of the recorded image, out of memory
far_end push ENDPOINT RECORDING CHUNK   a plain PUSH socket: the whole stream in messages of a header and a
                                        chunk, as many times as a line of the standard input says

Both print their endpoint and end with the standard input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import zmq

from raftwright.daq import MemoryImage, Notice, open_recording
from raftwright.errors import NotFoundError
from raftwright.stream.server import Server
from raftwright.stream.wire import HEADER_BYTES

__all__ = ["QUEUE"]

QUEUE = 8
"""Messages that may wait at either end of the plain sockets: as many as the receiver grants credit for."""


class _Lone:
    """A store of one image."""

    def __init__(self, image: MemoryImage) -> None:
        self._image = image

    def folders(self) -> list[str]:
        return [self._image.info.folder]

    def images(self, folder: str | None = None) -> list[str]:
        return [self._image.info.name] if folder in (None, self._image.info.folder) else []

    def underway(self) -> list[str]:
        return []

    def image(self, name: str) -> MemoryImage:
        if name != self._image.info.name:
            raise NotFoundError(f"no image {name[:40]!a}; there is {self._image.info.name}")
        return self._image

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        time.sleep(0.0 if timeout is None else min(timeout, 1.0))
        return iter(())


def _into_memory(recording: str) -> MemoryImage:
    recorded = open_recording(recording)
    streams = {s.location: recorded.source(s.location).read(0, s.bytes) for s in recorded.info.sources}
    return MemoryImage(recorded.info, streams)


def _serve(endpoint: str, recording: str) -> None:
    with Server(_Lone(_into_memory(recording)), endpoint, data_sockets=1, io_threads=1) as server:
        _tell(server.endpoint)
        sys.stdin.read()


def _push(endpoint: str, recording: str, chunk: int) -> None:
    image = _into_memory(recording)
    source = image.source(image.info.locations[0])
    size = source.info.bytes
    pieces = [source.view(offset, min(chunk, size - offset)) for offset in range(0, size, chunk)]
    header = bytes(HEADER_BYTES)
    with zmq.Context(1) as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        bound = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        _tell(bound.rstrip(b"\0").decode())
        for line in sys.stdin:
            for _ in range(int(line)):
                for piece in pieces:
                    socket.send(header, zmq.SNDMORE, copy=False)
                    socket.send(piece, copy=False)


def _tell(endpoint: str) -> None:
    sys.stdout.write(endpoint + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2], sys.argv[3])
    else:
        _push(sys.argv[2], sys.argv[3], int(sys.argv[4]))
