"""From a unit that waits to one that is received: claim, a look at the disk, readout."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from raftwright import _core
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, RaftwrightError, StorageError
from raftwright.ledger.claims import Outcome
from raftwright.rawfile.output import ImageOutput
from raftwright.service.context import bound, carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.capture.places import Places
    from raftwright.capture.schedule import Schedule
    from raftwright.capture.settings import CaptureSettings
    from raftwright.capture.troubles import Troubles
    from raftwright.capture.work import Work
    from raftwright.ledger.claims import Claim, Claims
    from raftwright.metrics import Metrics
    from raftwright.prompt import Pool

__all__ = ["Dispatcher"]

_log = logging.getLogger("raftwright.capture")

_BATCH: Final = 24
"""Units that are claimed at a time: what others could have too is not taken all at once."""
_OUTPUTS: Final = 64
_AGAIN: Final = 2.0
_SOON: Final = 0.1


class Dispatcher:
    """One thread that takes units from the schedule and makes them ready, and one that looks first whether
    old ones are on the disk already: that may hang, and the live ones do not wait for it.

    `receive` gets what is to be received, `standing` what is whole on the disk already, `end` what cannot be,
    and `refused`, once it is out of hand, what somebody else has. `admit` says how many may be begun now,
    and `again` that pauses before another try do not count.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        schedule: Schedule,
        claims: Claims,
        pool: Pool | None,
        metrics: Metrics,
        troubles: Troubles,
        places: Places,
        *,
        receive: Callable[[Work], None],
        standing: Callable[[Work], None],
        end: Callable[[Work, Outcome], None],
        claimed: Callable[[Work, Claim], None],
        refused: Callable[[Work], None],
        admit: Callable[[], int] | None = None,
        again: bool = False,
    ) -> None:
        self._settings = settings
        self._schedule = schedule
        self._claims = claims
        self._pool = pool
        self._metrics = metrics
        self._troubles = troubles
        self._places = places
        self._receive = receive
        self._standing = standing
        self._end = end
        self._claimed = claimed
        self._others = refused
        self._admit = admit
        self._again = again
        self._stop = threading.Event()
        self._outputs: OrderedDict[tuple[str, str], ImageOutput] = OrderedDict()
        self._old: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=carried(self._run), name="dispatch", daemon=True),
            threading.Thread(target=carried(self._run_old), name="dispatch-old", daemon=True),
        ]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Takes nothing more."""
        self._stop.set()
        self._schedule.nudge()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
            self._old.put(None)  # the second ends when the first gives it nothing more

    @property
    def threads(self) -> list[threading.Thread]:
        """Both."""
        return self._threads

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._refuse_too_big()
                most = _BATCH if self._admit is None else min(_BATCH, self._admit())
                works = self._schedule.take(most) if most > 0 else []
                if works:
                    self._claim(works)
                else:
                    self._schedule.wait(1.0 if most > 0 else _SOON)
            except Exception:
                _log.exception("taking on work failed; it is tried again")
                self._stop.wait(1.0)

    def _refuse_too_big(self) -> None:
        for work in self._schedule.too_big():
            need = work.worst_case(self._settings.credit)
            self._troubles.begin(
                "memory",
                f"{work.image.name} {work.source.location} may need {need} bytes, but --memory is "
                f"{self._settings.memory}; raise it",
                "too big",
            )

    def _claim(self, works: list[Work]) -> None:
        wanted = [(work.key, work.image.folder, work.source.bytes) for work in works]
        try:
            with self._metrics.stage("claim"):
                claims = {claim.key: claim for claim in self._claims.claim(wanted, again=self._again)}
        except (StorageError, FormatError) as error:
            self._give_back(works)
            self._troubles.failed("ledger", error)
            self._stop.wait(1.0)  # the next sweep offers them again
            return
        except BaseException:
            self._give_back(works)
            raise
        self._troubles.over("ledger", "the ledger can be written again")
        for work in works:
            work.claim = claims.get(work.key)
            if work.claim is None:
                self._schedule.release(work)  # somebody else has it
                self._others(work)
                continue
            with bound(**work.about):
                self._attempt(work, self._begin)

    def _begin(self, work: Work) -> None:
        assert work.claim is not None
        self._claimed(work, work.claim)
        work.output = self._output(work)
        if work.live and work.claim.attempt == 1:
            self._make_ready(work)
        else:
            self._old.put(work)

    def _run_old(self) -> None:
        """Somebody may have written these and died before the ledger knew."""
        while (work := self._old.get()) is not None:
            with bound(**work.about):
                if self._stop.is_set():
                    self._end(work, Outcome(state="open", reason="it was given up at the end of the service"))
                else:
                    self._attempt(work, self._look)
            del work

    def _attempt(self, work: Work, step: Callable[[Work], None]) -> None:
        try:
            step(work)
        except RaftwrightError as error:
            self._refused(work, error)
        except Exception as error:
            _log.exception("%s %s cannot be begun", work.image.name, work.source.location)
            self._refused(work, error)

    def _look(self, work: Work) -> None:
        assert work.output is not None
        work.standing = work.output.standing(work.board)
        if work.wanted:
            self._make_ready(work)
        else:
            self._standing(work)

    def _give_back(self, works: list[Work]) -> None:
        for work in works:
            self._schedule.release(work)

    def _refused(self, work: Work, error: Exception) -> None:
        self._drop_memory(work)
        where = f"{work.image.name} {work.source.location}"
        if isinstance(error, StorageError):
            self._troubles.failed("archive", error, where)
        else:
            _log.error("%s: %s", where, error)
        self._end(work, Outcome(state="failed", reason=str(error)[:500], retry_after=_AGAIN))

    @staticmethod
    def _drop_memory(work: Work) -> None:
        work.readout = None
        if work.slab is not None:
            work.slab.discard()
            work.slab = None

    def _make_ready(self, work: Work) -> None:
        assert work.output is not None
        registers = work.source.registers
        layout = work.board.layout
        if self._pool is not None:
            work.slab = self._pool.lend(work.planes_bytes)
        if work.slab is not None:
            work.readout = _core.Readout(
                layout,
                registers.width,
                registers.height,
                pixels=True,
                compressed=True,
                memory=work.slab.memory.data,
            )
        else:
            work.readout = _core.Readout(
                layout, registers.width, registers.height, pixels=False, compressed=True
            )
        self._receive(work)
        # While the first chunks are on their way. It is no longer ours: what is wrong here, the writer meets.
        self._places.begin(work.output)
        with contextlib.suppress(RaftwrightError):
            work.output.warm(work.board, registers.geometry)

    def _output(self, work: Work) -> ImageOutput:
        """The files of an image."""
        key = (work.image.name, work.image.id)
        output = self._outputs.get(key)
        if output is None:
            output = ImageOutput(
                work.image,
                self._settings.out,
                find_camera(work.image.camera),
                fill=self._settings.fill,
                durable=self._settings.durable,
                versions=True,
            )
            self._outputs[key] = output
            while len(self._outputs) > _OUTPUTS:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(key)
        return output
