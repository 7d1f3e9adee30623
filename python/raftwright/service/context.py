"""What a line of the log is about: service, obsid, detector. Bound in the thread that does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from types import MappingProxyType
from typing import Any, Final

__all__ = ["bound", "carried", "context"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_current: ContextVar[Mapping[str, Any]] = ContextVar("raftwright_log_context", default=_NOTHING)


@contextmanager
def bound(**about: Any) -> Iterator[None]:
    """Every line that is logged within, in this thread, has these. None takes one away.

    with bound(obsid="CC_O_20261122_000123", detector="R22_S11"):
        log.warning("no header yet")
    """
    whole = {key: value for key, value in {**_current.get(), **about}.items() if value is not None}
    token = _current.set(whole)
    try:
        yield
    finally:
        _current.reset(token)


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what is bound here and now: a thread starts with nothing bound.

    threading.Thread(target=carried(self._run))
    """
    here = copy_context()
    return lambda *arguments: here.run(function, *arguments)


def context() -> Mapping[str, Any]:
    """What is bound here."""
    return _current.get()
