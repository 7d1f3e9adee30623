"""A command that is a service: it runs until it is stopped, and tells what the service tells."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from raftwright.cli.signals import heard, left_over, stopped_by_signals

if TYPE_CHECKING:
    from raftwright.service import Service
    from raftwright.service.common import Log

__all__ = ["run_service"]

S = TypeVar("S", bound="Service")


def run_service(
    service: S,
    what: str,
    tell: Callable[[Mapping[str, Any]], None],
    ready: Callable[[S], None],
    *,
    log: Log,
    patience: float | None,
) -> None:
    """Starts a service, calls `ready` once it works and `tell` with all that it tells of `what`, until it is
    stopped or was idle for `patience` seconds. Raises what its start raises."""
    from raftwright.service.logs import logging_to

    news: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    service.observer = lambda kind, facts: news.put(facts) if kind == what else None
    with logging_to(format=log.format, level=log.level), stopped_by_signals(news):
        try:
            service.start()
            ready(service)
            for item in heard(news, lambda: service.idle, patience):
                tell(item)
        finally:
            service.stop()
    for item in left_over(news):
        tell(item)
