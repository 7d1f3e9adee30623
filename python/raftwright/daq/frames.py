"""What a camera on a cadence shows: images made from a seed, or those of another store again and again."""

from __future__ import annotations

import random
from functools import partial
from typing import Protocol, Unpack

import msgspec

from raftwright import _core
from raftwright.camera import Camera
from raftwright.camera import camera as find_camera
from raftwright.daq.info import ImageInfo
from raftwright.daq.simulated import Look, simulate_image
from raftwright.daq.store import Source, Store, cut_gaps
from raftwright.errors import NotFoundError, UsageError

__all__ = ["Frames", "Loaded", "ReplayedFrames", "SimulatedFrames"]


class Loaded:
    """The streams of one image in memory, with what is known of them when all is there."""

    __slots__ = ("__weakref__", "gaps", "streams", "sums")

    def __init__(
        self, streams: dict[str, memoryview], gaps: dict[str, tuple[tuple[int, int], ...]] | None = None
    ) -> None:
        self.streams = streams
        """Location -> packed stream, read-only; zeros in gaps."""
        self.gaps = gaps or {}
        self.sums = {location: f"{_core.crc32c(stream):08x}" for location, stream in streams.items()}

    @property
    def bytes(self) -> int:
        """Of all streams."""
        return sum(len(stream) for stream in self.streams.values())


class Frames(Protocol):
    """Images by number."""

    @property
    def code(self) -> str:
        """What names begin with, e.g. `MC`."""
        ...

    def info(self, number: int, name: str) -> ImageInfo:
        """Description of an image under a name, without CRCs and gaps. Takes no time to speak of."""
        ...

    def load(self, number: int, name: str) -> Loaded:
        """Its pixels. Takes as long as it takes."""
        ...


class SimulatedFrames:
    """Simulated images: the seed and the name decide every pixel, as with `simulate_image`."""

    def __init__(
        self,
        camera: Camera | str,
        seed: int = 0,
        *,
        distinct: int | None = None,
        losing: float = 0.0,
        **look: Unpack[Look],
    ) -> None:
        """As for `simulate_image`, which also says what is raised.

        With `distinct`, only so many images have pixels of their own and are kept: image k shows those of
        number k modulo `distinct` (0 to distinct - 1), simulated under the name `exposure_<that number>`.
        With `losing`, that share of the sources has a gap.
        """
        self.camera = find_camera(camera)
        self.seed = seed
        self._image = partial(simulate_image, self.camera, seed=seed, **look)
        self._distinct = distinct
        self._losing = losing
        self._kept: dict[int, Loaded] = {}
        if distinct is not None and not 1 <= distinct <= 1000:
            raise UsageError(f"{distinct} distinct images; give 1 to 1000")
        if not 0.0 <= losing <= 1.0 or (losing and distinct):
            raise UsageError(
                "the share of sources with a gap is 0 to 1, and needs images that are all distinct"
            )
        self.info(0, "check")

    @property
    def code(self) -> str:
        """That of the camera."""
        return self.camera.code

    def info(self, number: int, name: str) -> ImageInfo:  # noqa: ARG002 - the name says it all
        """What `simulate_image` says."""
        return self._image(name).info

    def load(self, number: int, name: str) -> Loaded:
        """Simulates all sources."""
        if self._distinct is None:
            return self._make(name)
        number %= self._distinct
        if number not in self._kept:
            self._kept[number] = self._make(f"exposure_{number}")
        return self._kept[number]

    def prepare(self) -> None:
        """Makes all of the distinct images."""
        for number in range(self._distinct or 0):
            self.load(number, "")

    def _make(self, name: str) -> Loaded:
        image = self._image(name)
        streams: dict[str, memoryview] = {}
        gaps: dict[str, tuple[tuple[int, int], ...]] = {}
        for info in image.info.sources:
            data = bytearray(info.bytes)
            image.source(info.location).readinto(0, data)
            chance = random.Random(f"{self.seed}/{name}/{info.location}")
            if self._losing and chance.random() < self._losing:
                length = chance.randrange(1, max(2, info.bytes // 8))
                begin = chance.randrange(info.bytes - length + 1)
                data[begin : begin + length] = bytes(length)
                gaps[info.location] = ((begin, begin + length),)
            streams[info.location] = memoryview(data).toreadonly()
        return Loaded(streams, gaps)


class ReplayedFrames:
    """The images of another store in turn, under new names."""

    def __init__(self, store: Store, *, code: str | None = None, folder: str = "raw") -> None:
        """Raises NotFoundError if the store has no image."""
        self._store = store
        self._folder = folder
        self._names = store.images()
        if not self._names:
            raise NotFoundError("the store to be replayed has no image; name one that has")
        self._code = code or _code(store.image(self._names[0]).info)

    @property
    def code(self) -> str:
        """That of the camera of the first image."""
        return self._code

    def original(self, number: int) -> str:
        """Name of the image that is shown as a number."""
        return self._names[number % len(self._names)]

    def info(self, number: int, name: str) -> ImageInfo:
        """As recorded, but for the name. Raises as `Store.image`."""
        info = self._store.image(self.original(number)).info
        return msgspec.structs.replace(
            info,
            name=name,
            folder=self._folder,
            sources=tuple(msgspec.structs.replace(s, crc32c=None, gaps=()) for s in info.sources),
        )

    def load(self, number: int, name: str) -> Loaded:  # noqa: ARG002
        """Reads all sources. Raises as their `readinto`."""
        image = self._store.image(self.original(number))
        streams, gaps = {}, {}
        for info in image.info.sources:
            source: Source = image.source(info.location)
            data = bytearray(info.bytes)
            arrived = tuple(source.available(0, info.bytes))
            for begin, end in arrived:
                source.readinto(begin, memoryview(data)[begin:end])
            if lost := tuple(cut_gaps(arrived, 0, info.bytes)):
                gaps[info.location] = lost
            streams[info.location] = memoryview(data).toreadonly()
        return Loaded(streams, gaps)


def _code(info: ImageInfo) -> str:
    try:
        return find_camera(info.camera).code
    except NotFoundError:
        return info.name.split("_", 1)[0][:8] or "XX"
