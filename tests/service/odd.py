"""A service for tests: its tasks die, stand still and finish as they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, ClassVar

import msgspec

from raftwright.errors import UsageError
from raftwright.service import Life, Service, State, Task

__all__ = ["Odd", "Settings", "wait_for"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    every: float = 0.02
    place: str = "here"


class Odd(Service):
    NAME = "odd"
    LIVE = frozenset({"every"})
    OBEYS: ClassVar = dict.fromkeys(("hang", "fail", "burst"), frozenset[str]()) | {
        "bring": frozenset({"detector"})
    }

    def __init__(self, life: Life | None = None, settings: Settings | None = None, **more: Any) -> None:
        super().__init__(settings or Settings(), life or Life(**more))
        self.turns = 0
        self.mood: BaseException | None = None
        """What the task dies of."""
        self.backlog = 0
        self.stuck = False
        self.busy: set[str] = set()
        self.applied: list[float] = []
        self.refuse: Exception | None = None
        """Why settings are not taken."""
        self.closed = 0
        self.brought: list[str] = []
        self.seen: list[tuple[State, State]] = []
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.observer = lambda what, facts: self.told.append((what, facts))
        self.release = threading.Event()

    def open(self) -> None:
        self.task("turn", self._turn, waiting=lambda: self.backlog, patience=0.5)

    def _turn(self, task: Task) -> None:
        while not task.wait(self.settings.every):
            if self.mood is not None:
                raise self.mood
            if not self.stuck:
                self.turns += 1
                task.beat()

    def in_flight(self) -> Collection[Hashable]:
        return set(self.busy)

    def close(self) -> None:
        self.closed += 1

    def check(self, settings: Settings) -> None:
        if settings.every > 10:
            raise UsageError("every: at most 10 s")

    def apply(self, settings: Settings) -> None:
        if self.refuse is not None and settings.every != self.settings.every:
            raise self.refuse
        self.applied.append(settings.every)

    def changed(self, before: State, now: State) -> None:
        self.seen.append((before, now))

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        match command:
            case "hang":
                self.release.wait(20.0)
                return {"hung": True}
            case "fail":
                raise UsageError("not today")
            case "bring":
                self.brought.append(str(arguments["detector"]))
                return {"brought": len(self.brought)}
            case "burst":
                raise RuntimeError("a bug")
        return super().obey(command, arguments)


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
