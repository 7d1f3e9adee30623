"""Headers as astro_metadata_translator takes them: the translators are known to it by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy import units as u
from small_raws import SKY, Raws

pytest.importorskip("astro_metadata_translator")
pytest.importorskip("lsst.daf.butler")

from astro_metadata_translator import MetadataTranslator, ObservationInfo

from raftwright.butler.records import exposure_records
from raftwright.butler.translating import translate, translator_of
from raftwright.camera import camera
from raftwright.errors import MissingExtraError
from raftwright.rawfile import ImageName

KINDS = (
    ("LSSTCam", "MC_O_20261122_000123", "22/1", 94, "R22_S11"),
    ("LSSTComCam", "CC_O_20261122_000006", "22/1", 4, "R22_S11"),
    ("LATISS", "AT_O_20261122_000005", "00/0", 0, "R00_S00"),
)


@pytest.mark.parametrize(("name", "image", "location", "number", "stem"), KINDS)
def test_it_finds_the_translator_itself(
    name: str, image: str, location: str, number: int, stem: str, archive: Raws
) -> None:
    """Every property, in its strict mode, from the sidecar of a raw and nothing else."""
    more = {"GRATING": "holo4_003"} if name == "LATISS" else {}
    values = {**SKY, "AIRTEMP": 9.5, "PRESSURE": 744.5, "HUMIDITY": 31.0, "AMSTART": 1.125, **more}
    paths = archive.image(image, name, [location], header={**values, "AZEND": 99.5, "ELEND": 61.5})
    (path,) = [each for each in paths if each.stem.endswith(stem)]
    header: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    assert MetadataTranslator.determine_translator(header) is translator_of(camera(name))
    info = ObservationInfo(header, pedantic=True)
    day, sequence = image.split("_")[2], int(image[-6:])
    assert (info.instrument, info.detector_num, info.detector_unique_name) == (name, number, stem)
    assert info.exposure_id == info.visit_id == int(f"{day}{sequence:05}")
    assert info.observation_id == image
    assert (info.observing_day, info.observation_counter) == (20261122, sequence)
    assert info.physical_filter == ("r_57~holo4_003" if more else "r_57")
    assert info.exposure_time.to_value(u.s) == 30.125
    assert (info.tracking_radec.icrs.ra.deg, info.tracking_radec.icrs.dec.deg) == (53.5, -27.5)
    assert (info.temperature.value, info.pressure.to_value(u.hPa)) == (282.65, 744.5)
    assert (info.altaz_begin.alt.deg, info.altaz_end.az.deg) == pytest.approx((61.0, 99.5))
    assert info.datetime_begin.tai.isot == SKY["DATE-BEG"]


@pytest.mark.parametrize(
    ("filter_name", "header", "band"),
    [
        ("r_57", {}, "r"),
        ("SDSSr_65mm~empty", {}, "r"),
        ("g_6", {}, "g"),
        ("ph_5", {}, "unknown"),
        ("ph_5", {"FILTBAND": "z"}, "z"),
        ("empty~empty", {}, "white"),
        ("none", {}, "white"),
        ("ef_43", {"FILTBAND": 7}, "unknown"),
    ],
)
def test_bands(filter_name: str, header: dict[str, Any], band: str) -> None:
    name = ImageName.parse("MC_O_20261122_000123")
    told = {"OBSID": str(name), "INSTRUME": "lsstCam", "FILTER": filter_name, **header}
    records = exposure_records(name, camera("LSSTCam"), told)
    assert records.physical_filter == {"instrument": "LSSTCam", "name": filter_name, "band": band}


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"OBSID": 7, "INSTRUME": None, "FILTER": [1], "EXPTIME": "x", "DATE-BEG": "yesterday"},
        {"DATE-BEG": "2026-11-23T01:02:03", "DATE-END": "2026-11-22T01:02:03", "EXPTIME": -3},
        {"RA": float("nan"), "DEC": float("inf"), "TRACKSYS": "RADEC", "IMGTYPE": "OBJECT"},
        {"CURINDEX": 99, "MAXINDEX": -4, "SEQNUM": 123, "DAYOBS": "x" * 1000},
        {"x" * 200: object(), "SIMULATE": True},
    ],
)
def test_nothing_in_a_header_stops_it(header: dict[str, Any]) -> None:
    name = ImageName.parse("MC_O_20261122_000123")
    records = exposure_records(name, camera("LSSTCam"), header)
    assert records.exposure["obs_id"] == str(name)
    assert (records.exposure["seq_start"], records.exposure["seq_end"]) == (123, 123)
    for value in records.exposure.values():
        assert not isinstance(value, float) or value == value
    assert isinstance(translate(header, camera("LSSTCam")), dict)


def test_a_raw_without_the_extra(tmp_path: Path, run_without: Callable[..., str]) -> None:
    """Every module that needs it says so when it is imported."""
    said = run_without(
        "lsst",
        "from raftwright.butler import Incoming\n"
        "import importlib, raftwright.errors as e\n"
        "for name in ('Ingester', 'make_repository', 'open_repository', 'define_visits'):\n"
        "    try:\n"
        "        getattr(importlib.import_module('raftwright.butler'), name)\n"
        "    except e.MissingExtraError as error:\n"
        "        print(error)\n",
    )
    assert said.count("raftwright[butler]") == 4
    assert issubclass(MissingExtraError, ImportError)
