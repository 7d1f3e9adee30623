"""Who comes and goes at a server's sockets: connections that were made, that ended, that were refused.

libzmq ends a connection without a word to us: for a message that is larger than the socket takes, or for keys
that do not fit. Here it is counted. The events are read all the time, in a thread
that does nothing else: see `raftwright.stream.monitoring`.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import Counter
from typing import Any, Final

import zmq

__all__ = ["Attendance"]

_log = logging.getLogger("raftwright.stream")

_COUNTED: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "made",
    zmq.EVENT_DISCONNECTED: "ended",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "refused",
}


class Attendance:
    """Counts for all sockets of one context. `watch` may come from any thread that owns a socket."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._context = context
        self.counts: Counter[str] = Counter()
        self._stop = threading.Event()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._new: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._number = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="stream attendance", daemon=True)
        self._thread.start()

    def watch(self, socket: Any) -> None:
        """Counts what happens at a socket from now on, until it is closed."""
        with self._lock:
            self._number += 1
            address = f"inproc://raftwright-attendance-{self._number}"
        pair = self._context.socket(zmq.PAIR)
        pair.linger = 0
        try:
            socket.monitor(address, sum(_COUNTED) | zmq.EVENT_MONITOR_STOPPED)
            pair.connect(address)
        except zmq.ZMQError as error:
            pair.close(linger=0)
            _log.warning("connections are not counted: %s", error)
            return
        self._new.put(pair)
        os.eventfd_write(self._fd, 1)

    def stop(self, timeout: float) -> bool:
        """Ends it; whether it ended in time."""
        self._stop.set()
        os.eventfd_write(self._fd, 1)
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        os.close(self._fd)
        return True

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._fd, zmq.POLLIN)
        pairs: set[Any] = set()
        try:
            while not self._stop.is_set():
                for ready, _ in poller.poll(1000):
                    if ready == self._fd:
                        os.eventfd_read(self._fd)
                    elif self._over(ready):
                        poller.unregister(ready)
                        pairs.discard(ready)
                        ready.close(linger=0)
                while not self._new.empty():
                    pairs.add(pair := self._new.get())
                    poller.register(pair, zmq.POLLIN)
        except zmq.ContextTerminated:
            pass
        finally:
            while not self._new.empty():
                pairs.add(self._new.get())
            for pair in pairs:
                pair.close(linger=0)

    def _over(self, pair: Any) -> bool:
        """Counts what a monitor tells; whether its socket was closed."""
        while True:
            try:
                event = memoryview(pair.recv_multipart(flags=zmq.DONTWAIT)[0])[:2].cast("H")[0]
            except zmq.Again:
                return False
            if event == zmq.EVENT_MONITOR_STOPPED:
                return True
            self.counts[_COUNTED.get(event, "other")] += 1
