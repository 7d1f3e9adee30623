"""Where images go: their directories and manifests, made while the pixels are on their way.

A disk that hangs keeps this thread, and those that write. It does not keep those that receive, as long as
there is memory for what comes.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.service.context import carried

if TYPE_CHECKING:
    from raftwright.rawfile.output import ImageOutput

__all__ = ["Places"]

_log = logging.getLogger("raftwright.capture")

_REMEMBERED: Final = 1024


class Places:
    """Thread-safe."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[ImageOutput | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=carried(self._run), name="places", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends it, if the disk lets it."""
        self._queue.put(None)
        self._thread.join(timeout)

    @property
    def threads(self) -> list[threading.Thread]:
        """The one."""
        return [self._thread]

    def begin(self, output: ImageOutput) -> None:
        """Soon there will be files of this image."""
        self._queue.put(output)

    def make(self, output: ImageOutput) -> None:
        """The directory and the manifest are there when this returns: no file is without. Raises
        StorageError, UsageError."""
        key = (str(output.directory), output.image.id)
        with self._lock:
            if key in self._made:
                return
        output.make_directory()
        output.write_manifest()  # by two threads at once it is the same file
        with self._lock:
            self._made[key] = None
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)

    def _run(self) -> None:
        while (output := self._queue.get()) is not None:
            try:
                self.make(output)
            except RaftwrightError:
                pass  # whoever writes there says it, and tries again
            except Exception:
                _log.exception("%s: its directory cannot be made", output.image.name)
            del output
