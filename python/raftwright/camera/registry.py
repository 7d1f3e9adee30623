"""Cameras by name or by file. A built-in camera is nothing but a file in `data/`."""

from __future__ import annotations

import difflib
import functools
import os
from pathlib import Path

from raftwright.camera.build import build_camera
from raftwright.camera.document import CameraFileError, Findings, Problem, read_document
from raftwright.camera.model import Camera
from raftwright.camera.schema import read_entries
from raftwright.errors import NotFoundError, StorageError

__all__ = ["camera", "camera_by_instrume", "camera_names", "check_file"]

_SUFFIXES = (".yaml", ".yml")


@functools.cache
def _built_in() -> dict[str, Path]:
    folder = Path(__file__).with_name("data")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def camera_names() -> tuple[str, ...]:
    """Names of the built-in cameras."""
    return tuple(_built_in())


def camera(name_or_path: str | os.PathLike[str] | Camera) -> Camera:
    """A camera by the name of a built-in one, or from a camera file.

    A text with a path separator or ending in `.yaml` or `.yml` is a path. What was read is kept; a file that
    has changed since is read again. A Camera is given back as it is.

    Raises NotFoundError (no such name or file), CameraError (the file contradicts itself: a CameraFileError
    with all `problems`, the first of them as its message), StorageError (the file cannot be read).
    """
    if isinstance(name_or_path, Camera):
        return name_or_path
    text = os.fspath(name_or_path)
    path = None if _is_path(name_or_path) else _built_in().get(text)
    if path is not None:
        return _read(str(path), 0, 0)
    if not _is_path(name_or_path):
        names = camera_names()
        by_case = {name.lower(): name for name in names}
        near = difflib.get_close_matches(text[:40].lower(), by_case, n=1)
        hint = f"did you mean {by_case[near[0]]}?" if near else f"there are {', '.join(names)}."
        raise NotFoundError(f"no camera {text[:40]!a} is built in; {hint} Or give a camera file (*.yaml)")
    try:
        status = os.stat(text)
    except FileNotFoundError:
        shown = text if text.isprintable() else ascii(text)[1:-1]
        raise NotFoundError(f"{shown}: there is no such camera file; give the path of one") from None
    except ValueError as error:
        raise NotFoundError(f"{text[:40]!a}: not the path of a file ({error}); give another") from None
    except OSError as error:
        raise StorageError(error.errno, f"camera file cannot be read ({error.strerror})", text) from error
    return _read(os.path.abspath(text), status.st_mtime_ns, status.st_size)


def camera_by_instrume(instrume: str) -> Camera:
    """The built-in camera whose images say this INSTRUME (case does not matter). Raises NotFoundError."""
    wanted = instrume.strip().lower()
    for found in map(camera, camera_names()):
        if wanted in (name.lower() for name in (found.instrume, found.name, *found.aliases)):
            return found
    raise NotFoundError(
        f"INSTRUME {instrume[:40]!a} is no built-in camera's; name the camera or give its file"
    )


def check_file(path: str | os.PathLike[str]) -> list[Problem]:
    """Every contradiction in a camera file, with its place; up to document.MAX_PROBLEMS of them.

    Raises NotFoundError or StorageError if there is nothing to read. A file that is not YAML at all, or too
    large, is one problem.
    """
    try:
        findings, _ = _examine(os.fspath(path))
    except CameraFileError as error:
        return error.problems
    return findings.problems


def _is_path(name: str | os.PathLike[str]) -> bool:
    return not isinstance(name, str) or os.sep in name or name.lower().endswith(_SUFFIXES)


def _examine(path: str) -> tuple[Findings, Camera | None]:
    findings = Findings(read_document(path))
    entry = read_entries(findings)
    return findings, None if entry is None else build_camera(entry, findings)


@functools.lru_cache(maxsize=16)
def _read(path: str, _changed: int, _size: int) -> Camera:
    findings, found = _examine(path)
    if findings.problems or found is None:
        raise CameraFileError(findings.problems)
    return found
