"""The two threads of a socket that answers or tells: one has the socket, one has the store."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import zmq

__all__ = ["SocketThreads"]

_log = logging.getLogger("raftwright.stream")


class SocketThreads(ABC):
    """A store that is slow holds up no message: it is asked in a thread that never touches the socket."""

    def __init__(self, socket_name: str, store_name: str) -> None:
        self.counts: Counter[str] = Counter()
        self.socket: Any = None
        self._stop = threading.Event()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._serve, name=socket_name, daemon=True),
            threading.Thread(target=self._with_store, name=store_name, daemon=True),
        ]

    def start(self, socket: Any) -> None:
        """Takes over a bound socket."""
        self.socket = socket
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Asks the threads to end."""
        self._stop.set()
        self._wake()

    def join(self, timeout: float) -> bool:
        """Waits for them; whether they ended. A store that hangs keeps the one that asks it."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        os.close(self._fd)
        return True

    def _wake(self) -> None:
        """Makes the thread of the socket take a turn."""
        os.eventfd_write(self._fd, 1)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self._fd, zmq.POLLIN)
        try:
            while not self._stop.is_set():
                events = dict(poller.poll(self._patience()))
                if self._fd in events:
                    os.eventfd_read(self._fd)
                try:
                    self._turn(self.socket in events)
                except zmq.ContextTerminated:
                    raise
                except Exception:
                    # A mistake of ours must not end the service of all others.
                    self.counts["internal"] += 1
                    _log.exception("internal error at a socket; it goes on")
                    self._stop.wait(0.1)
        except zmq.ContextTerminated:
            return
        finally:
            self.socket.close()

    def _patience(self) -> int:
        """Milliseconds to the next turn, if nothing happens before."""
        return 1000

    @abstractmethod
    def _turn(self, readable: bool) -> None:
        """In the thread of the socket: after a wake-up, a message, or `_patience`."""

    @abstractmethod
    def _with_store(self) -> None:
        """The other thread, until `_stop` is set."""
