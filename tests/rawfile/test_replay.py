"""Raw files back to recordings, and from those to raw files again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from astropy.io import fits

from raftwright import assembly
from raftwright.camera import Camera
from raftwright.daq import DaqImage, MemoryImage, open_recording
from raftwright.errors import ConflictError, FormatError, NotFoundError, UsageError
from raftwright.rawfile import open_raw, replay, write_image


@pytest.mark.parametrize("plain", [False, True])
def test_round_trip(
    kind: Any, plain: bool, image: Callable[..., DaqImage], camera_of: Callable[[Any], Camera], tmp_path: Path
) -> None:
    """Stream -> files -> stream: the same bytes, for every kind of board."""
    source, camera = image(kind, annotation="a note"), camera_of(kind)
    write_image(source, tmp_path / "raw", camera=camera, plain=plain, durable=False)
    report = replay(tmp_path / "raw", tmp_path / "recordings", camera=camera, durable=False)
    assert (report.status, report.image, report.filled, report.clipped) == ("written", kind.name, (), 0)
    recorded = open_recording(report.path)
    (before,), (after,) = source.info.sources, recorded.info.sources
    assert recorded.source(after.location).read(0, after.bytes) == source.source(before.location).read(
        0, before.bytes
    )
    for name in ("location", "kind", "bytes", "firmware", "serial", "platform", "software"):
        if name in ("firmware", "serial"):
            assert int(getattr(after, name) or "0", 16) == int(getattr(before, name) or "0", 16)
        elif name != "platform":  # where the source knows none, the camera does
            assert getattr(after, name) == getattr(before, name), name
    assert after.registers.geometry == before.registers.geometry
    assert recorded.info.camera == kind.camera
    assert recorded.info.annotation == "a note"
    assert recorded.info.timestamp[:23] == source.info.timestamp[:23]
    assert recorded.info.extra["replay"]["of"] == kind.name


def test_boards_that_are_partly_covered_are_filled_and_said(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    source = image(science, annotation="x" * 63)
    written = write_image(source, tmp_path / "raw", durable=False)
    report = replay(written.files[1].path, tmp_path / "recordings", fill=5, durable=False)
    assert report.filled == ("R22_S00", "R22_S02")
    assert any("R22_S00" in note for note in report.notes)
    info = open_recording(report.path).info
    assert len(info.annotation) <= 63
    assert "filled with 5: R22_S00 R22_S02" in info.annotation
    assert info.extra["replay"]["filled"] == ["R22_S00", "R22_S02"]
    assembled = assembly.assemble(report.path)
    expected = assembly.assemble(source)
    for name, pixels in assembled["R22_S01"].segments.items():
        assert np.array_equal(pixels, expected["R22_S01"].segments[name])
    for other in report.filled:
        assert all((pixels == 5).all() for pixels in assembled[other].segments.values())
    json.dumps(report.to_dict())


def test_another_name_and_date(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    """D177: what is replayed has a name, a date and a controller of its own, and says what it was."""
    write_image(image(science), tmp_path / "raw", durable=False)
    report = replay(
        tmp_path / "raw",
        tmp_path / "rec",
        name="MC_S_20270101_000042",
        date="2027-01-02T03:04:05.678",
        durable=False,
    )
    assert (report.image, report.original) == ("MC_S_20270101_000042", science.name)
    again = write_image(report.path, tmp_path / "again", durable=False)
    header = open_raw(again.files[0].path).header
    assert header["OBSID"] == "MC_S_20270101_000042"
    assert header["EMUIMAGE"] == science.name
    assert (header["DAYOBS"], header["SEQNUM"], header["CONTRLLR"]) == ("20270101", 42, "S")
    assert header["DATE-TRG"] == "2027-01-02T03:04:05.678"
    assert replay(
        tmp_path / "raw", tmp_path / "rec", name="MC_S_20270101_000042", date="2027-01-02T03:04:05.678"
    ).status == ("unchanged")
    with pytest.raises(ConflictError):
        replay(tmp_path / "raw", tmp_path / "rec", name="MC_S_20270101_000042", date="2028-01-01")
    for bad in ("../x", "hello", "MC_S_20270101_42"):
        with pytest.raises(FormatError):
            replay(tmp_path / "raw", tmp_path / "rec", name=bad)
    with pytest.raises(FormatError):
        replay(tmp_path / "raw", tmp_path / "rec", date="soon")


def test_missing_pixels_stay_missing(
    science: Any, image: Callable[..., DaqImage], with_gaps: Callable[..., DaqImage], tmp_path: Path
) -> None:
    source = with_gaps(image(science), [(108 * 3, 108 * 10), (108 * 500 + 7, 108 * 501)])
    first = write_image(source, tmp_path / "raw", durable=False)
    for sidecars in (True, False):
        if not sidecars:
            for file in first.files:
                file.sidecar.unlink()
        report = replay(first.directory, tmp_path / f"rec{sidecars}", durable=False)
        assert sum(s.missing_samples for s in report.sources) == 8
        assert any("stay missing" in note for note in report.notes)
        (info,) = open_recording(report.path).info.sources
        assert info.gaps == ((108 * 3, 108 * 10), (108 * 500, 108 * 501))
        again = write_image(report.path, tmp_path / f"again{sidecars}", durable=False)
        assert again.missing_pixels == 8 * 48
    assert first.missing_pixels < again.missing_pixels


def test_values_beyond_the_stream_are_clipped_and_counted(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    path = write_image(image(science), tmp_path / "raw", plain=True, durable=False).files[0].path
    with fits.open(path) as hdus:
        hdus[1].data[0, :3] = (-5, 262144, 262143)
        hdus.writeto(tmp_path / path.name)
    report = replay(tmp_path / path.name, tmp_path / "rec", durable=False)
    assert report.clipped == 2
    assert any("clipped" in note for note in report.notes)
    assembled = assembly.assemble(report.path)
    assert assembled["R22_S00"].segments["Segment10"][0, :3].tolist() == [0, 262143, 262143]


def test_files_that_do_not_go_together(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    one = write_image(image(science), tmp_path / "1", durable=False).files
    small = image(science, registers=[10, 0, 52, 0, 0, 4, 0, 30, 0, 3, 2])
    two = write_image(small, tmp_path / "2", durable=False).files
    with pytest.raises(FormatError, match="board"):
        replay([one[0].path, two[1].path], tmp_path / "rec")
    with pytest.raises(FormatError, match="R22_S00"):
        replay([one[0].path, two[0].path], tmp_path / "rec")
    with pytest.raises(UsageError):
        replay([], tmp_path / "rec")
    with pytest.raises(NotFoundError):
        replay(tmp_path / "rec" if (tmp_path / "rec").mkdir() is None else "", tmp_path / "rec")
    junk = tmp_path / "junk.fits"
    junk.write_bytes(b"junk")
    with pytest.raises(FormatError):
        replay(junk, tmp_path / "rec")
    assert list((tmp_path / "rec").iterdir()) == []


REAL = {
    "bot__3019103101985-R22-S11-det094.fits": ("MC_C_20191031_001985", 2),
    "comCamSim__CC_S_20240404_000780_R22_S01.fits": ("CC_S_20240404_000780", 2),
    "latiss__3018092000065-det000.fits": ("AT_C_20180920_000065", 0),
    "lsstCam__30211212000310-R22-S22-det098.fits": ("MC_C_20211212_000310", 2),
    "lsstCamSim__7024032100720-R22-S11-det094.fits.fz": ("MC_S_20240321_000720", 2),
}


@pytest.mark.parametrize("name", REAL)
def test_real_raws_come_back(name: str, require_shared: Callable[..., Path], tmp_path: Path) -> None:
    """Real file -> recording -> raw file: the same pixels, and the extension cards of modern files."""
    path = require_shared("data", "raws", name)
    image_name, filled = REAL[name]
    report = replay(path, tmp_path / "rec", durable=False)
    assert report.image == image_name
    assert len(report.filled) == filled
    assert report.clipped == 0
    real = open_raw(path)
    written = write_image(report.path, tmp_path / "out", durable=False)
    (mine,) = [file for file in written.files if file.detector == real.detector.name]
    again = open_raw(mine.path)
    assert again.names == real.names
    for segment, pixels in real.segments.items():
        assert np.array_equal(again.segments[segment], pixels)
    header = again.header
    for keyword in (
        "OBSID",
        "CONTNUM",
        "FIRMWARE",
        "DAQVERS",
        "DAQFOLD",
        "SEQNUM",
        "DAYOBS",
        "CONTRLLR",
        "LSST_NUM",
    ):
        theirs = real.header.get(keyword)
        if theirs is not None and not (
            keyword == "LSST_NUM" and name.startswith(("latiss", "comCamSim", "lsstCam__"))
        ):
            assert header[keyword] == theirs, keyword
    if name.startswith("comCamSim"):
        for segment in real.names:
            theirs = real.segment_header(segment)
            ours = again.segment_header(segment)
            volatile = {"CHECKSUM", "DATASUM", "ZHECKSUM"}
            assert [(c.keyword, c.value) for c in ours.cards if c.keyword not in volatile | {"ZDATASUM"}] == [
                (c.keyword, c.value) for c in theirs.cards if c.keyword not in volatile | {"ZDATASUM"}
            ]
            assert [c.comment for c in ours.cards if c.keyword not in volatile] == [
                c.comment for c in theirs.cards if c.keyword not in volatile
            ]


def test_guider_stamps_are_no_readout(require_shared: Callable[..., Path], tmp_path: Path) -> None:
    path = require_shared("data", "raws", "guider__MC_C_20240918_000013_R00_SG0_guider.fits")
    with pytest.raises(FormatError, match="stamps"):
        replay(path, tmp_path)


def test_a_sidecar_of_another_writing_makes_no_pixels_of_what_never_came(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    sample = 108
    with_gap = image(science)
    source = with_gap.info.sources[0]
    info = msgspec.structs.replace(source, gaps=((sample, 2 * sample),), crc32c=None)
    stream = with_gap.source(source.location).read(0, source.bytes)
    damaged = MemoryImage(msgspec.structs.replace(with_gap.info, sources=(info,)), {info.location: stream})
    report = write_image(damaged, tmp_path / "raw", durable=False)
    sidecar = json.loads(report.files[0].sidecar.read_text())
    del sidecar["__MISSING__"]
    report.files[0].sidecar.write_text(json.dumps(sidecar))
    with pytest.raises(FormatError, match="MISSPIX"):
        replay(tmp_path / "raw", tmp_path / "recordings", durable=False)
    assert not list((tmp_path / "recordings").glob("*"))


def test_arguments_that_cannot_be_meant(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    report = write_image(image(science), tmp_path, durable=False)
    with pytest.raises(UsageError, match="fill"):
        replay(report.files[0].path, tmp_path / "recordings", fill=2**40, durable=False)
    with pytest.raises(UsageError, match="UTF-8"):
        replay(os.fsdecode(b"\xff.fits"), tmp_path / "recordings", durable=False)
