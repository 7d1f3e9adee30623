"""Simulated telemetry: what an observatory would tell of an image, from a seed and the name of the image.

The same seed and name give the same values and the same faults, today and on any other machine.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.header.spec import Source, Spec

__all__ = ["END_OF_TELEMETRY", "Exposure", "Faults", "SimulatedTelemetry", "Told"]

END_OF_TELEMETRY: Final = 0.3
"""Seconds after the end of readout at which all telemetry is told."""

_Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares of the images at which something goes wrong."""

    late: _Share = 0.0
    """The end of telemetry comes `late_by` seconds later."""
    late_by: Annotated[float, Meta(ge=0.0, le=3600.0)] = 5.0
    never: _Share = 0.0
    """The end of telemetry never comes."""
    twice: _Share = 0.0
    """It comes twice, the second time with another content."""
    doubled: _Share = 0.0
    """Every event comes twice, the same."""
    nan: _Share = 0.0
    """Numbers of the weather are none."""
    wrong_name: _Share = 0.0
    """The end of telemetry has the name of an image that nobody takes."""
    out_of_range: _Share = 0.0
    """A humidity and an elevation that cannot be."""
    lost: _Share = 0.0
    """The start of the integration is never told."""
    shuffled: _Share = 0.0
    """The end of telemetry overtakes the end of readout."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something that is told."""

    delay: float
    """Seconds after the image began to be read out (before), or after its readout ended (after)."""
    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exposure:
    """When an image was taken: seconds since 1970-01-01T00:00:00 TAI."""

    name: ImageName
    begin: float
    end: float
    exposure_time: float
    image_type: str
    readout: float = 2.0
    tag: str = ""


class SimulatedTelemetry:
    """What is told of images of a camera.

    `exposure_time` in seconds; `image_types` in turn.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        seed: int = 1,
        exposure_time: float = 2.0,
        image_types: tuple[str, ...] = ("OBJECT",),
        faults: Faults | None = None,
    ) -> None:
        self.spec = spec
        self._seed = seed
        self._exposure_time = exposure_time
        self._types = image_types or ("OBJECT",)
        self.faults = faults or Faults()
        self._sources = _topics(spec)

    def exposure(self, obsid: str, trigger: str = "", *, readout: float = 2.0, tag: str = "") -> Exposure:
        """When an image was taken: it ended at the DAQ's trigger (TAI; from its name where there is none).

        Raises FormatError for a name or a time that is none.
        """
        name = ImageName.parse(obsid)
        end = (times.parse_iso(trigger) * 1e-9) if trigger else _trigger(name)
        kind = self._types[name.seqnum % len(self._types)]
        length = 0.0 if kind == "BIAS" else self._exposure_time
        return Exposure(name, end - length, end, length, kind, readout, tag or self._hex(obsid))

    def before(self, exposure: Exposure) -> Iterator[Told]:
        """What is told until the readout begins: telemetry, start of integration, start of readout."""
        for topic, fields in self.telemetry(exposure):
            yield Told(0.0, "telemetry", {"topic": topic, **fields})
        common = self._common(exposure)
        told = [
            Told(
                0.0,
                "startIntegration",
                {
                    **common,
                    "exposureTime": exposure.exposure_time,
                    "mode": "",
                    "timeout": exposure.exposure_time + 5.0,
                },
            ),
            Told(
                0.0,
                "startReadout",
                {**common, "exposureTime": exposure.exposure_time, "timestampStartOfReadout": exposure.end},
            ),
        ]
        if self._happens(exposure, "lost", self.faults.lost):
            told = told[1:]
        yield from self._repeated(exposure, told)

    def after(self, exposure: Exposure) -> Iterator[Told]:
        """What is told once the readout has ended: with the seconds after that."""
        common = self._common(exposure)
        end = Told(
            0.0,
            "endReadout",
            {
                **common,
                "requestedExposureTime": exposure.exposure_time,
                "timestampEndOfReadout": exposure.end + exposure.readout,
            },
        )
        last = {
            **common,
            "exposureTime": exposure.exposure_time,
            "imageTag": exposure.tag,
            "timestampDateObs": exposure.begin,
            "timestampDateEnd": exposure.end,
            "measuredShutterOpenTime": exposure.exposure_time
            if exposure.image_type not in ("BIAS", "DARK")
            else 0.0,
            "darkTime": exposure.end - exposure.begin,
            "emulatedImage": "",
        }
        told = [end]
        delay = END_OF_TELEMETRY
        if self._happens(exposure, "late", self.faults.late):
            delay += self.faults.late_by
        if self._happens(exposure, "shuffled", self.faults.shuffled):
            told[0] = Told(delay + 0.05, end.kind, end.fields)
        if self._happens(exposure, "wrong_name", self.faults.wrong_name):
            last["imageName"] = str(
                ImageName(exposure.name.source, exposure.name.controller, "20010101", exposure.name.seqnum)
            )
        if not self._happens(exposure, "never", self.faults.never):
            told.append(Told(delay, "endOfImageTelemetry", last))
            if self._happens(exposure, "twice", self.faults.twice):
                other = {**last, "darkTime": last["darkTime"] + 0.125}
                told.append(Told(delay + 0.2, "endOfImageTelemetry", other))
        yield from self._repeated(exposure, sorted(told, key=lambda t: t.delay))

    def _repeated(self, exposure: Exposure, told: list[Told]) -> Iterator[Told]:
        twice = self._happens(exposure, "doubled", self.faults.doubled)
        for each in told:
            yield each
            if twice:
                yield each

    def telemetry(self, exposure: Exposure) -> Iterator[tuple[str, dict[str, Any]]]:
        """Samples of all topics that the specification asks for: before, at the start, in the middle and at
        the end of the exposure."""
        strange = {
            "nan": self._happens(exposure, "nan", self.faults.nan),
            "range": self._happens(exposure, "range", self.faults.out_of_range),
        }
        span = max(exposure.end - exposure.begin, 0.0)
        moments = sorted({exposure.begin - 1.0, exposure.begin, exposure.begin + span / 2, exposure.end})
        for moment in moments:
            for topic, sources in self._sources.items():
                yield topic, {"timestamp": moment, "values": self._values(exposure, moment, sources, strange)}

    def _values(
        self, exposure: Exposure, moment: float, sources: list[Source], strange: dict[str, bool]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        night = _night(exposure, moment)
        for source in sources:
            value = self._value(source, exposure, night)
            field = source.field
            if strange["nan"] and source.name.startswith("ESS") and not isinstance(value, str):
                value = "NaN"
            if strange["range"] and field == "relativeHumidityItem":
                value = 180.0
            if (
                strange["range"]
                and field in ("actualPosition", "elevationCalculatedAngle")
                and "elev" in (source.name + field)
            ):
                value = 123.0
            if source.by:
                names, places = self._places(source.by)
                values[source.names[0]] = names
                values[field] = [
                    round(float(value) + 0.01 * n, 4) if isinstance(value, float) else value
                    for n in range(places)
                ]
            elif source.index is not None:
                values[field] = [value] * (source.index + 1)
            else:
                values[field] = value
        return values

    def _places(self, by: str) -> tuple[list[str], int]:
        camera = self.spec.camera
        if by == "ccd":
            names = [f"{d.raft}{d.slot}" for d in camera.detectors]
        else:
            names = [board.path for board in camera.boards.values()]
        return names, len(names)

    def _value(self, source: Source, exposure: Exposure, night: _Night) -> Any:
        for name in (f"{source.name.rpartition('.')[2]}.{source.field}", source.field):
            if name in _MOVING:
                return _MOVING[name](night)
            if name in _STEADY:
                return _STEADY[name]
        return round(self._random(str(exposure.name), source.name, source.field).uniform(1.0, 9.0), 3)

    def _common(self, exposure: Exposure) -> dict[str, Any]:
        name = exposure.name
        group = times.iso(round((exposure.begin - 5.0) * 1e6) * 1000)
        keys = {
            "imageType": exposure.image_type,
            "groupId": group,
            "testType": exposure.image_type,
            "program": f"BLOCK-{self._seed}",
            "reason": "simulation",
        }
        return {
            "instrument": self.spec.camera.name,
            "imageName": str(name),
            "imagesInSequence": 1,
            "imageIndex": 1,
            "imageSource": name.source,
            "imageController": name.controller,
            "imageDate": name.dayobs,
            "imageNumber": name.seqnum,
            "timestampAcquisitionStart": exposure.begin,
            "additionalKeys": ":".join(keys),
            "additionalValues": ":".join(value.replace(":", "\\:") for value in keys.values()),
        }

    def _happens(self, exposure: Exposure, what: str, share: float) -> bool:
        return share > 0.0 and self._random(str(exposure.name), "fault", what).random() < share

    def _random(self, *words: str) -> random.Random:
        digest = hashlib.blake2b(":".join((str(self._seed), *words)).encode(), digest_size=8).digest()
        return random.Random(digest)

    def _hex(self, obsid: str) -> str:
        return f"{self._random(obsid, 'tag').getrandbits(64):016x}"


def _topics(spec: Spec) -> dict[str, list[Source]]:
    found: dict[str, dict[str, Source]] = {}
    for card in spec.cards():
        for source in card.sources:
            if source.kind == "telemetry":
                found.setdefault(source.name, {})[source.field] = source
    return {topic: list(fields.values()) for topic, fields in found.items()}


def _trigger(name: ImageName) -> float:
    """As simulated images have it: noon of the day in the name, and 17 s an image."""
    day = f"{name.dayobs[:4]}-{name.dayobs[4:6]}-{name.dayobs[6:]}"
    return times.parse_iso(f"{day}T12:00:00") * 1e-9 + 17 * name.seqnum % 86400


@dataclass(frozen=True, slots=True)
class _Night:
    """Where the telescope points at a moment, roughly."""

    ra: float
    dec: float
    azimuth: float
    elevation: float
    hour_angle: float
    name: str
    kind: str

    @property
    def airmass(self) -> float:
        return round(1.0 / math.sin(math.radians(self.elevation)), 5)


def _night(exposure: Exposure, moment: float) -> _Night:
    field = exposure.name.seqnum % 7
    ra, dec = 15.0 + 48.0 * field, -45.0 + 5.5 * field
    elevation = 60.0 + field - (moment - exposure.begin) / 240.0
    azimuth = 100.0 + 20.0 * field + (moment - exposure.begin) / 240.0
    return _Night(
        ra, dec, azimuth, max(20.0, elevation), -1.0 + 0.25 * field, f"Field {field}", exposure.image_type
    )


_MOVING: Final[dict[str, Callable[[_Night], Any]]] = {
    "currentTarget.ra": lambda night: math.radians(night.ra),
    "currentTarget.declination": lambda night: math.radians(night.dec),
    "mountPosition.ra": lambda night: night.ra + 0.001,
    "mountPosition.declination": lambda night: night.dec - 0.001,
    "targetName": lambda night: night.name,
    "ha": lambda night: night.hour_angle,
    "airmass": lambda night: night.airmass,
    "azimuth.actualPosition": lambda night: night.azimuth,
    "elevation.actualPosition": lambda night: night.elevation,
    "azimuthCalculatedAngle": lambda night: night.azimuth,
    "elevationCalculatedAngle": lambda night: night.elevation,
    "azimuthPosition": lambda night: night.azimuth,
    "vignetted": lambda night: 1 if night.kind not in ("BIAS", "DARK", "FLAT") else 3,
}
_STEADY: Final[dict[str, Any]] = {
    "rotPA": 12.5,
    "targetType": 1,
    "frame": 2,
    "dropoutDoorOpeningPercentage": 100.0,
    "mainDoorOpeningPercentage": 100.0,
    "dut1": 0.03125,
    "temperatureItem": 9.5,
    "pressureItem": 74450.0,
    "relativeHumidityItem": 31.0,
    "speed": 4.25,
    "direction": 310.0,
    "fwhm": 0.85,
    "mode": 1,
    "filterName": "r_57",
    "filterType": "r",
    "filterSlot": 2,
    "filterPosition": 0.0,
    "reportedFilterPosition.name": "SDSSr_65mm",
    "reportedFilterPosition.band": "r",
    "reportedFilterPosition.slot": 1,
    "reportedDisperserPosition.name": "holo4_003",
    "reportedDisperserPosition.band": "R400",
    "reportedDisperserPosition.slot": 2,
    "state": 2,
    "ccdManSerNum": "ITL-0000",
    "temp": -100.0,
    "ccdTemp0": -95.0,
    "tempSet": -94.0,
    "temp1": 20.5,
    "temp2": 21.5,
    "hvBiasSwitch": 1,
}
