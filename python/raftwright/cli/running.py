"""A command that is a service: it runs until it is stopped, and tells what the service tells."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from raftwright.cli.signals import heard, left_over, stopped_by_signals

if TYPE_CHECKING:
    from raftwright.service import Service
    from raftwright.service.common import Log

__all__ = ["run_service"]

S = TypeVar("S", bound="Service")

_RELOAD: Final = "reload"


def run_service(
    make: Callable[[], S],
    tells: Mapping[str, Callable[[Mapping[str, Any]], None]],
    ready: Callable[[S], None],
    *,
    patience: float | None,
    longest: float | None = None,
    log: Log | None = None,
    reload: Callable[[S], None] | None = None,
    ending: Callable[[S], None] = lambda _: None,
) -> S:
    """Makes and starts a service; calls `ready` once it works, and of `tells` what is for each thing that it
    tells, until it is stopped, or was idle for `patience` seconds. After `longest` it counts as idle. SIGHUP
    calls `reload` where that is given; `ending` is called before it is stopped. Raises what making and
    starting raise."""
    from raftwright.service.logs import logging_to

    news: queue.SimpleQueue[tuple[str, Mapping[str, Any]] | None] = queue.SimpleQueue()
    again: tuple[str, Mapping[str, Any]] | None = None if reload is None else (_RELOAD, {})
    logging = logging_to() if log is None else logging_to(format=log.format, level=log.level)
    begun = time.monotonic()
    with logging, stopped_by_signals(news, reload=again):
        service = make()
        service.observer = lambda what, facts: news.put((what, facts)) if what in tells else None

        def tell(item: tuple[str, Mapping[str, Any]]) -> None:
            if item is again and reload is not None:
                reload(service)
            else:
                tells[item[0]](item[1])

        def idle() -> bool:
            return service.idle or (longest is not None and time.monotonic() - begun > longest)

        try:
            service.start()
            ready(service)
            for item in heard(news, idle, patience):
                tell(item)
        finally:
            try:
                ending(service)
            finally:
                service.stop()
    for item in left_over(news):
        tell(item)
    return service
