"""Documents of the service in raw files: what astropy and a translator read of them, for three cameras."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy import units as u
from astropy.io import fits
from observatory import CAMERAS, Observatory

sys.path.append(str(Path(__file__).resolve().parent.parent / "rawfile"))  # for test_translation

from test_translation import describe

from raftwright.cli import main
from raftwright.daq import Registers, simulate_image, write_recording
from raftwright.header import HeaderStore, build_header
from raftwright.header.building import BuiltHeader
from raftwright.rawfile import times, write_image

__all__ = ["describe"]

BOARDS = {"LSSTComCam": "22/1", "LSSTCam": "22/0", "LATISS": "00/0"}
SMALL = Registers(3, 0, 50, 0, 0, 11, 0, 30, 0, 5)
WANTED = (
    *("OBSID", "INSTRUME", "CAMCODE", "CONTRLLR", "DAYOBS", "SEQNUM", "GROUPID", "CURINDEX", "MAXINDEX"),
    *("RAFTBAY", "CCDSLOT", "LSST_NUM", "EXPTIME", "DARKTIME", "DATE-BEG", "DATE-END", "MJD-BEG", "MJD-END"),
    *("MJD-OBS", "TIMESYS", "FILTER", "RA", "DEC", "ROTPA", "ROTCOORD", "TRACKSYS", "VIGN_MIN", "OBJECT"),
    *("PROGRAM", "REASON", "IMGTYPE", "FOCUSZ", "AMSTART", "AMEND", "ELSTART", "ELEND", "AZSTART", "AZEND"),
)
"""What readers of sidecars need."""


@pytest.fixture(params=list(CAMERAS))
def camera(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def taken(camera: str, tmp_path: Path, kind: str = "OBJECT") -> tuple[Observatory, Any, Any, Path]:
    """An image, its exposure and the document that the store wrote."""
    observatory = Observatory(camera, kind=kind)
    exposure = observatory.exposure(3, begin=times.now() // 10**9 - 120.0)
    trigger = times.iso(round(exposure.end * 1e9))
    image = simulate_image(
        camera, str(exposure.name), locations=[BOARDS[camera]], registers=SMALL, timestamp=trigger
    )

    def of_the_daq(events: dict[str, dict[str, Any]]) -> None:
        events["endOfImageTelemetry"]["imageTag"] = image.info.id

    collected = observatory.collected(exposure, of_the_daq)

    def make(created: int, version: int) -> BuiltHeader:
        return build_header(observatory.spec, collected, created=created, version=version)

    stored = HeaderStore(tmp_path / "arc", durable=False).put(exposure.name, make)
    return observatory, exposure, image, stored.path


def test_assembled_files_have_what_readers_need(
    camera: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command: recording and document in, files and sidecars out; their own checks find no fault."""
    _, exposure, image, document = taken(camera, tmp_path)
    recording = tmp_path / "recordings" / str(exposure.name)
    write_recording(recording, image)
    out = tmp_path / "raws"
    assert main(["assemble", str(recording), "--header", str(document), "--out", str(out)]) == 0
    found = sorted(out.rglob("*.fits"))
    assert len(found) == (1 if camera == "LATISS" else 3)
    for path in found:
        sidecar = json.loads(path.with_suffix(".json").read_text())
        with fits.open(path) as file:
            file.verify("exception")
            header = file[0].header
            for keyword in WANTED:
                assert header[keyword] not in (None, ""), keyword
                assert not isinstance(header[keyword], fits.card.Undefined), keyword
                assert sidecar[keyword] == header[keyword], keyword
            assert header["DATE"] >= header["DATE-END"] >= header["DATE-BEG"] == header["DATE-OBS"]
            assert header["TIMESYS"] == "TAI"
            assert header["DATE-TRG"] == header["DATE-END"]
            assert header["HDRSTATE"] == "complete"
            assert (header["SEQNUM"], header["DAYOBS"]) == (3, "20261122")
            assert header["VIGN_MIN"] == "NO"
            assert "REB_COND" in [hdu.name for hdu in file]
            assert file["REB_COND"].header["TEMP1"] == pytest.approx(20.5, abs=0.8)
            assert file[0].header["CCDTEMP"] < -90
    capsys.readouterr()
    assert main(["verify", str(found[0].parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "ok"
    assert str(exposure.name) in json.dumps(told)


@pytest.mark.parametrize("kind", ["OBJECT", "BIAS"])
def test_a_translator_reads_all_properties(
    camera: str, kind: str, describe: Callable[..., Any], tmp_path: Path
) -> None:
    observatory, exposure, image, document = taken(camera, tmp_path, kind)
    report = write_image(image, tmp_path / "raws", header=document, threads=1, durable=False)
    assert not [note for note in report.notes if "cannot" in note or "not what" in note], report.notes
    for written in report.files:
        sidecar = json.loads(written.sidecar.read_text())
        with fits.open(written.path) as file:
            header = dict(file[0].header)
        for source in (header, sidecar):
            info = describe(source, camera)
            assert info.observation_id == str(exposure.name)
            assert info.observation_type == ("science" if kind == "OBJECT" else "bias")
            assert info.exposure_group == sidecar["GROUPID"]
            assert info.datetime_begin.tai.unix_tai == pytest.approx(exposure.begin, abs=0.002)
            assert info.datetime_end.tai.unix_tai == pytest.approx(exposure.end, abs=0.002)
            assert info.physical_filter == ("SDSSr_65mm" if camera == "LATISS" else "r_57")
            assert info.exposure_time_requested == exposure.exposure_time * u.s
            assert info.observing_day == 20261122
            assert (info.temperature.value, info.relative_humidity) == (9.5, 31.0)
            assert info.location.z.to_value(u.m) == pytest.approx(-3195180, abs=20)
            if kind == "OBJECT":
                assert info.tracking_radec.icrs.ra.deg == pytest.approx(15.0 + 48.0 * 3, abs=0.01)
                assert info.altaz_begin.alt.deg == pytest.approx(63.0)
                assert info.boresight_rotation_coord == "sky"
                assert info.can_see_sky is True
    assert observatory.camera == camera


def test_a_partial_document_leaves_files_that_can_be_read(camera: str, tmp_path: Path) -> None:
    """D104, F31: what is known is in the file, flagged; the times come from the start and the DAQ."""
    observatory = Observatory(camera)
    exposure = observatory.exposure(3)
    collected = observatory.collected(exposure, lambda events: events.pop("endOfImageTelemetry"))
    header = build_header(observatory.spec, collected)
    assert header.state == "partial"
    image = simulate_image(camera, str(exposure.name), locations=[BOARDS[camera]], registers=SMALL)
    report = write_image(image, tmp_path, header=header.data, threads=1, durable=False)
    for written in report.files:
        with fits.open(written.path) as file:
            file.verify("exception")
            values = file[0].header
            assert values["HDRSTATE"] == "partial"
            assert set(values["HDRLACKS"].split()) == {"SHUTTIME", "DARKTIME"}
            assert values["DATE-BEG"] == times.iso(round(exposure.begin * 1e6) * 1000)
            assert values["EXPTIME"] == 15.0
