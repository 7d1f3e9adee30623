"""When a camera on a cadence took its first image: kept in a file, a new start goes on from there."""

from __future__ import annotations

import datetime
import os
import re
import time
from pathlib import Path
from typing import Final

from raftwright.errors import FormatError, StorageError

__all__ = ["dayobs", "read_epoch"]

_EPOCH: Final = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)(?:\s+([0-9]{8}))?\s*\Z")


def read_epoch(text: str | None, day: str | None, delay: float = 1.0) -> tuple[float | None, str]:
    """When the first image begins (None: as soon as it can), and the day in the names.

    `text` is a Unix time or a file that keeps one; it is made where there is none, for `delay` seconds from
    now. Raises FormatError,
    StorageError.
    """
    now = time.time()
    if text is None:
        return None, day or dayobs(now)
    match = _EPOCH.match(text)
    if match is None:
        path = Path(text)
        try:
            match = _EPOCH.match(path.read_text(encoding="ascii")[:100])
            if match is None:
                raise FormatError(f"{path}: no time in it; remove it, or name another file with --epoch")
        except FileNotFoundError:
            began = round(now + delay, 3)
            _keep_epoch(path, f"{began:.3f} {day or dayobs(began)}\n")
            return began, day or dayobs(began)
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(getattr(error, "errno", None) or 5, "cannot be read", str(path)) from error
    began = float(match[1])
    return began, day or match[2] or dayobs(began)


def _keep_epoch(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_text(text, encoding="ascii")
        os.replace(beside, path)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


def dayobs(moment: float) -> str:
    """Of a Unix time: the day changes at noon UTC."""
    return f"{datetime.datetime.fromtimestamp(moment - 43200, datetime.UTC):%Y%m%d}"
