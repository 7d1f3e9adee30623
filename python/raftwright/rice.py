"""RICE_1 of the FITS standard (FITS 4.0, section 10.4.1): one tile in, one tile out.

The code is byte-identical to cfitsio's. Whole files are better served by `raftwright.open_raw`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raftwright import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = ["decode", "encode"]


def encode(pixels: NDArray[Any], *, block: int = 32) -> bytes:
    """Encodes one tile.

    Parameters
    ----------
    pixels
        One-dimensional contiguous array of int32, int16 or int8 (BYTEPIX 4, 2, 1) in native byte order.
    block
        Pixels a block (BLOCKSIZE); 32 is what FITS writers use and what is fast here.

    Raises
    ------
    UsageError
        Another type or shape, or a block size of 0.
    """
    return _core.rice_encode(pixels, block)


def decode(code: Buffer, pixels: int, *, dtype: Any = np.int32, block: int = 32) -> NDArray[Any]:
    """Decodes one tile of ``pixels`` values.

    Parameters
    ----------
    code
        The tile's code, exactly: bytes left over are an error.
    dtype
        int32, int16 or int8.

    Returns
    -------
    numpy.ndarray
        One-dimensional, of ``dtype``.

    Raises
    ------
    FormatError
        The code is cut, has bytes left over, or a block that RICE_1 does not have.
    """
    return _core.rice_decode(code, pixels, np.dtype(dtype).name, block)
