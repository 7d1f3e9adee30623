"""Looking at places before there is anything to send: connections are made, and what is wrong is told at once
and not with the first file: a bucket whose name is mistyped, a directory that is not mounted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from raftwright.errors import RaftwrightError

__all__ = ["Warming"]

_PAUSE: Final = 5.0
_LONGEST: Final = 60.0


class Warming:
    """A thread for each place, until it was reached once; `close` ends them."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._closed = threading.Event()

    def begin(self, name: str, look: Callable[[], str], doubt: Callable[[str], None]) -> None:
        """Waits for none of it. `look` says how the place is reached, or raises RaftwrightError or OSError;
        `doubt` is told why it is not, and nothing once it is."""
        threading.Thread(
            target=self._work, args=(name, look, doubt), name=f"warm {name}"[:60], daemon=True
        ).start()

    def _work(self, name: str, look: Callable[[], str], doubt: Callable[[str], None]) -> None:
        pause, said = _PAUSE, ""
        while not self._closed.is_set():
            try:
                how = look()
            except (RaftwrightError, OSError) as error:
                if str(error) != said:
                    self._log.error("%s: %s", name, error)
                    said = str(error)
                doubt(said)
            else:
                doubt("")
                self._log.info("%s: %s", name, how)
                return
            self._closed.wait(pause)
            pause = min(2 * pause, _LONGEST)

    def close(self) -> None:
        """Ends what still looks."""
        self._closed.set()
