"""Verification of raw files: sums, structure, cards, sidecars, and every pixel against a recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright import assembly
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, NotFoundError, RaftwrightError
from raftwright.rawfile.checks import AGAIN, Recording, check_file
from raftwright.rawfile.container import verify_container
from raftwright.rawfile.findings import Finding, Findings, VerifyReport
from raftwright.rawfile.names import FileName, ImageName, container_version
from raftwright.rawfile.sidecar import read_json

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.daq import DaqImage

__all__ = ["verify"]

_SUFFIXES: Final = (".fits", ".fits.fz", ".fits.gz", ".fz")


def verify(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    against: DaqImage | str | os.PathLike[str] | None = None,
    *,
    camera: Camera | str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verifies raw files.

    Each file: does it read; do CHECKSUM and DATASUM hold, and ZDATASUM for the decoded pixels; are HDUs,
    sizes and cards those of its detector; does the sidecar say what the header says; do the missing pixels
    that are listed hold the fill value, and the others none. Of a directory also: is everything there that
    its manifests expect. Of a container: do its lists agree, and the sums of its members hold.

    Parameters
    ----------
    paths
        A file, a directory (searched to all depths) or several of them.
    against
        A recording (its directory) or an image of a store: every pixel is compared with it.
    camera
        Camera, its name or its file; by default the one that each file names.
    threads
        Threads that decode; every processor by default.
    progress
        Called with (files done, files in all).

    Returns
    -------
    VerifyReport
        `ok` when no finding is an error. What is wrong with a file is a finding, never an exception.

    Raises
    ------
    NotFoundError
        A path, the camera or the recording does not exist.
    FormatError
        The recording is none.
    """
    if isinstance(camera, str | os.PathLike):
        camera = find_camera(camera)
    roots = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    files, findings = _files(roots)
    containers = 0
    for path in _containers(roots):
        checked, found = verify_container(path)
        findings += found
        containers += checked is not None
    recording = Recording(assembly.open_image(against), camera, threads) if against is not None else None
    done = []
    # Board after board, so that each is assembled once.
    order = sorted(files, key=lambda path: (recording.location(path) if recording else "", path))
    for number, path in enumerate(order):
        verified, found = check_file(path, camera, recording, threads)
        done.append(verified)
        findings += found
        if progress is not None:
            progress(number + 1, len(order))
    name = recording.image.info.name if recording is not None else None
    return VerifyReport(tuple(done), tuple(findings), name, containers)


def _containers(roots: list[Path]) -> list[Path]:
    """Containers that are named, or stand in directories that are."""
    found: dict[Path, None] = {}
    for root in roots:
        if root.is_dir():
            found.update(dict.fromkeys(sorted(p for p in root.rglob("*.zip") if _is_container(p))))
        elif root.name.endswith(".zip"):
            found[root] = None
    return list(found)


def _is_container(path: Path) -> bool:
    """A zip of somebody else in a directory is none of ours."""
    try:
        container_version(path)
    except FormatError:
        return False
    return path.is_file()


def _files(roots: list[Path]) -> tuple[list[Path], list[Finding]]:
    files: dict[Path, None] = {}
    findings: list[Finding] = []
    for root in roots:
        if root.is_dir():
            inside = sorted(p for p in root.rglob("*") if p.name.endswith(_SUFFIXES) and p.is_file())
            if not inside and not any(map(_is_container, root.rglob("*.zip"))):
                findings.append(
                    Finding("error", str(root), "", "", "there are no FITS files in it", "name another")
                )
            files.update(dict.fromkeys(inside))
            for path in sorted(root.rglob("*.fits.conflict-*")):
                found = Findings(str(path))
                found.warning("", "", "another content of that name was kept here", "compare and remove one")
                findings += found
            for path in sorted(root.rglob("*_expectedSensors.json")):
                found = Findings(str(path))
                _check_manifest(path, found)
                findings += found
        elif root.exists():
            if not root.name.endswith(".zip"):
                files[root] = None
        else:
            raise NotFoundError(
                f"{root}: there is no such file or directory; name a raw file or a directory of some"
            )
    return list(files), findings


def _check_manifest(path: Path, found: Findings) -> None:
    try:
        content = read_json(path)
    except RaftwrightError as error:
        found.error("", "", str(error), AGAIN)
        return
    sensors, image = content.get("expectedSensors"), content.get("obsId")
    try:
        ImageName.parse(image if isinstance(image, str) else "")
    except FormatError as error:
        found.error("", "obsId", str(error), AGAIN)
        return
    if not isinstance(sensors, dict):
        found.error("", "expectedSensors", "is no object of sensors", AGAIN)
        return
    for sensor, kind in sensors.items():
        stem = f"{image}_{sensor}" + ("_guider" if kind == "GUIDER" else "")
        try:
            FileName.parse(f"{stem}.fits")
        except FormatError:
            found.error("", "expectedSensors", f"{ascii(sensor)[:40]} is no sensor", AGAIN)
            continue
        absent = [name for name in (f"{stem}.fits", f"{stem}.json") if not (path.parent / name).is_file()]
        if absent:
            found.error(
                "", sensor, f"expected, but {' and '.join(absent)} is not there", "assemble that source"
            )
