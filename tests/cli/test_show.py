"""`raftwright show`, and the pictures it draws."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raftwright import picture
from raftwright.camera import Geometry
from raftwright.errors import UsageError
from raftwright.picture.drawing import ticks, wrapped
from raftwright.picture.page import GAP_COLOR, MISSING_COLOR

Run = Callable[..., Any]


def colors(path: Path) -> Any:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def share(pixels: Any, color: tuple[int, int, int]) -> float:
    return float((pixels == np.array(color)).all(axis=-1).mean())


def test_ccd_raft_and_focal_plane(run: Run, raws: Path, corner_raws: Path, tmp_path: Path) -> None:
    for source, extra, name in (
        (raws, ["--detector", "R22_S11"], f"{raws.name}_R22_S11.png"),
        (raws, [], f"{raws.name}_R22.png"),
        (corner_raws, [], f"{corner_raws.name}_focal_plane.png"),
        (corner_raws, ["--detectors", "R00_SW0,R00_SW1"], f"{corner_raws.name}_R00.png"),
    ):
        done = run("show", source, *extra)
        assert done.code == 0, done.err
        assert name in done.out
        assert colors(tmp_path / name).std() > 10


def test_what_is_on_the_page(run: Run, corner_raws: Path, tmp_path: Path) -> None:
    """Gaps in their colour; without labels nothing is drawn over the pixels."""
    assert run("show", corner_raws, "-o", "with.png").code == 0
    assert run("show", corner_raws, "-o", "without.png", "--no-labels").code == 0
    labelled, bare = colors(tmp_path / "with.png"), colors(tmp_path / "without.png")
    assert labelled.shape == bare.shape
    assert share(bare, GAP_COLOR) > 0.05
    assert (labelled != bare).any(axis=-1).mean() > 0.005
    assert share(bare, MISSING_COLOR) == 0.0


def test_missing_pixels_have_a_colour(run: Run, editable: Path, tmp_path: Path) -> None:
    os.truncate(editable / "22-0.raw", 0)
    done = run("show", editable, "--salvage", "-o", "m.png", "--no-labels")
    assert done.code == 0
    assert "missing" in done.out
    pixels = colors(tmp_path / "m.png")
    red = (pixels == np.array(MISSING_COLOR)).all(axis=-1)
    # S00, S01, S02 are the lowest row of CCDs: a third of the page's mosaic, in its lower half.
    assert 0.1 < red.mean() < 0.35
    assert np.flatnonzero(red.any(axis=1)).min() > pixels.shape[0] // 2


def test_json(run: Run, raws: Path) -> None:
    answer = run("show", raws, "--json", "--limits", "0,500", "--size", 100).json
    assert answer["limits"] == [0, 500]
    assert answer["unit"] == "adu"
    assert len(answer["detectors"]) == 9
    assert Path(answer["path"]).stat().st_size == answer["bytes"]


def test_the_same_picture_again_is_no_conflict(run: Run, mini: Path) -> None:
    assert run("show", mini, "-o", "p.png").code == 0
    assert "unchanged" in run("show", mini, "-o", "p.png").out
    other = run("show", mini, "-o", "p.png", "--raw")
    assert other.code == 4
    assert "--overwrite" in other.error
    assert "replaced" in run("show", mini, "-o", "p.png", "--raw", "--overwrite").out


@pytest.mark.parametrize("colour_map", picture.COLOR_MAPS)
def test_every_colour_map_and_scale_that_is_offered_exists(run: Run, mini: Path, colour_map: str) -> None:
    for scale in picture.SCALES:
        done = run("show", mini, "-o", f"{scale}.png", "--scale", scale, "--colors", colour_map)
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--limits", "5,1"], 2, "'5,1'"),
        (["--limits", "nan,1"], 2, "nan"),
        (["--limits", "1"], 2, "no pair"),
        (["--raw", "--electrons"], 2, "exclude"),
        (["--size", "1"], 2, "--size"),
        (["--detector", "X"], 1, "MiniCam has no detector 'X'"),
        (["-o", "/proc/nowhere/x.png"], 1, "/proc/nowhere"),
    ],
)
def test_what_cannot_be(run: Run, mini: Path, arguments: list[str], code: int, says: str) -> None:
    done = run("show", mini, *arguments)
    assert done.code == code, done
    assert says in done.error


def test_without_pillow(run: Run, mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_pillow(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'")
        return real(name, *rest, **more)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "PIL" else object())
    done = run("show", mini)
    assert done.code == 1
    assert "pip install 'raftwright[show]'" in done.error
    monkeypatch.undo()
    monkeypatch.setattr(builtins, "__import__", no_pillow)
    pixels = np.zeros((4, 4), dtype=np.int32)
    mask = np.ones((4, 4), dtype=bool)
    page = picture.Page(pixels, mask, ~mask, picture.Limits(0, 1), "t")
    with pytest.raises(ImportError, match=r"raftwright\[show\]"):
        picture.render_png(page)


# --- the picture package ------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=300),
    st.sampled_from(picture.SCALES),
)
def test_limits_are_always_usable(values: list[int], scale: str) -> None:
    pixels = np.array(values, dtype=np.int32)
    limits = picture.find_limits(pixels, scale)
    assert limits.low < limits.high
    shades = picture.to_bytes(pixels.reshape(1, -1), limits)
    assert shades.dtype == np.uint8
    if values and scale == "minmax" and min(values) < max(values):
        assert shades.ravel()[np.argmin(pixels)] == 0
        assert shades.ravel()[np.argmax(pixels)] >= 254


def test_zscale_looks_at_the_sky_and_not_at_the_stars() -> None:
    rng = np.random.default_rng(1)
    sky = rng.normal(1000, 10, (200, 200))
    sky[rng.random(sky.shape) < 0.01] = 150_000
    limits = picture.find_limits(sky, "zscale")
    assert 940 < limits.low < 990
    assert 1010 < limits.high < 1100
    assert picture.find_limits(sky, "minmax").high == 150_000


def test_zscale_agrees_with_astropy() -> None:
    from astropy.visualization import ZScaleInterval

    rng = np.random.default_rng(2)
    ramp = np.sort(rng.normal(500, 20, 10_000)) + np.linspace(0, 30, 10_000)
    ours = picture.find_limits(ramp, "zscale")
    theirs = ZScaleInterval(n_samples=10_000).get_limits(ramp)
    assert ours.low == pytest.approx(theirs[0], abs=3)
    assert ours.high == pytest.approx(theirs[1], abs=3)


def test_a_nearly_constant_image_takes_the_next_best_scale() -> None:
    pixels = np.zeros(100_000)
    pixels[:2000] = 7
    assert picture.find_limits(pixels, "zscale") == (0, 7)
    pixels[1:] = 0
    assert picture.find_limits(pixels, "zscale") == (0, 7)
    assert picture.find_limits(np.full(10, 3), "zscale") == (2.5, 3.5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="zscale, percentile, minmax"):
        picture.find_limits(np.zeros(3), "loud")
    with pytest.raises(UsageError, match="gray"):
        picture.color_table("pink")


def test_colour_tables() -> None:
    for name in picture.COLOR_MAPS:
        table = picture.color_table(name)
        assert table.shape == (256, 3)
        assert table.dtype == np.uint8
        light = table.astype(float) @ np.array([0.3, 0.6, 0.1])
        steps = np.diff(light)
        assert (steps > -1).all() or (steps < 1).all()
        assert abs(light[-1] - light[0]) > 180


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks(low: float, span: float, most: int) -> None:
    high = low + span
    if high > low + 1e-9 * abs(low):
        marks = ticks(low, high, most)
        assert 1 <= len(marks) <= most + 1
        for value, text in marks:
            assert low - 1e-6 * span <= value <= high + 1e-6 * span
            assert float(text) == pytest.approx(value, abs=span * 1e-5 + abs(value) * 1e-6)
        assert "-0" not in [text for _, text in marks]


def test_levels_follow_the_overscan() -> None:
    geometry = Geometry(prescan=3, columns=20, overscan=30, rows=300, parallel_overscan=10)
    rng = np.random.default_rng(3)
    pedestal = np.linspace(2000, 2100, 310)
    plane = np.rint(pedestal[:, np.newaxis] + rng.normal(0, 5, (310, 53))).astype(np.int32)
    plane[:, 3:23] += 1000
    levels = picture.overscan_levels(plane, geometry)
    assert levels.shape == (310, 1)
    assert np.abs(levels[70:240, 0] - pedestal[70:240]).max() < 3
    holes = plane.copy()
    holes[100:140] = -1
    assert np.abs(picture.overscan_levels(holes, geometry, -1)[100:140, 0] - pedestal[100:140]).max() < 5
    holes[:] = -1
    assert not picture.overscan_levels(holes, geometry, -1).any()
    bare = Geometry(prescan=0, columns=53, overscan=0, rows=310, parallel_overscan=0)
    assert not picture.overscan_levels(plane, bare).any()


def test_phrases_are_wrapped() -> None:
    from raftwright.picture.drawing import font

    lines = wrapped(["one", "two", "three " * 40, "four"], font(13), 300)
    assert lines[0] == "one  ·  two"
    assert len(lines) == 3
    assert wrapped([], font(13), 300) == []


def test_a_page_of_any_shape() -> None:
    for shape in ((1, 1), (1, 900), (900, 1), (3, 5)):
        mask = np.ones(shape, dtype=bool)
        frames = [picture.Frame(0, 0, shape[1], shape[0], ("a name far too long for it", "x"), "ccd")]
        page = picture.Page(
            pixels=np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape),
            drawn=mask,
            missing=~mask,
            limits=picture.Limits(-1.5, 1e6),
            title="T" * 200,
            notes=["note " * 30] * 3,
            frames=frames,
            mm_per_pixel=0.01,
        )
        with Image.open(io.BytesIO(picture.render_png(page))) as image:
            assert image.width >= shape[1]
            assert image.height >= shape[0]
