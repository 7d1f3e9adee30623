"""A camera on a cadence: images that begin at regular times, are read out for a while, and go in the end.

Everything follows from the clock, the cadence and the numbers of the images: a store that is made anew with
the same arguments has the same images with the same pixels, at the same times. Its timestamps are those of
the cadence, whatever the images showed when they were first taken.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import msgspec

from raftwright.daq.frames import Frames, Loaded, SimulatedFrames
from raftwright.daq.info import ImageInfo, SourceInfo
from raftwright.daq.store import Notice, check_range, cut_gaps, writable_view
from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.timescale import TAI_MINUS_UTC

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CadenceImage", "CadenceSource", "CadenceStore"]

_log = logging.getLogger("raftwright.daq")

_Sums: TypeAlias = dict[str, str]
"""Location -> CRC-32C."""
_Gaps: TypeAlias = dict[str, tuple[tuple[int, int], ...]]

_GRAIN: Final = 4096
"""Bytes that appear at a time."""
_AHEAD: Final = 2
"""Images whose pixels are made before they begin."""
_PROGRESS: Final = 0.5
"""Seconds between two notices of progress."""
_MOST_NUMBER: Final = 999_999
_CACHED: Final = 256


class CadenceSource:
    """A source that is read out: what is available grows with time."""

    def __init__(self, image: CadenceImage, info: SourceInfo) -> None:
        self._image = image
        self._base = info

    @property
    def info(self) -> SourceInfo:
        """With CRC and gaps as soon as it is final."""
        return self._image.source_info(self._base)

    @property
    def final(self) -> bool:
        """Whether the readout is over."""
        return self._image.complete

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        """What was read out so far. Raises UsageError, NotFoundError (the image was removed)."""
        check_range(self._base, offset, length)
        reached = self._image.reached(self._base.bytes)
        end = min(offset + length, reached)
        if end <= offset:
            return []
        gaps = self._image.gaps(self._base.location)
        return cut_gaps(gaps, offset, end - offset) if gaps else [(offset, end)]

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; zeros are where nothing is yet. Raises UsageError, NotFoundError."""
        data = bytearray(length) if 0 <= length <= self._base.bytes else bytearray()
        check_range(self._base, offset, length)
        self.readinto(offset, data)
        return bytes(data)

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Fills a buffer up to the stream's end; returns how many bytes. Raises as `read`."""
        check_range(self._base, offset, 0)
        view = writable_view(buffer)
        length = min(len(view), self._base.bytes - offset)
        there = max(0, min(length, self._image.reached(self._base.bytes) - offset))
        if there:
            view[:there] = self._stream()[offset : offset + there]
        view[there:length] = bytes(length - there)
        return length

    def view(self, offset: int, length: int) -> memoryview | None:
        """The bytes without a copy; None where not all of them are there yet. Raises as `read`."""
        check_range(self._base, offset, length)
        if offset + length > self._image.reached(self._base.bytes):
            return None
        return self._stream()[offset : offset + length]

    def _stream(self) -> memoryview:
        return self._image.loaded().streams[self._base.location]


class CadenceImage:
    """An image of a camera on a cadence."""

    def __init__(self, store: CadenceStore, number: int, info: ImageInfo) -> None:
        self._store = store
        self._number = number
        self._base = info
        self._final: ImageInfo | None = None
        self._sources = {source.location: source for source in info.sources}
        self._loaded: weakref.ref[Loaded] | None = None

    @property
    def number(self) -> int:
        """The last part of its name."""
        return self._number

    @property
    def info(self) -> ImageInfo:
        """With CRCs and gaps as soon as it is complete. Raises NotFoundError once it is removed."""
        if self._final is None and self.complete:
            sums, gaps = self._store.facts(self._number)
            self._final = msgspec.structs.replace(
                self._base,
                sources=tuple(
                    msgspec.structs.replace(
                        source,
                        crc32c=sums[source.location],
                        gaps=gaps.get(source.location, ()),
                    )
                    for source in self._base.sources
                ),
            )
        return self._final or self._base

    def source(self, location: str) -> CadenceSource:
        """The source at a location. Raises NotFoundError."""
        if location not in self._sources:
            known = ", ".join(self._base.locations[:8]) or "none"
            raise NotFoundError(
                f"image {self._base.name} has no source {ascii(location)[:40]}; there are {known}"
            )
        return CadenceSource(self, self._sources[location])

    @property
    def complete(self) -> bool:
        """Whether all of it was read out."""
        return self._final is not None or self._store.is_complete(self._number)

    def source_info(self, base: SourceInfo) -> SourceInfo:
        """The description of a source at this moment."""
        if not self.complete:
            return base
        return next(source for source in self.info.sources if source.location == base.location)

    def reached(self, size: int) -> int:
        """Bytes of a stream of `size` that were read out. Raises NotFoundError once it is removed."""
        return self._store.reached(self._number, size)

    def gaps(self, location: str) -> tuple[tuple[int, int], ...]:
        """What never arrives of a source."""
        return self._store.facts(self._number)[1].get(location, ())

    def loaded(self) -> Loaded:
        """Its pixels, made or read again if they are not in memory. Raises NotFoundError, and as `Frames`."""
        found = None if self._loaded is None else self._loaded()
        if found is None:
            found = self._store.loaded(self._number)
            self._loaded = weakref.ref(found)
        return found


class CadenceStore:
    """A live store: image k of a day begins at `epoch + (k - start) * every`. Thread-safe; `close` it.

    Parameters
    ----------
    frames
        What the images show; a camera or its name means simulated images with seed 0.
    every, readout
        Seconds from image to image, and from the first to the last byte of one.
    count
        How many images there are; None: no end.
    keep
        How many stay; older ones are removed.
    start
        Number of the first, up to 999999 for the last.
    day
        In their names: `<code>_S_<day>_<number>`.
    epoch
        Unix time at which the first begins; None: `delay` seconds after it is prepared.
    delay
        As said.
    memory
        Bytes of pixels that are kept at hand. Those of older images are made again when they are asked for.

    Raises
    ------
    UsageError
        A number that cannot be.
    """

    def __init__(
        self,
        frames: Frames | str,
        *,
        every: float = 17.0,
        readout: float = 2.0,
        count: int | None = None,
        keep: int = 100,
        start: int = 1,
        day: str = "20261122",
        epoch: float | None = None,
        delay: float = 0.05,
        memory: int = 1 << 30,
    ) -> None:
        self.frames: Frames = SimulatedFrames(frames) if isinstance(frames, str) else frames
        if not 0.001 <= every <= 1e6 or not 0.0 <= readout <= 1e6:
            raise UsageError(f"an image every {every:g} s, read out in {readout:g} s; give 0.001 s or more")
        if keep < 1 or (count is not None and count < 1):
            raise UsageError("the number of images, and of those kept, is at least 1")
        if not 0 <= start <= _MOST_NUMBER:
            raise UsageError(f"the first image has number {start}; give 0 to {_MOST_NUMBER}")
        if len(day) != 8 or not day.isascii() or not day.isdigit():
            raise UsageError(f"day is {ascii(day)[:40]}; write 20261122")
        self.every = every
        self.readout = readout
        self.keep = keep
        self.start = start
        self._memory = memory
        self._last = _MOST_NUMBER if count is None else min(start + count - 1, _MOST_NUMBER)
        self._prefix = f"{self.frames.code}_S_{day}_"
        self._folder = self.frames.info(start, self.name_of(start)).folder
        self._condition = threading.Condition()
        self._closed = False
        self._cache: OrderedDict[int, Loaded] = OrderedDict()
        self._held: Counter[Loaded] = Counter()
        self._bytes = 0
        self._alive: weakref.WeakValueDictionary[int, Loaded] = weakref.WeakValueDictionary()
        self._facts: dict[int, tuple[_Sums, _Gaps]] = {}
        self._loading: dict[int, threading.Lock] = {}
        self._images: OrderedDict[int, CadenceImage] = OrderedDict()
        self._names: list[str] = []
        self.late = 0
        """Images whose pixels were not ready when they began."""
        prepare = getattr(self.frames, "prepare", None)
        if prepare is not None:
            prepare()
        if epoch is None:
            self.loaded(start, removed=True)
            epoch = time.time() + delay
        self.epoch = epoch
        """Unix time at which the first image begins."""
        self._zero = time.monotonic() - (time.time() - epoch)
        now = time.monotonic()
        self._prepared = self._number_at(now - readout)  # those before need no preparation: they are history
        self._thread = threading.Thread(target=self._prepare, name="cadence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread that prepares images, and all iterators of notices."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the clock

    def _number_at(self, moment: float) -> int:
        """Number of the last image that had begun; `start - 1` before the first."""
        elapsed = moment - self._zero
        return self.start - 1 if elapsed < 0 else min(self.start + int(elapsed / self.every), self._last)

    def _begin(self, number: int) -> float:
        return self._zero + (number - self.start) * self.every

    def _bounds(self, now: float) -> tuple[int, int, int]:
        """(oldest that is kept, last complete, last begun)."""
        begun = self._number_at(now)
        complete = min(self._number_at(now - self.readout), self._prepared)
        return max(self.start, begun - self.keep + 1), complete, begun

    def is_complete(self, number: int) -> bool:
        """Whether an image was read out to its end."""
        return number <= self._bounds(time.monotonic())[1]

    def reached(self, number: int, size: int) -> int:
        """Bytes of a stream of `size` that were read out. Raises NotFoundError: it is not there any more."""
        now = time.monotonic()
        oldest, complete, begun = self._bounds(now)
        if not oldest <= number <= begun:
            raise self._no_image(self.name_of(number))
        if number <= complete:
            return size
        if number > self._prepared:
            return 0
        share = min(1.0, (now - self._begin(number)) / self.readout) if self.readout else 1.0
        return int(size * share) // _GRAIN * _GRAIN

    def _timestamp(self, number: int) -> str:
        """When an image begins, TAI."""
        moment = self.epoch + (number - self.start) * self.every + TAI_MINUS_UTC
        when = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=round(moment * 1000))
        return when.isoformat(timespec="milliseconds")

    def name_of(self, number: int) -> str:
        """Name of an image."""
        return f"{self._prefix}{number:06d}"

    # -- the catalogue

    def folders(self) -> list[str]:
        """Those of the images that are there."""
        oldest, _, begun = self._bounds(time.monotonic())
        return [self._folder] if oldest <= begun else []

    def images(self, folder: str | None = None) -> list[str]:
        """Names of the complete images, sorted."""
        if folder not in (None, self._folder):
            return []
        oldest, complete, _ = self._bounds(time.monotonic())
        with self._condition:
            for number in range(self.start + len(self._names), complete + 1):
                self._names.append(self.name_of(number))
            return self._names[oldest - self.start : max(0, complete + 1 - self.start)]

    def underway(self) -> list[str]:
        """Names of the images that are being read out, sorted."""
        oldest, complete, begun = self._bounds(time.monotonic())
        return [self.name_of(number) for number in range(max(oldest, complete + 1), begun + 1)]

    def image(self, name: str) -> CadenceImage:
        """An image by its name. Raises NotFoundError, and for an old one what making its pixels raises."""
        tail = name[len(self._prefix) :] if name.startswith(self._prefix) else ""
        if len(tail) != 6 or not tail.isascii() or not tail.isdigit():
            raise self._no_image(name)
        number = int(tail)
        oldest, _, begun = self._bounds(time.monotonic())
        if not oldest <= number <= begun:
            raise self._no_image(name)
        with self._condition:
            image = self._images.get(number)
        if image is None:
            info = msgspec.structs.replace(self.frames.info(number, name), timestamp=self._timestamp(number))
            image = CadenceImage(self, number, info)
            with self._condition:
                image = self._images.setdefault(number, image)
                while len(self._images) > _CACHED:
                    self._images.popitem(last=False)
        return image

    def _no_image(self, name: str) -> NotFoundError:
        oldest, _, begun = self._bounds(time.monotonic())
        some = (
            f"they run from {self.name_of(oldest)} to {self.name_of(begun)}"
            if oldest <= begun
            else "none yet"
        )
        return NotFoundError(f"there is no image {ascii(name)[:80]}; {some}")

    # -- pixels

    def loaded(self, number: int, *, removed: bool = False) -> Loaded:
        """The pixels of an image, from memory or made anew. Raises NotFoundError, and as `Frames.load`."""
        with self._condition:
            found = self._alive.get(number)
            if found is not None:
                self._keep(number, found)
                return found
            lock = self._loading.setdefault(number, threading.Lock())
        with lock:
            with self._condition:
                found = self._alive.get(number)
            if found is None:
                if not removed and number < self._bounds(time.monotonic())[0]:
                    raise self._no_image(self.name_of(number))
                found = self.frames.load(number, self.name_of(number))
            with self._condition:
                self._alive[number] = found
                self._facts[number] = (found.sums, found.gaps)
                if len(self._facts) > 2 * self.keep + _CACHED:
                    oldest = self._bounds(time.monotonic())[0]
                    self._facts = {one: facts for one, facts in self._facts.items() if one >= oldest}
                self._loading.pop(number, None)
                self._keep(number, found)
        return found

    def facts(self, number: int) -> tuple[_Sums, _Gaps]:
        """CRCs and gaps of an image; once its pixels were made they are remembered. Raises as `loaded`."""
        found = self._facts.get(number)
        if found is None:
            loaded = self.loaded(number)
            found = (loaded.sums, loaded.gaps)
        return found

    def _keep(self, number: int, loaded: Loaded) -> None:
        """Holds pixels in memory, and lets go of those that were not asked for longest."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return
        self._cache[number] = loaded
        self._held[loaded] += 1
        if self._held[loaded] == 1:
            self._bytes += loaded.bytes
        while len(self._cache) > _AHEAD + 1 and (self._bytes > self._memory or len(self._cache) > _CACHED):
            _, entry = self._cache.popitem(last=False)
            self._held[entry] -= 1
            if not self._held[entry]:
                del self._held[entry]
                self._bytes -= entry.bytes

    def _prepare(self) -> None:
        """Makes the pixels of images before they begin."""
        while True:
            with self._condition:
                number = self._prepared + 1
                if self._closed or number > self._last:
                    return
                wait = self._begin(number - _AHEAD) - time.monotonic()
                if wait > 0 and number > self.start:
                    self._condition.wait(min(wait, 3600.0))
                    continue
            if number >= self._bounds(time.monotonic())[0]:
                try:
                    self.loaded(number, removed=True)
                except (RaftwrightError, OSError) as error:
                    _log.error("%s cannot be prepared: %s", self.name_of(number), error)
                if time.monotonic() > self._begin(number):
                    self.late += 1
            with self._condition:
                self._prepared = number
                self._condition.notify_all()

    # -- notices

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        """What happens from now on, with progress every half second. Ends after `timeout` quiet seconds."""
        oldest, complete, begun = self._bounds(time.monotonic())
        next_progress = time.monotonic() + _PROGRESS
        quiet_since = time.monotonic()
        while not self._closed:
            now = time.monotonic()
            new_oldest, new_complete, new_begun = self._bounds(now)
            news = [Notice("begun", self.name_of(n)) for n in range(begun + 1, new_begun + 1)]
            news += [Notice("complete", self.name_of(n)) for n in range(complete + 1, new_complete + 1)]
            news += [Notice("removed", self.name_of(n)) for n in range(oldest, new_oldest)]
            oldest, complete, begun = new_oldest, new_complete, new_begun
            if now >= next_progress:
                next_progress = now + _PROGRESS
                news += self._progress(max(oldest, complete + 1), begun)
            if news:
                quiet_since = time.monotonic()
                yield from news
                continue
            until = self._next_event(now, begun, complete)
            if begun > complete:
                until = min(until, next_progress)
            if timeout is not None:
                until = min(until, quiet_since + timeout)
                if now >= quiet_since + timeout:
                    return
            with self._condition:
                if not self._closed:
                    self._condition.wait(min(max(until - time.monotonic(), 0.0), 3600.0))

    def _next_event(self, now: float, begun: int, complete: int) -> float:
        """When something happens by the clock. What is late is told by the condition."""
        until = now + 3600.0
        if begun < self._last:
            until = min(until, self._begin(begun + 1))
        if complete < min(begun, self._prepared):
            until = min(until, self._begin(complete + 1) + self.readout)
        return until

    def _progress(self, first: int, last: int) -> list[Notice]:
        news = []
        for number in range(first, last + 1):
            try:
                for source in self.image(self.name_of(number)).info.sources:
                    reached = self.reached(number, source.bytes)
                    if reached:
                        news.append(Notice("progress", self.name_of(number), source.location, reached))
            except (RaftwrightError, OSError):
                continue  # removed meanwhile
        return news
