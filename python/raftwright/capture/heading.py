"""Where units wait for the header document of their image: not for long, and never in a writer's way.

The document is `<archive>/<dayobs>/<image>/<image>_header.yaml`, put there whole by whoever makes headers. It
is looked for from the moment that a unit is taken on, read beside the pixels, and merged if it is of that
image. A unit waits until `header_wait` seconds after its last byte; then it goes on without. Where that is
not set, it waits only if somebody makes headers: who does gives signs of life, or other documents came.
"""

from __future__ import annotations

import logging
import os
import queue
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from raftwright.errors import FormatError, RaftwrightError, StorageError
from raftwright.rawfile import times
from raftwright.rawfile.document import MAX_BYTES, read_header_document
from raftwright.rawfile.makers import HeaderMakers
from raftwright.rawfile.names import ImageName, image_directory
from raftwright.service.context import bound, carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.work import Work
    from raftwright.daq import ImageInfo
    from raftwright.ledger.claims import UnitKey
    from raftwright.metrics import Metrics
    from raftwright.rawfile.document import HeaderDocument
    from raftwright.rawfile.output import ImageOutput

__all__ = ["Heading", "header_path", "read_header"]

_log = logging.getLogger("raftwright.capture")

_TICK: Final = 0.02
_IDLE: Final = 1.0
_WAIT: Final = 0.6
"""Seconds after the last byte, where somebody makes headers and nothing else is set."""
_LATER: Final = 60.0
"""Seconds for which a document that did not come is looked for: it says that headers are made here."""
_REMEMBERED: Final = 64
_READING: Final = 2.0
"""Seconds beyond the wait that a document which is there may take to be read."""
_RECENT: Final = 120.0
"""Seconds after its trigger within which the header of an image may still be made."""
_VERSIONS: Final = 100

_Identity: TypeAlias = tuple[int, int, int]


def header_path(archive: str | os.PathLike[str], image: str, version: int = 1) -> Path:
    """Where the header document of an image stands. Raises FormatError for a name that is none."""
    name = ImageName.parse(image)
    end = "_header.yaml" if version == 1 else f"_header.v{version}.yaml"
    return image_directory(Path(archive), name) / f"{name}{end}"


def read_header(path: Path, image: str) -> HeaderDocument:
    """A header document, if it is readable and of the image. Raises FormatError, StorageError."""
    document = read_header_document(path)
    record = document.section("PRIMARY").get("OBSID")
    said = None if record is None else record.value
    if said != image:
        raise FormatError(f"{path}: OBSID is {ascii(said)[:80]}, which is not {image}; it is not used")
    return document


@dataclass(eq=False)
class _Header:
    """What is known of the header of an image."""

    path: Path
    image: str
    code: str
    """Of the camera."""
    recent: bool = False
    """Whether it may still be made."""
    left: float = 0.0
    """When its last unit ended."""
    learnt: bool = False
    """Whether it was noticed that a document came."""
    versions: dict[Path, _Identity] = field(default_factory=dict)
    """Files that were given to be read, as they were then."""
    reading: int = 0
    document: HeaderDocument | None = None
    problem: str = ""
    works: dict[UnitKey, Work] = field(default_factory=dict)
    """Taken on, and not ended."""
    waiting: dict[UnitKey, tuple[float, Work]] = field(default_factory=dict)
    """Received: since when they wait."""
    outputs: dict[int, tuple[ImageOutput, ImageOutput]] = field(default_factory=dict)
    """With the header, by the identity of those without."""


class Heading:
    """Two threads: one looks for documents and lets units go on, one reads. `ready` gets each unit that was
    kept once, with the header in its output or without.

    What waits holds the memory that it has reserved, so the budget bounds how much that is.
    """

    def __init__(self, settings: CaptureSettings, metrics: Metrics, ready: Callable[[Work], None]) -> None:
        self._out = settings.out
        self._wait = settings.header_wait
        self._makers = HeaderMakers(settings.out)
        self._looked_back = 0.0
        self._news = 0
        self._metrics = metrics
        self._ready = ready
        self._changed = threading.Condition()
        self._headers: OrderedDict[tuple[str, str], _Header] = OrderedDict()
        self._to_read: queue.SimpleQueue[tuple[_Header, Path] | None] = queue.SimpleQueue()
        self._stopping = False
        self._threads = [
            threading.Thread(target=carried(self._look_on), name="headers", daemon=True),
            threading.Thread(target=carried(self._read_on), name="read-headers", daemon=True),
        ]
        self.missing = metrics.counter("headers_missing", "Units that were written without their header")

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Lets go what waits, as it is."""
        with self._changed:
            self._stopping = True
            self._tell()
        self._to_read.put(None)
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.1, end - time.monotonic()))

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that have to live."""
        return self._threads

    # -- units on their way

    def expect(self, work: Work) -> None:
        """A unit was taken on: its header may be looked for."""
        with self._changed:
            header = self._of(work.image)
            if header is not None:
                header.works[work.key] = work
                header.recent |= work.live or _is_recent(work.image)
                self._tell()

    def add(self, work: Work) -> bool:
        """A unit came. False: it has its header, or there is none to wait for. True: it is kept, and goes on
        by `ready` with its header, or without it when the time is over."""
        with self._changed:
            header = self._of(work.image)
            if header is not None and header.document is None and not self._stopping:
                header.works[work.key] = work
                header.recent |= work.live or _is_recent(work.image)
                header.waiting[work.key] = _since(work), work
                self._tell()
                return True
        self._head_safely(work, header)
        return False

    def leave(self, work: Work) -> None:
        """A unit ended."""
        with self._changed:
            header = self._headers.get((work.image.name, work.image.id))
            if header is not None:
                header.works.pop(work.key, None)
                header.left = time.monotonic()

    def _tell(self) -> None:
        """There is something to look at, also for who is looking already. The lock is held."""
        self._news += 1
        self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many units wait for a header."""
        with self._changed:
            return sum(len(header.waiting) for header in self._headers.values())

    def _of(self, image: ImageInfo) -> _Header | None:
        """None for a name that has no place in the archive."""
        key = (image.name, image.id)
        header = self._headers.get(key)
        if header is None:
            try:
                path = header_path(self._out, image.name)
            except RaftwrightError:
                return None
            header = self._headers[key] = _Header(path, image.name, ImageName.parse(image.name).source)
            idle = [each for each, known in self._headers.items() if not known.works and not known.waiting]
            for each in idle[: max(0, len(self._headers) - _REMEMBERED)]:
                if each != key:
                    del self._headers[each]
        self._headers.move_to_end(key)
        return header

    def _patience(self, header: _Header) -> float:
        """How long is waited for it: what is old has its header by now, or will have none."""
        if not header.recent:
            return 0.0
        if self._wait is not None:
            return self._wait
        return _WAIT if self._makers.known(header.code) else 0.0

    # -- looking

    def _look_on(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    break
                active, news = self._active(), self._news
            try:
                self._look(active)
                self._look_back()
                self._learn()
            except Exception:
                _log.exception("looking for headers failed; it begins anew")
            with self._changed:
                if news == self._news:
                    self._changed.wait(_TICK if active else _IDLE)
        with self._changed:
            left = [
                (work, header) for header in self._headers.values() for _, work in header.waiting.values()
            ]
            for header in self._headers.values():
                header.waiting.clear()
        for work, header in left:
            self._go(work, header)

    def _look(self, active: list[_Header]) -> None:
        for header in active:
            if header.document is None:
                self._seek(header)
            patience = self._patience(header)
            with self._changed:
                now = time.monotonic()
                until = now - patience - (_READING if header.reading else 0.0)
                free = [
                    work
                    for since, work in header.waiting.values()
                    if header.document is not None or since <= until
                ]
                for work in free:
                    del header.waiting[work.key]
            for work in free:
                self._go(work, header)

    def _active(self) -> list[_Header]:
        return [header for header in self._headers.values() if header.works or header.waiting]

    def _look_back(self) -> None:
        """Looks for documents that came too late: the next image will have one too."""
        now = time.monotonic()
        if self._wait is not None or now - self._looked_back < _IDLE:
            return
        self._looked_back = now
        with self._changed:
            late = [
                header
                for header in self._headers.values()
                if header.recent
                and header.document is None
                and not (header.works or header.waiting)
                and now - header.left < _LATER
            ]
        for header in late:
            self._seek(header)

    def _learn(self) -> None:
        """Documents that came say that others will."""
        with self._changed:
            news = [
                header
                for header in self._headers.values()
                if header.recent and header.document is not None and not header.learnt
            ]
        for header in news:
            header.learnt = True
            self._makers.came(header.code)

    def _seek(self, header: _Header) -> None:
        """Gives files that are there, and new or other than before, to be read."""
        for path in _versions(header.path):
            try:
                found = os.stat(path, follow_symlinks=True)
            except (OSError, ValueError):
                return  # versions have no gaps
            identity = (found.st_mtime_ns, found.st_size, found.st_ino)
            if header.versions.get(path) == identity:
                continue
            header.versions[path] = identity
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
                header.problem = f"{path}: no file of at most {MAX_BYTES} bytes"
                continue
            with self._changed:
                header.reading += 1
            self._to_read.put((header, path))

    def _read_on(self) -> None:
        while (item := self._to_read.get()) is not None:
            header, path = item
            document, problem = None, ""
            again = False
            try:
                with self._metrics.stage("header"):
                    document = read_header(path, header.image)
            except RaftwrightError as error:
                problem = str(error)
                again = isinstance(error, StorageError)
            except Exception as error:
                problem = f"{path}: {type(error).__name__}: {error}"
            with self._changed:
                header.reading -= 1
                if header.document is None:
                    header.document = document
                news = problem and problem != header.problem
                header.problem = problem or header.problem
                if again:
                    header.versions.pop(path, None)
                self._tell()
            if news:
                _log.warning("%s", problem[:1000])

    # -- going on

    def _go(self, work: Work, header: _Header) -> None:
        with bound(**work.about):
            self._head_safely(work, header)
        self._ready(work)

    def _head_safely(self, work: Work, header: _Header | None) -> None:
        try:
            self._head(work, header)
        except Exception:
            _log.exception("%s %s: the header cannot be used", work.image.name, work.source.location)

    def _head(self, work: Work, header: _Header | None) -> None:
        bare = work.output
        if bare is None:
            return
        document = None if header is None else header.document
        if document is None:
            self.missing.add()
            work.header_problem = "" if header is None else header.problem
            work.output = bare.headed(None)
            return
        assert header is not None
        known = header.outputs.get(id(bare))
        if known is None:
            known = header.outputs[id(bare)] = bare, bare.headed(document)
        work.output = known[1]


def _versions(first: Path) -> Iterator[Path]:
    yield first
    for version in range(2, _VERSIONS):
        yield first.with_name(first.name.removesuffix(".yaml") + f".v{version}.yaml")


def _since(work: Work) -> float:
    last = work.fetch.last_byte if work.fetch is not None else 0.0
    return last or time.monotonic()


def _is_recent(image: ImageInfo) -> bool:
    if not image.timestamp:
        return False
    try:
        return abs(times.now() - times.parse_iso(image.timestamp)) < _RECENT * 1e9
    except FormatError:
        return False
