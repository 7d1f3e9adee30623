"""What an ingester knows of exposures: which the registry has, which it has to learn with the next files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from raftwright.butler.examining import Found, header_of
from raftwright.butler.records import ExposureRecords, exposure_records, is_fuller
from raftwright.butler.software import DataCoordinate, DatasetRef, DimensionRecord

if TYPE_CHECKING:
    from raftwright.butler.repository import Repository

__all__ = ["Exposures", "Key"]

Key: TypeAlias = tuple[str, int]
"""Instrument and exposure."""
_Records: TypeAlias = dict[str, DimensionRecord | None]
"""Of all dimensions of a dataset but the detector, by name."""

_KNOWN: Final = 2000
"""Exposures that are remembered as being in the registry."""
_HEADERS: Final = 3
"""Files of an exposure that are asked for a header before its name has to do."""
_EXPANDED: Final = 16
"""Exposures of a batch whose records are looked up one by one."""


class _Known(msgspec.Struct, eq=False):
    """An exposure that the registry has."""

    translated: bool
    """From a header."""
    records: _Records = {}
    """Empty: not looked up yet."""


class _Pending(msgspec.Struct, eq=False):
    """One that it is about to learn."""

    records: ExposureRecords
    made: _Records
    replace: bool
    """It has it by its name only."""


class Exposures:
    """Memory of one ingester. What is in it is in the registry: `forget` it when something went wrong."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._butler = repository.butler
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._pending: dict[Key, _Pending] = {}
        self._filters: set[tuple[str, str]] = set()
        self._instruments: dict[str, DimensionRecord] = {}
        self._detectors: dict[str, dict[int, DimensionRecord]] = {}

    def forget(self) -> None:
        """All but what the registry is about to learn."""
        self._known.clear()
        self._filters.clear()
        self._butler.registry.refresh()

    def learn(self, files: Sequence[Found]) -> set[Key]:
        """Exposures of these files that the registry knows, or will learn with the raws among them."""
        self._pending.clear()
        by_exposure: dict[Key, list[Found]] = {}
        for found in files:
            by_exposure.setdefault((found.camera.name, found.exposure), []).append(found)
        known: set[Key] = set()
        for key, members in by_exposure.items():
            if key in self._known and self._known[key].translated:
                known.add(key)
                continue
            standing = self._standing(key)
            raws = [found for found in members if found.incoming.kind == "raw"]
            if standing is not None:
                known.add(key)
                self._remember(key, standing.timespan is not None)
            if raws and (standing is None or standing.timespan is None):
                records = _records(raws)
                if standing is None or is_fuller(records, standing):
                    known.add(key)
                    self._pending[key] = _Pending(records, self._made(records), standing is not None)
        return known

    def _standing(self, key: tuple[str, int]) -> Any:
        found = self._butler.query_dimension_records(
            "exposure", instrument=key[0], exposure=key[1], explain=False, limit=1
        )
        return found[0] if found else None

    def refs(self, files: Sequence[Found]) -> list[DatasetRef]:
        """Their datasets, with dimension records where those are at hand or the exposures are few: the
        registry need not look them up again for each file."""
        refs = []
        looked_up = 0
        for found in files:
            kind = self._repository.types[found.incoming.kind]
            values: Mapping[str, str | int] = {
                "instrument": found.camera.name,
                "detector": found.detector.id,
                "exposure": found.exposure,
            }
            data_id = DataCoordinate.from_required_values(
                kind.dimensions, tuple(values[str(name)] for name in kind.dimensions.required)
            )
            key = (found.camera.name, found.exposure)
            if key in self._pending:
                records = self._pending[key].made
            else:
                records = self._known[key].records if key in self._known else {}
                if not records and looked_up < _EXPANDED:
                    expanded = self._butler.registry.expandDataId(data_id)
                    records = {name: expanded.records[name] for name in kind.dimensions.elements}
                    exposure = expanded.records["exposure"]
                    self._remember(key, exposure is not None and exposure.timespan is not None, records)
                    looked_up += 1
            if records:
                mine = {**records, "detector": self._detectors_of(found.camera.name)[found.detector.id]}
                data_id = data_id.expanded(mine)
            refs.append(self._repository.ref_of(found.incoming.kind, data_id))
        return refs

    def insert(self, keys: Iterable[Key]) -> None:
        """Within a transaction: what datasets of these exposures want to be there and is not yet."""
        pending = [self._pending[key] for key in keys if key in self._pending]
        if not pending:
            return
        registry = self._butler.registry
        records = [each.records for each in pending]
        filters = {_filter_key(each): each.physical_filter for each in records}
        missing = [content for key, content in filters.items() if key not in self._filters]
        if missing:
            registry.insertDimensionData("physical_filter", *missing, skip_existing=True)
        for element in ("group", "day_obs"):
            rows = {tuple(row.items())[:2]: row for row in (getattr(each, element) for each in records)}
            registry.insertDimensionData(element, *rows.values(), skip_existing=True)
        for replace in (False, True):
            chosen = [each.records.exposure for each in pending if each.replace is replace]
            if chosen:
                registry.insertDimensionData("exposure", *chosen, replace=replace, skip_existing=not replace)

    def fuller(self) -> list[Key]:
        """Exposures of the last files that the registry knows by their names, and of which a header told."""
        return [key for key, each in self._pending.items() if each.replace]

    def inserted(self, keys: Iterable[Key]) -> None:
        """After the commit."""
        for key in keys:
            if key in self._pending:
                each = self._pending.pop(key)
                self._filters.add(_filter_key(each.records))
                self._remember(key, each.records.translated, each.made)

    def correct(self, files: Sequence[Found]) -> set[Key]:
        """Adds what headers that came late tell of exposures that the registry knows by their names only;
        which these are."""
        self.learn(files)
        keys = {key for key, pending in self._pending.items() if pending.replace}
        if keys:
            with self._butler.transaction():
                self.insert(keys)
            self.inserted(keys)
        self._pending.clear()
        return keys

    def _made(self, records: ExposureRecords) -> _Records:
        """The same as the registry will have them."""
        dimensions = self._butler.dimensions
        content = {
            "band": {"name": records.physical_filter["band"]},
            **{name: getattr(records, name) for name in ("physical_filter", "group", "day_obs", "exposure")},
        }
        made: _Records = {name: dimensions[name].RecordClass(**values) for name, values in content.items()}
        return {**made, "instrument": self._instrument(records.exposure["instrument"])}

    def _instrument(self, name: str) -> DimensionRecord:
        if name not in self._instruments:
            (self._instruments[name],) = self._butler.query_dimension_records("instrument", instrument=name)
        return self._instruments[name]

    def _remember(self, key: Key, translated: bool, records: _Records | None = None) -> None:
        self._known[key] = _Known(translated, records or {})
        self._known.move_to_end(key)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def _detectors_of(self, instrument: str) -> dict[int, DimensionRecord]:
        if instrument not in self._detectors:
            found = self._butler.query_dimension_records("detector", instrument=instrument, limit=None)
            self._detectors[instrument] = {int(record.dataId["detector"]): record for record in found}
        return self._detectors[instrument]


def _records(raws: Sequence[Found]) -> ExposureRecords:
    """Of one exposure: from the first of its files whose header tells."""
    records: ExposureRecords | None = None
    for found in raws[:_HEADERS]:
        records = exposure_records(found.image, found.camera, header_of(found))
        if records.translated:
            break
    assert records is not None
    return records


def _filter_key(records: ExposureRecords) -> tuple[str, str]:
    return records.physical_filter["instrument"], records.physical_filter["name"]
