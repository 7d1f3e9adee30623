"""RICE_1: round trips, and the same bytes as cfitsio (through astropy and fitsio)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raftwright import _core, rice
from raftwright.errors import FormatError, UsageError

TYPES = (np.int32, np.int16, np.int8)


@st.composite
def tiles(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Tiles of every type: full-range noise, and walks with steps of every size."""
    dtype = draw(st.sampled_from(TYPES))
    length = draw(st.integers(1, 130))
    limits = np.iinfo(dtype)
    if draw(st.booleans()):
        return draw(hnp.arrays(dtype, length))
    scale = 2.0 ** draw(st.integers(0, limits.bits - 1))
    walk = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(0, scale, length)
    return np.clip(walk, limits.min, limits.max).astype(dtype)


def _cfitsio_tiles(rows: np.ndarray[Any, Any]) -> list[bytes]:
    """Each row as the tile that cfitsio's coder, inside astropy, makes of it."""
    hdu = fits.CompImageHDU(rows, compression_type="RICE_1", tile_shape=(1, rows.shape[1]))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    buffer.seek(0)
    with fits.open(buffer, disable_image_compression=True) as file:
        return [bytes(row["COMPRESSED_DATA"].astype(np.uint8)) for row in file[1].data]


@given(tile=tiles(), block=st.sampled_from([32, 1, 16, 33, 200]))
@example(tile=np.full(576, 25000, np.int32), block=32)
def test_decode_inverts_encode(tile: np.ndarray[Any, Any], block: int) -> None:
    back = rice.decode(rice.encode(tile, block=block), tile.size, dtype=tile.dtype, block=block)
    assert back.dtype == tile.dtype
    assert np.array_equal(back, tile)


@given(tile=tiles())
def test_every_level_writes_the_same_code(tile: np.ndarray[Any, Any]) -> None:
    codes = {_core.rice_encode(tile, 32, level) for level in _core.available_levels()}
    assert len(codes) == 1


@pytest.mark.parametrize("sigma", [0, 1, 4, 8, 20, 100, 5000, 2**17, 2**28])
@pytest.mark.parametrize("width", [1, 31, 50, 576])
def test_the_code_is_cfitsios(sigma: float, width: int) -> None:
    random = np.random.default_rng(int(sigma) + width)
    rows = np.rint(random.normal(25000, sigma, (200, width))).astype(np.int32)
    rows[random.random(rows.shape) < 0.003] = 262143  # hot pixels
    assert [rice.encode(row) for row in rows] == _cfitsio_tiles(rows)


@pytest.mark.parametrize("dtype", [np.int16])
def test_the_code_of_short_integers_is_cfitsios(dtype: Any) -> None:
    rows = np.random.default_rng(1).integers(-32768, 32768, (50, 77)).astype(dtype)
    assert [rice.encode(row) for row in rows] == _cfitsio_tiles(rows)


def test_a_tile_of_fitsio_is_ours(tmp_path: Path, require_module: Callable[[str], None]) -> None:
    require_module("fitsio")
    import fitsio

    rows = np.rint(np.random.default_rng(3).normal(1000, 9, (40, 576))).astype(np.int32)
    path = tmp_path / "rice.fits"
    with fitsio.FITS(str(path), "rw") as file:
        file.write(rows, compress="RICE", tile_dims=(1, 576))
    with fits.open(path, disable_image_compression=True) as file:
        stored = [bytes(row["COMPRESSED_DATA"].astype(np.uint8)) for row in file[1].data]
    assert [rice.encode(row) for row in rows] == stored


@given(tile=tiles(), data=st.data())
def test_broken_code_is_an_error_or_other_pixels_never_a_crash(
    tile: np.ndarray[Any, Any], data: st.DataObject
) -> None:
    code = bytearray(rice.encode(tile))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(code) - 1))
        code[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(code)))
    try:
        back = rice.decode(bytes(code[:cut]), tile.size, dtype=tile.dtype)
    except FormatError as error:
        assert "RICE_1 tile of" in str(error)
    else:
        assert back.shape == tile.shape


def test_wrong_arguments_are_refused() -> None:
    code = rice.encode(np.arange(64, dtype=np.int32))
    with pytest.raises(FormatError, match="left over"):
        rice.decode(code + b"\0\0", 64)
    with pytest.raises(FormatError):
        rice.decode(code[:-1], 64)
    with pytest.raises(FormatError, match="cannot hold"):
        rice.decode(code, 2**50)
    with pytest.raises(UsageError):
        rice.encode(np.zeros((2, 2), np.int32))
    with pytest.raises(UsageError):
        rice.encode(np.zeros(4, np.float32))
    with pytest.raises(UsageError):
        rice.encode(np.zeros(4, np.int32), block=0)
    with pytest.raises(UsageError):
        rice.decode(code, 64, dtype=np.int64)
