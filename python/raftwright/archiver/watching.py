"""What the DAQ has and the ledger does not: each image is announced with what it must have.

Notices make it fast, a sweep of the catalogue makes it certain. While an image is read out it is asked from
time to time whether its sources still come: one that does not is told at once, whatever becomes of it later.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.ledger.announcing import facts_of
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.daq import ImageInfo, Notice, Store
    from raftwright.ledger import Ledger
    from raftwright.service import Task

__all__ = ["Watch"]

_log = logging.getLogger("raftwright.archiver")

_AT_A_TIME: Final = 200
"""Images that one sweep asks the DAQ about."""
_REMEMBERED: Final = 100_000
_LONGEST_PAUSE: Final = 30.0
_LOOK: Final = 1.0
"""Seconds between two looks at what is being read out."""
_LONG: Final = 60.0
_ASIDE: Final = 60.0
"""Seconds until an image that could not be entered is looked at again."""
_AGAIN: Final = 20
"""Images that a sweep asks about again: under a name there may be another image now."""


class _Underway:
    """An image that is being read out."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.came: dict[str, tuple[int, float]] = {}
        """Bytes of each source, and since when they are no more than that."""
        self.dead: dict[str, str] = {}
        """Sources that come no more, and what there is to say."""


class Watch:
    """Two tasks, `listen` and `sweep`.

    Parameters
    ----------
    late
        Seconds after which a source from which nothing comes counts as dead.
    announced
        Told an image's number when the DAQ has news of it, whether the readout has ended, and whether that
        was a moment ago.
    dead
        Told number, location and reason of a source that comes no more.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        folder: str,
        instrument: str,
        every: Callable[[], float],
        late: Callable[[], float],
        active: Callable[[], bool],
        announced: Callable[[int, bool, bool], None],
        dead: Callable[[int, str, str], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._folder = folder
        self._instrument = instrument
        self._every = every
        self._late = late
        self._active = active
        self._announced = announced
        self._dead = dead
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._ended = False
        self._known: OrderedDict[str, tuple[str, int, bool]] = OrderedDict()
        """Image: the DAQ's id, its number in the ledger (0: not ours), and whether its readout has ended."""
        self._underway: dict[str, _Underway] = {}
        self._aside: dict[str, float] = {}
        self.strange: OrderedDict[str, str] = OrderedDict()
        """Images that cannot be entered, and why."""
        # A subscription to a server lasts until it is closed; others are asked to come back for the end.
        self._patience = None if hasattr(store, "close") else 0.2
        self.trouble = ""
        """Why the DAQ cannot be asked; empty where it can."""
        self.swept = 0

    def forget(self) -> None:
        """Everything is announced again."""
        with self._lock:
            self._known.clear()
        self._wanted.set()

    def end(self) -> None:
        """Asks the DAQ no more."""
        self._ended = True
        self._wanted.set()

    # -- notices

    def listen(self, task: Task) -> None:
        """A task."""
        pause = 0.1
        while not task.stopping.is_set():
            if self._ended or not self._active():
                task.wait(_LONG if self._ended else 0.5)
                continue
            try:
                for notice in self._store.notices(self._patience):
                    pause = 0.1
                    if task.stopping.is_set() or not self._active():
                        break
                    self._take(notice)
                task.wait(0.02)
            except RaftwrightError as error:
                if not self._ended:
                    self._say(error)
                task.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _take(self, notice: Notice) -> None:
        if notice.kind in ("begun", "complete"):
            with self._lock:
                self._aside.pop(notice.image, None)
                if notice.kind == "begun":
                    self._known.pop(notice.image, None)
            try:
                self._look(notice.image, ended=notice.kind == "complete", live=True)
            except NotFoundError:
                pass
            except RaftwrightError:
                self._wanted.set()  # the sweep says what is wrong
        elif notice.kind == "removed":
            with self._lock:
                self._known.pop(notice.image, None)
                self._underway.pop(notice.image, None)
                self.strange.pop(notice.image, None)
        elif notice.kind == "missed":
            self._wanted.set()

    # -- comparing

    def sweep(self, task: Task) -> None:
        """A task."""
        due = 0.0
        while not task.stopping.is_set():
            if self._ended:
                task.wait(_LONG)
                continue
            if self._active():
                try:
                    if time.monotonic() >= due or self._wanted.is_set():
                        self._wanted.clear()
                        left = self._sweep(task)
                        due = time.monotonic() + (0.0 if left else self._every())
                        self.swept += 1
                        self._answers()
                    self._look_at_underway()
                except RaftwrightError as error:
                    if not self._ended:
                        self._say(error)
                    due = time.monotonic() + self._every()
                task.beat()
            self._wanted.wait(min(_LOOK, self._every()))

    def _say(self, error: Exception) -> None:
        if not self.trouble:
            _log.error("the DAQ cannot be asked: %s", error)
        self.trouble = str(error)

    def _answers(self) -> None:
        """All of the catalogue was compared: only that says that the DAQ is well."""
        if self.trouble:
            _log.info("the DAQ answers again")
            self.trouble = ""

    def _sweep(self, task: Task) -> int:
        """How many images are left for the next one."""
        underway = self._store.underway()
        complete = self._store.images(self._folder or None)
        there = {*underway, *complete}
        with self._lock:
            for name in [name for name in self._underway if name not in underway]:
                del self._underway[name]
            for name in [name for name in self.strange if name not in there]:
                del self.strange[name]
                self._aside.pop(name, None)
            told = {name for name, known in self._known.items() if known[2]}
            aside = {name for name, until in self._aside.items() if time.monotonic() < until}
            unknown = [name for name in complete if name not in told and name not in aside]
            again = [name for name in list(self._known)[:_AGAIN] if name in there]
            for name in list(self._known)[:_AGAIN]:
                self._known.move_to_end(name)
        for name in underway:
            if name not in aside:
                self._try(name, ended=False)
        unknown.sort(key=_age)
        for number, name in enumerate(unknown):
            if task.stopping.is_set() or number >= _AT_A_TIME:
                return len(unknown) - number
            self._try(name, ended=True)
        for name in again:
            if not task.stopping.is_set():
                self._try(name, ended=name in complete)
        return 0

    def _try(self, name: str, *, ended: bool) -> None:
        try:
            self._look(name, ended=ended)
        except NotFoundError:
            pass  # removed a moment ago
        except (FormatError, UsageError) as error:
            self._set_aside(name, str(error))  # of the second kind: a number that no ledger takes
        except StorageError as error:
            if error.errno != errno.EIO:
                raise
            self._set_aside(name, str(error))  # the server cannot read this one

    def _look(self, name: str, *, ended: bool, live: bool = False) -> None:
        """Enters an image. Raises what asking for it raises."""
        info = self._store.image(name).info
        with self._lock:
            known = self._known.get(name)
            if ended:
                self._underway.pop(name, None)
            elif name not in self._underway:
                self._underway[name] = _Underway()
        if known is not None and known[0] == info.id:
            number, told = known[1], known[2]
            if not number or not ended or told:
                return
        else:
            entered = self._enter(info)
            if entered is None:
                return
            number = entered
        with self._lock:
            self.strange.pop(name, None)
            self._aside.pop(name, None)
            self._known[name] = info.id, number, ended
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if number:
            self._announced(number, ended, live)

    def _enter(self, info: ImageInfo) -> int | None:
        """Its number; 0 where it is not ours, None where it was set aside."""
        if self._folder and info.folder != self._folder:
            return 0
        try:
            ImageName.parse(info.name)
            camera = find_camera(info.camera)
        except RaftwrightError as error:
            self._set_aside(info.name, str(error))
            return None
        if self._instrument and self._instrument not in (camera.instrume, camera.name):
            return 0
        return self._ledger.images.announce(facts_of(info, camera))

    def _set_aside(self, name: str, why: str) -> None:
        with self._lock:
            known = self.strange.get(name)
            self.strange[name] = why
            self._aside[name] = time.monotonic() + _ASIDE
            self._underway.pop(name, None)
            while len(self.strange) > 10_000:
                self._aside.pop(self.strange.popitem(last=False)[0], None)
        if known == why:
            return
        _log.error("%s cannot be entered: %s", ascii(name)[1:-1][:120], why)
        self._ledger.quarantine.put("image", name, why)

    # -- what is being read out

    def _look_at_underway(self) -> None:
        late = self._late()
        with self._lock:
            waiting = [
                (name, state, self._known[name][1])
                for name, state in self._underway.items()
                if time.monotonic() - state.begun > late / 4 and name in self._known and self._known[name][1]
            ]
        for name, state, number in waiting:
            try:
                image = self._store.image(name)
                for info in image.info.sources:
                    if info.location in state.dead:
                        continue
                    source = image.source(info.location)
                    if source.final:
                        state.came.pop(info.location, None)
                        continue
                    self._look_at(
                        number, state, info.location, _sum(source.available(0, info.bytes)), info.bytes
                    )
            except NotFoundError:
                continue

    def _look_at(self, number: int, state: _Underway, location: str, came: int, wanted: int) -> None:
        now = time.monotonic()
        before, since = state.came.get(location, (0, state.begun))
        if came > before:
            state.came[location] = came, now
        elif now - since >= self._late():
            state.dead[location] = f"nothing came for {now - since:.0f} s, {came} of {wanted} bytes are there"
            self._dead(number, location, state.dead[location])
        else:
            state.came[location] = before, since


def _sum(ranges: list[tuple[int, int]]) -> int:
    return sum(last - first for first, last in ranges)


def _age(name: str) -> tuple[list[str], str]:
    """Sorts the oldest images first."""
    return name.split("_")[2:], name
