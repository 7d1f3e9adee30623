"""Streams that cannot be decoded are kept as they came: the DAQ forgets them after some days.

Where registers and length of a stream contradict each other, or its board is unknown, nobody knows the shape
of its CCDs, and none is made up. `<archive>/.undecoded/<location>/<image>` is a recording of the source,
which `raftwright assemble` turns into files once somebody knows better.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import NotFoundError, RaftwrightError, StorageError
from raftwright.service.context import bound, carried

if TYPE_CHECKING:
    from raftwright.capture.troubles import Troubles
    from raftwright.ledger import Ledger
    from raftwright.stream import NetworkStore

__all__ = ["Keeper"]

_log = logging.getLogger("raftwright.forwarder")

_MOST_WAITING: Final = 64
_MOST_REMEMBERED: Final = 10_000


class Keeper:
    """One thread that records sources, one at a time, beside everything else. What does not fit into its
    queue is offered again by whoever looks at the catalogue."""

    def __init__(
        self, out: str, store: NetworkStore, ledger: Ledger, troubles: Troubles, durable: bool
    ) -> None:
        self._root = Path(out) / ".undecoded"
        self._store = store
        self._ledger = ledger
        self._troubles = troubles
        self._durable = durable
        self._lock = threading.Lock()
        self._stopping = False
        self._known: dict[tuple[str, str], None] = {}
        self._queue: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=carried(self._run), name="keep-undecoded", daemon=True)

    def keep(self, image: str, locations: Sequence[str]) -> None:
        """These sources of a complete image are to be kept, if they are not."""
        for location in locations:
            with self._lock:
                if (image, location) in self._known or self._queue.qsize() >= _MOST_WAITING:
                    continue
                self._known[image, location] = None
                while len(self._known) > _MOST_REMEMBERED:
                    del self._known[next(iter(self._known))]
            self._queue.put((image, location))

    def stop(self) -> None:
        """Ends when what it does now is done; the store has to be closed for that to be soon."""
        self._stopping = True
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._stopping:
            image, location = item
            with bound(obsid=image, location=location):
                try:
                    self._keep(image, location)
                    self._troubles.over("undecoded", "streams that cannot be decoded are kept again")
                except (StorageError, NotFoundError) as error:
                    with self._lock:
                        self._known.pop(item, None)  # at the next look again
                    if not self._stopping:
                        self._troubles.failed("undecoded", error, f"{image} {location} cannot be kept")
                except RaftwrightError as error:
                    _log.error("%s %s cannot be kept: %s", image, location, error)
                except Exception:
                    _log.exception("%s %s cannot be kept", image, location)

    def _keep(self, image: str, location: str) -> None:
        place = self._root / location.replace("/", "-") / image
        if not place.exists():
            from raftwright.daq import write_recording

            taken = self._store.image(image)
            write_recording(place, taken, locations=[location], threads=1, durable=self._durable)
            _log.warning("%s %s: it is kept in %s", image, location, place)
        kept = f"geometry unknown; its stream is kept as it came in {place}"
        self._ledger.quarantine.put("stream", f"{image} {location}", kept)
