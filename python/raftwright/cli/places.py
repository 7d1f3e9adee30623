"""Where output goes: whether it can, and single files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from raftwright.errors import ConflictError, StorageError

__all__ = ["check_output_directory", "publish_file"]


def check_output_directory(path: Path) -> None:
    """Raises StorageError unless files can be made in a directory, or the directory itself."""
    there = path.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise StorageError(20, "is no directory; name another one for the output", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(13, "must not be written to by this user; name another directory", str(there))


def publish_file(writer: Any, path: Path, *, overwrite: bool) -> dict[str, Any]:
    """Publishes a file: `writer` is called with a path and publishes there as `_core.publish_bytes` does.

    With `overwrite` whatever is there is replaced in one step. Otherwise the same content is fine, and
    another one raises ConflictError: then nothing new is kept, because it can be made again at any time.
    """
    if path.is_dir():
        raise StorageError(21, "is a directory; name the file", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be made ({error.strerror})", str(path.parent)) from error
    if overwrite and os.path.lexists(path):
        beside = path.with_name(f".{path.name[:100]}.{os.getpid()}-{os.urandom(4).hex()}.partial")
        try:
            result: dict[str, Any] = writer(str(beside))
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            if isinstance(error, StorageError):
                raise
            raise StorageError(error.errno, f"cannot be replaced ({error.strerror})", str(path)) from error
        return {**result, "status": "replaced", "path": str(path)}
    result = writer(str(path))
    if result["status"] == "conflict":
        kept = Path(result["path"])
        if kept != path:
            kept.unlink(missing_ok=True)
        raise ConflictError(
            f"{path}: another file stands there and is left as it is; name another one with --out, or say "
            "--overwrite"
        )
    return result
