"""Simulated images: the same for ever, true to the camera, continuous across segments."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from raftwright import _core
from raftwright.camera import Board, Camera, Detector, Geometry, camera
from raftwright.daq import (
    Registers,
    SimulatedStore,
    SkyModel,
    check_source,
    contract,
    open_store,
    simulate_image,
    sky,
)
from raftwright.errors import NotFoundError, RaftwrightError, UsageError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
BOARDS = [
    ("LSSTCam", "22/0"),  # E2V
    ("LSSTCam", "01/1"),  # ITL
    ("LSSTCam", "00/1"),  # guider
    ("LSSTCam", "44/0"),  # wavefront
    ("LSSTComCam", "22/2"),
    ("LATISS", "00/0"),
    ("MiniCam", None),
]


def find(name: str, location: str | None) -> Board:
    boards = camera(name).boards
    return boards[location] if location is not None else next(iter(boards.values()))


@pytest.mark.parametrize(("name", "location"), BOARDS)
@pytest.mark.parametrize("pattern", ["sky", "coordinates"])
def test_every_kind_of_board(name: str, location: str | None, pattern: Any) -> None:
    board = find(name, location)
    image = simulate_image(
        name, "XX_S_20261122_000007", locations=[board.location], registers=SMALL, pattern=pattern
    )
    source = image.source(board.location)
    assert check_source(source.info, board) == source.info.bytes == source.readout.size
    contract.assert_image(image, camera(name))
    planes = _core.unpack(board.layout, source.read(0, source.info.bytes)).reshape(board.channels, 16, 28)
    for plane in range(board.channels):
        for y in (0, 7, 15):
            assert np.array_equal(planes[plane, y], source.readout.row(plane, y))


@pytest.mark.parametrize(("name", "location"), BOARDS)
def test_in_the_coordinate_pattern_every_pixel_names_itself(name: str, location: str | None) -> None:
    board = find(name, location)
    image = simulate_image(name, "A", locations=[board.location], registers=SMALL, pattern="coordinates")
    source = image.source(board.location)
    planes = _core.unpack(board.layout, source.read(0, source.info.bytes)).reshape(board.channels, 16, 28)
    group = -(-48 // board.bits)
    for detector in board.detectors:
        for segment, plane in zip(detector.segments, board.planes_of(detector), strict=True):
            for y in (0, 5, 15):
                for x in range(0, 28 - group + 1, group):
                    pixels = planes[plane, y, x : x + group].copy()
                    assert _core.coordinate_name(board.bits, pixels) == (detector.id, segment.index, y, x)


def test_full_frames_have_the_sizes_of_the_daq() -> None:
    sizes = {"science": 127401984, "guider": 84934656, "wavefront": 42467328}
    image = simulate_image("LSSTCam", "MC_S_20261122_000001")
    assert len(image.info.sources) == 71
    for info in image.info.sources:
        assert info.bytes == sizes[info.kind]
        assert (info.registers.width, info.registers.height) == (576, 2048)
    vendors = {
        camera("LSSTCam").board(i.location).detectors[0].type.vendor: i.registers for i in image.info.sources
    }
    assert vendors["E2V"].as_list() == [10, 0, 512, 0, 0, 54, 0, 2002, 0, 46, 2]
    assert vendors["ITL"].as_list() == [3, 0, 509, 0, 0, 64, 0, 2000, 0, 48, 1]
    # Anywhere in a full frame, without making the rest of it.
    source = image.source("22/1")
    assert len(source.read(127_000_000, 1000)) == 1000


def crc(**arguments: Any) -> int:
    settings: dict[str, Any] = {
        "camera": "MiniCam",
        "name": "MN_S_20261122_000001",
        "registers": SMALL,
        **arguments,
    }
    image = simulate_image(**settings)
    return zlib.crc32(b"".join(image.source(i.location).read(0, i.bytes) for i in image.info.sources))


def test_the_same_for_ever() -> None:
    """Sums that were made once: a change that breaks them breaks every simulated image that is kept."""
    assert crc(seed=1) == 0x51707B8C
    assert crc(seed=1, pattern="coordinates") == 0xE0824E2F
    assert crc(camera="LSSTComCam", seed=2**64 - 1) == 0x4CC391F6


def test_every_argument_makes_a_difference() -> None:
    base = crc()
    assert crc() == base
    others = [
        crc(seed=1),
        crc(name="MN_S_20261122_000002"),
        crc(pattern="coordinates"),
        crc(registers=[4, *SMALL[1:]]),
        crc(model=SkyModel(sky=100.0)),
        crc(model=SkyModel(stars=0.0)),
    ]
    assert len({base, *others}) == len(others) + 1
    assert crc(folder="other", annotation="x", timestamp="", opcode=3) == base
    image = simulate_image("LSSTComCam", "CC_S_20261122_000001", registers=SMALL)
    first = {image.source(location).read(0, 48384) for location in image.info.locations}
    assert len(first) == 3
    alone = simulate_image("LSSTComCam", "CC_S_20261122_000001", registers=SMALL, locations=["22/1"])
    assert alone.source("22/1").read(0, 48384) == image.source("22/1").read(0, 48384)


def test_levels_and_noise_are_those_of_the_camera() -> None:
    """Full frames: the overscan shows the read noise, the active area the shot noise of the sky."""
    board = camera("LSSTCam").board("22/1")
    detector = board.detectors[1]
    model = SkyModel(sky=2000.0, stars=0.0, rays=0.0, ramp=0.0)
    source = simulate_image("LSSTCam", "MC_S_20261122_000001", rafts=["R22"], model=model).source("22/1")
    for segment, plane in list(zip(detector.segments, board.planes_of(detector), strict=True))[::5]:
        rows = np.stack([source.readout.row(plane, y) for y in range(400)]).astype(float)
        dark, lit = rows[:, 525:], rows[:, 10:522]
        assert dark.std() == pytest.approx(np.hypot(segment.read_noise / segment.gain, 12**-0.5), rel=0.03)
        assert lit.mean() - dark.mean() == pytest.approx(2000.0 / segment.gain, rel=0.003)
        shot = 2000.0 / segment.gain**2
        assert lit.var() == pytest.approx(shot + dark.var(), rel=0.02)
        assert 22800 < dark.mean() < 23200
        below = np.stack([source.readout.row(plane, y) for y in range(2002, 2048)])
        assert below.mean() == pytest.approx(dark.mean(), abs=1.0)


def paint(detector: Detector, geometry: Geometry, planes: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    """The CCD in electrons, bias taken off: tiles and flips written out once more, in NumPy."""
    nx, ny = detector.type.tiles
    ccd = np.full((ny * geometry.rows, nx * geometry.columns), np.nan)
    for segment, plane in zip(detector.segments, planes, strict=True):
        bias = np.median(plane[:, geometry.prescan + geometry.columns :])
        part = (
            plane[: geometry.rows, geometry.prescan : geometry.prescan + geometry.columns].astype(float)
            - bias
        )
        part = part[:: -1 if segment.flip_y else 1, :: -1 if segment.flip_x else 1] * segment.gain
        y, x = segment.iy * geometry.rows, segment.ix * geometry.columns
        ccd[y : y + geometry.rows, x : x + geometry.columns] = part
    assert not np.isnan(ccd).any()
    return ccd


@pytest.mark.parametrize(("name", "location"), BOARDS)
def test_stars_and_rays_continue_across_segments(name: str, location: str | None) -> None:
    board = find(name, location)
    geometry = Geometry(prescan=4, columns=40, overscan=12, rows=50, parallel_overscan=6)
    model = SkyModel(sky=0.0, ramp=0.0)
    none = np.empty((0, 4))
    for detector in board.detectors:
        nx, ny = detector.type.tiles
        width, height = nx * geometry.columns, ny * geometry.rows
        # Where four segments meet (or two), on a vertical seam, on a horizontal one, in the corner.
        seam_y = height / 2 - 0.5 if ny > 1 else height / 2
        places = [(39.5, seam_y), (40.3, 12.25), (20.25, seam_y + 0.4), (width - 12.2, height - 11.4)]
        for x, y in places:
            stars = np.array([[x, y, 4e5, 1.8]])
            ccd = render(board, detector, geometry, stars, np.empty((0, 5)), model)
            yy, xx = np.mgrid[0:height, 0:width]
            near = np.hypot(xx - x, yy - y) < 11
            light = np.where(near, ccd, 0.0)
            flux = light.sum()
            assert flux == pytest.approx(4e5, rel=0.01)
            assert (light * xx).sum() / flux == pytest.approx(x, abs=0.1)
            assert (light * yy).sum() / flux == pytest.approx(y, abs=0.1)
            assert np.abs(ccd[~near]).max() < 12 * max(segment.read_noise for segment in detector.segments)
        track = np.array([[31.0, seam_y - 6.0, 50.0, seam_y + 7.0, 5000.0]])
        ccd = render(board, detector, geometry, none, track, model)
        lit = np.argwhere(ccd > 300)
        assert len(lit) > 20
        away = (lit[:, 1] - 31.0) * 13.0 - (lit[:, 0] - (seam_y - 6.0)) * 19.0
        assert np.abs(away / np.hypot(13.0, 19.0)).max() < 0.9
        assert ccd[ccd > 300].sum() == pytest.approx(5000.0 * np.hypot(13.0, 19.0), rel=0.03)


def render(
    board: Board,
    detector: Detector,
    geometry: Geometry,
    stars: NDArray[np.float64],
    rays: NDArray[np.float64],
    model: SkyModel,
) -> NDArray[np.float64]:
    described = [
        sky.describe_segment(detector, s, geometry, stars, rays, model, 1) for s in detector.segments
    ]
    count = len(detector.segments)
    layout = _core.StreamLayout(24, 0, range(count))  # wide enough that nothing is clipped
    for segment in described:
        segment["saturation"] = 1e7
    readout = _core.SimulatedReadout(layout, geometry.width, geometry.height, "sky", 3, described)
    planes = [np.stack([readout.row(plane, y) for y in range(geometry.height)]) for plane in range(count)]
    return paint(detector, geometry, planes)


def test_the_star_field() -> None:
    model = SkyModel()
    stars = sky.star_field(7, 4000, 4000, model)
    assert 959 <= len(stars) <= 961
    assert np.array_equal(stars, sky.star_field(7, 4000, 4000, model))
    x, y, flux, width = stars.T
    assert ((x >= -0.5) & (x < 3999.5)).all()
    assert ((y >= -0.5) & (y < 3999.5)).all()
    assert ((flux >= model.faintest) & (flux <= model.brightest)).all()
    assert np.median(flux) == pytest.approx(model.faintest * 2 ** (1 / model.slope), rel=0.3)
    assert width.min() == pytest.approx(model.seeing)
    assert width.max() <= 4.001 * model.seeing
    assert (width > 1.01 * model.seeing).mean() == pytest.approx(model.galaxies, abs=0.05)
    none_wide = sky.star_field(7, 4000, 4000, SkyModel(galaxies=0.0))
    assert (none_wide[:, 3] == model.seeing).all()
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.2
    assert len(sky.star_field(7, 10, 10, model)) == 3
    assert len(sky.star_field(7, 4000, 4000, SkyModel(stars=0))) == 0
    assert len(sky.cosmic_rays(7, 4000, 4000, SkyModel(rays=0))) == 0
    rays = sky.cosmic_rays(7, 4000, 4000, model)
    assert 63 <= len(rays) <= 65
    length = np.hypot(rays[:, 2] - rays[:, 0], rays[:, 3] - rays[:, 1])
    assert ((length >= 1.99) & (length <= 300.01)).all()
    # However many are asked for, there is an end.
    assert len(sky.star_field(7, 60_000, 60_000, SkyModel(stars=1e8))) == 1_000_000


@pytest.mark.parametrize(
    "values",
    [
        *({"sky": -1.0}, {"sky": float("nan")}, {"stars": float("inf")}, {"seeing": 0}, {"seeing": 1e4}),
        *({"slope": 0.0}, {"faintest": 0.0}, {"faintest": 2e7, "brightest": 1e7}, {"bias": "high"}),
        {"rays": 1e9},
        {"galaxies": 1.5},
    ],
)
def test_impossible_skies(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="sky model"):
        SkyModel(**values)


def test_registers_and_boards() -> None:
    image = simulate_image(
        "LSSTCam", "M", rafts=["R22", "R01"], locations=["00/1", "R44/RebW"], registers=SMALL[:10]
    )
    assert image.info.locations == ("00/1", "01/0", "01/1", "01/2", "22/0", "22/1", "22/2", "44/0")
    flags = {info.location: info.registers.op_flags for info in image.info.sources}
    assert flags["01/0"] == 1
    assert flags["22/0"] == 2
    given = Registers.parse(SMALL)
    (info,) = simulate_image("LSSTCam", "M", locations=["22/0"], registers=given).info.sources
    assert info.registers == given
    with pytest.raises(NotFoundError):
        image.source("22/3")


def test_times_follow_from_names() -> None:
    def time_of(name: str, **arguments: Any) -> str:
        return simulate_image("MiniCam", name, registers=SMALL, **arguments).info.timestamp

    assert time_of("MN_S_20261122_000001") == "2026-11-22T12:00:17.000"
    assert time_of("MN_S_20261122_000100") == "2026-11-22T12:28:20.000"
    assert time_of("MN_S_20261122_999999") > "2026-11-22T12"
    assert time_of("MN_S_20261322_000001") == time_of("no date") == "2026-01-01T00:00:00.000"
    assert time_of("MN_S_99991231_004000").startswith("2026-01-01")
    assert time_of("A", timestamp="2020-01-01T00:00:00") == "2020-01-01T00:00:00"


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "a/b"},
        {"name": ""},
        {"name": "ünïcode"},
        {"name": "x" * 10_000_000},
        {"folder": "../x"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.5},
        {"seed": True},
        {"pattern": "noise"},
        {"registers": []},
        {"registers": [2**31] * 11},
        {"registers": "11111111111"},
        {"rafts": []},
        {"locations": []},
        {"locations": ["99/9"]},
        {"rafts": ["R99"]},
        {"camera": "LSSTCame"},
    ],
    ids=lambda arguments: ascii(arguments)[:30],
)
def test_what_cannot_be_simulated(arguments: dict[str, Any]) -> None:
    settings = {"camera": "MiniCam", "name": "MN_S_20261122_000001", "registers": SMALL, **arguments}
    with pytest.raises(RaftwrightError) as caught:
        simulate_image(**settings)
    assert isinstance(caught.value, UsageError | NotFoundError)
    assert len(str(caught.value)) < 400


def test_stores(comcam: Camera) -> None:
    store = SimulatedStore(comcam, 9, count=30, registers=SMALL, pattern="coordinates", folder="night")
    assert len(store.images()) == 30
    assert store.images()[-1] == "CC_S_20261122_000030"
    contract.assert_store(store, comcam)
    direct = simulate_image(
        comcam, "CC_S_20261122_000030", seed=9, registers=SMALL, pattern="coordinates", folder="night"
    )
    assert store.image("CC_S_20261122_000030").info == direct.info
    named = SimulatedStore("LATISS", names=["b", "a", "b"], registers=SMALL)
    assert named.images() == ["a", "b"]
    contract.assert_store(named, camera("LATISS"))
    assert SimulatedStore("LATISS", count=0).images() == []
    with pytest.raises(UsageError, match="count"):
        SimulatedStore("LATISS", count=10**6)
    with pytest.raises(UsageError, match="image name"):
        SimulatedStore("LATISS", names=["a/b"])


@pytest.mark.parametrize(
    "text",
    [
        "MiniCam?seed=x",
        "MiniCam?seed=",
        "MiniCam?seed=-1",
        "MiniCam?seed=18446744073709551616",
        "MiniCam?nonsense=1",
        "MiniCam?seed",
        "MiniCam?&&&",
        "MiniCam?day=tomorrow",
        "MiniCam?day=../../xx",
        "MiniCam?count=99999999",
        "MiniCam?pattern=noise",
        "MiniCam?registers=1,2",
        "MiniCam?rafts=R22",
        "MiniCam?" + "&".join(["seed=1"] * 1000),
        "NoCam",
        "",
    ],
)
def test_texts_that_mean_no_store(text: str) -> None:
    with pytest.raises((UsageError, NotFoundError)) as caught:
        open_store("simulated:" + text)
    assert len(str(caught.value)) < 400


def test_a_text_with_everything() -> None:
    registers = ",".join(map(str, SMALL))
    store = open_store(
        "simulated:LSSTCam?seed=4&count=3&day=20270101&pattern=coordinates&rafts=R22,R01&locations=00/0"
        f"&registers={registers}"
    )
    assert store.images()[0] == "MC_S_20270101_000001"
    assert len(store.image("MC_S_20270101_000002").info.sources) == 7
