"""A CCD in shared memory: views on what the forwarder assembled, held by a lease."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.prompt.layout import HEADER_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera import Camera, Detector, Geometry
    from raftwright.prompt.layout import BoardMeta, DetectorMeta

__all__ = ["PromptCcd"]

_NO_PIXEL = -(2**31)


class _Segments(Mapping[str, "NDArray[np.int32]"]):
    """The segments of a CCD by name (``Segment10``) or amplifier (``C10``), in the order of their HDUs."""

    def __init__(self, ccd: PromptCcd) -> None:
        self._ccd = ccd

    def __getitem__(self, name: str) -> NDArray[np.int32]:
        meta = self._ccd._meta
        for names in (meta.segments, meta.amps):
            if name in names:
                return self._ccd._plane(names.index(name))
        raise NotFoundError(
            f"detector {meta.name} has no segment {str(name)[:40]!r}; there are {', '.join(meta.segments)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._ccd._meta.segments)

    def __len__(self) -> int:
        return len(self._ccd._meta.segments)

    def __repr__(self) -> str:
        return f"<{len(self)} segments of {self._ccd.name}: {', '.join(self)}>"


class PromptCcd:
    """One CCD, complete as far as it will ever be, where the forwarder assembled it.

    It holds a lease: the memory is not used again until this object was released or collected, and every
    array that was taken from it as well. So keep no more of them than you need, or copy (``array.copy()``):
    the forwarder does not wait, and shows the next boards to nobody while all slabs are held.
    """

    def __init__(self, fd: int, board: BoardMeta, meta: DetectorMeta, camera: Camera | None = None) -> None:
        """Maps the planes of one detector from a slab's file, on which `fd` has a shared lock."""
        self._board = board
        self._meta = meta
        self._given = camera
        offsets = board.planes[meta.first : meta.first + len(meta.segments)]
        first = (HEADER_BYTES + min(offsets)) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        end = HEADER_BYTES + max(offsets) + board.plane_bytes
        self._begins = [HEADER_BYTES + offset - first for offset in offsets]
        # The mapping keeps a duplicate of the descriptor, and with it the lock, for as long as it lives: that
        # is the lease. NumPy's arrays keep the mapping.
        self._map: mmap.mmap | None = mmap.mmap(
            fd, end - first, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=first
        )

    @property
    def image(self) -> str:
        """Name of the image, e.g. ``MC_O_20261122_000123``."""
        return self._board.image

    @property
    def name(self) -> str:
        """Name of the CCD, e.g. ``R22_S11``."""
        return self._meta.name

    @property
    def id(self) -> int:
        """Number of the detector."""
        return self._meta.id

    @property
    def location(self) -> str:
        """DAQ location of its board, e.g. ``22/1``."""
        return self._board.location

    @property
    def completed(self) -> str:
        """When it was, UTC, ISO 8601 with milliseconds."""
        return self._board.completed

    @property
    def camera_name(self) -> str:
        """Of the camera."""
        return self._board.camera

    @cached_property
    def camera(self) -> Camera:
        """The camera. Raises NotFoundError where it is not built in and `watch` was not given its file."""
        if self._given is not None:
            return self._given
        from raftwright.camera import camera

        return camera(self._board.camera)

    @property
    def detector(self) -> Detector:
        """What the camera says of the CCD. Raises as `camera`."""
        return self.camera.detector(self.name)

    @property
    def geometry(self) -> Geometry:
        """Sizes of its segments, from the readout registers."""
        return self._board.geometry

    @property
    def segments(self) -> Mapping[str, NDArray[np.int32]]:
        """Segment name -> int32 array of shape (height, width), nominally (2048, 576), in readout order: the
        first pixel read is ``[0, 0]``. Read-only views, which keep the lease. Counts (adu); missing pixels
        have the value `fill`."""
        return _Segments(self)

    @property
    def planes(self) -> list[NDArray[np.int32]]:
        """The segments' arrays in the order of their HDUs."""
        return [self._plane(index) for index in range(len(self._meta.segments))]

    @property
    def complete(self) -> bool:
        """Whether every pixel is there."""
        return not self._meta.missing_pixels

    @property
    def missing_pixels(self) -> int:
        """How many are missing."""
        return self._meta.missing_pixels

    @property
    def fill(self) -> int:
        """The value of missing pixels."""
        return self._board.fill

    @cached_property
    def missing(self) -> dict[str, list[tuple[int, int]]]:
        """Missing pixels of each segment that has any: (first, count) in positions ``y * width + x``.

        Raises FormatError where they are in too many pieces to be told, and the fill value could be a
        pixel's.
        """
        if self._meta.missing is not None:
            return self._meta.missing
        if 0 <= self.fill < 2**self._board.bits:
            raise FormatError(
                f"{self.image} {self.name}: {self.missing_pixels} missing pixels in too many pieces; see the "
                "sidecar of its file, or have a fill value that no pixel has"
            )
        import numpy as np

        found = {}
        for name, plane in zip(self._meta.segments, self.planes, strict=True):
            edges = np.flatnonzero(np.diff(np.r_[False, plane.ravel() == self.fill, False].astype(np.int8)))
            if edges.size:
                found[name] = [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]
        return found

    def mosaic(self, *, overscan: bool = False, bin: int = 1) -> NDArray[np.int32]:
        """The CCD as one int32 image along its own axes, as `raftwright.Ccd.mosaic`; a copy."""
        from raftwright.assembly.mosaics import paint
        from raftwright.camera.placement import ccd_mosaic

        layout = ccd_mosaic(self.detector, self.geometry, overscan=overscan)
        marker = self.fill if self.missing_pixels else _NO_PIXEL
        return paint(layout, {self.name: self.planes}, bin=bin, missing=marker, fill=self.fill)

    def release(self) -> None:
        """Ends the lease now, unless arrays of it are still there: then it ends with the last of them.

        Afterwards the pixels cannot be had from here any more. Twice is once.
        """
        mapping, self._map = self._map, None
        if mapping is not None:
            with contextlib.suppress(BufferError):  # arrays are still there
                mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        missing = f", {self.missing_pixels} pixels missing" if self.missing_pixels else ""
        released = ", released" if self._map is None else ""
        return f"<CCD {self.name} of {self.image} in shared memory{missing}{released}>"

    def _plane(self, index: int) -> NDArray[np.int32]:
        if self._map is None:
            raise UsageError(f"{self.image} {self.name} was released; take its arrays before, or copy them")
        import numpy as np

        height, width = self.geometry.height, self.geometry.width
        # frombuffer holds the mapping's buffer; np.ndarray(buffer=...) would not keep it from being closed.
        return np.frombuffer(self._map, np.int32, height * width, self._begins[index]).reshape(height, width)
