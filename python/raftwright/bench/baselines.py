"""What the figures are measured against: the ways in which the same work is usually done."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raftwright._core import StreamLayout

__all__ = ["cfitsio_rice", "copy_memory", "fitsio_module", "fitsio_read", "fitsio_write", "numpy_unpack"]


def copy_memory(destination: NDArray[Any], source: NDArray[Any]) -> None:
    """The C library's memcpy of one contiguous array to another of the same size."""
    ctypes.memmove(destination.ctypes.data, source.ctypes.data, source.nbytes)


def numpy_unpack(layout: StreamLayout, packed: bytes) -> NDArray[np.int32]:
    """Unpacks a stream with NumPy, one vectorised expression a channel: shape (channels, samples).

    Works where a pixel and its first byte's other bits fit 32 bits, and a sample has at least four bytes.
    """
    samples = len(packed) // layout.sample_bytes
    planes = np.empty((layout.channels, samples), np.int32)
    for channel, plane in enumerate(layout.plane_of):
        first_bit = channel * layout.bits
        byte = min(first_bit // 8, layout.sample_bytes - 4)
        words = np.ndarray((samples,), "<u4", packed, byte, (layout.sample_bytes,))
        values = words >> np.uint32(first_bit - 8 * byte)
        values &= np.uint32(layout.max_value)
        values ^= np.uint32(layout.xor_mask)
        planes[plane] = values
    return planes


def cfitsio_rice() -> tuple[int, int] | None:
    """Addresses of cfitsio's ``fits_rcomp`` and ``fits_rdecomp``, where the machine has a shared cfitsio."""
    name = ctypes.util.find_library("cfitsio")
    if name is None:
        return None
    try:
        library = ctypes.CDLL(name)
        functions = library.fits_rcomp, library.fits_rdecomp
    except (OSError, AttributeError):
        return None
    encode, decode = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
    return (encode, decode) if encode and decode else None


def fitsio_module() -> Any | None:
    """fitsio, where it is installed: it is GPL and only ever a yardstick here."""
    try:
        import fitsio
    except ImportError:
        return None
    return fitsio


def fitsio_write(fitsio: Any, path: Path, planes: NDArray[np.int32], names: list[str]) -> None:
    """One RICE_1 file with one row a tile, as the raw files have it."""
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        for plane, name in zip(planes, names, strict=True):
            file.write(plane, extname=name, compress="RICE", tile_dims=(1, plane.shape[1]))


def fitsio_read(fitsio: Any, path: Path, hdus: list[int]) -> list[NDArray[np.int32]]:
    """Every image of a file."""
    with fitsio.FITS(str(path)) as file:
        return [file[hdu].read() for hdu in hdus]
