"""What the DAQ has and the ledger does not: found by comparing, made quick by notices."""

from __future__ import annotations

import bisect
import contextlib
import errno
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from raftwright.camera import camera as find_camera
from raftwright.capture.work import Work
from raftwright.daq import check_source
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.forwarder.keeping import Keeper
from raftwright.ledger import facts_of
from raftwright.ledger.claims import ENDED, Outcome
from raftwright.ledger.rows import plain_id
from raftwright.rawfile.names import ImageName
from raftwright.service.context import carried

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.capture.schedule import Schedule
    from raftwright.capture.troubles import Troubles
    from raftwright.daq import ImageInfo, Notice
    from raftwright.forwarder.settings import Settings
    from raftwright.ledger import Ledger, Unit
    from raftwright.stream import NetworkStore

__all__ = ["Lookout"]

_log = logging.getLogger("raftwright.forwarder")

_AT_A_TIME: Final = 200
"""Images that one sweep asks the DAQ about."""
_ENOUGH: Final = 256
"""Units that wait are enough: the rest of the backlog is found later."""
_REMEMBERED: Final = 200_000
_LONGEST_PAUSE: Final = 30.0
_SOON: Final = 0.2
_AGAIN: Final = 20
"""Images that a sweep asks about again though nothing is to be done of them."""
_STANDS_BACK: Final = 2.0
"""Seconds for which a sweep waits for what was announced."""
_ASIDE: Final = 60.0
"""Seconds until an image that could not be taken is looked at again."""
_ABSENT: Final = 60.0
"""Seconds for which an image may be in no catalogue before it is gone."""
_GONE: Final = 600.0
"""Seconds until what is gone is tried again, where the DAQ has it again."""

_Age: TypeAlias = tuple[list[str], str]


class _LedgerFails(Exception):  # noqa: N818 - it is told, not raised further
    """The ledger cannot be asked: that says nothing of the image, nor of the DAQ."""

    def __init__(self, why: RaftwrightError) -> None:
        super().__init__(str(why))
        self.why = why


class Lookout:
    """Two threads: one listens to notices, one compares catalogue and ledger again and again."""

    def __init__(
        self,
        settings: Settings,
        store: NetworkStore,
        ledger: Ledger,
        schedule: Schedule,
        troubles: Troubles,
        *,
        seen: Callable[[list[Work]], None] | None = None,
    ) -> None:
        """`seen` gets the sources of the first image that is looked at and is not being read out."""
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._generation = ledger.generation
        self._announced: OrderedDict[tuple[str, str], int] = OrderedDict()  # image -> its sources
        self._schedule = schedule
        self._troubles = troubles
        self._seen = seen
        self._keeper = Keeper(settings.out, store, ledger, troubles, settings.durable)
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._news = threading.Lock()
        """Held while what was announced is looked at. Questions go to the DAQ one at a time, and over a long
        line each takes long: the sweep stands back."""
        self._ended: OrderedDict[str, str] = OrderedDict()  # image -> DAQ id; nothing is to be done about it
        self._strange: OrderedDict[str, tuple[str, float]] = OrderedDict()  # what -> why not, until when
        self._cursor: _Age | None = None  # of the last image that a sweep which is not at its end looked at
        self._absent: OrderedDict[str, float] = OrderedDict()  # unfinished, in no catalogue: since when
        self._threads: list[threading.Thread] = []
        self.swept = 0.0
        """When a sweep ended last, as `time.monotonic` has it; 0: none did."""
        self.behind = 0
        """Images that the last sweep did not get to."""

    def start(self) -> None:
        """Begins to look."""
        for name, target in (("sweep", self._sweep_on), ("notices", self._listen_on)):
            thread = threading.Thread(target=carried(target), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._keeper.thread.start()
        self._threads.append(self._keeper.thread)

    def stop(self) -> None:
        """Ends; the store has to be closed by its owner for the listener to go at once."""
        self._stop.set()
        self._wanted.set()
        self._keeper.stop()

    def join(self, timeout: float) -> None:
        """Waits for the threads."""
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def threads(self) -> list[threading.Thread]:
        """All that have to live while it looks."""
        return self._threads

    def change(self, settings: Settings) -> None:
        """Other boards, folder or time between sweeps from now on; all images are looked at again."""
        self._settings = settings
        with self._lock:
            self._ended.clear()
        self._cursor = None
        self._wanted.set()

    def look_again(self, image: str | None = None) -> None:
        """Asks for a sweep soon; with an image, what was known of that is forgotten."""
        if image is not None:
            with self._lock:
                self._ended.pop(image, None)
        self._wanted.set()

    @property
    def strange(self) -> dict[str, str]:
        """Images that cannot be taken, and why."""
        with self._lock:
            return {what: why for what, (why, _) in self._strange.items()}

    # -- notices

    def _listen_on(self) -> None:
        pause = 0.1
        while not self._stop.is_set():
            try:
                for notice in self._store.notices():
                    pause = 0.1
                    self._troubles.over("notices")
                    if self._stop.is_set():
                        return
                    self._take(notice)
            except RaftwrightError as error:
                if not self._stop.is_set():
                    self._troubles.failed("notices", error, "no notices of the DAQ")
            except Exception:
                if self._stop.is_set():
                    return  # its connections were closed under it
                _log.exception("listening to the DAQ failed; it begins anew")
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _take(self, notice: Notice) -> None:
        match notice.kind:
            case "begun" | "complete":
                with self._lock:
                    self._ended.pop(notice.image, None)
                try:
                    with self._news:
                        self._look(notice.image, live=True)
                except NotFoundError:
                    pass
                except (RaftwrightError, _LedgerFails):
                    self._wanted.set()  # the sweep says what is wrong
            case "removed":
                self._schedule.drop(notice.image)
                with self._lock:
                    self._ended.pop(notice.image, None)
                    for what in [what for what in self._strange if what.split(" ")[0] == notice.image]:
                        del self._strange[what]
                with contextlib.suppress(RaftwrightError, _LedgerFails):  # the sweep finds it too
                    self._give_up(self._ledger.claims.units([notice.image]))
            case "missed":
                self._wanted.set()

    # -- comparing

    def _sweep_on(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            if self.behind and self._schedule.waiting() >= _ENOUGH and time.monotonic() < due:
                self._stop.wait(_SOON)
                continue
            due = time.monotonic() + self._settings.sweep
            try:
                self.behind = self._sweep()
                self._troubles.over("daq", "the DAQ answers again")
                self.swept = time.monotonic()
            except _LedgerFails as error:
                self._troubles.failed("ledger", error.why)
            except RaftwrightError as error:
                if not self._stop.is_set():
                    self._troubles.failed("daq", error, "the DAQ cannot be asked")
            except Exception:
                if self._stop.is_set():
                    return
                _log.exception("comparing with the DAQ's catalogue failed; it is done again")
            self._wanted.wait(_SOON if self.behind else self._settings.sweep)
            self._wanted.clear()

    def _sweep(self) -> int:
        """Returns how many images are left for the next, which goes on where this one ends: images that
        wait for repair do not keep it from the others."""
        self._heed_another_ledger()
        folder = self._settings.folder or None
        underway = self._store.underway()
        for name in underway:
            if not self._is_ended(name):
                self._try(name, live=True)
        complete = self._store.images(folder)
        self._look_for_gone({*complete, *underway})
        left = sorted(_age(name) for name in complete if not self._is_ended(name))
        if self._cursor is not None:
            left = left[bisect.bisect_right(left, self._cursor) :]
        for looked, age in enumerate(left):
            if self._stop.is_set() or looked >= _AT_A_TIME or self._schedule.waiting() >= _ENOUGH:
                return len(left) - looked
            self._try(age[1], live=False)
            self._cursor = age
        self._cursor = None
        self._look_back(set(complete))
        return 0

    def _look_for_gone(self, there: set[str]) -> None:
        """Ends units that wait for another try of an image that the DAQ has no longer. One that has no image
        at all may have lost a disk for a while: that says nothing."""
        if not there:
            return
        now = time.monotonic()
        try:
            waiting = self._ledger.claims.unfinished(_AT_A_TIME)
        except (StorageError, FormatError) as error:
            raise _LedgerFails(error) from error
        unfinished = [unit for unit in waiting if unit.image not in there]
        names = {unit.image for unit in unfinished}
        for name in [name for name in self._absent if name not in names]:
            del self._absent[name]
        for name in names:
            self._absent.setdefault(name, now)
        patience = min(_ABSENT, 10 * self._settings.sweep)
        self._give_up(unit for unit in unfinished if now - self._absent[unit.image] >= patience)

    def _give_up(self, units: Iterable[Unit]) -> None:
        """Enters as gone what is not finished and whose image the DAQ has not. Raises what asking raises."""
        for unit in units:
            if unit.state in ENDED or unit.state in ("claimed", "gone"):
                continue
            try:
                if plain_id(self._store.image(unit.image).info.id) == unit.daq_id:
                    continue  # it has; a catalogue of one folder does not show all
            except NotFoundError:
                pass
            reason = "the DAQ has it no longer" + (f"; before: {unit.reason}" if unit.reason else "")
            outcome = Outcome(state="gone", reason=reason[:2000], received=unit.received, retry_after=_GONE)
            try:
                for claim in self._ledger.claims.claim([(unit.key, unit.folder, unit.expected)], again=True):
                    self._ledger.claims.end(claim, outcome)
            except (StorageError, FormatError) as error:
                raise _LedgerFails(error) from error
            _log.warning("%s %s: gone: %s", unit.image, unit.location, outcome.reason)

    def _look_back(self, complete: set[str]) -> None:
        """Asks again about some images of which nothing is to be done: under the name there may be another
        image now, and the notice of it may be lost."""
        until = time.monotonic() + self._settings.sweep / 4
        with self._lock:
            some = list(itertools.islice(self._ended, _AGAIN))
        for name in some:
            if self._stop.is_set() or time.monotonic() > until:
                return
            with self._lock:
                if name in self._ended:
                    self._ended.move_to_end(name)
            if name in complete:
                self._try(name, live=False)

    def _is_ended(self, name: str) -> bool:
        with self._lock:
            if name in self._strange and time.monotonic() < self._strange[name][1]:
                return True
            return name in self._ended

    def _try(self, name: str, *, live: bool) -> None:
        if self._news.acquire(timeout=_STANDS_BACK):
            self._news.release()
        try:
            self._look(name, live=live)
        except NotFoundError:
            pass  # removed a moment ago
        except FormatError as error:
            self._set_aside(name, str(error))
        except StorageError as error:
            if error.errno != errno.EIO:
                raise  # no answer, or not now
            self._set_aside(name, str(error))  # the server cannot read this one

    def _look(self, name: str, *, live: bool) -> None:
        """Offers what is to be done of an image. Raises what asking for it raises."""
        image = self._store.image(name).info
        if self._settings.folder and image.folder != self._settings.folder:
            self._remember(name, image.id)
            return
        try:
            ImageName.parse(image.name)
            camera = find_camera(image.camera)
            wanted = self._wanted_locations(camera)
        except RaftwrightError as error:
            self._set_aside(name, str(error))
            return
        with self._lock:
            self._strange.pop(name, None)
        try:
            self._announce(image, camera)
            states = {unit.key: unit.state for unit in self._ledger.claims.units([name])}
            settled = self._ledger.claims.settled([name])
        except (StorageError, FormatError) as error:
            raise _LedgerFails(error) from error
        works: list[Work] = []
        sources: list[Work] = []
        left = 0
        undecoded = []
        for source in image.sources:
            if wanted is not None and source.location not in wanted:
                continue
            try:
                board = camera.board(source.location)
                check_source(source, board)
            except RaftwrightError as error:
                self._set_aside(f"{name} {source.location}", str(error))
                undecoded.append(source.location)
                continue
            with self._lock:
                self._strange.pop(f"{name} {source.location}", None)
            work = Work(image, source, board, live)
            sources.append(work)
            if states.get(work.key) not in ENDED:
                left += 1
            if work.key not in settled:
                works.append(work)
        self._compare_platforms(image)
        if not live:
            self._keeper.keep(name, undecoded)
        if self._seen is not None and sources and not live:
            self._seen(sources)
            self._seen = None
        if works:
            self._schedule.offer(works)
        elif not left:
            self._remember(name, image.id)

    def _compare_platforms(self, image: ImageInfo) -> None:
        """Boards of one readout run one platform; where they do not, somebody is to know which."""
        boards: dict[str, list[str]] = {}
        for source in image.sources:
            if source.platform:
                boards.setdefault(source.platform, []).append(source.location)
        if len(boards) > 1:
            listed = "; ".join(f"{name} on {', '.join(where)}" for name, where in sorted(boards.items()))
            self._troubles.begin(
                "platforms", f"{image.name}: its boards run different platforms: {listed}"[:1000], listed
            )
        elif boards:
            self._troubles.over("platforms", f"{image.name}: its boards run one platform again")

    def _heed_another_ledger(self) -> None:
        """Forgets what was in the ledger where it was lost and made anew, or an older one was put back."""
        if self._generation == (generation := self._ledger.generation):
            return
        self._generation = generation
        self._announced.clear()
        with self._lock:
            self._ended.clear()
        self._cursor = None
        self._wanted.set()

    def _announce(self, image: ImageInfo, camera: Camera) -> None:
        """The ledger knows of an image, and what it must have, before anything of it is claimed."""
        self._heed_another_ledger()
        key = (image.name, image.id)
        if self._announced.get(key, -1) >= len(image.sources):
            return
        self._ledger.images.announce(facts_of(image, camera))
        self._announced[key] = len(image.sources)
        while len(self._announced) > _REMEMBERED:
            self._announced.popitem(last=False)

    def _wanted_locations(self, camera: Camera) -> set[str] | None:
        rafts, locations = self._settings.rafts, self._settings.locations
        if rafts is None and locations is None:
            return None
        found = {camera.board(location).location for location in locations or ()}
        for raft in rafts or ():
            found.update(board.location for board in camera.raft(raft).boards)
        return found

    def _remember(self, name: str, daq_id: str) -> None:
        with self._lock:
            self._ended[name] = daq_id
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    def _set_aside(self, what: str, why: str) -> None:
        """Tried again after a while, or when there is news of it. Each reason is said once."""
        until = time.monotonic() + min(_ASIDE, 10 * self._settings.sweep)
        with self._lock:
            known = self._strange.get(what)
            self._strange[what] = why, until
            while len(self._strange) > 10_000:
                self._strange.popitem(last=False)
        if known is not None and known[0] == why:
            return
        _log.error("%s cannot be taken: %s", ascii(what)[1:-1][:120], why)
        with contextlib.suppress(
            StorageError, FormatError
        ):  # it is told again when the ledger is there again
            self._ledger.quarantine.put("image", what, why)


def _age(name: str) -> _Age:
    """Sorts the oldest images first."""
    return name.split("_")[2:], name
