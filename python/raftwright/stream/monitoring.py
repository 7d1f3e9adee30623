"""What libzmq tells of a socket's connections: made, refused, ended.

pyzmq has a reader of these messages too, but it brings asyncio with it, which a forwarder does without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import zmq

__all__ = ["Monitor"]

_WATCHED: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
)


class Monitor:
    """Of one socket, in the same thread. Where libzmq refuses one, it tells nothing."""

    def __init__(self, socket: Any) -> None:
        self._watched = socket
        self._socket: Any = None
        with contextlib.suppress(zmq.ZMQError):
            self._socket = socket.get_monitor_socket(_WATCHED)

    def news(self) -> Iterator[int]:
        """The events (`zmq.EVENT_…`) since the last time, in order."""
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
