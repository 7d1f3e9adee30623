"""What the paths on a command line are: an image of the DAQ, or the raw files of one image.

`Exposure` is either of them, CCD by CCD: what `mosaic` and `show` draw from. The pixels of one board, or of
one file a thread, are in memory at a time, never those of a whole focal plane.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.picture.canvas import CcdPixels

if TYPE_CHECKING:
    from raftwright.camera import Camera, Detector, Geometry
    from raftwright.cli.progress import Advance
    from raftwright.daq import DaqImage
    from raftwright.rawfile import RawFile

__all__ = ["Exposure", "find_raw_files", "open_daq", "open_exposure"]

_SUFFIXES: Final = (".fits", ".fits.fz", ".fits.gz")
_DEPTH: Final = 3
"""How far below a directory raw files are looked for: <out>/<dayobs>/<image>/."""
_MOST_FILES: Final = 100_000


class Exposure(Protocol):
    """The CCDs of one image, wherever they are."""

    @property
    def name(self) -> str:
        """Name of the image."""

    @property
    def camera(self) -> Camera:
        """What took it."""

    @property
    def ccds(self) -> Sequence[tuple[Detector, Geometry]]:
        """The CCDs asked for, with the sizes of their segments."""

    def each(
        self, take: Callable[[CcdPixels], None], *, threads: int | None, progress: Advance | None
    ) -> None:
        """Hands over every CCD once; `take` runs in several threads, one CCD each."""


def open_daq(text: str, image: str | None = None, *, salvage: bool = False) -> DaqImage:
    """The image that a recording's directory, a directory of recordings or a store (`simulated:…`) means."""
    from raftwright.assembly import open_image
    from raftwright.daq import RecordedStore, open_recording
    from raftwright.daq.recording import is_recording

    if os.path.isdir(text):
        if is_recording(text):
            opened = open_recording(text, salvage=salvage)
            if image is not None and image != opened.info.name:
                raise NotFoundError(f"{text}: is a recording of {opened.info.name}, not of {image}")
            return opened
        store = RecordedStore(text, salvage=salvage)
        names = store.images()
        if not names:
            problems = store.problems()
            raise NotFoundError(
                f"{text}: no recording in it{': ' + problems[0] if problems else ''}; a recording is a "
                "directory with image.json"
            )
        if image is None and len(names) > 1:
            raise UsageError(f"{text}: {len(names)} recordings, {_some(names)}; choose one with --image")
        return store.image(image or names[0])
    if not os.path.exists(text) and ":" not in text:
        raise NotFoundError(f"{text}: there is no such directory; give that of a recording")
    if os.path.exists(text):
        raise UsageError(f"{text}: is a file; give the directory of a recording, which has image.json in it")
    return open_image(text, image)


def open_exposure(
    paths: Sequence[str],
    *,
    camera: str | None = None,
    image: str | None = None,
    rafts: Sequence[str] | None = None,
    detectors: Sequence[str] | None = None,
    threads: int | None = None,
    salvage: bool = False,
) -> Exposure:
    """The CCDs that the paths show, or those of some rafts or detectors of them.

    Raises UsageError (nothing of what was asked for, several images), NotFoundError and what reading raises.
    """
    from raftwright.daq.recording import is_recording

    is_store = not os.path.exists(paths[0]) and ":" in paths[0]
    if (
        is_store
        or any(os.path.isdir(path) and is_recording(path) for path in paths)
        or _only_recordings(paths)
    ):
        if len(paths) > 1:
            raise UsageError(f"{len(paths)} paths, one of them a recording; give one recording, or raw files")
        return _Recorded(open_daq(paths[0], image, salvage=salvage), camera, rafts, detectors)
    return _Raws(find_raw_files(paths), camera, image, rafts, detectors, threads)


def _only_recordings(paths: Sequence[str]) -> bool:
    """Whether a directory holds recordings rather than raw files."""
    from raftwright.daq.recording import is_recording

    if len(paths) != 1 or not os.path.isdir(paths[0]):
        return False
    try:
        with os.scandir(paths[0]) as entries:
            return any(entry.is_dir() and is_recording(entry.path) for entry in entries)
    except OSError:
        return False


def find_raw_files(paths: Iterable[str]) -> list[Path]:
    """Files as they are given; of directories the raw files in them, up to three levels down, sorted.

    In a directory only what is named as a raw file counts (not guider stamps, mosaics, copies set aside);
    where nothing is, every FITS file does. Raises NotFoundError, StorageError.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            for file in _raw_files_below(path):
                found[file] = None
        elif os.path.lexists(path):
            found[path] = None
        else:
            raise NotFoundError(f"{text}: there is no such file or directory")
    return list(found)


def _raw_files_below(top: Path) -> list[Path]:
    from raftwright.rawfile import FileName
    from raftwright.rawfile.names import newest

    named: list[Path] = []
    others: list[Path] = []
    level = [top]
    for _ in range(_DEPTH):
        below: list[Path] = []
        for directory in level:
            try:
                with os.scandir(directory) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                raise StorageError(
                    error.errno, f"cannot be read ({error.strerror})", str(directory)
                ) from error
            for entry in inside:
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    below.append(path)
                elif entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
                    try:
                        name = FileName.parse(path)
                    except FormatError:
                        others.append(path)
                    else:
                        if not name.guider:
                            named.append(path)
                if len(named) + len(others) > _MOST_FILES:
                    raise UsageError(
                        f"{top}: more than {_MOST_FILES} FITS files below it; name a directory further down"
                    )
        level = below
    files = newest(named) or others
    if not files:
        raise NotFoundError(
            f"{top}: no raw FITS file in it or up to {_DEPTH - 1} levels below; give another directory"
        )
    return files


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" .." if len(names) > 3 else "")


def _chosen(
    camera: Camera,
    present: Sequence[Detector],
    rafts: Sequence[str] | None,
    detectors: Sequence[str] | None,
    what: str,
) -> set[str]:
    """Names of the detectors asked for. Raises NotFoundError for one that the camera or the image lacks."""
    here = {detector.name for detector in present}
    if rafts is None and detectors is None:
        return here
    wanted: set[str] = set()
    for name in rafts or ():
        raft = camera.raft(name)
        members = {detector.name for detector in raft.detectors} & here
        if not members:
            raise NotFoundError(
                f"{what} has nothing of raft {raft.name}; there are {_some(sorted(_rafts(present)))}"
            )
        wanted |= members
    for text in detectors or ():
        detector = camera.detector(int(text) if text.isdecimal() and len(text) < 6 else text)
        if detector.name not in here:
            raise NotFoundError(f"{what} has no data of {detector.name}; there are {_some(sorted(here))}")
        wanted.add(detector.name)
    return wanted


def _rafts(detectors: Iterable[Detector]) -> set[str]:
    return {detector.raft for detector in detectors}


class _Recorded:
    """An image of the DAQ."""

    def __init__(
        self,
        image: DaqImage,
        camera: str | None,
        rafts: Sequence[str] | None,
        detectors: Sequence[str] | None,
    ) -> None:
        from raftwright.camera import camera as find_camera

        self.name = image.info.name
        self.camera = find_camera(camera or image.info.camera)
        self._image = image
        boards = {source.location: self.camera.board(source.location) for source in image.info.sources}
        present = [detector for board in boards.values() for detector in board.detectors]
        self._wanted = _chosen(self.camera, present, rafts, detectors, self.name)
        self.ccds = [
            (detector, source.registers.geometry)
            for source in image.info.sources
            for detector in boards[source.location].detectors
            if detector.name in self._wanted
        ]
        self._boards = [
            board for board in boards.values() if any(d.name in self._wanted for d in board.detectors)
        ]

    def each(
        self, take: Callable[[CcdPixels], None], *, threads: int | None, progress: Advance | None
    ) -> None:
        from raftwright.assembly import AssembledSource, read_sources

        def completed(source: AssembledSource) -> None:
            for detector in source.board.detectors:
                if detector.name in self._wanted:
                    planes = [source.readout.plane(plane) for plane in source.board.planes_of(detector)]
                    missing = source.missing_pixels(detector)
                    take(
                        CcdPixels(
                            detector, source.geometry, planes, source.fill if missing else None, missing
                        )
                    )

        read_sources(self._image, self._boards, completed, threads=threads, progress=progress)


class _Raws:
    """Raw files of one image."""

    def __init__(
        self,
        paths: Sequence[Path],
        camera: str | None,
        image: str | None,
        rafts: Sequence[str] | None,
        detectors: Sequence[str] | None,
        threads: int | None,
    ) -> None:
        from raftwright._core import usable_processors
        from raftwright.rawfile import open_raw

        self._threads = threads or usable_processors()
        # Few files: more threads inside each of them.
        inside = max(1, self._threads // len(paths))
        files = [open_raw(path, threads=inside, camera=camera) for path in paths]
        for file in files:
            if "N_STAMPS" in file.header:
                raise FormatError(
                    f"{file.path}: guider stamps are no readout of a CCD; give raw files of whole CCDs"
                )
        if image is not None:
            files = [file for file in files if _image_name(file) == image]
            if not files:
                raise NotFoundError(f"no raw file of {image} among {len(paths)} files; look at the names")
        names = sorted({_image_name(file) for file in files})
        if len(names) > 1:
            raise UsageError(f"raw files of {len(names)} images, {_some(names)}; choose one with --image")
        cameras = sorted({file.camera.name for file in files})
        if len(cameras) > 1:
            raise UsageError(f"raw files of {' and '.join(cameras)}; give those of one camera")
        self.name = names[0]
        self.camera = files[0].camera
        seen: dict[str, RawFile] = {}
        for file in files:
            other = seen.setdefault(file.detector.name, file)
            if other is not file:
                raise UsageError(
                    f"{other.path} and {file.path} both show {file.detector.name}; give one of them"
                )
        wanted = _chosen(self.camera, [file.detector for file in files], rafts, detectors, self.name)
        self._files = [file for file in files if file.detector.name in wanted]
        self.ccds = [(file.detector, file.geometry) for file in self._files]

    def each(
        self, take: Callable[[CcdPixels], None], *, threads: int | None, progress: Advance | None
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        sizes = [_size(file) for file in self._files]
        total, done, lock = sum(sizes), 0, threading.Lock()
        workers = min(threads or self._threads, len(self._files))

        def one(file: RawFile, size: int) -> None:
            nonlocal done
            planes = file.planes()
            missing = file.missing_pixels
            fill = file.header.get("FILLVAL")
            value = (fill if isinstance(fill, int) else -1) if missing else None
            take(CcdPixels(file.detector, file.geometry, planes, value, missing))
            file.segments.drop()
            with lock:
                done += size
                if progress is not None:
                    progress(done, total)

        with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
            tasks = [pool.submit(one, file, size) for file, size in zip(self._files, sizes, strict=True)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise


def _image_name(file: RawFile) -> str:
    """OBSID, or for files of others the name of the file."""
    return file.header.string("OBSID") or file.header.string("IMGNAME") or file.path.name


def _size(file: RawFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError:
        return 0
