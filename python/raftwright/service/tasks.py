"""Tasks of a service: threads that are watched. Who dies is started again; who stands still is told."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from raftwright.errors import RaftwrightError, UsageError
from raftwright.service.context import bound

__all__ = ["Pulse", "Task", "Tasks"]

_log = logging.getLogger("raftwright.service")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
_DEATHS: Final = 3
"""So many deaths within `_WINDOW` seconds are a fault."""
_WINDOW: Final = 60.0
_STEADY: Final = 5.0
"""Seconds without a death after which a task counts as well again."""


class Pulse:
    """Whether work that waits is done: `waiting` and `count` are asked now and then and must answer at once.

    Where `waiting` is not 0 and nothing happened for `patience` seconds (no `beat`, and `count` is what it
    was), there is no progress.
    """

    def __init__(
        self,
        name: str,
        waiting: Callable[[], float],
        *,
        patience: float,
        count: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.patience = patience
        self._waiting = waiting
        self._count = count
        self._counted: object = None
        self._beat = time.monotonic()

    def beat(self) -> None:
        """Something was done."""
        self._beat = time.monotonic()

    def standing(self) -> float:
        """Seconds for which work has waited and nothing was done; 0 where none waits."""
        now = time.monotonic()
        try:
            counted = None if self._count is None else self._count()
            waits = self._waiting()
        except Exception as error:
            _log.warning("%s: nobody knows whether work waits (%s)", self.name, error)
            return 0.0
        if not waits or counted != self._counted:
            self._counted = counted
            self._beat = now
        return now - self._beat


class Task:
    """A thread with a name. Its function is called with it, and returns when `stopping` is set:

        def sweep(task):
            while not task.wait(5.0):
                look()
                task.beat()

    `beat` says that something was done. Where work waits (`waiting`, which must answer at once) and no beat
    came for `patience` seconds, there is no progress.
    """

    def __init__(
        self,
        service: str,
        name: str,
        function: Callable[[Task], None],
        *,
        waiting: Callable[[], float] | None,
        patience: float,
        once: bool,
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.deaths = 0
        """In all."""
        self.restarts = 0
        self.last_error = ""
        self.pulse = None if waiting is None else Pulse(name, waiting, patience=patience)
        self._service = service
        self._function = function
        self._once = once
        self._lock = threading.Lock()
        self._recent: deque[float] = deque(maxlen=_DEATHS)
        self._in_row = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"{service} {name}"[:60], daemon=True)

    # -- for its function

    def beat(self) -> None:
        """Something was done."""
        if self.pulse is not None:
            self.pulse.beat()

    def wait(self, seconds: float) -> bool:
        """Pauses, and says whether it is to end."""
        return self.stopping.wait(seconds)

    # -- for the service

    def start(self) -> None:
        """Begins."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Asks it to end."""
        self.stopping.set()

    def join(self, seconds: float) -> bool:
        """Whether it ended within this time."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """Whether it came to its end by itself, as one with `once` does."""
        return self._ended

    def failing(self) -> str:
        """Why it counts as dead, or nothing."""
        with self._lock:
            now = time.monotonic()
            if len(self._recent) == _DEATHS and now - self._recent[0] <= _WINDOW:
                if now - self._recent[-1] < _STEADY + self._pause():
                    return f"{self.name} died {self.deaths} times, last: {self.last_error}"
                self._recent.clear()  # it has run since, for long enough
                self._in_row = 0
        return ""

    def _pause(self) -> float:
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * float(1 << min(10, self._in_row)))

    def _run(self) -> None:
        with bound(service=self._service):
            while not self.stopping.is_set():
                try:
                    self._function(self)
                    if self.stopping.is_set() or self._once:
                        self._ended = True
                        return
                    self._died("it returned, which it must not", None)
                except RaftwrightError as error:
                    self._died(str(error), error)
                except BaseException as error:  # whatever it was, the service must know
                    self._died(f"{type(error).__name__}: {error}", error)
                with self._lock:
                    pause = self._pause()
                if self.stopping.wait(pause):
                    return
                self.restarts += 1

    def _died(self, reason: str, error: BaseException | None) -> None:
        with self._lock:
            now = time.monotonic()
            if self._recent and now - self._recent[-1] > _STEADY + self._pause():
                self._in_row = 0
            self._recent.append(now)
            self._in_row += 1
            self.deaths += 1
            self.last_error = reason
        _log.error("%s died and is started again: %s", self.name, reason, exc_info=error)


class Tasks:
    """All tasks of a service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()
        self._started = False

    def add(
        self,
        name: str,
        function: Callable[[Task], None],
        *,
        waiting: Callable[[], float] | None = None,
        patience: float = 30.0,
        once: bool = False,
    ) -> Task:
        """A task more; begins at once where the others did. Raises UsageError for a name that is taken."""
        task = Task(self._service, name, function, waiting=waiting, patience=patience, once=once)
        with self._lock:
            if name in self._tasks:
                raise UsageError(f"{self._service} has a task {name} already; choose another name")
            self._tasks[name] = task
            if self._started:
                task.start()
        return task

    def start(self) -> None:
        """Begins all."""
        with self._lock:
            self._started = True
            for task in self._tasks.values():
                task.start()

    def stop(self, seconds: float) -> list[str]:
        """Ends all within this time; the names of those that did not."""
        for task in self:
            task.stop()
        until = time.monotonic() + seconds
        return [task.name for task in self if not task.join(until - time.monotonic())]

    def __iter__(self) -> Iterator[Task]:
        with self._lock:
            return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)
