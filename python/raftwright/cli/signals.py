"""Signals to a command that runs on: they go into the queue that it waits at, and end nothing half way."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["stopped_by_signals"]


@contextmanager
def stopped_by_signals(news: queue.SimpleQueue[Any], *, reload: object = None) -> Iterator[None]:
    """SIGTERM and Ctrl-C put None into the queue, and SIGHUP puts `reload` where that is given."""

    def stop(_number: int, _frame: object) -> None:
        news.put(None)

    def hang_up(_number: int, _frame: object) -> None:
        news.put(reload)

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop}
    if reload is not None:
        handlers[signal.SIGHUP] = hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
