"""A DAQ by hand: images appear, arrive, fail and go as a test says."""

from __future__ import annotations

import queue
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from raftwright import _core
from raftwright.daq import ImageInfo, Notice, SimulatedImage, SourceInfo, simulate_image
from raftwright.daq.store import check_range, cut_gaps, writable_view
from raftwright.errors import NotFoundError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
"""28 x 16 pixels a segment: sources of 48384 bytes."""
CAMERA = "LSSTComCam"


def name_of(number: int) -> str:
    return f"CC_S_20261122_{number:06d}"


def free_port(neighbours: int = 8) -> int:
    """The first of some free ports. Not of those that the system gives to clients: it may give one to a
    client that looks for the very server which is to come."""
    for port in random.Random(time.monotonic_ns()).sample(range(10_000, 30_000, 10), 200):
        held = []
        try:
            for number in range(port, port + neighbours):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", number))
            return port
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise AssertionError("no free ports")


class HandSource:
    """A source that has what the test gave it: all, at first."""

    def __init__(self, image: HandImage, info: SourceInfo, data: bytes) -> None:
        self._image = image
        self.base = info
        self.data = data
        self.arrived: list[tuple[int, int]] = [(0, len(data))]
        self.final = True
        self.crc32c: str | None = f"{_core.crc32c(data):08x}"
        self.error: Exception | None = None
        self.asked = 0
        """Calls of `available`."""
        self.read_bytes = 0
        self.on_read: Callable[[], None] | None = None

    @property
    def info(self) -> SourceInfo:
        if not self.final:
            return msgspec.structs.replace(self.base, crc32c=None)
        gaps = tuple(cut_gaps(tuple(self.arrived), 0, self.base.bytes))
        return msgspec.structs.replace(self.base, crc32c=self.crc32c, gaps=gaps)

    def _check(self) -> None:
        self._image.check()
        if self.error is not None:
            raise self.error

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        self.asked += 1
        check_range(self.base, offset, length)
        self._check()
        cut = [(max(a, offset), min(b, offset + length)) for a, b in self.arrived]
        return [(a, b) for a, b in cut if a < b]

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.base, offset, length)
        if self.on_read is not None:
            self.on_read()
        self._check()
        self.read_bytes += length
        return self.data[offset : offset + length]

    def readinto(self, offset: int, buffer: Any) -> int:
        view = writable_view(buffer)
        part = self.read(offset, min(len(view), self.base.bytes - offset))
        view[: len(part)] = part
        return len(part)


class HandImage:
    """Complete, at first."""

    def __init__(self, simulated: SimulatedImage) -> None:
        self.simulated = simulated
        self.base = simulated.info
        self.removed = False
        self.trouble: Exception | None = None
        self.sources = {
            info.location: HandSource(self, info, simulated.source(info.location).read(0, info.bytes))
            for info in simulated.info.sources
        }

    def check(self) -> None:
        if self.removed:
            raise NotFoundError(f"image {self.base.name} was removed")
        if self.trouble is not None:
            raise self.trouble

    @property
    def info(self) -> ImageInfo:
        self.check()
        return msgspec.structs.replace(self.base, sources=tuple(s.info for s in self.sources.values()))

    @property
    def complete(self) -> bool:
        return all(source.final for source in self.sources.values())

    def source(self, location: str) -> HandSource:
        if location not in self.sources:
            raise NotFoundError(f"no source {location!a}")
        return self.sources[location]

    def hold(self, end: int, *locations: str) -> None:
        """As if it were being read out, and had come so far."""
        for location in locations or self.sources:
            self.sources[location].arrived = [(0, end)] if end else []
            self.sources[location].final = False

    def lose(self, begin: int, end: int, *locations: str) -> None:
        """A gap for ever."""
        for location in locations or self.sources:
            source = self.sources[location]
            source.arrived = cut_gaps(((begin, end),), 0, source.base.bytes)

    def mend(self) -> None:
        """All is there."""
        for source in self.sources.values():
            source.arrived = [(0, source.base.bytes)]
            source.final = True


class HandStore:
    """A store, empty at first."""

    def __init__(self) -> None:
        self.all: dict[str, HandImage] = {}
        self.events: queue.Queue[Notice] = queue.Queue()
        self.asked: Counter[str] = Counter()
        """Calls of `image`, by name."""
        self.slow = 0.0
        """Seconds that `folders` takes."""

    def make(self, number: int, *, seed: int = 0, camera: str = CAMERA, **more: Any) -> HandImage:
        """An image that is in no catalogue yet."""
        more = {"rafts": ["R22"], "registers": SMALL, **more}
        return HandImage(simulate_image(camera, name_of(number), seed=seed, **more))

    def put(self, image: HandImage) -> HandImage:
        name = image.base.name
        self.all = {**self.all, name: image}
        self.events.put(Notice("begun", name))
        if image.complete:
            self.events.put(Notice("complete", name))
        return image

    def add(self, *numbers: int, **more: Any) -> list[HandImage]:
        return [self.put(self.make(number, **more)) for number in numbers]

    def remove(self, image: HandImage) -> None:
        image.removed = True
        self.all = {name: one for name, one in self.all.items() if one is not image}
        self.events.put(Notice("removed", image.base.name))

    def folders(self) -> list[str]:
        time.sleep(self.slow)
        return sorted({image.base.folder for image in list(self.all.values())})

    def images(self, folder: str | None = None) -> list[str]:
        found = [(name, image) for name, image in list(self.all.items()) if image.complete]
        return sorted(name for name, image in found if folder in (None, image.base.folder))

    def underway(self) -> list[str]:
        return sorted(name for name, image in list(self.all.items()) if not image.complete)

    def image(self, name: str) -> HandImage:
        self.asked[name] += 1
        if name not in self.all:
            raise NotFoundError(f"no image {name[:40]!a}")
        return self.all[name]

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        while True:
            try:
                yield self.events.get(timeout=timeout)
            except queue.Empty:
                return
