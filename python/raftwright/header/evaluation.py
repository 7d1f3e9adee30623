"""The values of cards: what each source says of an image, in the type of the card."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError
from raftwright.header.collected import Collected, listed
from raftwright.header.conversion import convert
from raftwright.header.samples import take
from raftwright.header.spec import CardSpec, Source
from raftwright.rawfile import times

if TYPE_CHECKING:
    from raftwright.camera import Board, Camera, Detector, Segment
    from raftwright.rawfile.cards import Value

__all__ = ["Evaluation", "Target"]

_NOTHING: Final[tuple[Any, str]] = (None, "missing")


class Target:
    """Whose section it is: the image's, a board's, a CCD's or a segment's."""

    __slots__ = ("board", "detector", "segment")

    def __init__(
        self,
        board: Board | None = None,
        detector: Detector | None = None,
        segment: Segment | None = None,
    ) -> None:
        self.board = board
        self.detector = detector
        self.segment = segment

    def names(self, by: str) -> tuple[str, ...]:
        """What an entry of a list may call it."""
        if by == "ccd" and self.detector is not None:
            d = self.detector
            return (f"{d.raft}{d.slot}", f"{d.header_raft}{d.header_slot}", str(d.id))
        if self.board is not None:
            return (f"{self.board.raft}{self.board.name}", _plain(self.board.location))
        return ()


class Evaluation:
    """Says what cards of one image are worth. It belongs to one thread and is used once."""

    def __init__(self, camera: Camera, collected: Collected, service: Mapping[str, Value]) -> None:
        self._camera = camera
        self._image = collected
        self._service = service
        self._begin = collected.begin
        self._end = collected.end
        self._taken: dict[tuple[Any, ...], tuple[Any, str]] = {}
        self._entries: dict[tuple[int, tuple[str, ...]], dict[str, int]] = {}

    def value(self, card: CardSpec, target: Target, settled: Mapping[str, Value]) -> tuple[Value, str]:
        """The value of a card and, where it is not what it should be, why: `missing`, `stale`, `nan`,
        `wrong_type`, `illegal_characters`, `too_long`. `settled` are the cards before it."""
        first = ""
        for source in card.sources:
            raw, reason = self._raw(source, target, settled)
            value, complaint = convert(raw, card.type, source)
            if value is not None:
                return value, complaint
            first = first or complaint or reason
        if card.default is not None:
            return card.default, first if first not in ("missing", "stale") else ""
        return None, first or "missing"

    def _raw(self, source: Source, target: Target, settled: Mapping[str, Value]) -> tuple[Any, str]:
        if source.kind == "telemetry":
            return self._telemetry(source, target)
        if source.kind == "event":
            return self._event(source, target)
        found: Any = None
        if source.kind == "constant":
            found = source.name
        elif source.kind == "name":
            name = self._image.name
            found = str(name) if source.name == "obsid" else getattr(name, _NAMES[source.name])
        elif source.kind == "camera":
            if source.name.startswith("constants."):
                found = self._camera.constants.get(source.name.removeprefix("constants."))
            else:
                found = getattr(self._camera, source.name)
        elif source.kind == "service":
            found = self._service.get(source.name)
        elif source.kind == "environment":
            found = os.environ.get(source.name)
        elif source.kind == "mjd":
            found = _mjd(settled.get(source.name))
        elif source.kind == "daq":
            found = self._daq(source.name, target)
        else:
            found = _attribute(source, target)
        return (found, "") if found not in (None, "") else _NOTHING

    def _daq(self, name: str, target: Target) -> Any:
        if target.board is not None and name not in self._image.daq:
            sources = self._image.daq.get("sources", {})
            return sources.get(target.board.location, {}).get(name)
        return self._image.daq.get(name)

    def _event(self, source: Source, target: Target) -> tuple[Any, str]:
        if source.key:
            found = self._image.key(source.name, source.key)
        else:
            found = self._image.get(source.name, source.field)
        if found is None:
            return _NOTHING
        holder = self._image.events.get(source.name, {})
        return self._entry(source, target, found, holder)

    def _telemetry(self, source: Source, target: Target) -> tuple[Any, str]:
        kept = self._image.samples.get(source.name, ())
        key = (
            source.name,
            source.field,
            source.rule,
            source.over,
            source.max_age,
            source.index if source.rule in ("min", "max", "mean") else None,
        )
        taken = self._taken.get(key)
        if taken is None:
            taken = self._taken[key] = take(source, kept, self._begin, self._end)
        found, reason = taken
        if found is None:
            return None, reason or "missing"
        if isinstance(found, float) and math.isnan(found):
            return found, ""
        names: Mapping[str, Any] = kept[-1].values if source.by and kept else {}
        return self._entry(source, target, found, names)

    def _entry(
        self, source: Source, target: Target, found: Any, holder: Mapping[str, Any]
    ) -> tuple[Any, str]:
        """The entry of a list that is meant."""
        if source.by:
            entries = listed(found)
            index = self._index(source.names, holder)
            for name in target.names(source.by):
                at = index.get(name)
                if at is not None and at < len(entries):
                    return entries[at], ""
            return _NOTHING
        if source.index is not None and not isinstance(found, int | float):
            entries = listed(found)
            return (entries[source.index], "") if source.index < len(entries) else _NOTHING
        return found, ""

    def _index(self, names: tuple[str, ...], holder: Mapping[str, Any]) -> dict[str, int]:
        key = (id(holder), names)
        index = self._entries.get(key)
        if index is None:
            columns = [listed(holder.get(name)) for name in names]
            index = {}
            for at, parts in enumerate(zip(*columns, strict=False)):
                index.setdefault(_plain("".join(map(str, parts))), at)
            self._entries[key] = index
        return index


_NAMES: Final = {"camcode": "source", "controller": "controller", "dayobs": "dayobs", "seqnum": "seqnum"}


def _plain(text: str) -> str:
    return text.replace("_", "").replace("/", "")


def _mjd(date: Value) -> float | None:
    if not isinstance(date, str):
        return None
    try:
        return times.mjd(times.parse_iso(date))
    except FormatError:
        return None


def _attribute(source: Source, target: Target) -> Any:
    if source.kind == "board":
        return getattr(target.board, source.name, None)
    if source.kind == "segment":
        return getattr(target.segment, source.name, None)
    detector = target.detector
    if detector is None:
        return None
    if source.name in ("vendor", "ccd_manu", "ccd_type"):
        return getattr(detector.type, source.name)
    return detector.type.name if source.name == "type" else getattr(detector, source.name)
