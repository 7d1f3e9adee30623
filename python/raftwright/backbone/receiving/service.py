"""The endpoint as a service: the taking in, an ingester for each plug-in, the register between them."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from raftwright.backbone.receiving.bell import Bell
from raftwright.backbone.receiving.ingesting import Ingester
from raftwright.backbone.receiving.intake import Intake, Taken
from raftwright.backbone.receiving.mounting import Mount
from raftwright.backbone.receiving.plugins import Item, Plugin, Result, Where, make_plugin
from raftwright.backbone.receiving.register import LEASE, Register
from raftwright.backbone.receiving.settings import Ingest, Settings
from raftwright.backbone.receiving.watching import Lookout
from raftwright.errors import RaftwrightError, StorageError, UsageError
from raftwright.service import Service

if TYPE_CHECKING:
    from raftwright.backbone.receiving.following import Follower
    from raftwright.service import Common, Life, Task

__all__ = ["Endpoint", "build"]

_log = logging.getLogger("raftwright.endpoint")

_NAME: Final = "endpoint"
_REMEMBERED: Final = 10_000
_LONGEST: Final = 60.0
_BREATH: Final = 0.005
"""Seconds between two looks at least, and as long as the look took."""
_UNFINISHED: Final = 0.5
"""Seconds between two looks at a file that is cut short."""


class Endpoint(Service):
    """Receives hand-overs. Raises, from `start`, StorageError, FormatError, NotFoundError and what plug-ins
    raise when they are made."""

    NAME: ClassVar[str] = _NAME
    LIVE: ClassVar[frozenset[str]] = frozenset({"pause", "settle", "patience"})
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {
        "rerun": frozenset({"ingester", "name"}),
        "replay": frozenset(),
    }

    settings: Settings

    def __init__(
        self, settings: Settings, life: Life | None = None, *, lease: float = LEASE, **more: Any
    ) -> None:
        super().__init__(settings, life, **more)
        self.register: Register | None = None
        self.intake: Intake | None = None
        self._lease = lease
        self._ingesters: list[Ingester] = []
        self._follower: Follower | None = None
        self._later: OrderedDict[str, tuple[float, int, str]] = OrderedDict()
        """Files of the buffer that could not be taken: not before when, how often, why."""
        self._odd: dict[bytes, str] = {}
        """What cannot be taken at all, as of the last look."""
        self._odd_now: dict[bytes, str] = {}
        self._news = threading.Event()
        self._bell = Bell()
        self._quiet = False
        self._trouble = ""
        self._has_looked = False
        self.taken = 0
        """Files that left the buffer."""

    # -- life

    def open(self) -> None:
        """Register, plug-ins, buffer."""
        settings = self.settings
        for key in ("buffer", "storage"):
            directory = getattr(settings, key)
            if not Path(directory).is_dir():
                raise StorageError(
                    2, f"there is no such {key}; make it, or mount what belongs there", directory
                )
        self._mount = Mount(Path(settings.buffer), Path(settings.storage))
        self._mount.make_sure()  # before anything is made there
        plugins = [(each, self._plugin(each)) for each in settings.ingest for _ in range(each.threads)]
        self.register = Register(settings.register_path, settings.storage, lease=self._lease)
        for each in settings.ingest:
            self.register.enrol(each.label)
        self.lookout = Lookout(
            Path(settings.buffer),
            settle=lambda: self.settings.settle,
            exclude=settings.exclude,
            most=settings.most,
            odd=self._is_odd,
            patience=lambda: self.settings.patience,
            empty=settings.empty,
            entered=self._bell.watch,
        )
        self.intake = Intake(
            Path(settings.buffer),
            Path(settings.storage),
            Path(settings.aside_path),
            self.register,
            ingesters=[each.label for each in settings.ingest],
            md5=any("md5" in plugin.sums for _, plugin in plugins),
            verify=settings.verify,
            link=settings.link,
            patience=lambda: self.settings.patience,
        )
        if settings.transfers is not None:
            from raftwright.backbone.receiving.following import Follower

            self._follower = Follower(
                *(settings, self.register, self.metrics),
                name=self.name,
                md5=any("md5" in plugin.sums for _, plugin in plugins),
                entered=self._news.set,
            )
            for topic in self._follower.topics:
                self.task(f"transfers {topic}", self._follower.follow(topic))
        self.task("keep", self._keep)
        self.task("intake", self._take_in, waiting=lambda: 1.0, patience=600.0)
        for number, (each, plugin) in enumerate(plugins):
            ingester = Ingester(each, self.register, plugin, metrics=self.metrics, told=self._ingested)
            self._ingesters.append(ingester)
            self.task(f"ingest {each.label} {number}", self._work(ingester))
        gauge = self.metrics.gauge
        gauge(
            "buffer_waiting", "Files that are not known to be whole", read=lambda: float(self.lookout.waiting)
        )
        gauge("buffer_oldest_seconds", "For how long the oldest of them", read=lambda: self.lookout.oldest)

    def _plugin(self, each: Ingest) -> Plugin:
        where = Where(storage=Path(self.settings.storage), name=each.label)
        return make_plugin(each.plugin, each.options, where)

    def quiet(self) -> None:
        """Takes on nothing more."""
        self._quiet = True
        self._news.set()

    def in_flight(self) -> Collection[Hashable]:
        """Ingesters that have a batch."""
        return [f"{each.name} {number}" for number, each in enumerate(self._ingesters) if each.busy]

    def close(self) -> None:
        """Everything that was opened."""
        if self._follower is not None:
            self._follower.close()
        for ingester in self._ingesters:
            with contextlib.suppress(Exception):
                ingester.close()
        if self.intake is not None:
            self.intake.close()
        if self.register is not None:
            self.register.close()
        self._bell.close()

    def _keep(self, task: Task) -> None:
        """Our leases."""
        assert self.register is not None
        while not task.wait(self._lease / 5):
            try:
                self.register.renew()
            except RaftwrightError as error:
                _log.error("%s", error)
            task.beat()

    # -- taking in

    def _take_in(self, task: Task) -> None:
        while not task.stopping.is_set():
            if self._quiet:
                task.wait(0.1)
                continue
            begun = time.monotonic()
            try:
                self.look(task.stopping)
                self._say("")
            except (RaftwrightError, OSError) as error:
                self._say(str(error))
                task.wait(min(5.0, 4 * self.settings.pause))
            task.beat()
            now = time.monotonic()
            task.wait(
                min(_BREATH + now - begun, self.settings.pause)
            )  # a full buffer is not read all the time
            self._bell.wait(min(self.settings.pause, self._due() - time.monotonic()), task.stopping)

    def _due(self) -> float:
        """When (monotonic) something is to be looked at again, if nobody rings."""
        return min(
            self.lookout.settled_at, min((due for due, _, _ in self._later.values()), default=math.inf)
        )

    def look(self, stopping: threading.Event | None = None) -> list[Taken]:
        """One look at the buffer: takes in what is whole. Raises StorageError, OutageError, OSError."""
        assert self.intake is not None
        if not self.intake.acquire():
            self._has_looked = True  # another process has the buffer; ingesting goes on here as well
            return []
        self._mount.make_sure()
        now = time.monotonic()
        done = []
        self._odd_now = {}
        candidates = self.lookout.look()
        self._odd = self._odd_now
        for name in [name for name in self._later if not self.lookout.sees(name)]:
            del self._later[name]
        self._has_looked = not candidates
        for candidate in candidates:
            if self._quiet or (stopping is not None and stopping.is_set()):
                break
            due, tries, _ = self._later.get(candidate.name, (0.0, 0, ""))
            if now < due:
                continue
            try:
                taken = self.intake.take(candidate)
            except (RaftwrightError, OSError):
                raise
            except Exception as error:  # one file must not stop the others
                _log.error("%s: %s: %s", candidate.name, type(error).__name__, error, exc_info=error)
                taken = Taken(candidate.name, "later", f"{type(error).__name__}: {error}")
            done.append(taken)
            self._count(taken, tries)
        self._has_looked = True
        return done

    def _count(self, taken: Taken, tries: int) -> None:
        self.metrics.counter("taken", "Files of the buffer", outcome=taken.outcome).add(1)
        if taken.outcome in ("later", "unfinished"):
            growing = min(_LONGEST, max(self.settings.pause, 0.2) * 2.0 ** min(tries, 20))
            pause = _UNFINISHED if taken.outcome == "unfinished" else growing * random.uniform(0.5, 1.0)
            self._later[taken.name] = time.monotonic() + pause, tries + 1, taken.message
            while len(self._later) > _REMEMBERED:
                self._later.popitem(last=False)
            return
        self.taken += 1
        self._later.pop(taken.name, None)
        self.lookout.forget(taken.name)
        self._news.set()
        self.tell("taken", {"name": taken.name, "outcome": taken.outcome, "message": taken.message})

    def _is_odd(self, name: bytes, why: str) -> None:
        """Something in the buffer that cannot be taken. It is left there, and told once."""
        if len(self._odd_now) >= _REMEMBERED:
            return
        self._odd_now[name] = why
        if name not in self._odd:
            self.metrics.counter("odd", "What cannot be taken in").add(1)
            _log.error("%s in the buffer: %s", ascii(name)[2:-1], why)

    def _say(self, trouble: str) -> None:
        if trouble and not self._trouble:
            _log.error("%s", trouble)
        self._trouble = trouble

    # -- ingesting

    def _work(self, ingester: Ingester) -> Callable[[Task], None]:
        def work(task: Task) -> None:
            while not task.stopping.is_set():
                if self._quiet or not ingester.work():
                    self._news.wait(0.2)
                    task.wait(0.02)
                    self._news.clear()
                task.beat()

        return work

    def _ingested(self, item: Item, result: Result) -> None:
        if result.verdict != "ignored":
            self.tell("ingested", {"name": item.name, "verdict": result.verdict, "message": result.message})

    # -- asked

    def apply(self, settings: Settings) -> None:
        """Tasks read what may change each time."""

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """`rerun`, with `ingester` and `name` if not all: asks once more for what failed. `replay`: looks at
        the dead letters of transfers once more."""
        if command == "replay" and self._follower is not None:
            return self._follower.replay()
        if command == "rerun" and self.register is not None:
            name, ingester = arguments.get("name"), arguments.get("ingester")
            labels = [each.label for each in self.settings.ingest]
            if ingester is not None and str(ingester) not in labels:
                raise UsageError(
                    f"there is no ingester {str(ingester)[:64]!a}; there are {', '.join(labels)}"
                )
            asked = self.register.rerun(
                None if ingester is None else str(ingester), names=[str(name)] if name else []
            )
            self._news.set()
            return {"queued": asked}
        return super().obey(command, arguments)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        if self.phase != "running" or self.register is None:
            return self.phase != "running"
        if not self._has_looked or self.lookout.waiting or self._later:
            return False
        return not any(self.register.waiting(each.label)[0] for each in self.settings.ingest)

    def problems(self) -> list[str]:
        """See `Service`."""
        said = [self._trouble] if self._trouble else []
        said += [f"{each.name}: {one}" for each in self._ingesters for one in each.problems()]
        if self._follower is not None:
            said += self._follower.problems()
        if self._odd:
            first = next(iter(self._odd))
            said.append(
                f"{len(self._odd)} in the buffer cannot be taken, {ascii(first)[2:-1]}: {self._odd[first]}"
            )
        if self.register is not None:
            with contextlib.suppress(RaftwrightError):
                for each in self.settings.ingest:
                    count, oldest = self.register.waiting(each.label)
                    if each.overdue and oldest > each.overdue:
                        said.append(f"{each.label}: {count} files wait, the oldest for {oldest:.0f} s")
        return said

    def report(self) -> Mapping[str, Any]:
        """See `Service`."""
        if self.register is None:
            return {}
        return {
            "buffer": self.settings.buffer,
            "storage": self.settings.storage,
            "waiting_in_buffer": self.lookout.waiting,
            **status_of(self.register, [each.label for each in self.settings.ingest]),
            "problems": self.problems(),
        }


def status_of(register: Register, ingesters: list[str] | None = None) -> dict[str, Any]:
    """What a register says, in short."""
    counts = register.counts()
    names = list(dict.fromkeys([*(ingesters or ()), *counts]))
    waiting = {name: register.waiting(name) for name in names}
    return {
        "files": register.places(),
        "ingesters": {
            name: {
                "states": counts.get(name, {}),
                "waiting": waiting[name][0],
                "oldest_s": round(waiting[name][1], 1),
            }
            for name in names
        },
    }


def build(settings: Settings, common: Common) -> Endpoint:
    """The endpoint of a configuration."""
    return Endpoint(settings, common.life(_NAME))
