"""Documents: values, types, checks, the least metadata; and how fast they are built."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from observatory import BEGIN, CAMERAS, Observatory, values_of

from raftwright.header import build_header, header_spec
from raftwright.header.building import BuiltHeader
from raftwright.header.checks import check_times
from raftwright.rawfile import read_header_document, times

COMCAM = Observatory()
SOON = round((BEGIN + 3600.0) * 1e9)
"""Later than the exposures here: when their documents are made."""


def built(change: Any = None, camera: Observatory = COMCAM, number: int = 1, **options: Any) -> BuiltHeader:
    exposure = camera.exposure(number, **options)
    created = round((exposure.end + 3600.0) * 1e9)
    return build_header(camera.spec, camera.collected(exposure, change), created=created)


def codes(header: BuiltHeader) -> list[str]:
    return sorted(problem.code for problem in header.problems)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_whole_document(name: str) -> None:
    header = built(camera=Observatory(name))
    assert header.problems == ()
    assert header.lacking == ()
    assert header.groups == {}
    assert header.state == "complete"
    document = read_header_document(header.data)
    assert document.notes == ()
    values = values_of(document)
    assert values["HDRSTATE"] == "complete"
    assert values["RA"] == pytest.approx(63.0)
    assert values["WINDSPD"] == 4.25
    assert values["TRACKSYS"] == "RADEC"
    cards = {card.keyword: card for card in header_spec(name).primary().cards()}
    types = {"string": str, "integer": int, "float": float, "boolean": bool, "date": str, "mjd": float}
    for keyword, value in values.items():
        assert value is None or type(value) is types[cards[keyword].type], keyword


@pytest.mark.parametrize("raft", ["R00", "R04", "R40", "R44"])
def test_corner_rafts_have_sensors_of_their_own(raft: str) -> None:
    """D105: two guiders and two halves for the wavefront, with names and types of their own."""
    document = read_header_document(built(camera=Observatory("LSSTCam")).data)
    names = {name for name in document.sections if name.startswith(raft) and name.endswith("_PRIMARY")}
    assert names == {f"{raft}{slot}_PRIMARY" for slot in ("SG0", "SG1", "SW0", "SW1")}
    for name in names:
        values = values_of(document, name)
        assert (values["RAFTBAY"], values["CCDSLOT"]) == (raft, name[3:6])
        assert values["CCD_MANU"] == "ITL"
        assert values["LSST_NUM"].startswith("ITL-4400B" if name[4] == "W" else "ITL-3800C")


def test_sections_of_boards_and_ccds() -> None:
    header = built(camera=Observatory("LSSTCam"))
    document = read_header_document(header.data)
    assert len([name for name in document.sections if name.endswith("_PRIMARY")]) == 205
    assert len([name for name in document.sections if name.endswith("_REB_COND")]) == 71
    assert values_of(document, "R22S11_PRIMARY")["CCDTEMP"] == pytest.approx(-100 + 0.01 * 94)
    assert values_of(document, "R01Reb2_REB_COND")["HVBIAS"] == "ON"


def test_start_is_date_obs_and_date_beg_and_trigger_is_none_of_them() -> None:
    """D041: for an exposure of 15 s."""
    values = built().values
    assert values["DATE-OBS"] == values["DATE-BEG"] == "2026-11-23T01:03:03.456"
    assert values["DATE-END"] == values["DATE-TRG"] == "2026-11-23T01:03:18.456"
    for keyword in ("OBS", "BEG", "END"):
        moment = times.mjd(times.parse_iso(str(values[f"DATE-{keyword}"])))
        assert values[f"MJD-{keyword}"] == pytest.approx(moment, abs=1e-9)
    assert values["TIMESYS"] == "TAI"


def test_date_is_after_the_end_after_the_begin() -> None:
    """D100: all three are TAI."""
    day = time.strftime("%Y%m%d", time.gmtime(time.time() - 43200))
    exposure = COMCAM.exposure(1, begin=times.now() * 1e-9 - 20.0, day=day)
    header = build_header(COMCAM.spec, COMCAM.collected(exposure))
    values = header.values
    assert str(values["DATE"]) >= str(values["DATE-END"]) >= str(values["DATE-BEG"])
    assert abs(times.parse_iso(str(values["DATE"])) - times.now()) < 5e9
    assert codes(header) == []


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("endOfImageTelemetry", "timestampDateEnd"),
        ("endOfImageTelemetry", "timestampDateObs"),
        ("startIntegration", "timestampAcquisitionStart"),
        ("startReadout", "timestampStartOfReadout"),
        ("endReadout", "timestampEndOfReadout"),
    ],
)
@pytest.mark.parametrize("slip", [-37.0, 37.0])
def test_37_seconds_are_noticed(kind: str, field: str, slip: float) -> None:
    """F51: a stamp in UTC where TAI belongs, or the other way round."""

    def change(events: dict[str, dict[str, Any]]) -> None:
        events[kind] = {**events[kind], field: events[kind][field] + slip}

    header = built(change)
    assert "slip" in codes(header)
    assert any("37 s is what lies between TAI and UTC" in str(problem) for problem in header.problems)


def test_all_stamps_in_utc_are_noticed() -> None:
    def change(events: dict[str, dict[str, Any]]) -> None:
        for kind, fields in events.items():
            events[kind] = {
                k: v - 37.0 if k.startswith("timestamp") and isinstance(v, float) else v
                for k, v in fields.items()
            }

    assert codes(built(change)) == ["slip", "slip", "slip"]


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"DATE-BEG": "2026-11-23T01:00:10", "DATE-END": "2026-11-23T01:00:00"}, "DATE-END"),
        ({"DATE-END": "2026-11-23T01:00:10", "DATE": "2026-11-23T01:00:00"}, "DATE"),
        ({"DATE-BEG": "2026-11-23T01:00:10", "DATE-OBS": "2026-11-23T01:00:11"}, "DATE-OBS"),
        ({"DATE-BEG": "2026-11-23T01:00:10", "MJD-BEG": 61367.0}, "MJD-BEG"),
        ({"DATE-BEG": "yesterday"}, "DATE-BEG"),
        ({"DATE-BEG": 12}, "DATE-BEG"),
        ({"TIMESYS": "UTC"}, "TIMESYS"),
        ({"DATE-BEG": "2026-11-23T01:00:00", "DATE-END": "2026-11-23T01:00:10", "EXPTIME": 30.0}, "DATE-END"),
        ({"DATE-BEG": "2026-11-23T01:00:00", "DATE-END": "2026-11-23T03:00:10", "EXPTIME": 30.0}, "DATE-END"),
        ({"DATE-BEG": "2026-11-27T01:00:00", "OBSID": "CC_O_20261122_000001"}, "DATE-BEG"),
    ],
)
def test_times_that_contradict_one_another(values: dict[str, Any], keyword: str) -> None:
    assert [problem.keyword for problem in check_times(values)] == [keyword]


@pytest.mark.parametrize("begin", ["2026-11-23T11:59:55", "2026-11-23T12:00:30", "2026-11-22T12:00:40"])
def test_an_exposure_at_noon_keeps_the_day_of_its_name(begin: str) -> None:
    """F52, D110: the day is that of the name, whenever the exposure begins and ends."""
    header = built(begin=times.parse_iso(begin) * 1e-9)
    assert header.values["DAYOBS"] == "20261122"
    assert codes(header) == []


def test_local_time_zones_have_no_effect(tmp_path: Path) -> None:
    """F53."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_building import *\n"
        "sys.stdout.buffer.write(built().data)\n"
    )
    here = str(Path(__file__).parent)
    documents = {
        subprocess.run(
            [sys.executable, "-c", program, here],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for zone in ("Pacific/Kiritimati", "America/Santiago")
    }
    assert documents == {built().data}


def test_nan_is_null_and_counted() -> None:
    """D023, F33."""
    exposure = COMCAM.exposure(1)
    collector = COMCAM.collector()
    for topic, fields in COMCAM.simulated.telemetry(exposure):
        values = {k: (math.nan if topic.startswith("ESS") else v) for k, v in fields["values"].items()}
        collector.telemetry(topic, fields["timestamp"], values)
    for kind, fields in COMCAM.events(exposure).items():
        collector.event(kind, fields, 0.0)
    header = build_header(COMCAM.spec, collector.snapshot(str(exposure.name)), created=SOON)
    weather = ("AIRTEMP", "PRESSURE", "HUMIDITY", "WINDSPD", "WINDDIR")
    assert all(header.values[keyword] is None for keyword in weather)
    assert header.counts["nan"] == 5
    assert header.groups == {"site": ["AIRTEMP", "PRESSURE", "HUMIDITY", "WINDSPD", "WINDDIR"]}
    assert values_of(header.data)["AIRTEMP"] is None
    assert "AIRTEMP" in values_of(header.data)


def test_missing_and_unknown_keywords_are_null_and_counted() -> None:
    """D103: without any telemetry the document is written all the same."""
    exposure = COMCAM.exposure(1)
    collector = COMCAM.collector()
    for kind, fields in COMCAM.events(exposure).items():
        collector.event(kind, fields, 0.0)
    header = build_header(COMCAM.spec, collector.snapshot(str(exposure.name)), created=SOON)
    values = values_of(header.data)
    assert values["EXPTIME"] == 15.0
    assert "AZSTART" in values
    assert values["AZSTART"] is None
    assert header.counts["missing"] > 20
    assert header.nulls == values["HDRNULLS"] > 20


def test_mandatory_keywords_are_checked() -> None:
    """D106, F34: without GROUPID the header is made, and says what it lacks; bias frames need no pointing."""

    def change(events: dict[str, dict[str, Any]]) -> None:
        for fields in events.values():
            fields.update(additionalKeys="imageType", additionalValues="OBJECT")

    header = built(change)
    assert header.lacking == ("GROUPID", "PROGRAM")
    assert header.groups == {"program": ["PROGRAM"], "scheduler": ["GROUPID"]}
    assert values_of(header.data)["HDRLACKS"] == "GROUPID PROGRAM"
    bias = Observatory(kind="BIAS")
    exposure = bias.exposure(1)
    collector = bias.collector()
    for kind, fields in bias.events(exposure).items():
        collector.event(kind, fields, 0.0)
    header = build_header(bias.spec, collector.snapshot(str(exposure.name)), created=SOON)
    assert header.lacking == ()
    assert set(header.groups) == {"exposure", "site", "telescope", "camera"}


def test_values_out_of_range_are_said_and_stay() -> None:
    exposure = COMCAM.exposure(1)
    collector = COMCAM.collector([exposure])
    collector.telemetry("ESS:301.relativeHumidity", exposure.begin, {"relativeHumidityItem": 180.0})
    for kind, fields in COMCAM.events(exposure).items():
        collector.event(kind, fields, 0.0)
    header = build_header(COMCAM.spec, collector.snapshot(str(exposure.name)), created=SOON)
    assert header.values["HUMIDITY"] == 180.0
    assert [str(problem) for problem in header.problems] == ["HUMIDITY: 180.0 is not in 0..100"]


def test_ambiguous_strings_and_odd_characters() -> None:
    """D022, D023, F33."""

    def change(events: dict[str, dict[str, Any]]) -> None:
        for fields in events.values():
            fields.update(
                additionalKeys="imageType:groupId:program:reason:testType",
                additionalValues="OBJECT:0012:1e5:on:Flä\\:t\n'x'",
            )

    header = built(change)
    values = values_of(header.data)
    assert (values["GROUPID"], values["PROGRAM"], values["REASON"]) == ("0012", "1e5", "on")
    assert values["TESTTYPE"] == "Fl?:t?'x'"
    assert codes(header) == ["illegal_characters"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("imageSource", "MC"), ("imageController", "C"), ("imageDate", "20261123"), ("imageNumber", 2)],
)
def test_identity_that_contradicts_the_name(field: str, value: Any) -> None:
    def change(events: dict[str, dict[str, Any]]) -> None:
        events["endReadout"] = {**events["endReadout"], field: value}

    header = built(change)
    assert codes(header) == ["identity"]
    assert header.values["OBSID"] == "CC_O_20261122_000001"
    assert (header.values["CAMCODE"], header.values["SEQNUM"], header.values["DAYOBS"]) == (
        "CC",
        1,
        "20261122",
    )


def test_what_the_daq_says() -> None:
    exposure = COMCAM.exposure(1)
    collector = COMCAM.collector([exposure])
    collector.daq(
        str(exposure.name), {"id": "00ab", "timestamp": "2026-11-23T01:03:18.789", "annotation": "dome open"}
    )
    events = COMCAM.events(exposure)
    events["endOfImageTelemetry"].pop("imageTag")
    for kind, fields in events.items():
        collector.event(kind, fields, 0.0)
    values = build_header(COMCAM.spec, collector.snapshot(str(exposure.name)), created=SOON).values
    assert values["DATE-TRG"] == "2026-11-23T01:03:18.789"
    assert (values["IMAGETAG"], values["OBSANNOT"]) == ("00ab", "dome open")


def test_the_same_gives_the_same_bytes() -> None:
    assert built().data == built().data
    assert built().crc32c == built().crc32c


def test_it_is_fast_and_holds_up_nobody() -> None:
    """D102: a document of ComCam takes less than 20 ms, and one of LSSTCam delays a loop beside it by less
    than 100 ms."""
    image = COMCAM.collected(COMCAM.exposure(1))
    build_header(COMCAM.spec, image)
    spent = []
    for _ in range(15):
        begun = time.thread_time()
        build_header(COMCAM.spec, image)
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.02, spent
    large = Observatory("LSSTCam")
    whole = large.collected(large.exposure(1))
    building = threading.Thread(target=lambda: [build_header(large.spec, whole) for _ in range(8)])
    lags = []
    building.start()
    while building.is_alive():
        begun = time.monotonic()
        time.sleep(0.002)
        lags.append(time.monotonic() - begun - 0.002)
    building.join()
    assert sorted(lags)[len(lags) // 2] < 0.1, max(lags)
