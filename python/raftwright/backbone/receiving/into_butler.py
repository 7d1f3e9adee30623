"""The plug-in `butler`: raws and guiders are ingested into a Butler repository, where they stand."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from raftwright.backbone.receiving.plugins import Item, Plugin, Result, Verdict, Where, options_of
from raftwright.butler import Incoming, Ingester, Outcome, Repository, open_repository
from raftwright.errors import FormatError, StorageError
from raftwright.transfer.outcome import OutageError

__all__ = ["ButlerPlugin", "Options", "make"]

_VERDICTS: Final[Mapping[str, Verdict]] = {
    "ingested": "success",
    "duplicate": "success",
    "waiting": "waiting",
    "conflict": "invalid",
    "unsupported": "ignored",
}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of this plug-in."""

    repository: Annotated[str, Meta(min_length=1, max_length=4000)]
    """Made with `raftwright oods init`."""
    transfer: Literal["direct", "hardlink", "copy"] = "direct"
    """`direct`: the Butler reads the files in the storage."""


class ButlerPlugin:
    """See `Plugin`."""

    sums: frozenset[str] = frozenset()
    files: Sequence[str] = ("*.fits", "*.fits.fz", "*.fz")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._repository: Repository | None = None
        self._ingester: Ingester | None = None
        with contextlib.suppress(
            StorageError
        ):  # what cannot be reached now is tried again; files come in meanwhile
            self._opened()

    def _opened(self) -> Ingester:
        if self._ingester is None:
            self._repository = open_repository(self._options.repository, writeable=True)
            self._ingester = Ingester(self._repository)
        return self._ingester

    def ingest(self, items: Sequence[Item]) -> Sequence[Result]:
        """See `Plugin`."""
        results, incoming, taken = [], [], []
        for item in items:
            try:
                incoming.append(Incoming.of(item.path, crc32c=item.crc32c, bytes=item.bytes))
            except FormatError as error:
                results.append(Result(id=item.id, verdict="ignored", message=str(error)))
            else:
                taken.append(item)
        if not incoming:
            return results
        try:
            outcomes = self._opened().ingest(incoming, transfer=self._options.transfer)
        except StorageError as error:
            raise OutageError(str(error)) from error
        return results + [_result(item, outcome) for item, outcome in zip(taken, outcomes, strict=True)]

    def tend(self) -> None:
        """Nothing is left open."""

    def problems(self) -> list[str]:
        """None of its own."""
        return []

    def close(self) -> None:
        """See `Plugin`."""
        if self._repository is not None:
            self._repository.close()


def _result(item: Item, outcome: Outcome) -> Result:
    verdict = _VERDICTS.get(outcome.state) or ("failure" if outcome.again else "invalid")
    return Result(id=item.id, verdict=verdict, message=outcome.reason)


def make(options: Mapping[str, Any], where: Where) -> Plugin:
    """Raises FormatError, MissingExtraError, NotFoundError, StorageError."""
    return ButlerPlugin(options_of(Options, options, where.name))
