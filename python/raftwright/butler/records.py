"""Dimension records: what a repository knows of cameras and exposures, from camera files, sidecars, names."""

from __future__ import annotations

import datetime
import functools
import logging
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from astropy.time import Time

from raftwright.butler.software import Timespan
from raftwright.ledger.images import exposure_id

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.rawfile.names import ImageName

__all__ = [
    "VISIT_SYSTEMS",
    "ExposureRecords",
    "camera_records",
    "exposure_records",
    "is_fuller",
]

_log = logging.getLogger("raftwright.butler")

VISIT_SYSTEMS: Final = {0: "one-to-one", 1: "by-group-metadata", 2: "by-seq-start-end"}
_PREFERRED_SYSTEM: Final = 2
_PURPOSES: Final = {"science": "SCIENCE", "guider": "GUIDE", "wavefront": "WAVEFRONT"}
_CLASSES: Final = {
    "LATISS": "lsst.obs.lsst.Latiss",
    "LSSTComCam": "lsst.obs.lsst.LsstComCam",
    "LSSTCam": "lsst.obs.lsst.LsstCam",
}
"""As the observatory's repositories name them, so that its software works on ours."""
_EXPOSURE_MAX: Final = 6050123199999
"""Largest exposure of LSST's cameras."""
_DETECTOR_MAX: Final = 1000
_BAND: Final = re.compile(r"(?:SDSS)?([ugrizy])(?:_|~|$)")
_NONE: Final = ("empty", "none", "clear", "white")


class ExposureRecords(msgspec.Struct, frozen=True):
    """Everything that has to be in a registry before a dataset of an exposure is."""

    physical_filter: dict[str, Any]
    group: dict[str, Any]
    day_obs: dict[str, Any]
    exposure: dict[str, Any]
    translated: bool
    """Whether a header told of it; else it is known by its name only."""


def camera_records(camera: Camera) -> dict[str, list[dict[str, Any]]]:
    """Records of a camera by dimension, in the order in which they have to be entered."""
    name = camera.name
    return {
        "instrument": [
            {
                "name": name,
                "visit_max": _EXPOSURE_MAX,
                "visit_system": _PREFERRED_SYSTEM,
                "exposure_max": _EXPOSURE_MAX,
                "detector_max": max(_DETECTOR_MAX, max(each.id for each in camera.detectors) + 1),
                "class_name": _CLASSES.get(name, "raftwright.camera.Camera"),
            }
        ],
        "detector": [
            {
                "instrument": name,
                "id": detector.id,
                "full_name": detector.file_stem,
                "name_in_raft": detector.header_slot,
                "raft": detector.header_raft,
                "purpose": _PURPOSES[detector.kind],
            }
            for detector in camera.detectors
        ],
        "physical_filter": [_filter_record(name, "unknown", {})],
        "visit_system": [
            {"instrument": name, "id": number, "name": text} for number, text in VISIT_SYSTEMS.items()
        ],
    }


def _filter_record(instrument: str, name: str, header: Mapping[str, Any]) -> dict[str, Any]:
    given = header.get("FILTBAND")
    match = _BAND.match(name)
    if match is not None:
        band = match[1]
    elif isinstance(given, str) and given.strip() in set("ugrizy"):
        band = given.strip()
    else:
        band = "white" if name.lower().startswith(_NONE) else "unknown"
    return {"instrument": instrument, "name": name, "band": band}


def exposure_records(name: ImageName, camera: Camera, header: Mapping[str, Any] | None) -> ExposureRecords:
    """Records of an exposure from a header, as far as it goes, and from its name for the rest."""
    known: dict[str, Any] = {}
    if header:
        from raftwright.butler.translating import translate

        try:
            known = translate(header, camera)
        except Exception as error:  # what a header says can upset anybody; the image is there all the same
            _log.warning("%s: its header cannot be translated (%s); its name must do", name, error)
    number = exposure_id(name)
    filter_name = _text(known.get("physical_filter"), 32) or "unknown"
    group = known.get("exposure_group")
    group = group if isinstance(group, str) and 0 < len(group) <= 64 else str(number)
    start, end = known.get("group_counter_start"), known.get("group_counter_end")
    snaps = isinstance(start, int) and isinstance(end, int) and start <= name.seqnum <= end
    timespan = _timespan(known.get("datetime_begin"), known.get("datetime_end"))
    exposure = {
        "instrument": camera.name,
        "id": number,
        "day_obs": int(name.dayobs),
        "group": group,
        "physical_filter": filter_name,
        "obs_id": str(name),
        "exposure_time": _number(known.get("exposure_time"), "s"),
        "dark_time": _number(known.get("dark_time"), "s"),
        "observation_type": _text(known.get("observation_type"), 16) or "unknown",
        "observation_reason": _text(known.get("observation_reason"), 68) or "unknown",
        "seq_num": name.seqnum,
        "seq_start": start if snaps else name.seqnum,
        "seq_end": end if snaps else name.seqnum,
        "target_name": _text(known.get("object"), 64) or "unknown",
        "science_program": _text(known.get("science_program"), 64) or "unknown",
        "has_simulated": bool(known.get("has_simulated_content")) or name.controller in "HPQS",
        "can_see_sky": known.get("can_see_sky"),
        "timespan": timespan,
        **_pointing(known),
    }
    return ExposureRecords(
        physical_filter=_filter_record(camera.name, filter_name, header or {}),
        group={"instrument": camera.name, "name": group},
        day_obs={
            "instrument": camera.name,
            "id": int(name.dayobs),
            "timespan": _night(name.dayobs),
        },
        exposure=exposure,
        translated=timespan is not None,
    )


def is_fuller(new: ExposureRecords, standing: Any) -> bool:
    """Whether a header tells of an exposure that the registry knows by its name only. What a header told
    once stays: files that came later do not change what an exposure was."""
    return new.translated and standing.timespan is None


def _pointing(known: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = dict.fromkeys(
        ("tracking_ra", "tracking_dec", "sky_angle", "azimuth", "zenith_angle")
    )
    place, angle, horizon = (
        known.get(key) for key in ("tracking_radec", "boresight_rotation_angle", "altaz_begin")
    )
    if place is not None:
        sky = place.transform_to("icrs")
        found["tracking_ra"], found["tracking_dec"] = _finite(sky.ra.deg), _finite(sky.dec.deg)
        if known.get("boresight_rotation_coord") == "sky" and angle is not None:
            found["sky_angle"] = _finite(angle.to_value("deg"))
    if horizon is not None:
        found["azimuth"] = _finite(horizon.az.deg)
        found["zenith_angle"] = _finite(90.0 - horizon.alt.deg)
    return found


def _timespan(begin: Time | None, end: Time | None) -> Timespan | None:
    if begin is None or end is None:
        return None
    return Timespan(begin.tai, end.tai) if begin <= end else None


@functools.lru_cache(maxsize=64)
def _night(dayobs: str) -> Timespan:
    """From noon to noon, as the observatory counts."""
    noon = datetime.datetime(int(dayobs[:4]), int(dayobs[4:6]), int(dayobs[6:]), 12)
    ends = (noon, noon + datetime.timedelta(days=1))
    begin, end = (Time(each.isoformat(), format="isot", scale="tai") for each in ends)
    return Timespan(begin, end)


def _number(quantity: Any, unit: str) -> float | None:
    return None if quantity is None else _finite(quantity.to_value(unit))


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value: object, longest: int) -> str | None:
    """Printable text that a registry takes; None where nothing is left of it."""
    if not isinstance(value, str):
        return None
    return "".join(c for c in value.strip() if c.isprintable())[:longest].strip() or None
