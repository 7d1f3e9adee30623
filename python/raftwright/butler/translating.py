"""Headers of our raws as astro_metadata_translator takes them.

LSST's own translators are in obs_lsst, which no package index has. These read the same cards in the same
order of preference, for any camera that a camera file describes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from raftwright.camera import camera as find_camera
from raftwright.errors import MissingExtraError

try:
    from astro_metadata_translator import (
        FitsTranslator,
        ObservationInfo,
        cache_translation,
    )
    from astro_metadata_translator.translators.helpers import (
        altaz_from_degree_headers,
        tracking_from_degree_headers,
    )
except ImportError as error:  # pragma: no cover - the test environment has it
    raise MissingExtraError(
        "headers are translated by astro-metadata-translator; "
        "install it with `pip install 'raftwright[butler]'`"
    ) from error

from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time

if TYPE_CHECKING:
    from raftwright.camera import Camera

__all__ = [
    "ComCamTranslator",
    "LatissTranslator",
    "LsstCamTranslator",
    "RawTranslator",
    "translate",
    "translator_of",
]

_SIMULATORS: Final = "HPQS"
"""Controllers whose images are no real ones."""
_WANTED: Final = frozenset(
    {
        *("exposure_time", "dark_time", "observation_type", "observation_reason", "physical_filter"),
        *("datetime_begin", "datetime_end", "exposure_group", "group_counter_start", "group_counter_end"),
        *("object", "science_program", "tracking_radec", "boresight_rotation_angle", "altaz_begin"),
        *("boresight_rotation_coord", "has_simulated_content", "can_see_sky"),
    }
)


class RawTranslator(FitsTranslator):
    """Headers of one camera. A subclass with a `name` is known to astro_metadata_translator by it."""

    camera: ClassVar[Camera]
    _const_map: dict[str, Any] = {}  # noqa: RUF012 - the form of the base class
    _trivial_map: dict[str, Any] = {  # noqa: RUF012
        "telescope": "TELESCOP",
        "observation_id": "OBSID",
        "detector_group": "RAFTBAY",
        "detector_name": "CCDSLOT",
        "detector_serial": ("LSST_NUM", {"default": "unknown"}),
        "exposure_time_requested": ("EXPTIME", {"unit": u.s}),
        "object": ("OBJECT", {"default": "unknown"}),
        "science_program": ("PROGRAM", {"default": "unknown"}),
        "observation_reason": ("REASON", {"default": "unknown"}),
        "boresight_rotation_angle": ("ROTPA", {"default": 0.0, "unit": u.deg}),
        "boresight_rotation_coord": ("ROTCOORD", {"default": "unknown"}),
    }

    def _number(self, keyword: str) -> float | None:
        if not self.is_key_ok(keyword):
            return None
        self._used_these_cards(keyword)
        return float(self._header[keyword])

    def _quantity(self, keyword: str, unit: u.UnitBase) -> u.Quantity | None:
        number = self._number(keyword)
        return None if number is None else number * unit

    @cache_translation
    def to_instrument(self) -> str:
        """Name of the camera, whatever INSTRUME calls it."""
        said = str(self._header["INSTRUME"]).strip()
        self._used_these_cards("INSTRUME")
        names = (self.camera.instrume, self.camera.name, *self.camera.aliases)
        return self.camera.name if said.lower() in (name.lower() for name in names) else said

    @cache_translation
    def to_boresight_airmass(self) -> float | None:
        """AMSTART."""
        return self._number("AMSTART")

    @cache_translation
    def to_relative_humidity(self) -> float | None:  # type: ignore[override]
        """HUMIDITY, percent."""
        return self._number("HUMIDITY")

    @cache_translation
    def to_temperature(self) -> u.Quantity | None:
        """AIRTEMP."""
        degrees = self._number("AIRTEMP")
        return None if degrees is None else (degrees + 273.15) * u.K

    @cache_translation
    def to_pressure(self) -> u.Quantity | None:
        """PRESSURE: pascals, or hectopascals as older headers have it."""
        number = self._number("PRESSURE")
        return None if number is None else number * (u.Pa if number > 10_000 else u.hPa)

    @cache_translation
    def to_focus_z(self) -> u.Quantity:
        """FOCUSZ."""
        focus = self._quantity("FOCUSZ", u.mm)
        return 0.0 * u.mm if focus is None else focus

    @cache_translation
    def to_exposure_time(self) -> u.Quantity:
        """What the shutter says where it says something."""
        shutter = self._quantity("SHUTTIME", u.s)
        return shutter if shutter is not None and shutter.value > 0 else self.to_exposure_time_requested()

    @cache_translation
    def to_dark_time(self) -> u.Quantity:
        """DARKTIME, at least the exposure."""
        dark = self._quantity("DARKTIME", u.s)
        return self.to_exposure_time() if dark is None else dark

    @cache_translation
    def to_location(self) -> EarthLocation | None:
        """OBSGEO-X to -Z."""
        if not self.are_keys_ok(["OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z"]):
            return None
        return super().to_location()

    @cache_translation
    def to_physical_filter(self) -> str:
        """FILTER; with GRATING where there is one, as LATISS has it."""
        name = str(self._header["FILTER"]).strip() if self.is_key_ok("FILTER") else ""
        name = name or "unknown"
        if not self.is_key_ok("GRATING"):
            return name
        return f"{name}~{str(self._header['GRATING']).strip() or 'unknown'}"

    @cache_translation
    def to_detector_num(self) -> int:
        """Number of the detector in the camera."""
        stem = f"{self.to_detector_group()}_{self.to_detector_name()}"
        return self.camera.detector(stem).id

    @cache_translation
    def to_exposure_id(self) -> int:
        """From the image's name, as the observatory numbers them."""
        from raftwright.ledger.images import exposure_id
        from raftwright.rawfile.names import ImageName

        return exposure_id(ImageName.parse(str(self._header["OBSID"])))

    @cache_translation
    def to_visit_id(self) -> int:
        """The exposure."""
        return self.to_exposure_id()

    @cache_translation
    def to_detector_exposure_id(self) -> int:
        """Exposure and detector as one number."""
        return 1000 * self.to_exposure_id() + self.to_detector_num()

    @cache_translation
    def to_datetime_begin(self) -> Time | None:
        """MJD-BEG, DATE-BEG, MJD-OBS, DATE-OBS, whichever is there, in TAI."""
        return self._moment("MJD-BEG", "DATE-BEG", "MJD-OBS", "DATE-OBS")

    @cache_translation
    def to_datetime_end(self) -> Time | None:
        """MJD-END or DATE-END; else the start and the exposure time."""
        end = self._moment("DATE-END", "MJD-END")
        begin = self.to_datetime_begin()
        if end is None:
            end = None if begin is None else begin + self.to_exposure_time()
        return begin if end is not None and begin is not None and end < begin else end

    def _moment(self, *keywords: str) -> Time | None:
        for keyword in keywords:
            if self.is_key_ok(keyword):
                self._used_these_cards(keyword)
                form = "mjd" if keyword.startswith("MJD") else "isot"
                return Time(self._header[keyword], scale="tai", format=form)
        return None

    @cache_translation
    def to_observation_type(self) -> str:
        """IMGTYPE in small letters; what looks at the sky for its own sake is `science`."""
        kind = str(self._header["IMGTYPE"]).strip().lower()
        return "science" if kind in ("object", "skyexp") else kind or "unknown"

    @cache_translation
    def to_observing_day(self) -> int:
        """DAYOBS."""
        return int(self._header["DAYOBS"])

    @cache_translation
    def to_observation_counter(self) -> int:
        """SEQNUM."""
        return int(self._header["SEQNUM"])

    @cache_translation
    def to_exposure_group(self) -> str:
        """GROUPID, or the exposure itself."""
        group = str(self._header["GROUPID"]).strip() if self.is_key_ok("GROUPID") else ""
        return group or str(self.to_exposure_id())

    def _snaps(self) -> tuple[int, int]:
        """Snaps before and after this one in its group: none where the cards contradict each other."""
        if not self.are_keys_ok(["CURINDEX", "MAXINDEX"]):
            return 0, 0
        index, count = int(self._header["CURINDEX"]), int(self._header["MAXINDEX"])
        return (index - 1, count - index) if 1 <= index <= count else (0, 0)

    @cache_translation
    def to_group_counter_start(self) -> int:
        """Number of the first snap."""
        return max(0, self.to_observation_counter() - self._snaps()[0])

    @cache_translation
    def to_group_counter_end(self) -> int:
        """Number of the last snap."""
        return self.to_observation_counter() + self._snaps()[1]

    @cache_translation
    def to_tracking_radec(self) -> SkyCoord | None:
        """Where the telescope tracked the sky."""
        if self.to_observation_type() in ("bias", "dark", "flat"):
            return None
        if self.is_key_ok("TRACKSYS") and str(self._header["TRACKSYS"]).strip().upper() != "RADEC":
            return None
        pairs = tuple(p for p in (("RASTART", "DECSTART"), ("RA", "DEC")) if self.are_keys_ok(p))
        return tracking_from_degree_headers(self, ("RADESYS",), pairs) if pairs else None

    def _altaz(self, moment: str, time: Time) -> Any:
        keywords = (f"EL{moment}", f"AZ{moment}")
        if not self.are_keys_ok(keywords) or time is None:
            return None
        return altaz_from_degree_headers(self, (keywords,), time)

    @cache_translation
    def to_altaz_begin(self) -> Any:
        """ELSTART and AZSTART."""
        return self._altaz("START", self.to_datetime_begin())

    @cache_translation
    def to_altaz_end(self) -> Any:
        """ELEND and AZEND."""
        return self._altaz("END", self.to_datetime_end())

    @cache_translation
    def to_has_simulated_content(self) -> bool:
        """What a card says, or the controller."""
        marked = any("SIMULATE" in str(key) and value is True for key, value in self._header.items())
        return marked or (
            self.is_key_ok("CONTRLLR") and str(self._header["CONTRLLR"])[:1] in tuple(_SIMULATORS)
        )

    @cache_translation
    def to_can_see_sky(self) -> bool | None:
        """None where nothing tells."""
        if self.to_observation_type() in ("bias", "dark", "flat"):
            return False
        vignetted = str(self._header["VIGN_MIN"]).strip().upper() if self.is_key_ok("VIGN_MIN") else ""
        if vignetted in ("FULLY", "NO", "PARTIALLY"):
            return vignetted != "FULLY"
        return None


class LatissTranslator(RawTranslator):
    """AuxTel's spectrograph."""

    name = "raftwright-LATISS"
    supported_instrument = "LATISS"
    camera = find_camera("LATISS")


class ComCamTranslator(RawTranslator):
    """ComCam."""

    name = "raftwright-LSSTComCam"
    supported_instrument = "LSSTComCam"
    camera = find_camera("LSSTComCam")


class LsstCamTranslator(RawTranslator):
    """LSSTCam."""

    name = "raftwright-LSSTCam"
    supported_instrument = "LSSTCam"
    camera = find_camera("LSSTCam")


_OURS: Final = (LatissTranslator, ComCamTranslator, LsstCamTranslator)


@functools.lru_cache(maxsize=32)
def translator_of(camera: Camera) -> type[RawTranslator]:
    """The translator for a camera; one that is not built in gets one of its own, known to nobody else."""
    for built_in in _OURS:
        if built_in.camera is camera:
            return built_in
    return type(f"{camera.name}Translator", (RawTranslator,), {"camera": camera})


def translate(header: Mapping[str, Any], camera: Camera) -> dict[str, Any]:
    """The properties of an `ObservationInfo` that say what an exposure is; None for each that the header does
    not tell, or tells in a way that nobody understands. Takes any mapping."""
    usable = {key: value for key, value in header.items() if value is not None}
    info = ObservationInfo(
        usable, translator_class=translator_of(camera), pedantic=False, subset=set(_WANTED), quiet=True
    )
    return {name: getattr(info, name) for name in _WANTED}
