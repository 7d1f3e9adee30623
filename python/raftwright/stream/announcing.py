"""The notices socket: what happens in the store, as it does, numbered."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import zmq

from raftwright.daq.store import Notice, Store
from raftwright.errors import RaftwrightError
from raftwright.stream import wire
from raftwright.stream.faults import Chooser
from raftwright.stream.messages import NoticeBody, encode
from raftwright.stream.shelf import Shelf
from raftwright.stream.socket_threads import SocketThreads
from raftwright.stream.wire import Header, Type

__all__ = ["Announcer"]

_log = logging.getLogger("raftwright.stream")

_SLICE: Final = 0.5
"""Seconds without a notice after which the catalogue is compared."""
_STATIC: Final = 30.0
"""The same for a store that has no notices at all."""
_PROGRESS: Final = 0.25
"""Seconds between two notices of one source's progress."""
_MOST: Final = 100_000
"""Notices that may wait."""


class Announcer(SocketThreads):
    """Publishes notices of a store; what its notices leave out is found by comparing its catalogue."""

    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        session: int,
        heartbeat: float,
        *,
        chooser: Chooser | None = None,
        observer: Callable[[Notice], None] | None = None,
    ) -> None:
        super().__init__("stream notices", "stream watch")
        self._store = store
        self._shelf = shelf
        self._session = session
        self._heartbeat = heartbeat
        self._chooser = chooser
        self._observer = observer
        self._waiting: deque[Notice] = deque()
        self._underway: set[str] = set()
        self._complete: set[str] = set()
        self._told: dict[tuple[str, str | None], float] = {}
        self._sequence = 0
        self._quiet_since = time.monotonic()

    def start(self, socket: Any) -> None:
        """Takes over a bound socket. What is in the store now is no news."""
        try:
            self._underway = set(self._store.underway())
            self._complete = set(self._store.images())
        except RaftwrightError as error:
            _log.warning("the catalogue cannot be read: %s", error)
        super().start(socket)

    # -- what happens

    def _with_store(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            pause = _STATIC
            try:
                for notice in self._store.notices(_SLICE):
                    pause = _SLICE
                    self._news(notice)
                    if self._stop.is_set():
                        return
                self._compare()
            except (RaftwrightError, OSError) as error:
                pause = 1.0
                self.counts["store_errors"] += 1
                if self.counts["store_errors"] == 1:
                    _log.warning("the store cannot be watched: %s; trying on", error)
            except Exception:
                pause = 1.0
                self.counts["internal"] += 1
                _log.exception("internal error while the store was watched")
            if time.monotonic() - begun < _SLICE / 2 and self._stop.wait(pause):
                return

    def _news(self, notice: Notice) -> None:
        """Passes on what is new; the catalogue may have told it already."""
        name = notice.image
        if notice.kind == "begun":
            if name in self._underway or name in self._complete:
                return
            self._underway.add(name)
        elif notice.kind == "complete":
            self._underway.discard(name)
            if name in self._complete:
                return
            self._complete.add(name)
            self._shelf.drop(name)
            for key in [key for key in self._told if key[0] == name]:
                del self._told[key]
        elif notice.kind == "removed":
            known = name in self._underway or name in self._complete
            self._underway.discard(name)
            self._complete.discard(name)
            self._shelf.drop(name)
            if not known:
                return
        elif notice.kind == "progress":
            now = time.monotonic()
            key = (name, notice.location)
            if now - self._told.get(key, -1e9) < _PROGRESS:
                return
            if len(self._told) > 65536:
                self._told.clear()
            self._told[key] = now
        if self._observer is not None:
            self._observer(notice)
        self._queue(notice)

    def _compare(self) -> None:
        """Finds by the catalogue what no notice told."""
        underway = set(self._store.underway())
        complete = set(self._store.images())
        for name in sorted((underway | complete) - self._underway - self._complete):
            if name in underway:
                self._news(Notice("begun", name))
        for name in sorted(complete - self._complete):
            self._news(Notice("complete", name))
        for name in sorted((self._underway | self._complete) - underway - complete):
            self._news(Notice("removed", name))

    def _queue(self, notice: Notice) -> None:
        if len(self._waiting) >= _MOST:
            self._waiting.clear()
            notice = Notice("missed", "")
        self._waiting.append(notice)
        self._wake()

    # -- the socket

    def _patience(self) -> int:
        left = self._quiet_since + self._heartbeat - time.monotonic()
        return max(0, int(left * 1000) + 1)

    def _turn(self, readable: bool) -> None:
        if readable:
            self._subscriptions()
        while self._waiting:
            self._tell(self._waiting.popleft())
            self._quiet_since = time.monotonic()
        if time.monotonic() - self._quiet_since >= self._heartbeat:
            self._send(NoticeBody("alive"))
            self._quiet_since = time.monotonic()

    def _subscriptions(self) -> None:
        """Reads who subscribes; nobody needs to know."""
        for _ in range(1000):
            try:
                self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def _tell(self, notice: Notice) -> None:
        self.counts[notice.kind] += 1
        if notice.kind == "missed":
            self._sequence += 1  # a number left out says it
            return
        folder = None
        if notice.kind in ("begun", "complete"):
            folder = self._folder(notice.image)
        self._send(NoticeBody(notice.kind, notice.image, folder, notice.location, notice.bytes))

    def _folder(self, name: str) -> str | None:
        try:
            return self._shelf.image(name).image.info.folder
        except (RaftwrightError, OSError):
            return None

    def _send(self, body: NoticeBody) -> None:
        self._sequence += 1
        if self._chooser is not None and self._chooser.loses_notice():
            return
        data = encode(body)
        header = wire.pack(Header(Type.NOTICE, sequence=self._sequence, session=self._session), data)
        self.socket.send_multipart([header, data])
        self.counts["sent"] += 1
