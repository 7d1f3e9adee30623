"""Simulated telemetry as a service: what an observatory would tell of the images of a DAQ.

An image that begins to be read out is told as an exposure that has just ended; when it is complete, the
end of readout follows, and 0.3 s later the end of its telemetry. Without a DAQ it takes images on a cadence
of its own.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from raftwright.errors import RaftwrightError
from raftwright.header.simulated import Exposure, Faults, SimulatedTelemetry, Told
from raftwright.header.spec_file import header_spec
from raftwright.service.base import Life, Service
from raftwright.service.units import Period, Seconds

if TYPE_CHECKING:
    from raftwright.events import Publisher
    from raftwright.service.common import Common
    from raftwright.service.tasks import Task
    from raftwright.stream import NetworkStore

__all__ = ["NAME", "SHARED", "Settings", "TelemetrySimulator", "build"]

_log = logging.getLogger("raftwright.header")

NAME: Final = "telemetry"
SHARED: Final = {"daq": "daq.endpoint", "spec": "site.camera"}
_MOST: Final = 256


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `telemetry`."""

    spec: Annotated[str, Meta(min_length=1)]
    """Specification of the header, which says what there is to tell: a camera, or a file."""
    daq: str = ""
    """Control socket of the DAQ's server, whose images are followed; none: a cadence of its own."""
    events: str = ""
    """Where it is told; that of the site by default."""
    seed: int = 1
    exposure: Seconds = 2.0
    """Length of an exposure."""
    image_types: tuple[Annotated[str, Meta(pattern=r"\A[A-Z0-9_]{1,20}\Z")], ...] = ("OBJECT",)
    """In turn."""
    faults: Faults = Faults()
    """What goes wrong, in shares of the images."""
    every: Period = 17.0
    """Without a DAQ: from image to image."""
    readout: Seconds = 2.0
    """Without a DAQ: that an image takes."""
    images: Annotated[int, Meta(ge=0, le=999_999)] = 0
    """Without a DAQ: how many; 0: no end."""
    start: Annotated[int, Meta(ge=0, le=999_999)] = 1
    """Without a DAQ: number of the first."""
    day: Annotated[str, Meta(pattern=r"\A[0-9]{8}\Z")] = "20261122"
    """Without a DAQ: in the names."""


# Known from here on: two threads that are the first to convert to a type at the same time crash msgspec.
msgspec.json.Decoder(Settings)


class TelemetrySimulator(Service):
    """Tells of the images of a DAQ what a simulated observatory would."""

    NAME = NAME
    LIVE = frozenset({"faults"})

    def __init__(self, settings: Settings, life: Life | None = None) -> None:
        super().__init__(settings, life)
        self.publisher: Publisher | None = None
        self.told = 0
        self.followed = 0
        """Images that were told of."""
        self._store: NetworkStore | None = None
        self._exposures: OrderedDict[str, tuple[float, Exposure]] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._later: list[tuple[float, int, Told]] = []
        self._numbers = itertools.count()
        self._something = threading.Condition()

    def open(self) -> None:
        """Raises UsageError, NotFoundError, FormatError, StorageError."""
        from raftwright.events import open_publisher

        settings: Settings = self.settings
        self.simulated = SimulatedTelemetry(
            header_spec(settings.spec),
            seed=settings.seed,
            exposure_time=settings.exposure,
            image_types=settings.image_types,
            faults=settings.faults,
        )
        self.publisher = open_publisher(settings.events or "tcp://127.0.0.1:*", name=self.name)
        if settings.daq:
            from raftwright.stream import NetworkStore

            self._store = NetworkStore(settings.daq, name=self.name)
            self.task("follow", self._follow)
        else:
            self.task("cadence", self._cadence, once=True)
        self.task("tell", self._tell_on, waiting=self._overdue, patience=30.0)

    def in_flight(self) -> Collection[Hashable]:
        """What is still to be told."""
        with self._something:
            return tuple(number for _, number, _ in self._later)

    def close(self) -> None:
        """Lets go of everything."""
        for part in (self._store, self.publisher):
            if part is not None:
                part.close()

    def apply(self, settings: Settings) -> None:
        """Other faults, for images from now on."""
        self.simulated.faults = settings.faults

    def report(self) -> Mapping[str, Any]:
        """Its own part of the status."""
        return {
            "events": None if self.publisher is None else self.publisher.endpoint,
            "images": {"followed": self.followed},
            "told": self.told,
        }

    # -- what happens

    def _follow(self, task: Task) -> None:
        assert self._store is not None
        last: str | None = None
        while not task.stopping.is_set():
            try:
                if last is None:
                    last = max(self._store.images(), default="")
                for notice in self._store.notices(timeout=0.5):
                    if task.stopping.is_set():
                        return
                    if notice.kind == "begun":
                        self._begin(notice.image)
                    elif notice.kind == "complete":
                        self._complete(notice.image)
                    elif notice.kind == "missed":
                        break
                last = self._compare(last)
            except RaftwrightError as error:
                _log.info("the DAQ's notices: %s", error)
                task.wait(0.5)

    def _compare(self, last: str) -> str:
        """What no notice told of, by the catalogue; the name of the last complete image."""
        assert self._store is not None
        for name in self._store.underway():
            self._begin(name)
        complete = self._store.images(after=last or None)
        for name in complete:
            self._complete(name)
        return complete[-1] if complete else last

    def _begin(self, obsid: str) -> None:
        if obsid in self._exposures or obsid in self._over:
            return
        trigger = tag = ""
        if self._store is not None:
            try:
                info = self._store.image(obsid).info
                trigger, tag = info.timestamp, info.id
            except RaftwrightError as error:
                _log.info("%s: %s", obsid, error)
        self.begin(obsid, trigger, tag)

    def _complete(self, obsid: str) -> None:
        self._begin(obsid)
        self.complete(obsid)

    def begin(self, obsid: str, trigger: str = "", tag: str = "") -> None:
        """An image has begun to be read out."""
        try:
            exposure = self.simulated.exposure(obsid, trigger, tag=tag)
        except RaftwrightError as error:
            _log.warning("%s: nothing is told of it: %s", obsid, error)
            return
        now = time.monotonic()
        self._exposures[obsid] = (now, exposure)
        while len(self._exposures) > _MOST:
            self._exposures.popitem(last=False)
        self.followed += 1
        self._plan(now, self.simulated.before(exposure))

    def complete(self, obsid: str) -> None:
        """An image was read out."""
        found = self._exposures.pop(obsid, None)
        if found is None:
            return
        self._over[obsid] = None
        while len(self._over) > _MOST:
            self._over.popitem(last=False)
        now = time.monotonic()
        begun, exposure = found
        read = Exposure(
            exposure.name,
            exposure.begin,
            exposure.end,
            exposure.exposure_time,
            exposure.image_type,
            max(0.0, now - begun),
            exposure.tag,
        )
        self._plan(now, self.simulated.after(read))

    def _plan(self, now: float, told: Iterator[Told]) -> None:
        with self._something:
            for each in told:
                heapq.heappush(self._later, (now + each.delay, next(self._numbers), each))
            self._something.notify_all()

    def _overdue(self) -> float:
        with self._something:
            return float(bool(self._later) and self._later[0][0] < time.monotonic() - 5.0)

    def _tell_on(self, task: Task) -> None:
        while not task.stopping.is_set():
            with self._something:
                now = time.monotonic()
                ready = []
                while self._later and self._later[0][0] <= now:
                    ready.append(heapq.heappop(self._later)[2])
                if not ready:
                    wait = min(0.2, self._later[0][0] - now) if self._later else 0.2
                    self._something.wait(wait)
                    continue
            for each in ready:
                self._say(each)
            task.beat()

    def _say(self, told: Told) -> None:
        assert self.publisher is not None
        try:
            self.publisher.publish(told.kind, **told.fields)
            self.told += 1
        except RaftwrightError as error:
            _log.error("%s cannot be told: %s", told.kind, error)

    def _cadence(self, task: Task) -> None:
        """Images of its own: begun every so often, complete when they are read out."""
        settings: Settings = self.settings
        code = self.simulated.spec.camera.code
        zero = time.monotonic() + 0.2
        count = settings.images or 999_999
        for number in range(settings.start, min(settings.start + count, 1_000_000)):
            obsid = f"{code}_S_{settings.day}_{number:06}"
            begin = zero + (number - settings.start) * settings.every
            if task.wait(max(0.0, begin - time.monotonic())):
                return
            self.begin(obsid)
            if task.wait(max(0.0, begin + settings.readout - time.monotonic())):
                return
            self.complete(obsid)


def build(settings: Settings, common: Common) -> TelemetrySimulator:
    """The service of a site."""
    common.make_run()
    filled = msgspec.structs.replace(settings, events=settings.events or common.events_of(NAME))
    return TelemetrySimulator(filled, common.life(NAME))
