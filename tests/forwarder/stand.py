"""What the tests of the forwarder share: a DAQ that does what the test says, and judges of an archive."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

import raftwright
from raftwright import _core
from raftwright.daq import ImageInfo, Notice, SimulatedImage, SourceInfo, simulate_image
from raftwright.daq.store import check_range, cut_gaps, writable_view
from raftwright.errors import NotFoundError, StorageError
from raftwright.forwarder import FileRow, Unit, open_journal
from raftwright.stream.server import Limits, Server

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
"""28 x 16 pixels a segment: sources of 48384 bytes."""
CAMERA = "LSSTComCam"
SAMPLE = 108
"""Bytes in which each of the 48 segments of a board has one pixel."""
ROW = 28 * SAMPLE
BYTES = 16 * ROW
ROWS = Limits(chunk=(1024, ROW + 8))
"""Each row is a chunk."""
LOCATIONS = ("22/0", "22/1", "22/2")


def name_of(number: int) -> str:
    return f"CC_S_20261122_{number:06d}"


class HandSource:
    """A source that has what the test gave it."""

    def __init__(self, image: HandImage, info: SourceInfo, data: bytes) -> None:
        self._image = image
        self.base = info
        self.data = data
        self.arrived: list[tuple[int, int]] = [(0, len(data))]
        self.final = True
        self.crc32c: str | None = f"{_core.crc32c(data):08x}"
        self.read_bytes = 0
        self.on_read: Callable[[], None] | None = None

    @property
    def info(self) -> SourceInfo:
        gaps = tuple(cut_gaps(tuple(self.arrived), 0, self.base.bytes)) if self.final else ()
        return msgspec.structs.replace(self.base, crc32c=self.crc32c if self.final else None, gaps=gaps)

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        check_range(self.base, offset, length)
        self._image.check()
        cut = [(max(a, offset), min(b, offset + length)) for a, b in self.arrived]
        return [(a, b) for a, b in cut if a < b]

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.base, offset, length)
        if self.on_read is not None:
            self.on_read()
        self._image.check()
        self.read_bytes += length
        return self.data[offset : offset + length]

    def readinto(self, offset: int, buffer: Any) -> int:
        view = writable_view(buffer)
        part = self.read(offset, min(len(view), self.base.bytes - offset))
        view[: len(part)] = part
        return len(part)


class HandImage:
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
            self.sources[location].arrived = cut_gaps(((begin, end),), 0, BYTES)

    def mend(self) -> None:
        """All is there."""
        for source in self.sources.values():
            source.arrived = [(0, source.base.bytes)]
            source.final = True


class HandStore:
    """Images appear, grow and go as the test says."""

    def __init__(self) -> None:
        self.all: dict[str, HandImage] = {}
        self.events: queue.Queue[Notice] = queue.Queue()
        self.asked: Counter[str] = Counter()

    def make(self, number: int, *, seed: int = 0, camera: str = CAMERA, **more: Any) -> HandImage:
        """An image that is in no catalogue yet."""
        more = {"rafts": ["R22"], "registers": SMALL, **more}
        return HandImage(simulate_image(camera, name_of(number), seed=seed, **more))

    def put(self, image: HandImage) -> HandImage:
        name = image.base.name
        self.all = {**self.all, name: image}
        self.events.put(Notice("begun", name))
        if self.complete(image):
            self.events.put(Notice("complete", name))
        return image

    def add(self, *numbers: int, **more: Any) -> list[HandImage]:
        return [self.put(self.make(number, **more)) for number in numbers]

    def remove(self, image: HandImage) -> None:
        image.removed = True
        self.all = {name: one for name, one in self.all.items() if one is not image}
        self.events.put(Notice("removed", image.base.name))

    @staticmethod
    def complete(image: HandImage) -> bool:
        return all(source.final for source in image.sources.values())

    def folders(self) -> list[str]:
        return sorted({image.base.folder for image in self.all.values()})

    def images(self, folder: str | None = None) -> list[str]:
        found = [name for name, image in self.all.items() if self.complete(image)]
        return sorted(name for name in found if folder in (None, self.all[name].base.folder))

    def underway(self) -> list[str]:
        return sorted(name for name, image in self.all.items() if not self.complete(image))

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


def wait_for(what: Callable[[], Any], timeout: float = 10.0, programs: Iterable[Program] = ()) -> Any:
    """The first true answer; without one it is said what programs did."""
    until = time.monotonic() + timeout
    while True:
        if answer := what():
            return answer
        if time.monotonic() > until:
            said = [(program.process.poll(), program.lines[-5:], program.log[-20:]) for program in programs]
            raise AssertionError(f"waited {timeout} s in vain {said}")
        time.sleep(0.02)


def units_of(journal: Path) -> dict[tuple[str, str], Unit]:
    """(image, location) -> unit."""
    if not journal.is_file():
        return {}
    try:
        with open_journal(journal, read_only=True) as opened:
            return {(unit.image, unit.location): unit for unit in opened.units()}
    except (StorageError, NotFoundError):
        return {}


def states_of(journal: Path) -> Counter[str]:
    if not journal.is_file():
        return Counter()
    try:
        with open_journal(journal, read_only=True) as opened:
            return Counter(unit.state for unit in opened.units())
    except (StorageError, NotFoundError):
        return Counter()


def rows_of(journal: Path) -> list[FileRow]:
    with open_journal(journal, read_only=True) as opened:
        return list(opened.files())


def attempts_of(journal: Path) -> Counter[str]:
    """Kinds in the history."""
    with open_journal(journal, read_only=True) as opened:
        return Counter(entry.kind for entry in opened.history())


def fits_in(out: Path) -> set[Path]:
    return {path for path in out.rglob("*.fits*") if path.is_file()}


def check_archive(out: Path, journal: Path, images: Mapping[str, HandImage]) -> list[FileRow]:
    """Every file is whole, is in the journal as it is, and each of its pixels is the DAQ's or marked."""
    rows = rows_of(journal)
    told = {Path(row.path): row for row in rows}
    assert len(told) == len(rows), "a file is in the journal twice"
    assert set(told) == fits_in(out), "journal and disk do not have the same files"
    hidden = [path for path in out.rglob(".*") if path.is_file()]
    assert not hidden, f"left behind: {hidden}"
    truths: dict[str, Any] = {}
    for path, row in told.items():
        data = path.read_bytes()
        assert (len(data), f"{_core.crc32c(data):08x}") == (row.bytes, row.crc32c), (
            f"{path} is not the journal's"
        )
        assert f"{_core.adler32(data):08x}" == row.adler32
        if row.image not in truths:
            truths[row.image] = raftwright.assemble(images[row.image].simulated, threads=1)
        if row.status != "conflict":
            check_pixels(path, row, truths[row.image])
    for row in rows:
        if row.replaces:
            assert told[Path(row.replaces)].replaced_by == row.path, "versions do not name each other"
    return rows


def check_pixels(path: Path, row: FileRow, truth: Any) -> None:
    sidecar = json.loads(path.with_suffix(".json").read_bytes())
    missing = sidecar.get("__MISSING__", {})
    raw = raftwright.open_raw(path, threads=1)
    assert raw.detector.name == row.detector
    marked = 0
    for segment, pixels in raw.segments.items():
        flat, right = pixels.ravel().copy(), truth[row.detector].segments[segment].ravel()
        for first, count in missing.get(segment, ()):
            assert (flat[first : first + count] == -1).all(), f"{path}: a marked pixel is not filled"
            flat[first : first + count] = right[first : first + count]
            marked += count
        assert (flat == right).all(), f"{path}: {segment} has a wrong pixel that is not marked"
    assert (marked, raw.missing_pixels) == (row.missing, row.missing), f"{path}: other pixels are marked"


class Program:
    """`raftwright forward` as a process; its lines of JSON are kept."""

    def __init__(self, endpoint: str, out: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "raftwright", "forward", endpoint, "--out", str(out), "--json"),
                *("--sweep", "300ms", "--retry", "300ms", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.log.append(line.rstrip())  # of an error, which is told in many

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    @property
    def images(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == "image"]

    @property
    def ready(self) -> bool:
        return any(line.get("event") == "ready" for line in self.lines)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, patience: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
        finally:
            for reader in self._readers:
                reader.join(5)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
        return code

    def memory(self) -> int:
        """Bytes of its own."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")


Serve = Callable[..., Server]
Forward = Callable[..., Any]
Run = Callable[..., Program]
