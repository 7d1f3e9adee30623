"""An ingester: a plug-in and its queue. What fails is tried again, and in the end is a dead letter."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from raftwright.backbone.receiving.plugins import Item, Plugin, Result
from raftwright.backbone.receiving.register import Register
from raftwright.backbone.receiving.rows import End, State
from raftwright.errors import RaftwrightError
from raftwright.transfer.outcome import OutageError

if TYPE_CHECKING:
    from raftwright.backbone.receiving.settings import Ingest
    from raftwright.metrics import Metrics

__all__ = ["Ingester"]

_log = logging.getLogger("raftwright.endpoint")

_STATES: Final[dict[str, State]] = {
    "success": "SUCCESS",
    "failure": "FAILURE",
    "waiting": "FAILURE",
    "invalid": "INVALID",
    "ignored": "IGNORED",
}


class Ingester:
    """Works its queue with one plug-in object. Used by one thread; several may have the same queue."""

    def __init__(
        self,
        settings: Ingest,
        register: Register,
        plugin: Plugin,
        *,
        metrics: Metrics | None = None,
        told: Callable[[Item, Result], None] = lambda *_: None,
    ) -> None:
        self.name = settings.label
        self._settings = settings
        self._register = register
        self._plugin = plugin
        self._files = tuple(settings.files or plugin.files)
        self._told = told
        self._metrics = metrics
        self._outages = 0
        self._resume = 0.0
        self.busy = False
        """Whether it has a batch."""
        self.trouble = ""
        """Why nothing can be ingested now."""

    def work(self) -> int:
        """Takes on one batch, if there is one and the plug-in can; how many files that was. Raises
        StorageError where the register does not work."""
        if time.monotonic() < self._resume:
            return 0
        try:
            self._plugin.tend()
        except Exception as error:  # of a plug-in, whatever it is
            self._stop(error)
            return 0
        items = self._register.claim(self.name, 1 if self._outages else self._settings.batch)
        if not items:
            self._went_well()
            return 0
        self.busy = True
        try:
            self._work_on(items)
        finally:
            self.busy = False
        return len(items)

    def _work_on(self, items: Sequence[Item]) -> None:
        ours = [item for item in items if self._takes(item)]
        results = [Result(id=item.id, verdict="ignored") for item in items if not self._takes(item)]
        outage: Exception | None = None
        if ours:
            try:
                results += self._ingest(ours)
            except OutageError as error:
                outage = error
        self._end(items, results, outage)
        if outage is not None:
            self._stop(outage)
        else:
            self._went_well()

    def _takes(self, item: Item) -> bool:
        name = item.filename
        return any(fnmatchcase(name, each) for each in self._files) and not any(
            fnmatchcase(name, each) for each in self._settings.skip
        )

    def _ingest(self, items: Sequence[Item]) -> list[Result]:
        """Results of a batch. Where the plug-in raises it is halved until it is known which item that comes
        from."""
        try:
            return list(self._plugin.ingest(items))
        except OutageError:
            raise
        except Exception as error:
            if len(items) == 1:
                known = isinstance(error, RaftwrightError)
                said = str(error) if known else f"{type(error).__name__}: {error}"
                _log.error("%s: %s: %s", self.name, items[0].name, said, exc_info=None if known else error)
                return [Result(id=items[0].id, verdict="failure", message=said)]
        half = len(items) // 2
        results = self._ingest(items[:half])
        try:
            return results + self._ingest(items[half:])
        except OutageError as error:
            # What went well before it counts.
            return results + [
                Result(id=each.id, verdict="waiting", message=str(error)) for each in items[half:]
            ]

    def _end(self, items: Sequence[Item], results: Sequence[Result], outage: Exception | None) -> None:
        by_id = {result.id: result for result in results}
        ends = []
        for item in items:
            result = by_id.get(item.id)
            if result is not None:
                ends.append(self._ended(item, result))
            elif outage is not None:
                ends.append(
                    End(file_id=item.id, state="FAILURE", message=str(outage), retry_after=0.0, counts=False)
                )
            else:
                ends.append(self._retried(item, "UNKNOWN", "the plug-in said nothing of it"))
        self._register.end(self.name, ends)
        for item in items:
            result = by_id.get(item.id)
            if result is not None:
                self._told(item, result)
        if self._metrics is not None:
            for end in ends:
                self._metrics.counter("ingested", "Attempts", ingester=self.name, state=end.state).add(1)

    def _ended(self, item: Item, result: Result) -> End:
        state = _STATES[result.verdict]
        if result.verdict == "failure":
            return self._retried(item, state, result.message)
        if result.verdict == "waiting":
            pause = min(self._settings.longest, max(self._settings.backoff, 5.0))
            return End(file_id=item.id, state=state, message=result.message, retry_after=pause, counts=False)
        if state == "INVALID":
            _log.error("%s: %s: %s", self.name, item.name, result.message)
        return End(file_id=item.id, state=state, message=result.message)

    def _retried(self, item: Item, state: State, message: str) -> End:
        if item.attempt > self._settings.retries:
            _log.error("%s: %s is given up on: %s", self.name, item.name, message)
            return End(file_id=item.id, state=state, message=message)
        return End(file_id=item.id, state=state, message=message, retry_after=self._backoff(item.attempt))

    def _backoff(self, tries: int) -> float:
        whole: float = min(self._settings.backoff * 2.0 ** min(max(tries - 1, 0), 30), self._settings.longest)
        return whole * random.uniform(0.5, 1.0)

    def _stop(self, error: Exception) -> None:
        """Nothing goes now: everything waits, and nothing counts as tried."""
        said = str(error) if isinstance(error, RaftwrightError) else f"{type(error).__name__}: {error}"
        if not self.trouble:
            _log.error("%s: %s", self.name, said)
        self.trouble = said
        self._outages += 1
        self._resume = time.monotonic() + self._backoff(self._outages)

    def _went_well(self) -> None:
        if self.trouble:
            _log.info("%s: works again", self.name)
        self.trouble, self._outages, self._resume = "", 0, 0.0

    def problems(self) -> list[str]:
        """What stops it, and what its plug-in says."""
        return [*([self.trouble] if self.trouble else []), *self._plugin.problems()]

    def close(self) -> None:
        """Closes the plug-in."""
        self._plugin.close()
