"""What libzmq tells of a socket's connections: made, refused, ended.

libzmq's I/O thread waits when some 2000 events were not read, and with it every socket that it serves. So
there is a monitor only where it is read again and again, and where little can happen: see `Connection` and
`Link`. pyzmq reads these messages too, but brings asyncio with it, which a forwarder does without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import zmq

__all__ = ["Monitor"]


class Monitor:
    """Of one socket, in the same thread: `events` of those that libzmq has (`zmq.EVENT_…`). Where libzmq
    refuses a monitor, it tells nothing."""

    def __init__(self, socket: Any, events: int) -> None:
        self._watched = socket
        self._socket: Any = None
        with contextlib.suppress(zmq.ZMQError):
            self._socket = socket.get_monitor_socket(events)

    def news(self) -> Iterator[int]:
        """The events since the last time, in order."""
        while self._socket is not None:
            try:
                frames = self._socket.recv_multipart(flags=zmq.DONTWAIT)
            except zmq.ZMQError:
                return
            # The first frame is a 16-bit event and a 32-bit value, as the processor has them.
            yield memoryview(frames[0])[:2].cast("H")[0]

    def close(self) -> None:
        """Ends it, before the socket is closed."""
        if self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._watched.disable_monitor()
            self._socket.close(linger=0)
            self._socket = None
