"""Names: of images, of the files of an image, of the directories they stand in.

    <dayobs>/<image>/<image>_<raft>_<slot>.fits        MC_O_20261122_000123_R22_S11.fits
    <dayobs>/<image>/<image>_<raft>_<slot>.json        the sidecar
    <dayobs>/<image>/<image>_expectedSensors.json      the manifest
    <dayobs>/<image>/<image>_<raft>_<slot>.v2.fits     a later version that lacks fewer pixels; .v2.json
    <dayobs>/<image>/<image>.zip                       all of these in one file; .v2.zip with what came later

An image name is `<source>_<controller>_<YYYYMMDD>_<nnnnnn>`. A name that does not parse is refused: no
identity is made up for it, and nothing that could leave the output directory ever becomes part of a path.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftwright.errors import FormatError, UsageError

__all__ = [
    "MAX_VERSION",
    "FileName",
    "ImageName",
    "check_path",
    "container_name",
    "container_version",
    "image_directory",
    "manifest_name",
    "newest",
    "raw_file_name",
    "sidecar_path",
]

_IMAGE: Final = r"([A-Z]{2})_([A-Z])_([0-9]{8})_([0-9]{6})"
_IMAGE_NAME = re.compile(_IMAGE + r"\Z")
_FILE_NAME = re.compile(
    rf"({_IMAGE})_([A-Za-z0-9]{{1,16}})_([A-Za-z0-9]{{1,16}})(_guider)?(?:\.v([1-9][0-9]{{0,3}}))?\.fits(?:\.fz|\.gz)?\Z"
)
_CONTAINER = re.compile(rf"({_IMAGE})(?:\.v([1-9][0-9]{{0,3}}))?\.zip\Z")
_PART = re.compile(r"[A-Za-z0-9]{1,16}\Z")
MAX_VERSION: Final = 9999
_SUFFIXES: Final = (".fits.fz", ".fits.gz", ".fits", ".fz")


@dataclass(frozen=True, slots=True, order=True)
class ImageName:
    """`MC_O_20261122_000123`: camera code, controller, observing day, number of the image in that day."""

    source: str
    controller: str
    dayobs: str
    seqnum: int

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Raises `FormatError` for every name that is not exactly of this form with a day that exists."""
        match = _IMAGE_NAME.match(text)
        if match is None:
            raise FormatError(
                f"{text[:80]!r} is not an image name; expected <XX>_<X>_<YYYYMMDD>_<six digits>, "
                "as in MC_O_20261122_000123"
            )
        day = match[3]
        try:
            datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
        except ValueError:
            raise FormatError(f"{text!r} is not an image name; {day} is no day of the calendar") from None
        return cls(match[1], match[2], day, int(match[4]))

    def __str__(self) -> str:
        return f"{self.source}_{self.controller}_{self.dayobs}_{self.seqnum:06}"


@dataclass(frozen=True, slots=True)
class FileName:
    """The parts of the name of a raw file: `MC_O_20261122_000123_R22_S11.fits`, also `.fits.fz`,
    `.fits.gz`."""

    image: ImageName
    raft: str
    slot: str
    guider: bool
    version: int = 1

    @classmethod
    def parse(cls, path: str | Path) -> FileName:
        """Raises `FormatError` when the last part of `path` is not the name of a raw file."""
        name = Path(path).name
        match = _FILE_NAME.match(name)
        if match is None:
            raise FormatError(
                f"{name[:80]!r} is not the name of a raw file; expected <image>_<raft>_<slot>.fits, as in "
                "MC_O_20261122_000123_R22_S11.fits"
            )
        version = int(match[9]) if match[9] else 1
        if match[9] and not 2 <= version <= MAX_VERSION:
            raise FormatError(
                f"{name[:80]!r} is not the name of a raw file; versions go from v2 to v{MAX_VERSION}"
            )
        return cls(ImageName.parse(match[1]), match[6], match[7], match[8] is not None, version)


def check_path(path: str | Path) -> None:
    """Raises `UsageError` for a path that the core cannot take: not UTF-8, or with a NUL in it."""
    try:
        encoded = str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{ascii(str(path))[:400]}: this name is not UTF-8; rename it") from None
    if b"\0" in encoded:
        raise UsageError(f"{ascii(str(path))[:400]}: a name has no NUL in it; name another")


def raw_file_name(image: ImageName, raft: str, slot: str, version: int = 1) -> str:
    """Name of the raw file of a CCD; raft and slot as the header has them (`R00`, `S00` for AuxTel).

    Version 1 has no mark; a later one, which has pixels that the one before it lacks, is `.v2.fits`.
    """
    for part, what in ((raft, "raft"), (slot, "slot")):
        if not _PART.match(part):
            raise FormatError(
                f"{part[:40]!r} cannot be the {what} in a file name; use letters and digits only"
            )
    if not 1 <= version <= MAX_VERSION:
        raise FormatError(f"{image}_{raft}_{slot}: {version} is no version; they go from 1 to {MAX_VERSION}")
    return f"{image}_{raft}_{slot}.fits" if version == 1 else f"{image}_{raft}_{slot}.v{version}.fits"


def newest(paths: Iterable[Path]) -> list[Path]:
    """Those of some files that no later version beside them stands for, in their order."""
    listed = list(paths)
    latest: dict[tuple[Path, str], tuple[int, Path]] = {}
    for path in listed:
        version, key = _version(path)
        if key not in latest or latest[key][0] < version:
            latest[key] = (version, path)
    chosen = {path for _, path in latest.values()}
    return [path for path in listed if path in chosen]


def _version(path: Path) -> tuple[int, tuple[Path, str]]:
    try:
        version = FileName.parse(path).version
    except FormatError:
        version = 1
    return version, (path.parent, path.name.replace(f".v{version}.fits", ".fits", 1))


def image_directory(out: Path, image: ImageName) -> Path:
    """`<out>/<dayobs>/<image>`. The day is the one in the name, never a clock's."""
    return out / image.dayobs / str(image)


def sidecar_path(path: Path) -> Path:
    """The sidecar of a raw file: same stem, `.json`."""
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            return path.with_name(path.name.removesuffix(suffix) + ".json")
    return path.with_name(path.name + ".json")


def manifest_name(image: ImageName) -> str:
    """`<image>_expectedSensors.json`."""
    return f"{image}_expectedSensors.json"


def container_name(image: ImageName, version: int = 1) -> str:
    """`<image>.zip`; a later version, which has files that came after the one before it, is `.v2.zip`.
    Raises `FormatError`."""
    if not 1 <= version <= MAX_VERSION:
        raise FormatError(f"{image}.zip: {version} is no version; they go from 1 to {MAX_VERSION}")
    return f"{image}.zip" if version == 1 else f"{image}.v{version}.zip"


def container_version(path: str | Path) -> tuple[ImageName, int]:
    """The image and the version that the name of a container says. Raises `FormatError`."""
    name = Path(path).name
    match = _CONTAINER.match(name)
    if match is None or match[6] == "1":
        raise FormatError(f"{name[:80]!r} is not the name of a container; expected <image>.zip")
    return ImageName.parse(match[1]), int(match[6] or 1)
