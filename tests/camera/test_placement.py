"""Mosaics: no pixel twice, none lost, everything where the camera geometry has it."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import (
    Camera,
    Detector,
    Geometry,
    Mosaic,
    Placement,
    camera,
    ccd_mosaic,
    focal_plane_mosaic,
    focal_plane_placement,
)
from raftwright.errors import UsageError

Image = npt.NDArray[np.int32]
CORNERS = ("R00", "R04", "R40", "R44")


def paint(mosaic: Mosaic, planes: dict[str, Sequence[Image]], fill: int = -1) -> Image:
    """What a placement means, in NumPy: cut, flip, turn counter-clockwise, lay down. Nothing may overlap."""
    out = np.full(mosaic.shape, fill, dtype=np.int32)
    for part in mosaic.parts:
        for p in part.placements:
            piece = planes[part.detector.name][p.segment][p.y0 : p.y0 + p.ny, p.x0 : p.x0 + p.nx]
            piece = piece[:: -1 if p.flip_y else 1, :: -1 if p.flip_x else 1]
            piece = np.rot90(piece, -p.quarter_turns)  # rows grow upwards: rot90 turns the other way
            target = out[p.out_y : p.out_y + piece.shape[0], p.out_x : p.out_x + piece.shape[1]]
            assert target.shape == piece.shape, "outside the mosaic"
            assert (target == fill).all(), "two placements overlap"
            target[:] = piece
    return out


def nominal(detectors: Sequence[Detector]) -> list[tuple[Detector, Geometry]]:
    return [(d, d.type.geometry) for d in detectors]


def rectangles(mosaic: Mosaic) -> list[tuple[int, int, int, int]]:
    return [(p.x, p.y, p.x + p.width, p.y + p.height) for p in mosaic.parts]


def assert_disjoint(boxes: list[tuple[int, int, int, int]]) -> None:
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


# --- one CCD --------------------------------------------------------------------------------------
def test_itl_and_e2v_segments_lie_as_the_geometry_has_them(lsstcam: Camera) -> None:
    for name, lower_flip in (("R01_S00", True), ("R22_S11", False)):
        detector = lsstcam.detector(name)
        g = detector.type.geometry
        mosaic = ccd_mosaic(detector, g)
        assert mosaic.shape == (2 * g.rows, 8 * g.columns)
        assert mosaic.true_scale
        placements = mosaic.parts[0].placements
        assert placements[0] == Placement(0, g.prescan, 0, g.columns, g.rows, True, True, 0, g.rows, 0)
        assert placements[7] == Placement(
            7, g.prescan, 0, g.columns, g.rows, True, True, 7 * g.columns, g.rows, 0
        )
        assert placements[15] == Placement(15, g.prescan, 0, g.columns, g.rows, lower_flip, False, 0, 0, 0)


def test_wavefront_half_runs_the_other_way(lsstcam: Camera) -> None:
    detector = lsstcam.detector("R44_SW0")
    mosaic = ccd_mosaic(detector, detector.type.geometry)
    assert mosaic.shape == (2000, 4072)
    assert [p.out_x for p in mosaic.parts[0].placements] == [509 * (7 - i) for i in range(8)]


geometries = st.builds(
    Geometry,
    prescan=st.integers(0, 5),
    columns=st.integers(1, 9),
    overscan=st.integers(0, 6),
    rows=st.integers(1, 9),
    parallel_overscan=st.integers(0, 6),
)


@given(geometry=geometries, overscan=st.booleans(), data=st.data())
def test_a_ccd_mosaic_holds_each_pixel_once(geometry: Geometry, overscan: bool, data: st.DataObject) -> None:
    detector = data.draw(st.sampled_from(camera("LSSTCam").detectors))
    count = len(detector.segments)
    size = geometry.width * geometry.height
    planes = np.arange(count * size, dtype=np.int32).reshape(count, geometry.height, geometry.width)
    mosaic = ccd_mosaic(detector, geometry, overscan=overscan)
    out = paint(mosaic, {detector.name: list(planes)})
    if overscan:
        wanted = planes
    else:
        wanted = planes[:, : geometry.rows, geometry.prescan : geometry.prescan + geometry.columns]
    assert np.array_equal(np.sort(out, axis=None), np.sort(wanted, axis=None))
    for segment in detector.segments:
        # The first pixel read of a flipped segment lies at the far end of its tile.
        tile_w, tile_h = wanted.shape[2], wanted.shape[1]
        x = (segment.ix + 1) * tile_w - 1 if segment.flip_x else segment.ix * tile_w
        y = (segment.iy + 1) * tile_h - 1 if segment.flip_y else segment.iy * tile_h
        assert out[y, x] == wanted[segment.index, 0, 0]


def test_real_image_is_seamless(lsstcam: Camera, shared_data: Path) -> None:
    """A thresholded image of a grid of spots, over all 16 segments of an E2V CCD, shows no seam."""
    data = gzip.decompress((shared_data / "raws/bot__3019103101985-R22-S11-det094.fits").read_bytes())
    detector = lsstcam.detector("R22_S11")
    g = detector.type.geometry
    planes = []
    at = 0
    while len(planes) < 16:
        end = at
        while not data[end : end + 80].startswith(b"END     "):
            end += 80
        end = end + 80 + -(end + 80) % 2880
        size = g.width * g.height * 4 if b"EXTNAME = 'Segment" in data[at:end] else 0
        if size:
            planes.append(np.frombuffer(data, ">i4", g.width * g.height, end).reshape(g.height, g.width))
        at = end + size + -size % 2880
    out = paint(ccd_mosaic(detector, g), {"R22_S11": planes})
    ys, xs = np.nonzero(out)
    assert len(xs) == 1788690 - 7
    assert abs(xs.mean() - 2211) < 2
    assert abs(ys.mean() - 1975) < 2
    across_x = np.abs(np.diff(out, axis=1)).sum(axis=0)
    across_y = np.abs(np.diff(out, axis=0)).sum(axis=1)
    seams = [(across_x, g.columns * k - 1) for k in range(1, 8)] + [(across_y, g.rows - 1)]
    for changes, seam in seams:
        # As many pixels change across a seam as across lines within one period of the grid (66 pixels).
        assert changes[seam] <= 1.05 * np.delete(changes[seam - 66 : seam + 67], 66).max()


def test_ccd_coordinates_are_those_of_the_focal_plane(lsstcam: Camera) -> None:
    """A pixel of a CCD mosaic and the same pixel in the focal-plane mosaic have the same millimetres."""
    whole = focal_plane_mosaic(nominal(lsstcam.detectors))
    parts = {part.detector.name: part for part in whole.parts}
    for name in ("R22_S11", "R00_SG0", "R00_SG1", "R04_SG1", "R44_SW0", "R44_SW1", "R04_SW0", "R40_SW0"):
        detector = lsstcam.detector(name)
        alone = ccd_mosaic(detector, detector.type.geometry)
        width, height = alone.shape[1], alone.shape[0]
        for one, other in zip(alone.parts[0].placements, parts[name].placements, strict=True):
            # The corner that the tile shows at its lower left, in both mosaics.
            turned = (
                (other.out_x, other.out_y),
                (other.out_x + other.ny - 1, other.out_y),
                (other.out_x + other.nx - 1, other.out_y + other.ny - 1),
                (other.out_x, other.out_y + other.nx - 1),
            )[other.quarter_turns]
            a = alone.wcs.to_mm(one.out_x + 1, one.out_y + 1)
            b = whole.wcs.to_mm(turned[0] + 1, turned[1] + 1)
            assert a == pytest.approx(b, abs=0.00501)
        assert alone.wcs.to_mm((width + 1) / 2, (height + 1) / 2) == (detector.x_mm, detector.y_mm)


# --- rafts and the focal plane --------------------------------------------------------------------
def test_science_raft_has_its_true_gaps(lsstcam: Camera) -> None:
    raft = lsstcam.raft("R01")
    mosaic = focal_plane_mosaic(nominal(raft.detectors))
    # CCDs every 42.25 mm = 4225 pixels of 10 um; ITL chips of 4072 x 4000 leave gaps of 153 and 225 pixels.
    assert mosaic.shape == (2 * 4225 + 4000, 2 * 4225 + 4072)
    places = {part.detector.slot: (part.x, part.y) for part in mosaic.parts}
    assert places == {f"S{y}{x}": (4225 * x, 4225 * y) for x in range(3) for y in range(3)}
    middle = next(part for part in mosaic.parts if part.detector.slot == "S11")
    centre = mosaic.wcs.to_mm(middle.x + 2036 + 0.5, middle.y + 2000 + 0.5)
    assert centre == pytest.approx((-127.0, -254.0))
    assert mosaic.true_scale


def test_focal_plane(lsstcam: Camera) -> None:
    mosaic = focal_plane_mosaic(nominal(lsstcam.detectors))
    assert_disjoint(rectangles(mosaic))
    height, width = mosaic.shape
    assert abs(width - 63500) < 300
    assert abs(height - 63500) < 300
    x, y = mosaic.wcs.crpix
    assert abs(x - width / 2) < 100
    assert abs(y - height / 2) < 100
    for part in mosaic.parts:
        assert part.x >= 0
        assert part.y >= 0
        assert part.x + part.width <= width
        assert part.y + part.height <= height
        centre = mosaic.wcs.to_mm(part.x + (part.width + 1) / 2, part.y + (part.height + 1) / 2)
        assert centre == pytest.approx((part.detector.x_mm, part.detector.y_mm), abs=0.00501)


@pytest.mark.parametrize("raft", CORNERS)
def test_corner_sensors_fit_their_raft(raft: str, lsstcam: Camera) -> None:
    """Rotated halves neither touch one another nor the guiders, and stay in the bay of 127 mm."""
    detectors = lsstcam.raft(raft).detectors
    mosaic = focal_plane_mosaic(nominal(detectors))
    assert_disjoint(rectangles(mosaic))
    centre = (254 * (-1 if raft[2] == "0" else 1), 254 * (-1 if raft[1] == "0" else 1))
    for detector, part in zip(detectors, mosaic.parts, strict=True):
        box = focal_plane_placement(detector)
        assert (box.width, box.height) == (part.width, part.height)
        sizes = {"guider": {4072, 4000}, "wavefront": {4072, 2000}}[detector.kind]
        assert {box.width, box.height} == sizes
        assert abs(box.x_mm - centre[0]) + box.width * box.pixel_mm / 2 < 63.5
        assert abs(box.y_mm - centre[1]) + box.height * box.pixel_mm / 2 < 63.5
    halves = [d for d in detectors if d.kind == "wavefront"]
    # The two halves of a sensor face each other: half a turn apart, 3.25 mm between them.
    assert abs(halves[0].yaw_deg - halves[1].yaw_deg) == 180
    distance = abs(halves[0].x_mm - halves[1].x_mm) + abs(halves[0].y_mm - halves[1].y_mm)
    assert distance == pytest.approx(23.25)


@pytest.mark.parametrize("raft", ["R22", "R01", *CORNERS])
@pytest.mark.parametrize("overscan", [False, True])
@pytest.mark.parametrize("scale", [1, 3])
def test_small_readouts_of_a_raft_neither_overlap_nor_scatter(raft: str, overscan: bool, scale: int) -> None:
    detectors = camera("LSSTCam").raft(raft).detectors
    small = Geometry(prescan=2, columns=8 * scale, overscan=5, rows=30 * scale, parallel_overscan=4)
    mosaic = focal_plane_mosaic([(d, small) for d in detectors], overscan=overscan)
    planes = {
        d.name: [np.full((small.height, small.width), s.index, np.int32) for s in d.segments]
        for d in detectors
    }
    out = paint(mosaic, planes)
    pixels = (small.width * small.height) if overscan else small.columns * small.rows
    assert (out >= 0).sum() == pixels * sum(len(d.segments) for d in detectors)
    assert (out >= 0).mean() > (0.3 if raft in CORNERS else 0.8)
    assert not mosaic.true_scale


def test_overscan_of_the_whole_focal_plane_does_not_overlap(lsstcam: Camera) -> None:
    mosaic = focal_plane_mosaic(nominal(lsstcam.detectors), overscan=True)
    assert_disjoint(rectangles(mosaic))
    assert not mosaic.true_scale
    for part in mosaic.parts:
        size = {4608, 4096} if len(part.detector.segments) == 16 else {4608, 2048}
        assert {part.width, part.height} == size
        centre = mosaic.wcs.to_mm(part.x + (part.width + 1) / 2, part.y + (part.height + 1) / 2)
        assert centre == pytest.approx((part.detector.x_mm, part.detector.y_mm), abs=0.00501)


def test_minicam_has_its_second_ccd_upside_down(minicam: Camera) -> None:
    mosaic = focal_plane_mosaic(nominal(minicam.detectors))
    assert mosaic.shape == (192, 280 + 256)
    assert [part.x for part in mosaic.parts] == [0, 280]  # 4.2 mm apart at 15 um
    one, two = (part.placements for part in mosaic.parts)
    assert (one[0].out_x, one[0].out_y, one[0].quarter_turns) == (0, 0, 0)
    assert (two[0].out_x, two[0].out_y, two[0].quarter_turns) == (280 + 128, 96, 2)
    assert mosaic.wcs.cdelt == (0.015, 0.015)


# --- coordinates and binning ----------------------------------------------------------------------
@given(factor=st.integers(1, 64), x=st.floats(-100, 100), y=st.floats(-100, 100))
def test_binned_coordinates(factor: int, x: float, y: float) -> None:
    mosaic = focal_plane_mosaic(nominal(camera("LSSTComCam").detectors))
    binned = mosaic.wcs.binned(factor)
    # The centre of a binned pixel is the centre of the pixels it is made of.
    inside = ((x - 1) * factor + (factor + 1) / 2, (y - 1) * factor + (factor + 1) / 2)
    assert binned.to_mm(x, y) == pytest.approx(mosaic.wcs.to_mm(*inside), abs=1e-9)
    height, width = mosaic.shape
    assert mosaic.binned_shape(factor) == (-(-height // factor), -(-width // factor))


def test_cards_mean_to_astropy_what_they_mean_here(lsstcam: Camera) -> None:
    wcs_module = pytest.importorskip("astropy.wcs")
    fits = pytest.importorskip("astropy.io.fits")
    detector = lsstcam.detector("R00_SG0")
    for mosaic in (
        ccd_mosaic(detector, detector.type.geometry),
        focal_plane_mosaic(nominal(lsstcam.raft("R22").detectors)),
    ):
        mine = mosaic.wcs.binned(8)
        header = fits.Header([tuple(card) for card in mine.cards()])
        theirs = wcs_module.WCS(header)
        assert [str(unit) for unit in theirs.wcs.cunit] == ["m", "m"] or theirs.wcs.cunit[0] == "mm"
        scale = 1.0 if theirs.wcs.cunit[0] == "mm" else 1000.0
        for x, y in ((1.0, 1.0), (10.5, 300.25)):
            got = [value * scale for value in theirs.wcs_pix2world([[x, y]], 1)[0]]
            assert got == pytest.approx(mine.to_mm(x, y), abs=1e-9)


def test_refusals(lsstcam: Camera, minicam: Camera) -> None:
    with pytest.raises(UsageError, match="at least one"):
        focal_plane_mosaic([])
    with pytest.raises(UsageError, match=r"10\.0 and 15\.0 um"):
        focal_plane_mosaic(nominal([lsstcam.detectors[0], minicam.detectors[0]]))


# --- the painter of the compiled core -------------------------------------------------------------
@pytest.mark.skipif(
    importlib.util.find_spec("raftwright._core") is None, reason="the compiled core is not built"
)
@pytest.mark.parametrize(("name", "raft"), [("LSSTCam", "R00"), ("LSSTCam", "R04"), ("MiniCam", "M1")])
@pytest.mark.parametrize("overscan", [False, True])
def test_the_core_paints_the_same(name: str, raft: str, overscan: bool) -> None:
    from raftwright import _core

    detectors = camera(name).raft(raft).detectors
    small = Geometry(prescan=2, columns=9, overscan=5, rows=31, parallel_overscan=4)
    rng = np.random.default_rng(7)
    shape = (small.height, small.width)
    planes = {d.name: [rng.integers(0, 1000, shape, dtype=np.int32) for _ in d.segments] for d in detectors}
    mosaic = focal_plane_mosaic([(d, small) for d in detectors], overscan=overscan)
    placements = [
        (planes[part.detector.name][p.segment], *p[1:]) for part in mosaic.parts for p in part.placements
    ]
    got = _core.paint_mosaic(placements, mosaic.shape, fill=-1)
    assert np.array_equal(got, paint(mosaic, planes))
