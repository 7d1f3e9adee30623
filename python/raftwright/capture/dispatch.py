"""From a unit that waits to one that is received: claim, directory, manifest, readout."""

from __future__ import annotations

import logging
import threading
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
    """One thread that takes units from the schedule and makes them ready.

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
        self._receive = receive
        self._standing = standing
        self._end = end
        self._claimed = claimed
        self._others = refused
        self._admit = admit
        self._again = again
        self._stop = threading.Event()
        self._outputs: OrderedDict[tuple[str, str], ImageOutput] = OrderedDict()
        self._thread = threading.Thread(target=carried(self._run), name="dispatch", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Takes nothing more."""
        self._stop.set()
        self._schedule.nudge()
        self._thread.join(timeout)

    @property
    def threads(self) -> list[threading.Thread]:
        """The one."""
        return [self._thread]

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
                self._begin(work, work.claim)

    def _begin(self, work: Work, claim: Claim) -> None:
        self._claimed(work, claim)
        try:
            self._prepare(work)
        except RaftwrightError as error:
            self._refused(work, error)
        except Exception as error:
            _log.exception("%s %s cannot be begun", work.image.name, work.source.location)
            self._refused(work, error)

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

    def _prepare(self, work: Work) -> None:
        assert work.claim is not None
        work.output = self._output(work)
        if not work.live or work.claim.attempt > 1:
            # Somebody may have written it and died before the ledger knew.
            work.standing = work.output.standing(work.board)
            if not work.wanted:
                self._standing(work)
                return
        registers = work.source.registers
        layout = work.board.layout
        if self._pool is not None:
            need = _core.planes_bytes(layout.channels, registers.width, registers.height)
            work.slab = self._pool.lend(need)
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
        work.output.warm(work.board, registers.geometry)  # while the first chunks are on their way

    def _output(self, work: Work) -> ImageOutput:
        """The files of an image; its directory and manifest are made with the first unit."""
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
            output.make_directory()
            output.write_manifest()
            self._outputs[key] = output
            while len(self._outputs) > _OUTPUTS:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(key)
        return output
