"""Verification: whole files pass, and whatever is done to one is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from astropy.io import fits

from raftwright.camera import Camera
from raftwright.daq import DaqImage, MemoryImage, write_recording
from raftwright.errors import NotFoundError
from raftwright.rawfile import VerifyReport, open_raw, verify, write_image


@pytest.mark.parametrize("plain", [False, True])
def test_every_kind_passes(
    kind: Any, plain: bool, image: Callable[..., DaqImage], camera_of: Callable[[Any], Camera], tmp_path: Path
) -> None:
    source, camera = image(kind), camera_of(kind)
    written = write_image(source, tmp_path, camera=camera, plain=plain, durable=False)
    report = verify(tmp_path, against=source)
    assert report.findings == ()
    assert report.ok
    assert len(report.files) == len(written.files)
    assert report.compared == sum(file.pixels for file in report.files) > 0
    assert report.against == kind.name
    assert {file.detector for file in report.files} == {file.detector for file in written.files}
    json.dumps(report.to_dict())


def test_against_a_recording_on_disk(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    recorded = write_recording(tmp_path / science.name, image(science), durable=False)
    write_image(recorded.path, tmp_path / "out", durable=False)
    calls: list[tuple[int, int]] = []
    report = verify(
        [tmp_path / "out"], against=recorded.path, progress=lambda done, total: calls.append((done, total))
    )
    assert report.ok
    assert calls == [(1, 3), (2, 3), (3, 3)]


GAPS = [(1, 2), (108 * 70 + 13, 108 * 200 - 5)]


def test_incomplete_files_pass_as_what_they_are(
    science: Any, image: Callable[..., DaqImage], with_gaps: Callable[..., DaqImage], tmp_path: Path
) -> None:
    whole = image(science)
    source = with_gaps(whole, GAPS)
    written = write_image(source, tmp_path, durable=False)
    report = verify(tmp_path, against=source)
    assert report.findings == ()
    assert report.missing_pixels == written.missing_pixels > 0
    assert report.compared == sum(file.pixels for file in report.files) - written.missing_pixels
    # The complete image could fill them, which is worth knowing; what is there agrees with it.
    report = verify(tmp_path, against=whole)
    assert report.ok
    assert any("the recording has" in str(finding) for finding in report.warnings)
    complete = write_image(whole, tmp_path / "whole", durable=False)
    report = verify(complete.directory, against=source)
    assert report.ok
    assert any("not in the recording" in str(finding) for finding in report.warnings)


@pytest.fixture
def written(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> Path:
    """A raw file of our own."""
    return write_image(image(science), tmp_path / "out", plain=True, durable=False).files[0].path


def edited(path: Path, edit: Callable[[fits.HDUList], None], *, checksum: bool = True) -> VerifyReport:
    with fits.open(path, disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        edit(hdus)
        hdus.writeto(path.with_suffix(".new"), checksum=checksum)
    path.with_suffix(".new").replace(path)
    return verify(path)


def set_card(hdu: int, keyword: str, value: object) -> Callable[[fits.HDUList], None]:
    def edit(hdus: fits.HDUList) -> None:
        hdus[hdu].header[keyword] = (value, "")

    return edit


@pytest.mark.parametrize(
    ("hdu", "keyword", "value", "said"),
    [
        (0, "OBSID", "MC_O_20261122_000002", "OBSID"),
        (0, "OBSID", "../x", "OBSID"),
        (0, "SEQNUM", 7, "SEQNUM"),
        (0, "SEQNUM", "1", "no integer"),
        (0, "DAYOBS", 20261122, "DAYOBS"),
        (0, "CONTRLLR", "C", "CONTRLLR"),
        (0, "CCDSLOT", "S01", "CCDSLOT"),
        (0, "DETSIZE", "[1:1,1:1]", "DETSIZE"),
        (0, "MISSPIX", 5, "MISSPIX"),
        (1, "EXTNAME", "Segment99", "EXTNAME"),
        (3, "DETSEC", "[1:2,3:4]", "DETSEC"),
        (3, "CRVAL1A", 17.0, "CRVAL1A"),
        (4, "BZERO", 5.0, "BZERO"),
        (16, "CHANNEL", 3, "CHANNEL"),
        (16, "MISSPIX", 1, "MISSPIX"),
    ],
)
def test_cards_that_contradict(hdu: int, keyword: str, value: object, said: str, written: Path) -> None:
    report = edited(written, set_card(hdu, keyword, value))
    assert not report.ok
    named = [finding for finding in report.errors if finding.hdu != "sidecar"]
    assert any(said in str(finding) for finding in named), [str(f) for f in report.findings]
    for finding in report.findings:
        assert str(written) in str(finding)
        assert "\n" not in str(finding)
        assert finding.remedy


def test_hdus_in_another_order(written: Path) -> None:
    def swap(hdus: fits.HDUList) -> None:
        hdus[1], hdus[2] = hdus[2].copy(), hdus[1].copy()

    report = edited(written, swap)
    assert any("Segment10 at this place" in str(finding) for finding in report.errors)


def test_an_hdu_that_is_gone(written: Path) -> None:
    def drop(hdus: fits.HDUList) -> None:
        del hdus[16]

    report = edited(written, drop)
    assert any("Segment00 at this place" in str(finding) for finding in report.errors)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x04
    path.write_bytes(data)


@pytest.mark.parametrize("plain", [False, True])
def test_a_flipped_bit_anywhere_is_found(
    plain: bool, science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    source = image(science)
    path = write_image(source, tmp_path, plain=plain, durable=False).files[0].path
    good = path.read_bytes()
    for at in range(100, len(good), len(good) // 25):
        path.write_bytes(good)
        flip(path, at)
        assert not verify(path).ok, at
    path.write_bytes(good)
    assert verify(path, against=source).ok
    path.write_bytes(good + b"\0" * 100)
    assert not verify(path).ok
    path.write_bytes(good[:-2880])
    assert not verify(path).ok


def test_pixels_of_another_image_are_named(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    """A stream that differs in one pixel: every sum of the file holds, only the recording knows."""
    source = image(science)
    info = source.info.sources[0]
    stream = bytearray(source.source(info.location).read(0, info.bytes))
    stream[108 * 77] ^= 1
    other = MemoryImage(
        msgspec.structs.replace(source.info, sources=(msgspec.structs.replace(info, crc32c=None),)),
        {info.location: bytes(stream)},
    )
    report = write_image(other, tmp_path, durable=False)
    assert verify(tmp_path).ok
    found = verify(tmp_path, against=source)
    assert not found.ok
    assert len(found.errors) == 1
    finding = found.errors[0]
    assert finding.hdu == "Segment00"
    assert finding.place == f"pixel ({77 % science.width + 1}, {77 // science.width + 1})"
    assert finding.file.endswith("R22_S02.fits")
    assert found.compared == 3 * 16 * science.width * science.height
    assert report.complete


def test_the_wrong_recording(written: Path, science: Any, image: Callable[..., DaqImage]) -> None:
    other = image(science)
    renamed = MemoryImage(
        msgspec.structs.replace(other.info, name="MC_O_20261122_000099"),
        {s.location: other.source(s.location).read(0, s.bytes) for s in other.info.sources},
    )
    report = verify(written, against=renamed)
    assert any("MC_O_20261122_000099" in str(finding) for finding in report.errors)
    elsewhere = image(science, locations=["22/1"])
    assert any("cannot be compared" in str(finding) for finding in verify(written, against=elsewhere).errors)


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(SEQNUM=2), "SEQNUM"),
        (lambda c: c.update(SEQNUM=True), "SEQNUM"),
        (lambda c: c.update(OTHER=2), "OTHER"),
        (lambda c: c.pop("DATE"), "DATE"),
        (lambda c: c.pop("__CONTENT__"), "__CONTENT__"),
        (lambda c: c.update(__MISSING__={"Segment10": [[0, 3]]}), "3 are listed"),
        (lambda c: c.update(__MISSING__={"Segment10": [[0, 10**9]]}), "listed"),
        (lambda c: c.update(__MISSING__=[1]), "__MISSING__"),
        (lambda c: c.update(__MISSING__={"Nowhere": [[0, 1]]}), "listed"),
    ],
)
def test_sidecars_that_contradict(change: Callable[[dict[str, Any]], None], said: str, written: Path) -> None:
    rewrite(written.with_suffix(".json"), change)
    report = verify(written)
    assert not report.ok
    assert any(said in str(finding) for finding in report.errors), [str(f) for f in report.findings]


def test_sidecars_that_are_none(written: Path) -> None:
    sidecar = written.with_suffix(".json")
    for text in ("", "[]", "{", "\x00"):
        sidecar.write_text(text)
        assert not verify(written).ok
    sidecar.unlink()
    report = verify(written)
    assert report.ok
    assert [finding.hdu for finding in report.warnings] == ["sidecar"]


def test_missing_pixels_that_are_not_filled(
    science: Any, image: Callable[..., DaqImage], with_gaps: Callable[..., DaqImage], tmp_path: Path
) -> None:
    path = write_image(with_gaps(image(science), GAPS), tmp_path, plain=True, durable=False).files[2].path

    def scribble(hdus: fits.HDUList) -> None:
        hdus[16].data.reshape(-1)[0] = 1234  # of Segment00: listed
        hdus[1].data[-1, -1] = -1  # not listed
        hdus[2].data[-1, -1] = 1 << 18

    report = edited(path, scribble)
    text = [str(finding) for finding in report.errors]
    assert any("Segment00" in line and "not filled" in line for line in text), text
    assert any("Segment10" in line and "-1 is no value of 18 bits" in line for line in text), text
    assert any("Segment11" in line and "262144 is no value" in line for line in text), text


def test_a_directory_must_have_what_its_manifest_expects(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    report = write_image(image(science), tmp_path, durable=False)
    report.files[1].path.unlink()
    report.files[2].sidecar.unlink()
    errors = [str(finding) for finding in verify(tmp_path).errors]
    assert len(errors) == 2
    assert "R22_S01.fits" in errors[0]
    assert "R22_S02.json" in errors[1]
    assert report.manifest is not None
    for text in (
        "[]",
        "{}",
        '{"obsId": "../x", "expectedSensors": {}}',
        '{"obsId": "x", "expectedSensors": {"../y": "SCIENCE"}}',
    ):
        report.manifest.write_text(text)
        assert any("expectedSensors" in finding.file for finding in verify(tmp_path).errors), text


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(tmp_path / "none")
    report = verify(tmp_path)
    assert not report.ok
    junk = tmp_path / "junk.fits"
    junk.write_bytes(b"junk")
    report = verify(junk)
    assert len(report.errors) == 1
    assert not report.files[0].ok
    assert report.files[0].image is None


REAL = {
    "comCamSim__CC_S_20240404_000780_R22_S01.fits": 16,
    "lsstCamSim__7024032100720-R22-S11-det094.fits.fz": 16,
    "guider__MC_C_20240918_000013_R00_SG0_guider.fits": 102,
    "bot__3019103101985-R22-S11-det094.fits": 16,
    "latiss__3018092000065-det000.fits": 16,
    "lsstCam__30211212000310-R22-S22-det098.fits": 16,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, require_shared: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copy(require_shared("data", "raws", name), path)
    report = verify(path)
    (file,) = report.files
    assert file.segments == REAL[name]
    assert file.pixels == sum(array.size for array in open_raw(path).segments.values())
    text = [str(finding) for finding in report.errors]
    if name.startswith("guider"):
        assert text == []  # every sum of this file holds
    elif name.startswith("lsstCamSim"):
        assert all("DETSEC" in line for line in text)  # its y runs upwards
        assert len(text) == 16
    else:
        # Its pixels were zeroed later: the sums of the images do not hold, those of the others do.
        assert any("DATASUM" in line for line in text)
        assert all("Segment" in line or "more than 100" in line for line in text)


def test_compressed_pixels_are_checked_by_their_own_sum(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    path = write_image(image(science), tmp_path, durable=False).files[0].path
    with fits.open(path, disable_image_compression=True) as hdus:
        assert int(hdus[1].header["ZDATASUM"]) > 0
    report = edited(path, set_card(5, "ZDATASUM", "12345"))
    # The sidecar knows another CHECKSUM of the primary header, which was written anew.
    assert [(f.hdu, f.place) for f in report.errors] == [("Segment14", "ZDATASUM"), ("sidecar", "CHECKSUM")]
    assert np.array_equal([file.segments for file in report.files], [16])


def test_hostile_names_in_what_stands_beside(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    report = write_image(image(science), tmp_path, durable=False)
    assert report.manifest is not None
    manifest = json.loads(report.manifest.read_text())
    manifest["expectedSensors"]["A" * 5000] = "SCIENCE"
    report.manifest.write_text(json.dumps(manifest))
    sidecar = json.loads(report.files[0].sidecar.read_text())
    sidecar["\x1b[31m\n" + "B" * 5000] = 1
    report.files[0].sidecar.write_text(json.dumps(sidecar))
    errors = [str(error).replace(str(tmp_path), "") for error in verify(tmp_path).errors]
    assert len(errors) == 2
    assert all(error.isprintable() and len(error) < 300 for error in errors)
