"""Packed samples and planes: the descrambling itself, for code that brings its own data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raftwright import _core
from raftwright._core import StreamLayout
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

__all__ = ["StreamLayout", "scramble", "unpack"]


def unpack(
    layout: StreamLayout,
    packed: Buffer,
    *,
    shape: tuple[int, int] | None = None,
    out: NDArray[np.int32] | None = None,
    level: _core.Level | None = None,
) -> NDArray[np.int32]:
    """Descrambles whole samples into one plane a channel.

    Parameters
    ----------
    layout
        How the stream is laid out, e.g. ``raftwright.camera("LSSTCam").board("22/0").layout``.
    packed
        Any contiguous buffer of whole samples: ``n * layout.sample_bytes`` bytes.
    shape
        (height, width) of the image, ``height * width == n``: the result then is three-dimensional.
    out
        Where to put the values: int32, shape (channels, n), rows contiguous. Rows that lie a little more than
        a whole number of pages apart are the fastest: twice as fast as a dense array of 576 x 2048 planes.
    level
        ``"scalar"``, ``"avx2"`` or ``"neon"`` instead of the best that the processor has.

    Returns
    -------
    numpy.ndarray
        int32, shape (channels, n), or (channels, height, width) with ``shape``; planes in output order (for
        a board of a camera: detector by detector, in HDU order), values as in FITS: ``raw XOR mask``.

    Raises
    ------
    FormatError
        ``packed`` is not whole samples.
    UsageError
        ``out``, ``shape`` or ``level`` does not fit.
    """
    planes = _core.unpack(layout, packed, out, level)
    if shape is None:
        return planes
    height, width = shape
    if height < 1 or width < 1 or height * width != planes.shape[1]:
        raise UsageError(f"{planes.shape[1]} samples are no image of {height} x {width} pixels")
    return planes.reshape(planes.shape[0], height, width)


def scramble(layout: StreamLayout, planes: ArrayLike, *, clip: bool = False) -> bytes:
    """The inverse of `unpack`: planes into a packed stream.

    Parameters
    ----------
    planes
        Integers of shape (channels, n) or (channels, height, width), planes in output order.
    clip
        Values outside ``0 .. layout.max_value`` are moved to the nearer end (as the camera's own
        writer does) instead of refused.

    Raises
    ------
    UsageError
        The shape is not one plane a channel, the values are no integers, or one is out of range.
    """
    array = np.asarray(planes)
    if array.ndim not in (2, 3) or array.shape[0] != layout.channels:
        raise UsageError(f"planes must have the shape ({layout.channels}, samples), not {array.shape}")
    if array.dtype.kind not in "iu":
        raise UsageError(f"pixels must be integers, not {array.dtype}")
    if array.dtype != np.int32:
        limits = np.iinfo(np.int32)
        if array.size and (array.max() > limits.max or array.min() < limits.min):
            if not clip:
                raise UsageError(
                    f"a pixel is outside 0 .. {layout.max_value}: pass clip=True to move it there"
                )
            array = np.clip(array, limits.min, limits.max)
        array = array.astype(np.int32)
    packed, clipped = _core.scramble(layout, np.ascontiguousarray(array.reshape(array.shape[0], -1)))
    if clipped and not clip:
        raise UsageError(
            f"{clipped} pixels are outside 0 .. {layout.max_value}: pass clip=True to move them there"
        )
    return packed
