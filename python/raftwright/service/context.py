"""What a line of the log is about: service, obsid, detector. Bound in the thread that does the work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

__all__ = ["bound", "context"]

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


def context() -> Mapping[str, Any]:
    """What is bound here."""
    return _current.get()
