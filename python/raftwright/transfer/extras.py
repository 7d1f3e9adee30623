"""Packages that a way to a place needs and that are not installed with raftwright."""

from __future__ import annotations

import importlib.util

from raftwright.errors import MissingExtraError

__all__ = ["need"]


def need(place: str, extra: str, *modules: str) -> None:
    """Raises MissingExtraError where one of them lacks. None of them is imported yet."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # not even the package that it is in
            found = False
        if not found:
            raise MissingExtraError(f"{place}: needs {module}; pip install 'raftwright[{extra}]'")
