"""Reading raw files back: own ones, and those that others wrote.

Plain images and RICE_1 are decoded by the core, in parallel; other codecs and scaled pixels by astropy. A
file that is gzipped as a whole is unpacked in memory, up to a stated size.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from raftwright import _core, assembly
from raftwright.camera import Geometry, camera_by_instrume, ccd_mosaic
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.rawfile.header import Header
from raftwright.rawfile.names import check_path
from raftwright.rawfile.newest import newest_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.camera import Camera, Detector

T = TypeVar("T")

__all__ = ["MAX_UNPACKED", "RawFile", "Segments", "geometry_of", "open_raw"]

MAX_UNPACKED: Final = 1 << 30
"""Largest file, in bytes, that a gzipped one may unpack to unless the caller says otherwise."""

_GZIP: Final = b"\x1f\x8b"
_STEP: Final = 1 << 20
_SECTION = re.compile(r" *\[ *([0-9]{1,6}) *: *([0-9]{1,6}) *, *([0-9]{1,6}) *: *([0-9]{1,6}) *\] *\Z")


def open_raw(
    path: str | os.PathLike[str],
    threads: int | None = None,
    *,
    camera: Camera | str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_UNPACKED,
) -> RawFile:
    """Opens a raw file: structure and headers now, pixels when they are asked for.

    Parameters
    ----------
    path
        A FITS file, tile-compressed or not, also gzipped as a whole (whatever its name).
    threads
        Threads that decode; every processor by default.
    camera
        Camera, its name or its file; by default the one that INSTRUME names.
    max_bytes
        Largest size that a gzipped file may unpack to.

    Raises
    ------
    FormatError
        No FITS file, or one that contradicts itself; the message names the HDU and the byte.
    StorageError
        The file cannot be read.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads can do nothing; ask for at least 1, or leave it out")
    name = os.fspath(path)
    check_path(name)
    return RawFile(
        Path(name), _open(name, max_bytes), threads or _core.usable_processors(), camera, max_bytes
    )


def _open(name: str, max_bytes: int) -> _core.FitsFile:
    magic = b""
    try:
        if Path(name).is_file():  # nothing else is waited for
            with open(name, "rb") as stream:
                magic = stream.read(2)
    except OSError:
        pass  # the core says what is wrong
    if magic != _GZIP:
        return _core.FitsFile.open(name)
    return _core.FitsFile.from_buffer(_unzipped(name, max_bytes), name)


def _unzipped(name: str, limit: int) -> bytearray:
    """Contents of a gzipped file (one member or several), refused beyond `limit` bytes."""
    out = bytearray()
    unpack = zlib.decompressobj(wbits=31)
    try:
        with open(name, "rb") as stream:
            data = stream.read(_STEP)
            while data:
                out += unpack.decompress(data, _STEP)
                if len(out) > limit:
                    raise FormatError(
                        f"{name}: unpacks to more than {limit} bytes; raise max_bytes to read it"
                    )
                if unpack.eof:
                    rest = unpack.unused_data.lstrip(b"\0") or stream.read(_STEP).lstrip(b"\0")
                    if not rest:
                        return out
                    unpack = zlib.decompressobj(wbits=31)
                    data = rest
                else:
                    data = unpack.unconsumed_tail or stream.read(_STEP)
    except zlib.error as error:
        raise FormatError(f"{name}: damaged gzip data ({error}); fetch it again") from None
    except OSError as error:
        raise StorageError(error.errno, f"cannot read it: {error.strerror}", name) from error
    raise FormatError(f"{name}: the gzip data ends before its end; fetch it again")


class Segments(Mapping[str, "NDArray[Any]"]):
    """Images of a file by EXTNAME, in the order of their HDUs.

    `segments["Segment10"]` decodes that image alone, `segments.values()`, `.items()` and `.read()` all of
    them in parallel; each is decoded once. Where a name is there again, its key is `NAME,EXTVER`
    (`IMAGE,2`).
    """

    def __init__(self, fits: _core.FitsFile, name: str, threads: int, max_bytes: int = MAX_UNPACKED) -> None:
        self._fits = fits
        self._file = name
        self._threads = threads
        self._max_bytes = max_bytes
        self._pixels: dict[str, NDArray[Any]] = {}
        self.hdus: dict[str, int] = {}
        """HDU of each key."""
        for hdu in range(len(fits)):
            info = fits.info(hdu)
            if info["kind"] in ("primary", "image", "compressed") and info["shape"]:
                self.hdus[self._key(hdu, info)] = hdu

    def _key(self, hdu: int, info: dict[str, Any]) -> str:
        name = str(info["name"]) or ("PRIMARY" if hdu == 0 else f"HDU{hdu}")
        if name not in self.hdus:
            return name
        numbered = f"{name},{info['version']}"
        return numbered if numbered not in self.hdus else f"{name},HDU{hdu}"

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._pixels:
            self._pixels[name] = self._read([self._hdu(name)])[0]
        return self._pixels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.hdus)

    def __len__(self) -> int:
        return len(self.hdus)

    def __contains__(self, name: object) -> bool:
        return name in self.hdus

    @overload
    def get(self, name: str, default: None = None, /) -> NDArray[Any] | None: ...
    @overload
    def get(self, name: str, default: T, /) -> NDArray[Any] | T: ...
    def get(self, name: str, default: T | None = None, /) -> NDArray[Any] | T | None:
        return self[name] if name in self.hdus else default

    def values(self) -> ValuesView[NDArray[Any]]:
        self.read()
        return super().values()

    def items(self) -> ItemsView[str, NDArray[Any]]:
        self.read()
        return super().items()

    def read(self) -> None:
        """Decodes everything that is not decoded yet."""
        wanted = [name for name in self.hdus if name not in self._pixels]
        arrays = self._read([self.hdus[name] for name in wanted])
        self._pixels.update(zip(wanted, arrays, strict=True))

    def drop(self) -> None:
        """Forgets the pixels; they are decoded anew when they are asked for."""
        self._pixels.clear()

    def _hdu(self, name: str) -> int:
        try:
            return self.hdus[name]
        except KeyError:
            have = ", ".join(list(self.hdus)[:20]) or "none"
            raise NotFoundError(f"{self._file}: no image {name[:60]!r}; there are {have}") from None

    def _read(self, hdus: list[int]) -> list[NDArray[Any]]:
        ours = [hdu for hdu in hdus if self._fits.info(hdu)["decodable"]]
        done = dict(zip(ours, self._fits.read_many(ours, self._threads), strict=True)) if ours else {}
        theirs = [hdu for hdu in hdus if hdu not in done]
        if theirs:
            done.update(_by_astropy(self._file, theirs, self._max_bytes))
        return [done[hdu] for hdu in hdus]

    def __repr__(self) -> str:
        return f"<{len(self)} images of {self._file}: {', '.join(list(self)[:20])}>"


def _by_astropy(name: str, hdus: list[int], max_bytes: int) -> dict[int, NDArray[Any]]:
    import numpy as np
    from astropy.io import fits  # slow to import, and hardly ever needed

    try:
        with open(name, "rb") as stream:
            magic = stream.read(2)
        source: Any = io.BytesIO(_unzipped(name, max_bytes)) if magic == _GZIP else name
        with fits.open(source, memmap=False, ignore_blank=True) as file:
            arrays = {hdu: np.asarray(file[hdu].data) for hdu in hdus}
        return {
            hdu: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
            for hdu, array in arrays.items()
        }
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(
            f"{name}: astropy cannot decode HDU {hdus[0]} either: {str(error)[:200]}"
        ) from error


def geometry_of(header: Header, shape: tuple[int, ...], detector: Detector | None, name: str) -> Geometry:
    """Geometry of a segment: from DATASEC and the image's size; without DATASEC the nominal one, if it fits.

    Raises `FormatError` when the two contradict each other or nothing says where the overscan begins.
    """
    if len(shape) != 2:
        raise FormatError(
            f"{name}: {header.string('EXTNAME') or 'an image'} has {len(shape)} axes; expected 2"
        )
    height, width = shape
    section = header.string("DATASEC")
    if section is None:
        nominal = detector.type.geometry if detector is not None else None
        if nominal is not None and (nominal.width, nominal.height) == (width, height):
            return nominal
        raise FormatError(
            f"{name}: no DATASEC says which of its {width} x {height} pixels are light-sensitive"
        )
    match = _SECTION.match(section)
    if match is not None:
        x0, x1, y0, y1 = (int(part) for part in match.groups())
        if 1 <= x0 <= x1 <= width and y0 == 1 <= y1 <= height:
            return Geometry(
                prescan=x0 - 1,
                columns=x1 - x0 + 1,
                overscan=width - x1,
                rows=y1,
                parallel_overscan=height - y1,
            )
    raise FormatError(f"{name}: DATASEC {section[:40]!r} is no section of {width} x {height} pixels")


class RawFile:
    """An open raw file. Headers are there; pixels are decoded when they are asked for."""

    def __init__(
        self,
        path: Path,
        fits: _core.FitsFile,
        threads: int,
        camera: Camera | str | os.PathLike[str] | None,
        max_bytes: int = MAX_UNPACKED,
    ) -> None:
        self.path = path
        self.fits = fits
        """Structure of the file, as the core sees it."""
        self.threads = threads
        self.file_header = Header(fits.cards(0))
        """Primary header as it stands in the file."""
        self.segments = Segments(fits, str(path), threads, max_bytes)
        """Images by name: arrays in readout order, int32 for the LSST cameras, shape (2048, 576)."""
        self._camera = camera

    @cached_property
    def header(self) -> Header:
        """Primary header, with what the newest sidecar knows better: raw files are never changed, and what
        came after they were written stands beside them."""
        return newest_header(self.path, self.file_header)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, in the order of their HDUs."""
        return tuple(self.segments)

    def segment_header(self, name: str) -> Header:
        """Header of an image's HDU as it stands in the file."""
        if name not in self.segments:
            raise NotFoundError(
                f"{self.path}: no image {name[:60]!r}; there are {', '.join(self.names[:20])}"
            )
        return Header(self.fits.cards(self.segments.hdus[name]))

    @cached_property
    def camera(self) -> Camera:
        """The camera that made it. Raises `NotFoundError` when INSTRUME names none that is known."""
        if isinstance(self._camera, str | os.PathLike):
            return find_camera(self._camera)
        if self._camera is not None:
            return self._camera
        instrume = self.file_header.string("INSTRUME")
        if instrume is None:
            raise NotFoundError(f"{self.path}: no INSTRUME says which camera made it; name the camera")
        try:
            return camera_by_instrume(instrume)
        except NotFoundError as error:
            raise NotFoundError(f"{self.path}: {error}") from None

    @cached_property
    def detector(self) -> Detector:
        """The detector it shows, by RAFTBAY and CCDSLOT. Raises `NotFoundError`."""
        camera = self.camera
        raft, slot = self.file_header.string("RAFTBAY"), self.file_header.string("CCDSLOT")
        if raft is None or slot is None:
            if len(camera.detectors) == 1:
                return camera.detectors[0]
            raise NotFoundError(
                f"{self.path}: no RAFTBAY and CCDSLOT say which CCD of {camera.name} it shows"
            )
        for detector in camera.detectors:
            if (raft, slot) in ((detector.header_raft, detector.header_slot), (detector.raft, detector.slot)):
                return detector
        raise NotFoundError(f"{self.path}: {camera.name} has no CCD {raft[:20]}_{slot[:20]}")

    @cached_property
    def geometry(self) -> Geometry:
        """Geometry of its segments, from DATASEC and the size of the first image."""
        if not self.segments:
            raise FormatError(f"{self.path}: there are no images in it")
        name = self.names[0]
        shape = tuple(self.fits.info(self.segments.hdus[name])["shape"])
        try:
            detector = self.detector
        except NotFoundError:
            detector = None
        return geometry_of(self.segment_header(name), shape, detector, str(self.path))

    @property
    def missing_pixels(self) -> int:
        """Pixels that the header says did not arrive (MISSPIX)."""
        count = self.file_header.get("MISSPIX")
        return count if isinstance(count, int) else 0

    def planes(self) -> list[NDArray[np.int32]]:
        """The segments of its detector as int32 arrays (height, width), in the camera's HDU order.

        Raises `FormatError` when one is absent, of another size, or holds values that are no int32.
        """
        wanted = [segment.name for segment in self.detector.segments]
        absent = [name for name in wanted if name not in self.segments]
        if absent:
            raise FormatError(f"{self.path}: no image of {', '.join(absent[:4])} of {self.detector.name}")
        self.segments.read()
        shape = (self.geometry.height, self.geometry.width)
        planes = []
        for name in wanted:
            pixels = self.segments[name]
            if pixels.shape != shape:
                raise FormatError(
                    f"{self.path}: {name} is of shape {pixels.shape}, the first image of {shape}"
                )
            planes.append(_as_int32(pixels, f"{self.path}: {name}"))
        return planes

    def mosaic(self, *, overscan: bool = False, bin: int = 1) -> NDArray[np.int32]:
        """The CCD as one int32 image along its own axes, x to the right, row 0 at the bottom.

        Shape (4000, 4072) for ITL, (4004, 4096) for E2V, with `overscan` (4096, 4608), divided by `bin`.
        """
        layout = ccd_mosaic(self.detector, self.geometry, overscan=overscan)
        fill = self.file_header.get("FILLVAL")
        given = isinstance(fill, int) and self.missing_pixels and -(2**31) <= fill < 2**31
        missing = int(fill) if given and isinstance(fill, int) else -1
        planes = {self.detector.name: self.planes()}
        return assembly.paint(layout, planes, bin=bin, missing=missing, fill=missing, threads=self.threads)

    def __repr__(self) -> str:
        return f"<raw file {self.path}: {len(self.segments)} images>"


def _as_int32(pixels: NDArray[Any], where: str) -> NDArray[np.int32]:
    import numpy as np

    if pixels.dtype == np.int32:
        return pixels
    if pixels.dtype.kind not in "iu":
        raise FormatError(f"{where} has pixels of type {pixels.dtype}; a raw has integers")
    limits = np.iinfo(np.int32)
    if pixels.size and (pixels.max() > limits.max or pixels.min() < limits.min):
        raise FormatError(f"{where} has values beyond 32 bits; a raw has none")
    return pixels.astype(np.int32)
