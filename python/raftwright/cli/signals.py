"""A command that runs on waits at a queue: for what its service tells, and for signals, which so end nothing
half way."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

__all__ = ["heard", "left_over", "stopped_by_signals"]

T = TypeVar("T")

_TICK: Final = 0.1


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


def heard(news: queue.SimpleQueue[T | None], idle: Callable[[], bool], patience: float | None) -> Iterator[T]:
    """What comes into the queue, until None does, or until nothing was to do for `patience` seconds."""
    busy = time.monotonic()
    while True:
        try:
            item = news.get(timeout=_TICK if patience is not None else 3600.0)
        except queue.Empty:
            if not idle():
                busy = time.monotonic()
            elif patience is not None and time.monotonic() - busy >= patience:
                return
            continue
        if item is None:
            return
        yield item


def left_over(news: queue.SimpleQueue[T | None]) -> Iterator[T]:
    """What is in the queue once nobody puts anything there any more."""
    while not news.empty():
        item = news.get()
        if item is not None:
            yield item
