"""Raw files and sidecars as astro_metadata_translator takes them: every property of an `ObservationInfo`.

LSST's translators are not on PyPI. The one here is small and reads the same keywords in the same order of
preference, with what astro_metadata_translator itself has for FITS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from astropy import units as u
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time

from raftwright.camera import Camera
from raftwright.camera import camera as find_camera
from raftwright.rawfile import WriteReport, write_image

MODULE = "astro_metadata_translator"
Form = Callable[[Path, Path], dict[str, Any]]

# Detector numbers of the LSST cameras, as the observatory counts them.
NUMBERS = {
    "science-E2V": [90, 91, 92],
    "science-ITL": [6, 7, 8],
    "guider": [197, 198],
    "wavefront": [203, 204],
    "AuxTel": [0],
    "ComCam": [3, 4, 5],
    "MiniCam": [0, 1],
}
INSTRUMENTS = {"LSSTCam": "lsstCam", "LSSTComCam": "ComCam", "LATISS": "LATISS", "MiniCam": "MiniCam"}
DOCUMENT = {
    "IMGTYPE": "OBJECT",
    "EXPTIME": 30,
    "SHUTTIME": 30.125,
    "DARKTIME": 30.5,
    "DATE-BEG": "2026-11-23T01:02:03.456",
    "DATE-END": "2026-11-23T01:02:33.956",
    "TIMESYS": "TAI",
    "GROUPID": "2026-11-23T01:01:55.123",
    "CURINDEX": 1,
    "MAXINDEX": 2,
    "RADESYS": "ICRS",
    "TRACKSYS": "RADEC",
    "RASTART": 53.5,
    "DECSTART": -27.5,
    "RA": 53.0,
    "DEC": -27.0,
    "ROTPA": 12.5,
    "ROTCOORD": "sky",
    "ELSTART": 61.0,
    "AZSTART": 100.0,
    "ELEND": 61.5,
    "AZEND": 99.5,
    "AMSTART": 1.125,
    "FILTER": "r_57",
    "OBJECT": "ECDFS",
    "PROGRAM": "BLOCK-1",
    "REASON": "field survey",
    "FOCUSZ": 0.25,
    "AIRTEMP": 9.5,
    "PRESSURE": 744.5,
    "HUMIDITY": 31.0,
    "OBSGEO-X": 1818938.94,
    "OBSGEO-Y": -5208470.95,
    "OBSGEO-Z": -3195172.08,
}
MINIMUM = {keyword: DOCUMENT[keyword] for keyword in ("EXPTIME", "DATE-BEG")} | {"IMGTYPE": "BIAS"}


def document(values: dict[str, Any]) -> bytes:
    """Header document of PRIMARY values, with a temperature for the condition HDU."""
    sections = {"PRIMARY": values, "REB_COND": {"TEMP1": 20.5}}
    records = {
        section: [{"keyword": key, "value": value, "comment": ""} for key, value in content.items()]
        for section, content in sections.items()
    }
    return yaml.safe_dump(records).encode()


def from_file(path: Path, _: Path) -> dict[str, Any]:
    """Primary header with REB_COND merged over it, as LSST's readers do."""
    from astro_metadata_translator import merge_headers

    with fits.open(path) as file:
        headers = [file[0].header, *(hdu.header for hdu in file[1:] if hdu.name == "REB_COND")]
        return dict(merge_headers([dict(header) for header in headers], mode="overwrite"))


def from_sidecar(_: Path, path: Path) -> dict[str, Any]:
    """The whole sidecar, with the keys that are no keywords."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(params=[from_file, from_sidecar], ids=["file", "sidecar"])
def form(request: pytest.FixtureRequest, require_module: Callable[[str], None]) -> Form:
    """Both sources of a header in turn."""
    require_module(MODULE)
    chosen: Form = request.param
    return chosen


@pytest.fixture
def describe(require_module: Callable[[str], None]) -> Callable[..., Any]:
    """Function from a header and its camera to an `ObservationInfo` of all properties or of some; one that
    fails is an error."""
    require_module(MODULE)
    from astro_metadata_translator import FitsTranslator, ObservationInfo, cache_translation
    from astro_metadata_translator.translators.helpers import (
        altaz_from_degree_headers,
        is_non_science,
        tracking_from_degree_headers,
    )

    def optional(keyword: str, default: str) -> tuple[str, dict[str, str]]:
        return keyword, {"default": default}

    class RawTranslator(FitsTranslator):
        """Headers of one camera; no `name`, so that it is used where it is asked for only."""

        camera: Camera
        _const_map: dict[str, Any] = {}  # noqa: RUF012 - the base class's form
        _trivial_map = {  # noqa: RUF012
            "telescope": "TELESCOP",
            "instrument": "INSTRUME",
            "observation_id": "OBSID",
            "detector_group": "RAFTBAY",
            "detector_name": "CCDSLOT",
            "detector_serial": "LSST_NUM",
            "exposure_time_requested": ("EXPTIME", {"unit": u.s}),
            "physical_filter": optional("FILTER", "unknown"),
            "object": optional("OBJECT", "UNKNOWN"),
            "science_program": optional("PROGRAM", "unknown"),
            "observation_reason": optional("REASON", "unknown"),
            "boresight_airmass": ("AMSTART", {"default": None, "checker": is_non_science}),
            "boresight_rotation_angle": (
                "ROTPA",
                {"default": 0.0, "checker": is_non_science, "unit": u.deg},
            ),
            "boresight_rotation_coord": optional("ROTCOORD", "unknown"),
            "relative_humidity": ("HUMIDITY", {"default": None, "checker": lambda self: None}),
        }

        def _quantity(self, keyword: str, unit: u.UnitBase) -> u.Quantity | None:
            return self._header[keyword] * unit if self.is_key_ok(keyword) else None

        @cache_translation
        def to_temperature(self) -> u.Quantity | None:
            return self._quantity("AIRTEMP", u.deg_C)

        @cache_translation
        def to_pressure(self) -> u.Quantity | None:
            return self._quantity("PRESSURE", u.hPa)

        @cache_translation
        def to_focus_z(self) -> u.Quantity:
            return 0 * u.mm if (focus := self._quantity("FOCUSZ", u.mm)) is None else focus

        @cache_translation
        def to_dark_time(self) -> u.Quantity:
            dark = self._quantity("DARKTIME", u.s)
            return self.to_exposure_time() if dark is None else dark

        @cache_translation
        def to_location(self) -> EarthLocation | None:
            return super().to_location() if self.are_keys_ok(["OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z"]) else None

        @cache_translation
        def to_detector_num(self) -> int:
            raft, slot = self.to_detector_group(), self.to_detector_name()
            (found,) = [d for d in self.camera.detectors if (d.header_raft, d.header_slot) == (raft, slot)]
            return found.id

        @cache_translation
        def to_exposure_id(self) -> int:
            day, number = self._header["DAYOBS"], self._header["SEQNUM"]
            assert isinstance(day, str)
            assert isinstance(number, int)
            return int(f"{day}{number:05d}")

        @cache_translation
        def to_visit_id(self) -> int:
            return self.to_exposure_id()

        @cache_translation
        def to_detector_exposure_id(self) -> int:
            return 1000 * self.to_exposure_id() + self.to_detector_num()

        @cache_translation
        def to_datetime_begin(self) -> Time:
            for keyword in ("MJD-BEG", "DATE-BEG", "MJD-OBS", "DATE-OBS"):
                if self.is_key_ok(keyword):
                    form = "mjd" if keyword.startswith("MJD") else "isot"
                    return Time(self._header[keyword], scale="tai", format=form)
            raise KeyError("no time of the start")

        @cache_translation
        def to_datetime_end(self) -> Time:
            if self.is_key_ok("DATE-END"):
                return super().to_datetime_end()
            return self.to_datetime_begin() + self.to_exposure_time()

        @cache_translation
        def to_exposure_time(self) -> u.Quantity:
            if self.is_key_ok("SHUTTIME") and self._header["SHUTTIME"] > 0:
                return self._header["SHUTTIME"] * u.s
            return self.to_exposure_time_requested()

        @cache_translation
        def to_observation_type(self) -> str:
            kind = self._header["IMGTYPE"].lower()
            return "science" if kind in ("object", "skyexp") else kind

        @cache_translation
        def to_observing_day(self) -> int:
            return int(self._header["DAYOBS"])

        @cache_translation
        def to_observation_counter(self) -> int:
            return int(self._header["SEQNUM"])

        @cache_translation
        def to_exposure_group(self) -> str:
            group: str = self._header["GROUPID"] if self.is_key_ok("GROUPID") else str(self.to_exposure_id())
            return group

        @cache_translation
        def to_group_counter_start(self) -> int:
            first: int = self._header["SEQNUM"]
            return first - self._header["CURINDEX"] + 1 if self.is_key_ok("CURINDEX") else first

        @cache_translation
        def to_group_counter_end(self) -> int:
            last: int = self._header["SEQNUM"]
            if self.are_keys_ok(["CURINDEX", "MAXINDEX"]):
                last += self._header["MAXINDEX"] - self._header["CURINDEX"]
            return last

        @cache_translation
        def to_tracking_radec(self) -> SkyCoord | None:
            if self.to_observation_type() in ("bias", "flat"):
                return None
            if self.is_key_ok("TRACKSYS") and self._header["TRACKSYS"] != "RADEC":
                return None
            assert self._header["DATE"] != self._header["DATE-OBS"]
            pairs = (("RASTART", "DECSTART"), ("RA", "DEC"))
            return tracking_from_degree_headers(self, ("RADESYS",), pairs)

        def _altaz(self, moment: str, time: Time) -> AltAz | None:
            keywords = (f"EL{moment}", f"AZ{moment}")
            return altaz_from_degree_headers(self, (keywords,), time, is_zd=False)

        @cache_translation
        def to_altaz_begin(self) -> AltAz | None:
            return self._altaz("START", self.to_datetime_begin())

        @cache_translation
        def to_altaz_end(self) -> AltAz | None:
            return self._altaz("END", self.to_datetime_end())

        @cache_translation
        def to_has_simulated_content(self) -> bool:
            marked = any("SIMULATE" in key and value for key, value in self._header.items())
            return marked or self._header["CONTRLLR"] in "HPQS"

        @cache_translation
        def to_can_see_sky(self) -> bool | None:
            return not (self.is_key_ok("SHUTTIME") and self._header["SHUTTIME"] == 0)

    def translate(header: dict[str, Any], camera: str, properties: set[str] | None = None) -> Any:
        chosen = type("ChosenTranslator", (RawTranslator,), {"camera": find_camera(camera)})
        return ObservationInfo(header, translator_class=chosen, pedantic=True, subset=properties)

    return translate


def headers(report: WriteReport, form: Form) -> list[dict[str, Any]]:
    return [form(file.path, file.sidecar) for file in report.files]


def test_complete_document(
    kind: Any,
    image: Callable[..., Any],
    form: Form,
    describe: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    report = write_image(image(kind), tmp_path, header=document(DOCUMENT), threads=1, durable=False)
    found = [describe(header, kind.camera) for header in headers(report, form)]
    assert [info.detector_num for info in found] == NUMBERS[kind.id]
    assert caplog.messages == []
    day, number = kind.name.split("_")[2], int(kind.name[-6:])
    for info, file in zip(found, report.files, strict=True):
        detector = find_camera(kind.camera).detector(file.detector)
        assert info.instrument == INSTRUMENTS[kind.camera]
        assert info.observation_id == kind.name
        assert info.detector_unique_name == f"{detector.header_raft}_{detector.header_slot}"
        assert info.detector_serial == detector.serial
        assert info.exposure_id == info.visit_id == int(f"{day}{number:05d}")
        assert (info.observing_day, info.observation_counter) == (20261122, number)
        assert (info.group_counter_start, info.group_counter_end) == (number, number + 1)
        assert info.exposure_group == DOCUMENT["GROUPID"]
        assert info.datetime_begin.tai.isot == DOCUMENT["DATE-BEG"]
        assert info.datetime_end.tai.isot == DOCUMENT["DATE-END"]
        times = (info.exposure_time_requested, info.exposure_time, info.dark_time)
        assert [time.to_value(u.s) for time in times] == [30.0, 30.125, 30.5]
        assert (info.tracking_radec.icrs.ra.deg, info.tracking_radec.icrs.dec.deg) == (53.5, -27.5)
        assert (info.altaz_begin.alt.deg, info.altaz_begin.az.deg) == pytest.approx((61.0, 100.0))
        assert (info.altaz_end.alt.deg, info.altaz_end.az.deg) == pytest.approx((61.5, 99.5))
        assert info.boresight_airmass == 1.125
        assert (info.boresight_rotation_angle.deg, info.boresight_rotation_coord) == (12.5, "sky")
        assert (info.physical_filter, info.observation_type) == ("r_57", "science")
        assert (info.object, info.science_program) == ("ECDFS", "BLOCK-1")
        assert info.observation_reason == "field survey"
        assert info.focus_z == 0.25 * u.mm
        assert info.temperature.value == 9.5
        assert (info.pressure.to_value(u.hPa), info.relative_humidity) == (744.5, 31.0)
        assert info.location.x.to_value(u.m) == pytest.approx(1818938.94)
        assert (info.has_simulated_content, info.can_see_sky) == (False, True)


def test_incomplete_image(
    science: Any,
    image: Callable[..., Any],
    with_gaps: Callable[..., Any],
    form: Form,
    describe: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Missing pixels, which the sidecar lists under a key of its own, change nothing of an observation."""
    whole = image(science)
    broken = with_gaps(whole, [(1000, 3000)])
    settings: dict[str, Any] = {"header": document(DOCUMENT), "threads": 1, "durable": False}
    complete = write_image(whole, tmp_path / "whole", **settings)
    incomplete = write_image(broken, tmp_path / "broken", **settings)
    assert all(file.missing_pixels for file in incomplete.files)
    assert all("__MISSING__" in from_sidecar(file.path, file.sidecar) for file in incomplete.files)
    for first, second in zip(headers(complete, form), headers(incomplete, form), strict=True):
        assert describe(first, science.camera) == describe(second, science.camera)


def test_least_document(
    kind: Any, image: Callable[..., Any], form: Form, describe: Callable[..., Any], tmp_path: Path
) -> None:
    """Type, exposure time and start are all that image and camera do not know of a bias."""
    report = write_image(image(kind), tmp_path, header=document(MINIMUM), threads=1, durable=False)
    found = [describe(header, kind.camera) for header in headers(report, form)]
    assert [info.detector_num for info in found] == NUMBERS[kind.id]
    for info in found:
        assert info.observation_type == "bias"
        assert info.exposure_group == str(info.exposure_id)
        assert info.datetime_begin.tai.isot == MINIMUM["DATE-BEG"]
        assert (info.datetime_end - info.datetime_begin).to_value(u.s) == pytest.approx(30.0, abs=1e-6)
        assert info.tracking_radec is info.altaz_begin is info.location is None


@pytest.mark.parametrize("lacking", [("EXPTIME",), ("DATE-BEG",), ("EXPTIME", "DATE-BEG")])
def test_less_than_that_is_too_little(
    lacking: tuple[str, ...],
    science: Any,
    image: Callable[..., Any],
    form: Form,
    describe: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The writer invents neither exposure times nor starts, with a document or without."""
    values = {keyword: value for keyword, value in MINIMUM.items() if keyword not in lacking}
    given = document(values) if len(lacking) == 1 else None
    report = write_image(image(science), tmp_path, header=given, threads=1, durable=False)
    properties = {"EXPTIME": "exposure_time_requested", "DATE-BEG": "datetime_begin"}
    for header in headers(report, form):
        for keyword, name in properties.items():
            if keyword in lacking:
                with pytest.raises(KeyError, match=f"property '{name}'"):
                    describe(header, science.camera, {name})
            else:
                assert getattr(describe(header, science.camera, {name}), name) is not None


def test_undefined_values(
    science: Any, image: Callable[..., Any], form: Form, describe: Callable[..., Any], tmp_path: Path
) -> None:
    """Null, NaN and cards without a value are read as keywords that are not there."""
    values = DOCUMENT | dict.fromkeys(("RASTART", "SHUTTIME", "DATE-END", "GROUPID", "PRESSURE"))
    values |= {"FOCUSZ": float("nan"), "CURINDEX": float("nan")}
    report = write_image(
        image(science), tmp_path, header=document(values), threads=1, durable=False, undefined_cards=True
    )
    for header in headers(report, form):
        info = describe(header, science.camera)
        assert (info.tracking_radec.icrs.ra.deg, info.tracking_radec.icrs.dec.deg) == (53.0, -27.0)
        assert info.exposure_time.to_value(u.s) == 30.0
        assert (info.datetime_end - info.datetime_begin).to_value(u.s) == pytest.approx(30.0, abs=1e-6)
        assert info.exposure_group == str(info.exposure_id)
        assert info.pressure is None
        assert info.focus_z == 0 * u.mm
        assert info.group_counter_start == info.group_counter_end == info.observation_counter


def test_times_of_a_document_in_utc(
    science: Any, image: Callable[..., Any], form: Form, describe: Callable[..., Any], tmp_path: Path
) -> None:
    values = DOCUMENT | {
        "TIMESYS": "UTC",
        "DATE-BEG": "2026-11-23T01:01:26.456",
        "DATE-END": "2026-11-23T01:01:56.956",
    }
    report = write_image(image(science), tmp_path, header=document(values), threads=1, durable=False)
    for header in headers(report, form):
        info = describe(header, science.camera)
        assert info.datetime_begin.tai.isot == DOCUMENT["DATE-BEG"]
        assert info.datetime_end.tai.isot == DOCUMENT["DATE-END"]
