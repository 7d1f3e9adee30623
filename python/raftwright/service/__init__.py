"""What all services have in common. A service is a module with NAME, Settings and build:

    NAME = "counter"

    class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        every: Seconds = 5.0          # "5 s", "200 ms" in the file
        memory: Bytes = 1_000_000     # "1 MB"

    class Counter(Service):
        NAME = NAME
        LIVE = frozenset({"every"})   # what `reload` may change

        def open(self):               # gets what it needs; what fails here fails the start
            self.ledger = open_ledger(self.common.ledger)
            self.task("sweep", self._sweep, waiting=self.backlog, patience=30.0)

        def _sweep(self, task):       # dies: restarted, then FAULT; stands still with work waiting: FAULT
            while not task.wait(self.settings.every):
                with bound(obsid=...):            # in every line of the log
                    ...
                task.beat()

        def apply(self, settings): ...            # new values of LIVE
        def in_flight(self): return self._under_way
        def close(self): self.ledger.close()
        def report(self): return {"images": ...}

    def build(settings, common):
        return Counter(settings, common.life(NAME))

`with build(settings, common) as service: ...` runs it; `raftwright up` and `raftwright control` do the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.service.context import bound, carried
from raftwright.service.faults import Fault, FaultCode
from raftwright.service.states import Command, State
from raftwright.service.tasks import Task
from raftwright.service.units import Bytes, Period, Seconds, Secret

if TYPE_CHECKING:
    from raftwright.service.base import Life, Service
    from raftwright.service.common import Common

__all__ = [
    "Bytes",
    "Command",
    "Common",
    "Fault",
    "FaultCode",
    "Life",
    "Period",
    "Seconds",
    "Secret",
    "Service",
    "State",
    "Task",
    "bound",
    "carried",
]

_HOMES = {"Common": "common", "Life": "base", "Service": "base"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.service.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.service' has no attribute {name!r}")
