"""What `butler.get` gives: a raw, and the stamps of a guider."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.rawfile.header import Header
from raftwright.rawfile.read import RawFile, open_raw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera import Camera, Detector

__all__ = ["PARAMETERS", "Box", "GuiderStamps", "Raw", "as_box", "read_guider", "read_raw"]

PARAMETERS: Final = ("segment", "bbox", "overscan", "bin", "camera")
"""Of a raw: see `Raw`."""

Box = tuple[int, int, int, int]
"""x and y of the lower left pixel, width, height; counted from 0."""


class Raw:
    """A raw file, opened: its pixels are decoded when they are asked for.

    `segment` narrows it to one amplifier, by the name of its image (`Segment10`) or its own (`C10`); `bbox`
    to a part of the pixels: of the CCD as it is put together, or of that segment as it was read out. With
    `overscan` the CCD has its overscans; `bin` makes squares of so many pixels into one.
    """

    def __init__(
        self,
        file: RawFile,
        *,
        segment: str | None = None,
        bbox: object = None,
        overscan: bool = False,
        bin: int = 1,
    ) -> None:
        self.file = file
        self._overscan = bool(overscan)
        self._bin = bin
        self.bbox: Box | None = None if bbox is None else as_box(bbox)
        if isinstance(bin, bool) or bin not in range(1, 4097):
            raise UsageError(f"{str(bin)[:40]!r} is no binning; give a number from 1")
        if segment is not None and (bin != 1 or overscan):
            raise UsageError("a segment is as it was read out: it has no binning and all of its overscan")
        self.names: tuple[str, ...] = file.names if segment is None else (self._named(segment),)
        """Of its segments, in the order of their HDUs."""
        self._single = segment is not None

    def _named(self, segment: object) -> str:
        if isinstance(segment, str):
            if segment in self.file.segments:
                return segment
            try:
                return self.file.detector.segment(segment).name
            except NotFoundError:
                pass
        have = ", ".join(self.file.names[:20]) or "none"
        raise NotFoundError(f"{self.file.path}: no segment {str(segment)[:60]!r}; there are {have}")

    @property
    def header(self) -> Header:
        """Primary header, with what later sidecars beside the file know better."""
        return self.file.header

    @property
    def camera(self) -> Camera:
        """The camera that made it. Raises `NotFoundError`."""
        return self.file.camera

    @property
    def detector(self) -> Detector:
        """The detector that it shows. Raises `NotFoundError`."""
        return self.file.detector

    @property
    def missing_pixels(self) -> int:
        """Pixels that never came; they hold FILLVAL."""
        return self.file.missing_pixels

    def segment_header(self, name: str) -> Header:
        """Header of the image of a segment."""
        return self.file.segment_header(self._named(name))

    @property
    def segments(self) -> Mapping[str, NDArray[Any]]:
        """Arrays in readout order by the names of their images; a `bbox` cuts them only where there is one
        segment."""
        cut = self._single and self.bbox is not None
        return {name: self._segment(name) if cut else self.file.segments[name] for name in self.names}

    @property
    def segment(self) -> NDArray[Any]:
        """The only segment. Raises `UsageError` where there are several."""
        if len(self.names) != 1:
            raise UsageError(
                f"{self.file.path}: has {len(self.names)} segments; say which with the parameter `segment`"
            )
        return self._segment(self.names[0])

    def _segment(self, name: str) -> NDArray[Any]:
        pixels = self.file.segments[name]
        return pixels if self.bbox is None else _cut(pixels, self.bbox, f"{self.file.path}: {name}")

    @property
    def mosaic(self) -> NDArray[np.int32]:
        """The CCD as one image, x to the right, row 0 at the bottom; the segment where there is one."""
        if self._single:
            return self.segment
        pixels = self.file.mosaic(overscan=self._overscan, bin=self._bin)
        return pixels if self.bbox is None else _cut(pixels, self.bbox, str(self.file.path))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        del copy
        return np.asarray(self.mosaic, dtype=dtype)

    def __repr__(self) -> str:
        return f"<raw {self.file.path}: {len(self.names)} segments>"


def as_box(value: object) -> Box:
    """A box from `(x, y, width, height)`, or from what has `getBeginX` and the like (`lsst.geom.Box2I`).
    Raises `UsageError`."""
    if all(hasattr(value, name) for name in ("getBeginX", "getBeginY", "getWidth", "getHeight")):
        box: Any = value
        value = (box.getBeginX(), box.getBeginY(), box.getWidth(), box.getHeight())
    with contextlib.suppress(TypeError):  # whole numbers of any kind, NumPy's too
        given: Any = () if isinstance(value, str | bytes | Mapping | set) else value
        numbers = [_whole(part) for part in given]
        if len(numbers) == 4 and min(numbers[:2]) >= 0 and min(numbers[2:]) >= 1:
            return numbers[0], numbers[1], numbers[2], numbers[3]
    raise UsageError(f"{str(value)[:60]!r} is no bbox; give (x, y, width, height) in pixels, counted from 0")


def _whole(part: Any) -> int:
    """Raises TypeError."""
    if isinstance(part, bool):
        raise TypeError
    return operator.index(part)


def _cut(pixels: NDArray[Any], box: Box, where: str) -> NDArray[Any]:
    x, y, width, height = box
    if x + width > pixels.shape[1] or y + height > pixels.shape[0]:
        raise UsageError(
            f"{where}: the bbox {box} goes beyond its {pixels.shape[1]} x {pixels.shape[0]} pixels"
        )
    return pixels[y : y + height, x : x + width]


def read_raw(path: str, parameters: Mapping[str, Any], known: Mapping[str, Camera]) -> Raw:
    """A raw file with parameters as `butler.get` takes them; `known` are cameras by INSTRUME that are not
    built in. Raises FormatError, NotFoundError, StorageError, UsageError."""
    wanted = dict(parameters)
    given = wanted.pop("camera", None)
    file = open_raw(path, camera=given)
    if given is None and known:
        instrume = (file.file_header.string("INSTRUME") or "").strip().lower()
        if instrume in known:
            file = open_raw(path, camera=known[instrume])
    return Raw(file, **wanted)


class GuiderStamps:
    """A guider's file: primary header, and the stamps in their order."""

    def __init__(self, header: Any, stamps: Sequence[NDArray[Any]], headers: Sequence[Any]) -> None:
        self.header = header
        """`astropy.io.fits.Header`."""
        self.stamps = tuple(stamps)
        self.headers = tuple(headers)
        """Header of each stamp: STMPTIME and so on."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The primary header as a plain dict."""
        return {str(key): self.header[key] for key in self.header if key}

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, number: int) -> NDArray[Any]:
        return self.stamps[number]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.stamps)

    def __repr__(self) -> str:
        return f"<guider, {len(self)} stamps>"


def read_guider(path: str, component: str | None = None) -> Any:
    """A guider's file, or one of its components: `header`, `stamps`. Raises `FormatError`."""
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False, lazy_load_hdus=component == "header") as file:
            header = file[0].header.copy()
            if component == "header":
                return header
            images = [hdu for hdu in file[1:] if hdu.is_image and hdu.header.get("NAXIS", 0)]
            found = GuiderStamps(header, [hdu.data for hdu in images], [hdu.header.copy() for hdu in images])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{Path(path)}: no readable guider file ({str(error)[:200]})") from error
    return found.stamps if component == "stamps" else found
