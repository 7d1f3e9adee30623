"""FITS files as they are sent, whole or in parts."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from raftwright.errors import FormatError, MissingExtraError, NotFoundError, StorageError

try:
    from starlette.responses import FileResponse
except ImportError as error:
    raise MissingExtraError(
        "the OODS over HTTP needs Starlette; install it with `pip install 'raftwright[web]'`"
    ) from error

__all__ = ["FitsFile"]

_RANGE: Final = re.compile(
    rb"bytes=[ \t]*(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})"
    rb"(?:[ \t]*,[ \t]*(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})){0,99}[ \t]*\Z"
)


class FitsFile(FileResponse):
    """A file that is opened once, and sent from what was opened: no link that is put in its place meanwhile
    is followed. A range that is none, or of another unit, is as good as none.

    Raises NotFoundError, FormatError where it has another size than was ingested, StorageError.
    """

    def __init__(self, path: Path, size: int, crc32c: str) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: is not there any more") from None
        except OSError as error:
            raise StorageError(error.errno, f"cannot be opened ({error.strerror})", str(path)) from error
        try:
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode):
                raise NotFoundError(f"{path}: is no regular file any more")
            if size and found.st_size != size:
                raise FormatError(f"{path}: has {found.st_size} bytes, not the {size} that were ingested")
            super().__init__(
                f"/proc/self/fd/{self._file}",
                media_type="application/fits",
                filename=path.name,
                stat_result=found,
                headers={"X-CRC32C": crc32c} if crc32c else {},
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    __del__ = close

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See `FileResponse`."""
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"range" or _RANGE.match(value)
        ]
        try:
            await super().__call__({**scope, "headers": headers}, receive, send)
        finally:
            self.close()
