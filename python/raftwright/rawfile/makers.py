"""Whether somebody makes header documents in an archive: a file that is touched while its maker lives.

    <archive>/.header/alive.<code of the camera>       e.g. alive.CC

Who makes headers and who merges them meet in the archive anyway; so a maker that writes into another archive,
whose documents nobody here would ever see, is rightly none.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from raftwright.errors import StorageError

__all__ = ["SIGN_EVERY", "HeaderMakers", "give_sign", "take_sign_away"]

SIGN_EVERY: Final = 5.0
"""Seconds between two signs of life."""
_LIVES: Final = 60.0
"""Seconds after its last sign for which a maker is known."""
_STARTING: Final = 30.0
"""Age of a sign, by the wall clock, up to which it counts for who looks for the first time."""
_LOOK: Final = 1.0
_SHOWN: Final = 3600.0
"""Seconds for which a document that came says that others will come."""


def _sign(archive: str | os.PathLike[str], code: str) -> Path:
    return Path(archive) / ".header" / f"alive.{code}"


def give_sign(archive: str | os.PathLike[str], code: str) -> None:
    """Says that headers of a camera are made here. Raises StorageError."""
    path = _sign(archive, code)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(
            error.errno, f"nobody can be told that headers are made here ({error.strerror})", str(path)
        ) from error


def take_sign_away(archive: str | os.PathLike[str], code: str) -> None:
    """Says that no more headers come."""
    with contextlib.suppress(OSError):
        _sign(archive, code).unlink()


class HeaderMakers:
    """Who makes headers in an archive, seen by one who may wait for them. It belongs to one thread.

    A sign counts when it changed within the last minute, so that clocks need not agree; only the first look
    compares it with the wall clock.
    """

    def __init__(self, archive: str | os.PathLike[str]) -> None:
        self._archive = archive
        self._looked: dict[str, float] = {}
        self._signs: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def known(self, code: str) -> bool:
        """Whether headers of a camera are to be expected."""
        now = time.monotonic()
        if now - self._looked.get(code, -_LOOK) >= _LOOK:
            self._looked[code] = now
            self._look(code, now)
        return now < self._until.get(code, now)

    def came(self, code: str) -> None:
        """A document came: whoever made it will make others."""
        self._until[code] = max(self._until.get(code, 0.0), time.monotonic() + _SHOWN)

    def _look(self, code: str, now: float) -> None:
        try:
            touched = os.stat(_sign(self._archive, code)).st_mtime_ns
        except (OSError, ValueError):
            if self._signs.pop(code, 0):  # it was taken away
                self._until.pop(code, None)
            return
        before = self._signs.get(code)
        self._signs[code] = touched
        fresh = before is None and abs(time.time() - touched * 1e-9) < _STARTING
        if fresh or (before is not None and before != touched):
            self._until[code] = max(self._until.get(code, 0.0), now + _LIVES)
