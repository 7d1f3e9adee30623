"""Images that were asked for lately, so that many pulls of one image open it once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from raftwright.daq.store import DaqImage, Store

__all__ = ["Shelf", "Shelved"]

_FRESH = 2.0
"""Seconds after which the store is asked again: a name may have got another content."""
_MOST_IMAGES = 64
_MOST_SUMS = 16384


class Shelved:
    """An image, and the CRCs of chunks of it that were served from memory."""

    __slots__ = ("image", "opened", "sums")

    def __init__(self, image: DaqImage) -> None:
        self.image = image
        self.opened = time.monotonic()
        self.sums: dict[tuple[str, int, int], int] = {}
        """(location, offset, length) -> CRC-32C."""

    def remember(self, location: str, offset: int, length: int, crc: int) -> None:
        """Keeps a sum, up to a number of them."""
        if len(self.sums) >= _MOST_SUMS:
            self.sums.clear()
        self.sums[location, offset, length] = crc


class Shelf:
    """The images of a store, the last of them at hand. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._images: OrderedDict[str, Shelved] = OrderedDict()

    def image(self, name: str) -> Shelved:
        """Raises as `Store.image`."""
        with self._lock:
            found = self._images.get(name)
            if found is not None and time.monotonic() - found.opened < _FRESH:
                self._images.move_to_end(name)
                return found
        try:
            image = self._store.image(name)
        except Exception:
            self.drop(name)
            raise
        with self._lock:
            found = self._images.get(name)
            if found is not None and found.image is image:  # the same object: the same content
                found.opened = time.monotonic()
            else:
                found = self._images[name] = Shelved(image)
            self._images.move_to_end(name)
            while len(self._images) > _MOST_IMAGES:
                self._images.popitem(last=False)
        return found

    def drop(self, name: str) -> None:
        """Forgets an image: it was removed, or is another now."""
        with self._lock:
            self._images.pop(name, None)
