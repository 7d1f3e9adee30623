"""Round after round: which images lack something, what of it is fetched now, and why the rest is not."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.camera import camera as find_camera
from raftwright.capture.work import Work
from raftwright.catchup import disk, mending
from raftwright.catchup.comparing import Known, Need, compare
from raftwright.catchup.findings import Finding, Findings
from raftwright.catchup.listing import Listed, Listing, order_of
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.ledger import facts_of, tai
from raftwright.ledger.rows import plain_id
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName, image_directory, raw_file_name, sidecar_path
from raftwright.service import bound

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.capture.troubles import Troubles
    from raftwright.catchup.selection import Selection
    from raftwright.catchup.settings import Settings
    from raftwright.daq import ImageInfo, Store
    from raftwright.ledger import Ledger
    from raftwright.ledger.claims import Outcome, UnitKey

__all__ = ["Survey"]

_log = logging.getLogger("raftwright.catchup")

_ENOUGH: Final = 256
"""Units that wait are enough: the rest is found later."""
_REMEMBERED: Final = 500_000
_ASIDE: Final = 600.0
"""Seconds until an image that cannot be taken is looked at again."""
_UNKNOWN: Final = "neither the DAQ nor the ledger knows it, or it is being read out"


class Survey:
    """Belongs to one thread, except for `forget`, `ended` and what says how things are.

    Parameters
    ----------
    store
        The DAQ's; None: there is none.
    ledger
        None: there is none.
    offer
        Gets units that are to be fetched; the others are none of its business.
    waiting
        How many units wait.
    again
        Asked for by somebody: pauses and numbers of attempts do not count, and each unit is tried once.
    dry
        Nothing is written, and nothing fetched.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store | None,
        ledger: Ledger | None,
        selection: Selection,
        troubles: Troubles,
        *,
        offer: Callable[[list[Work]], object],
        waiting: Callable[[], int],
        again: bool = False,
        dry: bool = False,
    ) -> None:
        self.settings = settings
        self._root = Path(settings.out)
        self._store = store
        self._ledger = ledger
        self._selection = selection
        self._troubles = troubles
        self._offer = offer
        self._waiting = waiting
        self._again = again
        self._dry = dry
        self._lock = threading.Lock()
        self._settled: OrderedDict[str, float] = OrderedDict()  # image -> until when nobody need look
        self._listing = Listing(store, ledger, selection, troubles, self._set_aside)
        self.findings = Findings()
        """What is missing."""
        self._outcomes: OrderedDict[UnitKey, str] = OrderedDict()  # of units that were tried, why not
        self._whole: OrderedDict[str, None] = OrderedDict()  # images that lacked nothing
        self._touched: set[str] = set()  # images that something happened to while they were looked at
        self._seen: OrderedDict[str, float] = OrderedDict()  # images of which nobody knows the time
        self.rounds = 0
        """Comparisons that came to their end."""
        self.behind = 0
        """Images that the last one did not get to."""
        self.looked = 0
        """Images that were looked at, in all."""
        self.disk = True
        """Whether the archive could be looked at last time."""

    # -- what others say

    def forget(self, image: str | None = None) -> None:
        """Looks at an image again, or at all."""
        with self._lock:
            if image is None:
                self._settled.clear()
            else:
                self._settled.pop(image, None)
                self._touched.add(image)

    def ended(self, work: Work, outcome: Outcome) -> None:
        """A unit was tried."""
        with self._lock:
            said = "" if outcome.state == "done" else f"{outcome.state}: {outcome.reason}"
            self._outcomes[work.key] = said
            _bounded(self._outcomes, _REMEMBERED)
            self._settled.pop(work.image.name, None)
            self._touched.add(work.image.name)

    @property
    def daq(self) -> bool:
        """Whether the DAQ answered last time."""
        return self._listing.daq

    # -- a round

    def round(self, stop: Callable[[], bool]) -> bool:
        """Compares once. False: it did not come to its end, because enough waits, or it was stopped.

        Raises StorageError where neither the DAQ nor the ledger can be asked.
        """
        listed = self._listing.images(self.settings.folder, self.settings.policy)
        for name in self._selection.images - {str(each.name) for each in listed}:
            self.findings.put(name, [Finding(name, "", (), "missing", "wait", _UNKNOWN)])
        self.disk = disk.is_archive(self._root)
        if self.disk:
            self._troubles.over("archive", "the archive can be used again")
        else:
            self._troubles.begin(
                "archive", f"{self._root}: the archive cannot be read and written; nothing is fetched"
            )
        now = time.monotonic()
        with self._lock:
            due = [each for each in listed if self._settled.get(str(each.name), 0.0) <= now]
        for number, each in enumerate(due):
            if stop() or self._waiting() >= _ENOUGH:
                self.behind = len(due) - number
                return False
            with bound(obsid=str(each.name)):
                self._try(each)
            self.looked += 1
        self.behind = 0
        self.rounds += 1
        return True

    # -- one image

    def _try(self, each: Listed) -> None:
        name = str(each.name)
        with self._lock:
            self._touched.discard(name)
        try:
            self._look(each)
        except NotFoundError:
            self._settle(name, 1.0)  # it went a moment ago
        except FormatError as error:
            self._set_aside(name, str(error))
            self._settle(name, _ASIDE)
        except StorageError as error:
            at = str(image_directory(self._root, each.name))
            if error.errno == errno.EIO or str(error.filename or "").startswith(at):
                self._set_aside(name, str(error))
                self._settle(name, _ASIDE)
                return
            self._settle(name, 0.0)
            raise  # the DAQ, the ledger or the disk does not answer: neither will it for the next
        except RaftwrightError as error:
            self._set_aside(name, str(error))
            self._settle(name, _ASIDE)

    def _look(self, each: Listed) -> None:
        name = str(each.name)
        if self._is_still_whole(each.name):
            self.findings.put(name, [])
            self._settle(name, self.settings.whole)
            return
        info, camera = None, None
        if self._store is not None and self.daq:
            try:
                image = self._store.image(name)
                info = image.info
                if not each.in_daq and not all(image.source(where).final for where in info.locations):
                    self._settle(name, 1.0)  # it is being read out
                    return
            except NotFoundError:
                if each.in_daq:
                    raise  # it went a moment ago
        if info is not None:
            if self.settings.folder and info.folder != self.settings.folder:
                self._settle(name, self.settings.whole)
                return
            camera = _camera(info.camera)
            if camera is None:
                raise FormatError(f"{name}: there is no camera {ascii(info.camera)[:80]}; give a camera file")
        self.findings.forget(name)
        if info is not None:
            wait = self._too_young(name, info)
            if not self._selection.wants(each.name, _trigger(info)):
                self._settle(name, self.settings.whole)
                return
            if wait > 0:
                self._settle(name, wait)
                return
        rows = self._known(name, info, camera)
        # After the rows: what they say is written stands by now.
        there = disk.look(self._root, each.name) if self.disk else None
        needs: list[tuple[Need, Known | None]] = []
        for known in rows:
            same = known is not None and info is not None and known.image.daq_id == plain_id(info.id)
            described = info if known is None or same else None
            if known is not None and camera is None:
                camera = _camera(known.image.camera)
            needs += [(need, known) for need in self._compare(each.name, camera, described, known, there)]
        self._act(each, info, needs)

    def _is_still_whole(self, name: ImageName) -> bool:
        """Whether an image that was whole is so, by ledger and disk alone: the DAQ is not asked again."""
        if self._ledger is None or not self.disk or str(name) not in self._whole:
            return False
        rows = self._ledger.images.get(str(name))
        if len(rows) != 1 or rows[0].state != "complete":
            return False
        (known,) = self._known(str(name), None, None)
        there = disk.look(self._root, name)
        camera = _camera(rows[0].camera)
        return not compare(name, camera, None, known, there, detectors=self._selection.detectors)

    def _known(self, name: str, info: ImageInfo | None, camera: Camera | None) -> list[Known | None]:
        """What the ledger has of an image; the DAQ's one is entered where it is not there yet."""
        ledger = self._ledger
        if ledger is None:
            return [None]
        rows = ledger.images.get(name)
        if info is not None and camera is not None and not self._dry:
            known = [row for row in rows if row.daq_id == plain_id(info.id)]
            if not known or not known[0].expected_detectors:
                ledger.images.announce(facts_of(info, camera))
                rows = ledger.images.get(name)
        found: list[Known | None] = [
            Known.of(
                row,
                ledger.images.sources(row.id),
                ledger.images.detectors(row.id),
                ledger.files.of(row.id, "raw"),
            )
            for row in rows
            if info is None or row.daq_id == plain_id(info.id)
        ]
        return found or [None]

    def _compare(
        self,
        name: ImageName,
        camera: Camera | None,
        info: ImageInfo | None,
        known: Known | None,
        there: Mapping[str, int] | None,
    ) -> list[Need]:
        gaps: dict[str, int] = {}
        if known is None and there is not None:
            gaps = self._gaps(name, camera, there)
        busy = self._busy(str(name), known)
        needs = compare(
            name,
            camera,
            info,
            known,
            there,
            detectors=self._selection.detectors,
            busy=busy,
            tries=self.settings.tries,
            now=tai(),
            again=self._again,
            gaps_on_disk=gaps,
        )
        for need in needs:
            if self._ledger is not None and busy.get(need.location) == self._ledger.owner:
                need.fetch = need.underway = True
                need.reason = "it is being fetched"
            if info is None and self.daq:
                need.gone = need.for_good = True
                need.reason = "the DAQ has this image no more"
        return needs

    def _busy(self, name: str, known: Known | None) -> dict[str, str]:
        if known is None or self._ledger is None:
            return {}
        claimed = {where: row.owner for where, row in known.sources.items() if row.state == "claimed"}
        if not claimed:
            return {}
        settled = {
            key.location for key in self._ledger.claims.settled([name]) if key.daq_id == known.image.daq_id
        }
        return {where: owner for where, owner in claimed.items() if where in settled}

    def _gaps(self, name: ImageName, camera: Camera | None, there: Mapping[str, int]) -> dict[str, int]:
        directory = image_directory(self._root, name)
        found: dict[str, int] = {}
        for detector in () if camera is None else camera.detectors:
            for version in range(1, len(there) + 1):
                file = raw_file_name(name, detector.header_raft, detector.header_slot, version)
                if file not in there:
                    break
                lacks = disk.missing_pixels(sidecar_path(directory / file))
                if lacks:
                    found[file] = lacks
        return found

    def _too_young(self, name: str, info: ImageInfo) -> float:
        """Seconds for which an image is left to the forwarders yet."""
        young = self.settings.young
        if young <= 0 or self._selection.images:
            return 0.0
        trigger = _trigger(info)
        if trigger is not None and (age := tai() - trigger) >= 0:
            return young - age
        seen = self._seen.setdefault(name, time.monotonic())
        _bounded(self._seen, _REMEMBERED)
        return young - (time.monotonic() - seen)

    # -- what becomes of it

    def _act(self, each: Listed, info: ImageInfo | None, needs: list[tuple[Need, Known | None]]) -> None:
        name = str(each.name)
        works: list[Work] = []
        findings: list[Finding] = []
        wait = min(self.settings.every, 1.0) if self._again else self.settings.every
        for need, known in needs:
            work = self._act_on(each, info, need, known)
            if work is not None:
                works.append(work)
            elif need.due:
                wait = min(wait, max(0.1, need.due - tai()))
            findings.append(Finding.of(name, need))
        self.findings.put(name, findings)
        if works and not self._dry:
            self._offer(works)
        if not works and self._ledger is not None and not self._dry:
            done = ("complete", "incomplete", "lost") if needs else ("complete",)
            for row in self._ledger.images.get(name):
                if row.state not in done and (info is None or row.daq_id == plain_id(info.id)):
                    mending.judge(self._ledger, row)
        if needs:
            self._whole.pop(name, None)
        else:
            self._whole[name] = None
            _bounded(self._whole, _REMEMBERED)
        self._settle(name, wait if needs else self.settings.whole)

    def _act_on(self, each: Listed, info: ImageInfo | None, need: Need, known: Known | None) -> Work | None:
        if need.underway:
            return None
        if not need.fetch:
            if known is None or self._ledger is None or self._dry or not need.for_good:
                return None
            if mending.give_up(self._ledger, known, need):
                mending.judge(self._ledger, known.image)
            return None
        assert info is not None
        assert need.source is not None
        assert need.board is not None
        if not self.disk:
            need.fetch, need.reason = False, "the archive cannot be written"
            return None
        if not self._is_mounted(each.name, need):
            need.fetch, need.reason = False, f"{self._root} has no directory of that night; is it mounted?"
            return None
        work = Work(
            info,
            need.source,
            need.board,
            live=False,
            only=need.detectors if self._selection.detectors else None,
            order=order_of(each, self.settings.policy),
            deadline=self._deadline(need.source.bytes),
        )
        if self._again and work.key in self._outcomes:
            need.fetch, need.reason = False, self._outcomes[work.key] or "it was tried, and is not there"
            return None
        if known is not None and self._ledger is not None and not self._dry:
            mending.prepare(self._ledger, known, need)
        return work

    def _is_mounted(self, name: ImageName, need: Need) -> bool:
        """An archive that is not mounted looks as if all files were lost: then nothing is marked."""
        if self._again or all(lack.why != "lost" for lack in need.lacks):
            return True
        return (self._root / name.dayobs).is_dir()

    def _deadline(self, size: int) -> float:
        """Of an attempt: giving way and the limit of the rate take their time."""
        slow = 2.0 * size * self.settings.units / self.settings.bandwidth if self.settings.bandwidth else 0.0
        return self.settings.deadline + self.settings.give_way + slow

    def _settle(self, name: str, seconds: float) -> None:
        with self._lock:
            if name in self._touched:
                return
            self._settled[name] = time.monotonic() + max(0.0, seconds)
            self._settled.move_to_end(name)
            _bounded(self._settled, _REMEMBERED)

    def _set_aside(self, name: str, why: str) -> None:
        """Says once that an image cannot be taken, and keeps its name as it is."""
        if not self.findings.aside(name, why):
            return
        _log.error("%s cannot be taken: %s", ascii(name)[1:-1][:120], why)
        if self._ledger is not None and not self._dry:
            try:
                self._ledger.quarantine.put("image", name, why)
            except RaftwrightError as error:
                _log.error("%s", error)
                self.findings.forget(name)  # said again when the ledger can be written


def _trigger(info: ImageInfo) -> float | None:
    return times.parse_iso(info.timestamp) / 1e9 if info.timestamp else None


def _camera(name: str) -> Camera | None:
    try:
        return find_camera(name) if name else None
    except RaftwrightError:
        return None


def _bounded(mapping: OrderedDict[Any, Any], most: int) -> None:
    while len(mapping) > most:
        mapping.popitem(last=False)
