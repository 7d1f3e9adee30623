"""`raftwright mosaic`, judged by astropy and fitsio."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from raftwright import assemble, camera
from raftwright.daq import simulate_image, write_recording

Run = Callable[..., Any]


def read(path: Path) -> tuple[Any, fits.Header]:
    with fits.open(path, checksum=True, memmap=False) as file:
        hdu = file[-1]
        return np.array(hdu.data), hdu.header.copy()


def test_a_raft_is_what_the_library_paints(run: Run, raws: Path, comcam: Path, tmp_path: Path) -> None:
    expected = assemble(comcam).raft("R22").mosaic(bin=2, fill=-1)
    for number, source in enumerate((raws, comcam, raws.parent.parent)):
        done = run("mosaic", source, "--bin", 2, "-o", f"{number}.fits")
        assert done.code == 0, done.err
        pixels, header = read(tmp_path / f"{number}.fits")
        gap = np.isnan(pixels)
        assert np.array_equal(gap, expected == -1)
        assert gap.any()
        assert np.array_equal(pixels[~gap], expected[~gap])
        assert header["EXTNAME"] == "MOSAIC"
    assert (tmp_path / "0.fits").read_bytes() == (tmp_path / "1.fits").read_bytes()


@pytest.mark.parametrize("factor", [1, 3, 64])
def test_plain_and_compressed_agree(run: Run, corner_raws: Path, tmp_path: Path, factor: int) -> None:
    assert run("mosaic", corner_raws, "--bin", factor, "-o", "c.fits").code == 0
    assert run("mosaic", corner_raws, "--bin", factor, "-o", "p.fits", "--plain").code == 0
    compressed, _ = read(tmp_path / "c.fits")
    plain, header = read(tmp_path / "p.fits")
    assert np.array_equal(compressed, plain, equal_nan=True)
    assert header["SIMPLE"] is True
    assert header["OBSID"] == corner_raws.name


def test_the_whole_mosaic_is_binned_as_one(run: Run, corner: Path, tmp_path: Path) -> None:
    """CCD by CCD on one grid is the same as all at once, wherever no two CCDs share a pixel."""
    done = run("mosaic", corner, "--bin", 4, "-o", "m.fits")
    assert done.code == 0
    pixels, _ = read(tmp_path / "m.fits")
    expected = assemble(corner).mosaic(bin=4, fill=-1)
    gap = np.isnan(pixels)
    assert np.array_equal(gap, expected == -1)
    assert np.count_nonzero(pixels[~gap] != expected[~gap]) < 0.005 * gap.size


def test_millimetres(run: Run, tmp_path: Path) -> None:
    """In a readout of true size every CCD's centre is where the camera says."""
    lsstcam = camera("LSSTCam")
    image = simulate_image(lsstcam, "MC_S_20261122_000004", locations=["00/0"], seed=1)
    recording = write_recording(tmp_path / "MC_S_20261122_000004", image, durable=False).path
    assert run("mosaic", recording, "--bin", 16, "-o", "m.fits").code == 0
    pixels, header = read(tmp_path / "m.fits")
    assert header["TRUESCAL"] is True
    wcs = WCS(header)
    assert list(wcs.wcs.cunit) == ["mm", "mm"]
    for name in ("R00_SW0", "R00_SW1"):
        detector = lsstcam.detector(name)
        x, y = wcs.all_world2pix([[detector.x_mm, detector.y_mm]], 0)[0]
        assert np.isfinite(pixels[round(y), round(x)])
    corners = wcs.all_pix2world([[-0.5, -0.5], [pixels.shape[1] - 0.5, pixels.shape[0] - 0.5]], 0)
    low, high = corners
    ys = [lsstcam.detector(name).y_mm for name in ("R00_SW0", "R00_SW1")]
    assert low[1] == pytest.approx(min(ys) - 10.0, abs=0.2)
    assert high[1] == pytest.approx(max(ys) + 10.0, abs=0.2)


def test_one_ccd_along_its_own_axes(run: Run, raws: Path, comcam: Path, tmp_path: Path) -> None:
    done = run("mosaic", raws, "--detector", 4, "--overscan", "--json")
    answer = done.json
    assert (answer["detectors"], answer["bin"]) == (["R22_S11"], 1)
    pixels, header = read(tmp_path / f"{raws.name}_R22_S11.fits")
    assert np.array_equal(pixels, assemble(comcam)["R22_S11"].mosaic(overscan=True))
    assert header["OVERSCAN"] is True
    assert header["TRUESCAL"] is False


def test_bias_and_gains(run: Run, raws: Path, tmp_path: Path) -> None:
    assert run("mosaic", raws, "--bin", 8, "--electrons", "-o", "e.fits").code == 0
    assert run("mosaic", raws, "--bin", 8, "--debias", "-o", "d.fits").code == 0
    electrons, header = read(tmp_path / "e.fits")
    counts, _ = read(tmp_path / "d.fits")
    assert header["BUNIT"] == "electron"
    # The simulated sky has 1200 electrons everywhere, whatever the segments' bias and gain.
    assert abs(np.nanmedian(electrons) - 1200) < 20
    assert 500 < np.nanmedian(counts) < 1150


def test_missing_pixels_are_undefined(run: Run, editable: Path, tmp_path: Path) -> None:
    os.truncate(editable / "22-1.raw", 0)
    done = run("mosaic", editable, "--salvage", "--bin", 2, "-o", "m.fits", "--json")
    assert done.code == 0, done.err
    assert done.json["missing_pixels"] == 48 * 43 * 46
    pixels, header = read(tmp_path / "m.fits")
    assert header["MISSPIX"] == 48 * 43 * 46
    height = pixels.shape[0]
    assert np.isnan(pixels[height // 2]).all()
    assert np.isfinite(pixels[2]).any()


def test_judges_accept_it(
    run: Run,
    raws: Path,
    tmp_path: Path,
    require_tool: Callable[[str], str],
    require_module: Callable[[str], None],
) -> None:
    fitsverify = require_tool("fitsverify")
    require_module("fitsio")
    import fitsio

    for name, extra in (("c.fits", []), ("p.fits", ["--plain"])):
        assert run("mosaic", raws, "-o", name, "--bin", 1, *extra).code == 0
        said = subprocess.run([fitsverify, "-q", name], cwd=tmp_path, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout
        assert "OK" in said.stdout
        with fitsio.FITS(str(tmp_path / name)) as file:
            assert file[-1].read().min() == -1


def test_overwriting(run: Run, raws: Path, tmp_path: Path) -> None:
    assert run("mosaic", raws, "-o", "m.fits").code == 0
    first = (tmp_path / "m.fits").read_bytes()
    again = run("mosaic", raws, "-o", "m.fits", "--json").json
    assert (again["status"], again["file_status"]) == ("ok", "unchanged")
    refused = run("mosaic", raws, "-o", "m.fits", "--bin", 4)
    assert refused.code == 4
    assert "--overwrite" in refused.error
    assert (tmp_path / "m.fits").read_bytes() == first
    assert run("mosaic", raws, "-o", "m.fits", "--bin", 4, "--overwrite").code == 0
    assert (tmp_path / "m.fits").read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["m.fits"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 1, "nowhere"),
        (["."], 1, "no raw FITS file"),
        (["RAWS", "COMCAM"], 2, "one recording, or raw files"),
        (["RAWS", "CORNER"], 2, "--image"),
        (["RAWS", "--detector", "R22_S99"], 1, "R22_S99"),
        (["RAWS", "--raft", "R01"], 1, "R01"),
        (["CORNER", "--raft", "R22"], 1, "nothing of raft R22"),
        (["CORNER", "--detector", "94"], 1, "R22_S11"),
        (["RAWS", "--image", "CC_S_20261122_000009"], 1, "CC_S_20261122_000009"),
        (["RAWS", "--bin", "5000"], 2, "--bin"),
        (["RAWS", "-o", "."], 1, "is a directory"),
        (["RAWS", "-o", "afile/m.fits"], 1, "afile"),
    ],
)
def test_what_cannot_be(
    run: Run,
    raws: Path,
    comcam: Path,
    corner_raws: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    if "afile/m.fits" in arguments:
        (tmp_path / "afile").write_text("")
    paths = {"RAWS": raws, "COMCAM": comcam, "CORNER": corner_raws}
    done = run("mosaic", *(paths.get(a, a) for a in arguments))
    assert done.code == code, done
    assert says in done.error
    assert not list(tmp_path.rglob("*.fits"))


def test_two_files_of_one_ccd(run: Run, raws: Path, tmp_path: Path) -> None:
    path = next(raws.glob("*S11.fits"))
    (tmp_path / "copy.fits").write_bytes(path.read_bytes())
    done = run("mosaic", path, "copy.fits")
    assert done.code == 2
    assert "both show R22_S11" in done.error


def test_guider_stamps(run: Run, require_shared: Callable[..., Path]) -> None:
    path = require_shared("data", "raws", "guider__MC_C_20240918_000013_R00_SG0_guider.fits")
    for command in ("mosaic", "show"):
        done = run(command, path)
        assert done.code == 1
        assert "guider stamps" in done.error
