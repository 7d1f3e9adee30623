"""What came of one image: its events, and the telemetry of its exposure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from raftwright.errors import FormatError
from raftwright.header.samples import Sample
from raftwright.header.spec import EVENTS
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName

__all__ = ["Collected", "keyed", "listed", "tai_seconds"]

_BY_WEIGHT: Final = (
    "endOfImageTelemetry",
    "endReadout",
    "startReadout",
    "startIntegration",
    "imageReadoutParameters",
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_COLON = re.compile(r"(?<!\\):")
assert set(_BY_WEIGHT) == set(EVENTS)


@dataclass(slots=True)
class Collected:
    """All that is known of an image at one moment."""

    name: ImageName
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields by kind of event."""
    published: dict[str, float] = field(default_factory=dict)
    """When each event was told, by its teller's clock: seconds since 1970-01-01T00:00:00 TAI."""
    daq: Mapping[str, Any] = field(default_factory=dict)
    """What the DAQ says: `id`, `timestamp`, ..., and `sources` by location."""
    samples: Mapping[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was odd while it was gathered."""
    complete: bool = False
    """Whether the end of its telemetry came."""

    def get(self, kind: str, name: str) -> Any:
        """A field of an event; of `any`, of the latest in their order that has it."""
        for each in _BY_WEIGHT if kind == "any" else (kind,):
            found = self.events.get(each, {}).get(name)
            if found is not None and found != "":
                return found
        return None

    def key(self, kind: str, key: str) -> Any:
        """The additional value of a key; from `any` event as `get`."""
        for each in _BY_WEIGHT if kind == "any" else (kind,):
            fields = self.events.get(each)
            if fields is not None:
                found = keyed(fields.get("additionalKeys"), fields.get("additionalValues"), key)
                if found not in (None, ""):
                    return found
        return None

    @property
    def begin(self) -> float | None:
        """Start of the integration, in seconds TAI."""
        for kind, name in (
            ("endOfImageTelemetry", "timestampDateObs"),
            ("any", "timestampAcquisitionStart"),
        ):
            moment = tai_seconds(self.get(kind, name))
            if moment is not None:
                return moment
        return self.published.get("startIntegration") or self._trigger

    @property
    def end(self) -> float | None:
        """End of the integration, in seconds TAI."""
        for kind, name in (
            ("endOfImageTelemetry", "timestampDateEnd"),
            ("startReadout", "timestampStartOfReadout"),
        ):
            moment = tai_seconds(self.get(kind, name))
            if moment is not None:
                return moment
        length = self.exposure_time
        begin = self.begin
        return self._trigger if begin is None or length is None else begin + length

    @property
    def _trigger(self) -> float | None:
        """When the DAQ was triggered: of an image of which nothing was told, the one moment that is known."""
        return None if self.events else tai_seconds(self.daq.get("timestamp"))

    @property
    def exposure_time(self) -> float | None:
        """As it was asked for, in seconds."""
        for name in ("exposureTime", "requestedExposureTime"):
            found = self.get("any", name)
            if isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < 1e6:
                return float(found)
        return None


def tai_seconds(value: Any) -> float | None:
    """A moment that is given as seconds since 1970 TAI or as ISO text in TAI; None for anything else."""
    if isinstance(value, str):
        try:
            return times.parse_iso(value) * 1e-9
        except FormatError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 1.0 < value < 2.5e11 else None


def listed(value: Any) -> list[Any]:
    """A list, also one that is written with colons (`a:b\\:c` is a and b:c); of anything else, it alone."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return [_ESCAPED.sub(r"\1", part) for part in _COLON.split(value)] if value else []
    return [] if value is None else [value]


def keyed(keys: Any, values: Any, key: str) -> Any:
    """What stands beside a key."""
    names = [str(name).strip().lower() for name in listed(keys)]
    wanted = key.lower()
    if wanted not in names:
        return None
    entries = listed(values)
    at = names.index(wanted)
    return entries[at] if at < len(entries) else None
