"""Pictures of CCDs and of whole images, drawn when they are asked for and kept for a while.

Few are drawn at a time, and what is kept is bounded in bytes: whoever asks for many waits, or is told to come
again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from raftwright.errors import FormatError, RaftwrightError
from raftwright.picture import Page, find_limits, render_png
from raftwright.picture.canvas import EMPTY, Canvas, CcdPixels
from raftwright.rawfile import RawFile, open_raw

__all__ = ["BusyError", "Previews"]

_MOST_BIN: Final = 64
_WAIT: Final = 10.0
"""Seconds to wait for a turn."""
_MOST_WAITING: Final = 4
"""For each that is drawn: who waits holds a thread, and lists are answered by the same ones."""
_BUSY: Final = "many pictures are being drawn; come again in a moment"


class BusyError(RaftwrightError):
    """Too many pictures are wanted at a time."""


class Previews:
    """Thread-safe."""

    def __init__(self, at_a_time: int, remembered: int) -> None:
        self._turns = threading.BoundedSemaphore(at_a_time)
        self._places = threading.BoundedSemaphore((1 + _MOST_WAITING) * at_a_time)
        self._limit = remembered
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self.bytes = 0
        """Of the pictures that are kept."""

    def png(self, paths: Sequence[Path], title: str, side: int) -> bytes:
        """Some CCDs of an image as a PNG: at most `side` pixels each way, bias subtracted, nominal gains.

        Raises BusyError, FormatError, StorageError, MissingExtraError.
        """
        key = (side, title, *((str(path), path.stat().st_mtime_ns) for path in paths))
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
        if not self._places.acquire(blocking=False):
            raise BusyError(_BUSY)
        try:
            if not self._turns.acquire(timeout=_WAIT):
                raise BusyError(_BUSY)
            try:
                drawn = _draw(paths, title, side)
            finally:
                self._turns.release()
        finally:
            self._places.release()
        with self._lock:
            if key not in self._kept and len(drawn) <= self._limit:
                self._kept[key] = drawn
                self.bytes += len(drawn)
                while self.bytes > self._limit:
                    self.bytes -= len(self._kept.popitem(last=False)[1])
        return drawn


def _draw(paths: Sequence[Path], title: str, side: int) -> bytes:
    files = [open_raw(path, threads=1) for path in paths]
    ccds = [(file.detector, file.geometry) for file in files]
    bin = 1
    while bin < _MOST_BIN and max(Canvas.shape_of(ccds, bin)) > side:
        bin += 1
    canvas = Canvas(ccds, bin=bin, electrons=True)
    for file in files:
        canvas.put(_pixels(file))
        file.segments.drop()
    drawn = canvas.drawn()
    missing = drawn & (canvas.pixels == EMPTY)
    page = Page(
        pixels=canvas.pixels,
        drawn=drawn,
        missing=missing,
        limits=find_limits(canvas.pixels[drawn & ~missing]),
        unit="electrons",
        title=title,
        notes=[f"{bin} x {bin} binned"] if bin > 1 else [],
        mm_per_pixel=canvas.layout.wcs.binned(bin).cdelt[0] if canvas.layout.true_scale else None,
    )
    return render_png(page)


def _pixels(file: RawFile) -> CcdPixels:
    planes: Sequence[np.ndarray[tuple[int, int], np.dtype[np.int32]]] = file.planes()
    missing = file.missing_pixels
    fill = file.header.get("FILLVAL")
    if missing and not isinstance(fill, int):
        raise FormatError(f"{file.detector.name}: lacks pixels and does not say their value (FILLVAL)")
    known = fill if missing and isinstance(fill, int) else None
    return CcdPixels(file.detector, file.geometry, planes, known, missing)
