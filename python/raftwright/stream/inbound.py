"""Messages of strangers, taken off a ROUTER socket with care."""

from __future__ import annotations

from typing import Any, Final

import zmq

from raftwright.stream.wire import WireError

__all__ = ["check_count", "next_message", "peer_of"]

_FRAMES: Final = 3
"""Identity, header and body."""


def next_message(socket: Any) -> tuple[list[Any], int] | None:
    """The first frames of the next message, identity first, and how many it had; None if there is none.

    What is beyond a header and a body is read and forgotten.
    """
    try:
        frames = [socket.recv(zmq.NOBLOCK, copy=False)]
    except zmq.Again:
        return None
    count = 1
    more = frames[0].more
    while more:
        frame = socket.recv(copy=False)
        more = frame.more
        count += 1
        if count <= _FRAMES:
            frames.append(frame)
    return frames, count


def check_count(count: int) -> None:
    """Raises WireError unless a message had a header and a body."""
    if count != _FRAMES:
        raise WireError("malformed", f"a message has a header and a body, not {count - 1} frames")


def peer_of(frame: Any, identity: bytes) -> str:
    """Whose message a received frame is: its address, or its identity where the transport tells none."""
    try:
        address = str(frame.get("Peer-Address"))
    except (zmq.ZMQError, AttributeError, ValueError):
        address = ""
    return address or f"a local peer {identity[:8].hex()}"
