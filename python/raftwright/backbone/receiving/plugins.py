"""What ingests files that were received: the interface of plug-ins, how they are found, and `null`.

A plug-in is a factory under the entry-point group `raftwright.endpoint`:

    [project.entry-points."raftwright.endpoint"]
    mine = "my_package:make"

`make(options, place)` is given its options from the configuration and returns a `Plugin`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from raftwright.errors import FormatError, NotFoundError
from raftwright.service.checking import convert
from raftwright.service.documents import dotted

__all__ = ["GROUP", "Item", "Plugin", "Result", "Where", "make_plugin", "options_of"]

GROUP: Final = "raftwright.endpoint"
_OURS: Final[Mapping[str, str]] = {
    "null": "raftwright.backbone.receiving.plugins:make_null",
    "butler": "raftwright.backbone.receiving.into_butler:make",
    "rucio": "raftwright.backbone.rucio_plugin:make",
}

S = TypeVar("S", bound=msgspec.Struct)

Verdict: TypeAlias = Literal["success", "failure", "waiting", "invalid", "ignored"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A file that stands in the storage and is to be ingested."""

    id: int
    relpath: str
    """Its directory below the root, empty for the root itself."""
    filename: str
    path: str
    """Where it stands, absolute."""
    bytes: int
    crc32c: str
    adler32: str
    md5: str = ""
    """Where a plug-in wants it."""
    attempt: int = 1

    @property
    def name(self) -> str:
        """Directory and name, below the root."""
        return f"{self.relpath}/{self.filename}" if self.relpath else self.filename


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one item: in any order, and an item without one is UNKNOWN and tried again."""

    id: int
    verdict: Verdict
    """`success`; `failure`: tried again; `waiting`: tried again, without end (something else has to come
    first); `invalid`: never; `ignored`: none of its business."""
    message: str = ""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """What a plug-in is told of the place it works at."""

    storage: Path
    """Root of the files."""
    name: str
    """Of the ingester."""


class Plugin(Protocol):
    """Ingests batches. Used by one thread at a time; each thread has its own."""

    sums: frozenset[str]
    """`md5` where it wants that of each file."""
    files: Sequence[str]
    """Patterns of names that it takes, where the configuration says none; `*` for all."""

    def ingest(self, items: Sequence[Item]) -> Sequence[Result]:
        """A result for each. Raises `OutageError` where nothing can be ingested now (nothing counts as tried
        then), and whatever else: then each item is tried by itself."""
        ...

    def tend(self) -> None:
        """Called now and then, also where nothing is to be ingested. May raise as `ingest`."""
        ...

    def problems(self) -> list[str]:
        """What is wrong now and stops nothing, a sentence each. Called from other threads."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...


class _Null:
    sums: frozenset[str] = frozenset()
    files: Sequence[str] = ("*",)

    def ingest(self, items: Sequence[Item]) -> Sequence[Result]:
        return [Result(id=item.id, verdict="success") for item in items]

    def tend(self) -> None:
        pass

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class _NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def make_null(options: Mapping[str, Any], where: Where) -> Plugin:
    """Takes every file and does nothing. Raises FormatError for options."""
    options_of(_NoOptions, options, where.name)
    return _Null()


def options_of(kind: type[S], options: Mapping[str, Any], name: str) -> S:
    """Options as the Struct of a plug-in, times and sizes with their units. Raises FormatError, with the key
    at fault."""
    found = convert(options, kind, "options", lambda _: True)
    if isinstance(found, list):
        first = found[0]
        raise FormatError(f"ingester {name}: {dotted(first.path)}: {first.said}")
    made: S = found
    return made


def make_plugin(plugin: str, options: Mapping[str, Any], where: Where) -> Plugin:
    """The plug-in of this name. Raises NotFoundError, MissingExtraError, FormatError and what it raises."""
    if plugin in _OURS:
        module, _, name = _OURS[plugin].partition(":")
        made: Callable[[Mapping[str, Any], Where], Plugin] = getattr(importlib.import_module(module), name)
        return made(options, where)
    found = entry_points(group=GROUP, name=plugin)
    if not found:
        known = sorted({*_OURS, *(each.name for each in entry_points(group=GROUP))})
        raise NotFoundError(f"there is no plug-in {plugin[:64]!a}; there are {', '.join(known)}")
    third: Plugin = next(iter(found)).load()(options, where)
    return third
