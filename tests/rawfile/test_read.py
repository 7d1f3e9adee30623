"""Reading raw files: ours, real ones, other codecs, gzip, and files that are none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from raftwright import assembly
from raftwright.camera import Camera
from raftwright.camera import camera as find_camera
from raftwright.daq import DaqImage
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError, UsageError
from raftwright.rawfile import open_raw, write_image


@pytest.fixture
def raw_path(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> Path:
    return write_image(image(science), tmp_path / "out", durable=False).files[0].path


def test_our_own(
    kind: Any, image: Callable[..., DaqImage], camera_of: Callable[[Any], Camera], tmp_path: Path
) -> None:
    source, camera = image(kind), camera_of(kind)
    assembled = assembly.assemble(source, camera=camera)
    report = write_image(source, tmp_path, camera=camera, durable=False)
    for file in report.files:
        raw = open_raw(file.path)  # the camera is the one that INSTRUME names
        ccd = assembled[file.detector]
        assert raw.camera.name == kind.camera
        assert raw.detector.name == file.detector
        assert raw.geometry == ccd.geometry
        assert raw.names == tuple(ccd.segments)
        assert raw.missing_pixels == 0
        for name, pixels in ccd.segments.items():
            assert raw.segments[name].dtype == np.int32
            assert np.array_equal(raw.segments[name], pixels)
        for overscan in (False, True):
            assert np.array_equal(raw.mosaic(overscan=overscan), ccd.mosaic(overscan=overscan))
        assert np.array_equal(raw.mosaic(bin=3), ccd.mosaic(bin=3))


def test_headers(raw_path: Path) -> None:
    raw = open_raw(raw_path)
    assert raw.header["OBSID"] == raw.header["obsid"] == "MC_O_20261122_000001"
    assert raw.header.comment("OBSID") == "The image name or obs-id"
    assert raw.segment_header("Segment17")["CHANNEL"] == 8
    assert raw.header.to_astropy()["SEQNUM"] == 1
    assert "NOTHING" not in raw.header
    assert "" not in raw.header
    with pytest.raises(KeyError):
        raw.header["NOTHING"]
    with pytest.raises(NotFoundError, match="Segment10"):
        raw.segments["Segment99"]
    with pytest.raises(NotFoundError):
        raw.segment_header("Segment99")
    assert "Segment99" not in raw.segments
    assert raw.segments.get("Segment99") is None


def test_one_segment_is_decoded_alone_and_once(raw_path: Path) -> None:
    raw = open_raw(raw_path, threads=1)
    first = raw.segments["Segment10"]
    assert raw.segments["Segment10"] is first
    assert list(raw.segments._pixels) == ["Segment10"]
    assert len(list(raw.segments.values())) == 16
    assert raw.segments["Segment10"] is first
    raw.segments.drop()
    assert raw.segments["Segment10"] is not first


@pytest.mark.parametrize("name", ["x.fits", "x.fits.gz"])
def test_gzipped_as_a_whole(raw_path: Path, name: str, tmp_path: Path) -> None:
    data = raw_path.read_bytes()
    path = tmp_path / name
    # Several members, and padding after them, as tapes and tools leave it.
    path.write_bytes(gzip.compress(data[:10_000]) + gzip.compress(data[10_000:]) + b"\0" * 512)
    expected = open_raw(raw_path)
    found = open_raw(path)
    for segment, pixels in expected.segments.items():
        assert np.array_equal(found.segments[segment], pixels)


def test_gzip_is_bounded(raw_path: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.fits"
    bomb.write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(FormatError, match="more than"):
        open_raw(bomb, max_bytes=1_000_000)
    whole = gzip.compress(raw_path.read_bytes())
    for damaged in (
        whole[:-20],
        whole[: len(whole) // 2],
        whole[:100] + b"xxxx" + whole[104:],
        b"\x1f\x8b",
        whole + b"tail",
    ):
        bomb.write_bytes(damaged)
        with pytest.raises(FormatError):
            open_raw(bomb)


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"])
def test_other_codecs(codec: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).normal(1000, 20, (24, 40)).astype(np.int32)
    names = ("Segment10", "Segment11")
    hdus = [
        fits.CompImageHDU(pixels, compression_type=codec, tile_shape=(24, 40), name=name) for name in names
    ]
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    for file in (path, tmp_path / "x.gz"):
        if file != path:
            file.write_bytes(gzip.compress(path.read_bytes()))
        raw = open_raw(file)
        for found in raw.segments.values():
            assert np.array_equal(found, pixels)
            assert found.dtype == np.int32
            assert found.dtype.isnative


def test_scaled_and_unsigned_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    unsigned = fits.ImageHDU(np.arange(60000, 60012, dtype=np.uint16).reshape(3, 4), name="U16")
    floats = fits.ImageHDU(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), name="F32")
    scaled = fits.ImageHDU(np.arange(12, dtype=np.int16).reshape(3, 4), name="SCALED")
    scaled.header["BSCALE"], scaled.header["BZERO"] = 0.5, 10.0
    hdus = fits.HDUList([fits.PrimaryHDU(), unsigned, floats])
    hdus.writeto(path)
    raw = open_raw(path)
    assert raw.segments["U16"].max() == 60011
    assert raw.segments["F32"].dtype == np.float32


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(np.zeros((2, 2), np.int32))]
    hdus += [fits.ImageHDU(np.full((2, 2), n, np.int32), name="IMAGE", ver=n) for n in (1, 2, 3)]
    hdus += [fits.ImageHDU(np.full((2, 2), n, np.int32), name="SAME") for n in (1, 2, 3)]
    hdus += [fits.ImageHDU(np.full((2, 2), 9, np.int32))]
    path = tmp_path / "x.fits"
    fits.HDUList(hdus).writeto(path)
    raw = open_raw(path)
    assert raw.names == ("PRIMARY", "IMAGE", "IMAGE,2", "IMAGE,3", "SAME", "SAME,1", "SAME,HDU6", "HDU7")
    assert raw.segments["IMAGE,3"][0, 0] == 3


REAL = {
    "bot__3019103101985-R22-S11-det094.fits": ("LSSTCam", "R22_S11", 94),
    "comCamSim__CC_S_20240404_000780_R22_S01.fits": ("LSSTComCam", "R22_S01", 1),
    "latiss__3018092000065-det000.fits": ("LATISS", "RXX_S00", 0),
    "lsstCam__30211212000310-R22-S22-det098.fits": ("LSSTCam", "R22_S22", 98),
    "lsstCamSim__7024032100720-R22-S11-det094.fits.fz": ("LSSTCam", "R22_S11", 94),
}


@pytest.mark.parametrize("name", REAL)
def test_real_raws(name: str, require_shared: Callable[..., Path]) -> None:
    path = require_shared("data", "raws", name)
    camera, detector, number = REAL[name]
    raw = open_raw(path)
    assert (raw.camera.name, raw.detector.name, raw.detector.id) == (camera, detector, number)
    assert len(raw.names) == 16
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    with fits.open(__import__("io").BytesIO(data), ignore_missing_end=False) as hdus:
        for segment, pixels in raw.segments.items():
            assert pixels.dtype == np.int32
            assert np.array_equal(pixels, hdus[raw.segments.hdus[segment]].data)


def test_a_real_image_is_smooth_across_the_seams(require_shared: Callable[..., Path]) -> None:
    raw = open_raw(require_shared("data", "raws", "bot__3019103101985-R22-S11-det094.fits"))
    mosaic = raw.mosaic()
    assert mosaic.shape == (4004, 4096)
    y, x = np.nonzero(mosaic)
    assert len(x) == 1788690 - 7
    assert (x.mean(), y.mean()) == (pytest.approx(2211, abs=3), pytest.approx(1975, abs=3))
    # Neighbours differ no more often across a seam than beside it: nothing is shifted or mirrored there.
    changes = (mosaic[:, 1:] != mosaic[:, :-1]).mean(axis=0)
    seams = np.arange(511, 4095, 512)
    beside = np.mean([changes[seams + step] for step in range(-12, 13) if step], axis=0)
    assert changes[seams].sum() < 1.3 * beside.sum()  # 4.1 with the lower half mirrored
    rows = (mosaic[1:] != mosaic[:-1]).mean(axis=1)
    assert rows[2001] < 1.3 * rows[1989:2014].mean()  # 5.0 with the lower half upside down


def test_real_guider_stamps(require_shared: Callable[..., Path]) -> None:
    raw = open_raw(require_shared("data", "raws", "guider__MC_C_20240918_000013_R00_SG0_guider.fits"))
    assert len(raw.names) == 102
    assert raw.names[:2] == ("IMAGE", "IMAGE,2")
    assert raw.segments["IMAGE,2"].shape == (100, 50)
    assert 12000 < raw.segments["IMAGE,102"].mean() < 14000
    assert raw.detector.name == "R00_SG0"


def test_who_made_it(raw_path: Path, tmp_path: Path) -> None:
    with fits.open(raw_path, disable_image_compression=True) as hdus:
        for changes, problem in (
            ({"INSTRUME": "NoCam"}, "no built-in camera"),
            ({"CCDSLOT": "S99"}, "no CCD R22_S99"),
            ({"CCDSLOT": None}, "RAFTBAY and CCDSLOT"),
            ({"INSTRUME": None}, "INSTRUME"),
        ):
            path = tmp_path / "x.fits"
            header = hdus[0].header
            before = dict(header)
            for key, value in changes.items():
                if value is None:
                    del header[key]
                else:
                    header[key] = value
            hdus.writeto(path, overwrite=True)
            for key in changes:
                header[key] = before[key]
            with pytest.raises(NotFoundError, match=problem):
                _ = open_raw(path).detector
    assert open_raw(tmp_path / "x.fits", camera="LSSTCam").detector.name == "R22_S00"
    assert open_raw(raw_path, camera=find_camera("LSSTCam")).detector.id == 90


@pytest.mark.parametrize(
    "section", ["[1:2]", "[0:5,1:2]", "[5:1,1:2]", "[1:999,1:2]", "[1:5,2:3]", "x", "[1:5,1:99999999]"]
)
def test_sections_that_are_none(section: str, raw_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    with fits.open(raw_path, disable_image_compression=True) as hdus:
        hdus[1].header["DATASEC"] = section
        hdus.writeto(path)
    with pytest.raises(FormatError, match="DATASEC"):
        _ = open_raw(path).geometry


def test_files_that_are_none(tmp_path: Path, raw_path: Path) -> None:
    with pytest.raises(StorageError):
        open_raw(tmp_path / "none.fits")
    with pytest.raises(StorageError):
        open_raw(tmp_path)
    with pytest.raises(UsageError):
        open_raw(raw_path, threads=0)
    path = tmp_path / "x.fits"
    for data in (b"", b"SIMPLE", bytes(2880), b"SIMPLE  = T".ljust(2880)):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"x\.fits"):
            open_raw(path)
    whole = raw_path.read_bytes()
    with fits.open(raw_path, disable_image_compression=True) as hdus:
        images_end = hdus[17]._header_offset  # type: ignore[attr-defined]
    for length in range(0, images_end, 2880 * 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RaftwrightError):
            open_raw(path).planes()


@given(st.data())
@settings(max_examples=40)
def test_damage_is_an_error_or_pixels(data: st.DataObject) -> None:
    import tempfile

    global _whole
    if _whole is None:
        with tempfile.TemporaryDirectory() as folder:
            from raftwright.daq import simulate_image

            small = simulate_image(
                "LATISS", "AT_O_20261122_000005", registers=[3, 0, 8, 0, 0, 2, 0, 6, 0, 1, 1]
            )
            _whole = write_image(small, folder, durable=False).files[0].path.read_bytes()
    damaged = bytearray(_whole)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        file.write(damaged)
        file.flush()
        said = ""
        try:
            raw = open_raw(file.name)
            sizes = [pixels.size for pixels in raw.segments.values()]
            _ = raw.mosaic()
        except RaftwrightError as error:
            said, sizes = str(error), []
        assert len(said) < 2000
        assert max(sizes, default=0) < 2**20


_whole: bytes | None = None


def test_a_fill_value_that_no_pixel_can_have(raw_path: Path, tmp_path: Path) -> None:
    """A hostile FILLVAL is no reason to fail at painting."""
    header = bytearray(raw_path.read_bytes())
    for keyword, card in ((b"MISSPIX =", b"MISSPIX = 1"), (b"FILENAME=", b"FILLVAL = 99999999999999")):
        at = header.index(keyword)
        header[at : at + 80] = card.ljust(80)
    path = tmp_path / "hostile.fits"
    path.write_bytes(header)
    raw = open_raw(path)
    assert (raw.missing_pixels, raw.header["FILLVAL"]) == (1, 99999999999999)
    assert (raw.mosaic() == open_raw(raw_path).mosaic()).all()
