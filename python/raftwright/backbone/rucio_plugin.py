"""The plug-in `rucio` of the endpoint: what is in the storage is registered."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftwright.backbone.receiving.plugins import Item, Plugin, Result, Where, options_of
from raftwright.backbone.rucio import Entry, Registrar, RucioSettings
from raftwright.backbone.rucio_naming import (
    ZIP,
    container_facts,
    dataset_name,
    expected_files,
    image_of,
    instrument_of,
    is_raw,
    rubin_fields,
)
from raftwright.errors import NotFoundError, RaftwrightError
from raftwright.rawfile.container import is_container
from raftwright.transfer.outcome import OutageError, RefusedError

if TYPE_CHECKING:
    from raftwright.rawfile.names import ImageName

__all__ = ["RucioPlugin", "make"]

_log = logging.getLogger("raftwright.rucio")


class _NotYetError(RaftwrightError):
    """Something else has to come first."""


class RucioPlugin:
    """See `Plugin`."""

    files: Sequence[str] = ("*",)

    def __init__(self, settings: RucioSettings) -> None:
        self.settings = settings
        self.sums = frozenset({"md5"} if settings.md5 else ())
        self.registrar = Registrar(settings)
        self._instruments: dict[str, str] = {}
        """Of images, by name."""
        self._watched = time.monotonic() - settings.watch + 5.0
        self._stuck = ""

    def ingest(self, items: Sequence[Item]) -> Sequence[Result]:
        """See `Plugin`."""
        entries, results = [], []
        for item in items:
            try:
                entries.append(self._entry(item))
            except _NotYetError as error:
                results.append(Result(id=item.id, verdict="waiting", message=str(error)))
            except RaftwrightError as error:
                results.append(Result(id=item.id, verdict="failure", message=str(error)))
        registered = self.registrar.register(entries)
        return results + [Result(id=one.id, verdict=one.verdict, message=one.message) for one in registered]

    def audit(self, items: Sequence[Item]) -> dict[int, str]:
        """What Rucio lacks, or has otherwise, of files that were registered. Raises OutageError,
        RefusedError, and what describing a file raises."""
        return self.registrar.compare([self._entry(item) for item in items])

    def _entry(self, item: Item) -> Entry:
        settings = self.settings
        path, prefix = Path(item.path), settings.prefix
        image = image_of(item.filename)
        if image is not None and is_container(item.filename):
            return self._container(item, image)
        raw = is_raw(item.filename)
        other = settings.other_scope or settings.scope
        dataset, expected, meta = "", None, {}
        if image is not None and (settings.dataset or raw):
            instrument = self._instrument(image, path)
            if settings.dataset:
                dataset = dataset_name(settings.dataset, instrument, image)
                above = item.name.removesuffix(item.filename)
                names = expected_files(path.parent, image)
                if names is not None:
                    expected = frozenset(
                        (settings.scope if is_raw(name) else other, f"{prefix}{above}{name}")
                        for name in names
                    )
            if raw:
                meta = rubin_fields(
                    *(path, instrument, settings.run, settings.dataset_type, settings.storage_class),
                    settings.camera,
                )
        return Entry(
            id=item.id,
            scope=settings.scope if raw else other,
            name=f"{prefix}{item.name}",
            bytes=item.bytes,
            adler32=item.adler32,
            md5=item.md5 if settings.md5 else "",
            meta=meta,
            dataset=dataset,
            expected=expected,
        )

    def _container(self, item: Item, image: ImageName) -> Entry:
        """All files of an image in one: the dataset of the exposure is complete with it, where it is."""
        settings, name = self.settings, f"{self.settings.prefix}{item.name}"
        instrument, whole = container_facts(Path(item.path), image, settings.camera)
        return Entry(
            id=item.id,
            scope=settings.scope,
            name=name,
            bytes=item.bytes,
            adler32=item.adler32,
            md5=item.md5 if settings.md5 else "",
            meta=ZIP,
            dataset=dataset_name(settings.dataset, instrument, image) if settings.dataset else "",
            expected=frozenset({(settings.scope, name)}) if whole else None,
        )

    def _instrument(self, image: ImageName, path: Path) -> str:
        known = self._instruments.get(str(image))
        if known is None:
            try:
                known = instrument_of(path, image, self.settings.camera)
            except NotFoundError as error:
                raise _NotYetError(str(error)) from None
            if len(self._instruments) >= 10_000:
                self._instruments.clear()
            self._instruments[str(image)] = known
        return known

    def tend(self) -> None:
        """Looks now and then whether rules are satisfied."""
        if not self.settings.rules or time.monotonic() - self._watched < self.settings.watch:
            return
        self._watched = time.monotonic()
        try:
            late = self.registrar.pending(self.settings.stuck)
        except (OutageError, RefusedError) as error:
            _log.warning("rules cannot be looked at: %s", error)
            return
        self._stuck = ""
        if late:
            first = late[0]
            self._stuck = (
                f"{len(late)} rules are not satisfied, the oldest for {first.age:.0f} s: {first.dataset} at "
                f"{first.rses}, {first.state} {first.error}".rstrip()
            )

    def problems(self) -> list[str]:
        """Rules that wait for too long."""
        return [self._stuck] if self._stuck else []

    def close(self) -> None:
        """See `Plugin`."""
        self.registrar.close()


def make(options: Mapping[str, Any], where: Where) -> Plugin:
    """Raises FormatError, MissingExtraError."""
    return RucioPlugin(options_of(RucioSettings, options, where.name))
