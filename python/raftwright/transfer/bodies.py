"""What is sent over HTTP: some bytes of a file, no faster than they may go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from raftwright.transfer.throttle import Throttle

__all__ = ["Body"]


class Body:
    """Some bytes of an open file, sent no faster than they may be. boto3 reads them once to sign and once to
    send: only what is sent counts."""

    def __init__(self, stream: BinaryIO, begin: int, size: int, throttle: Throttle) -> None:
        self._stream = stream
        self._begin = begin
        self._size = size
        self._at = 0
        self._throttle = throttle
        self.sending = False

    def __len__(self) -> int:
        return self._size

    def read(self, most: int | None = -1) -> bytes:
        """Raises OSError, OutageError once all is to end."""
        left = self._size - self._at
        count = left if most is None or most < 0 else min(most, left)
        self._stream.seek(self._begin + self._at)
        piece = self._stream.read(count)
        self._at += len(piece)
        if self.sending:
            self._throttle.take(len(piece))
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """As a file's."""
        return self._at
